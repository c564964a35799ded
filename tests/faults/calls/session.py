"""Starts `rounds` in a process with the shim, and reads what it found; makes the table of it.

Who may call it: the command and the tests.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from pacifica.ingest.core.states import Kind
from tests.faults.calls.shim import build
from tests.faults.calls.site import Core
from tests.faults.calls.traps import Call, Point, Way
from tests.faults.oracle import Fault
from tests.harness import PacificaCore
from tests.harness.command import base_environment, run

__all__ = ["Job", "Result", "Session", "all_jobs", "run_all", "table"]

ROOT = Path(__file__).parents[3]
#: Rounds take longer than this, in seconds, only when something hangs.
WAIT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Whose calls are to go wrong.

    Attributes:
        kind: a bundle or a move.
        core: the neighbours; None for local ones.
        crashes: whether the process that took the job dies with it, and the calls are those of the next.

    """

    kind: Kind
    core: PacificaCore | None = None
    crashes: bool = False

    def __str__(self) -> str:
        """For people."""
        taken = "taken over, " if self.crashes else ""
        return f"{self.kind} {taken}with {'the Core' if self.core else 'local neighbours'}"

    def many(self, *, is_short: bool) -> list[Call]:
        """Kinds of calls of which a part is tried only."""
        if not is_short:
            return []
        return list(Call) if self.crashes else [Call.STORAGE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one round: nothing is wrong when `faults` is empty."""

    point: Point
    way: Way
    faults: list[str]

    def __str__(self) -> str:
        """For people."""
        return f"{self.way.name} at {self.point}: {'; '.join(self.faults) or 'well'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """All rounds of one job.

    Attributes:
        job: whose.
        seed: of order and choice.
        unlike: calls that only one of two rounds made in which nothing went wrong.
        faults: of the round in which nothing goes wrong.
        counted: how many calls of each kind that one makes.
        planned: how many rounds there are to be: one for each call and each way, or a part of them.
        results: of those that were tried.

    """

    job: Job
    seed: int
    unlike: list[str]
    faults: list[str]
    counted: Mapping[Call, int]
    planned: int
    results: list[Result]

    @property
    def calls(self) -> set[Call]:
        """The kinds of calls that are to go wrong."""
        return {Call.HTTP} if self.job.core else set(Call) - {Call.HTTP}

    def tried(self, call: Call) -> set[tuple[str, int]]:
        """The calls of a kind that went wrong, by label and occurrence."""
        return {(each.point.label, each.point.occurrence) for each in self.results if each.point.call is call}

    def violations(self) -> list[str]:
        """What is wrong, in words."""
        told = [*self.faults, *(str(result) for result in self.results if result.faults)]
        return [f"{self.job}: {text}" for text in told]


def all_jobs(core: PacificaCore | None) -> list[Job]:
    """Every kind of job: with local neighbours and with the Core, new and taken over."""
    cores = [None, core] if core else [None]
    return [Job(kind=kind, core=near, crashes=crashes) for near in cores for crashes in (False, True) for kind in Kind]


def run_all(jobs: Sequence[Job], folder: Path, *, is_short: bool, seed: int = 0, processes: int = 2) -> list[Session]:
    """Run the rounds of several jobs.

    Args:
        jobs: whose.
        folder: for all files of all rounds.
        is_short: try only one in four system calls of SQLite, and of all calls of jobs that were taken over.
        seed: decides the order, and which ones.
        processes: how many jobs at once.

    """
    library = build(folder)
    # Jobs with the Core share its archive, where new files must be those of one round.
    queues = [[job] for job in jobs if not job.core] + [[job for job in jobs if job.core]]
    with ThreadPoolExecutor(processes) as pool:
        done = pool.map(lambda queue: [_run(job, folder, library, seed, is_short=is_short) for job in queue], queues)
        return [session for sessions in done for session in sessions]


def _run(job: Job, folder: Path, library: Path, seed: int, *, is_short: bool) -> Session:
    wanted = {
        "folder": str(folder / str(job).replace(",", "").replace(" ", "-")),
        "kind": job.kind,
        "crashes": job.crashes,
        "core": asdict(_core(job.core)) if job.core else None,
        "many": job.many(is_short=is_short),
        "seed": seed,
    }
    env = base_environment(folder) | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "LD_PRELOAD": str(library)}
    command = [sys.executable, "-m", "tests.faults.calls.rounds"]
    first, *others = map(json.loads, run(command, env=env, text=json.dumps(wanted), wait_s=WAIT_S).splitlines())
    return Session(
        job=job,
        seed=seed,
        unlike=first["unlike"],
        faults=first["faults"],
        counted={Call(call): count for call, count in first["counted"].items()},
        planned=first["planned"],
        results=[
            Result(
                point=Point(
                    call=Call(line["call"]), label=line["label"], occurrence=line["occurrence"], error=line["error"]
                ),
                way=Way(line["way"]),
                faults=line["faults"],
            )
            for line in others
        ],
    )


def _core(core: PacificaCore) -> Core:
    return Core(
        uniqueid=core.uniqueid_url,
        policy=core.policy_ingest_url,
        archive=core.archive_url,
        metadata=core.metadata_ingest_url,
        archive_folder=str(core.archive_dir),
    )


def table(sessions: Iterable[Session]) -> str:
    """Points tried and verdicts, for each kind of call and each way."""
    rows: dict[tuple[Call, Way], Counter[str]] = {(call, way): Counter() for call in Call for way in Way}
    for result in (result for session in sessions for result in session.results):
        row = rows[result.point.call, result.way]
        row["points"] += 1
        row.update({_column(fault) for fault in result.faults})
    columns = ["points", *Fault, OTHER]
    lines = [["call", "goes wrong", *columns]]
    lines += [[call, WORDS[way], *(str(row[column]) for column in columns)] for (call, way), row in rows.items()]
    total = sum(rows.values(), Counter())
    lines += [["all", "", *(str(total[column]) for column in columns)]]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


OTHER = "other"
WORDS = {
    Way.ERROR: "is not done, with an error",
    Way.LOST: "is done, with an error",
    Way.DEATH: "the process dies before it",
    Way.DEATH_AFTER: "the process dies after it",
}


def _column(fault: str) -> str:
    word = fault.partition(":")[0]
    return word if word in set(Fault) else OTHER
