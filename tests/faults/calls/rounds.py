"""The process in which the rounds run: it forks a child for each life, so that nobody imports anything twice.

Who may call it: `tests.faults.calls.session`, as a program with the shim preloaded: a job of JSON on standard input, a
line of JSON for each result on standard output.
"""

import errno
import gc
import json
import logging
import os
import random
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pacifica.ingest.core.states import Kind
from tests.faults.calls.shim import Shim
from tests.faults.calls.site import DATABASE, Core, Life, Site, evidence, is_over, make_small, misplaced
from tests.faults.calls.traps import DIED, Call, Point, Trap, Way, count_http, count_sql, points
from tests.faults.oracle import judge

__all__ = ["main"]

#: A life that takes longer than this, in seconds, hangs.
HANGS_S = 60
#: Of calls of which there are too many, one of so many is tried.
PART = 4

Send = Callable[[dict[str, Any]], None]
#: Status and job id.
Answer = tuple[int, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a child said, and how it ended."""

    exit_code: int
    lines: list[dict[str, Any]]

    def get(self, key: str) -> Any:
        """The last value of a key, None when it was not told."""
        return next((line[key] for line in reversed(self.lines) if key in line), None)


def in_child(work: Callable[[Send], None]) -> Told:
    """Do work in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _be_child(writer, work)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as lines:
        told = [json.loads(line) for line in lines]
    _, status = os.waitpid(child, 0)
    return Told(exit_code=os.waitstatus_to_exitcode(status), lines=told)


def _be_child(writer: int, work: Callable[[Send], None]) -> None:
    code = 1
    try:
        gc.disable()
        signal.alarm(HANGS_S)
        work(lambda line: _say(writer, line))
        code = 0
    except BaseException:  # noqa: BLE001 (the child must not go on as its parent)
        traceback.print_exc()
    finally:
        os._exit(code)


def _say(writer: int, line: dict[str, Any]) -> None:
    os.write(writer, json.dumps(line).encode() + b"\n")


class Rounds:
    """All rounds of one job on one kind of site.

    Attributes:
        crash: how a first life ends, which is none of the rounds: they let the calls of the second go wrong.  None: they
            let those of the first go wrong.

    """

    def __init__(self, folder: Path, kind: Kind, core: Core | None) -> None:
        """Work below `folder`."""
        self._folder = folder
        self._kind = kind
        self._core = core
        self._count = 0
        self._shim = Shim()
        self.crash: tuple[Point, Way] | None = None
        self._schema = b""
        site = self._site()
        told = in_child(lambda _: site.make_schema())
        if told.exit_code:
            msg = "the tables could not be made"
            raise RuntimeError(msg)
        self._schema = site.database.read_bytes()

    def rehearse(self) -> tuple[list[Point], list[str]]:
        """The points of a round in which nothing goes wrong, and what the oracle says of it."""
        site, answer = self._begun()
        told = in_child(lambda send: self._live(site, answer, None, None, send))
        found = told.get("labels") or {}
        return [each for call in Call for each in points(call, found.get(call, []))], _judged(told, site)

    def run(self, point: Point, way: Way) -> list[str]:
        """What is wrong after a round in which one call went wrong."""
        site, answer = self._begun()
        told = in_child(lambda send: self._live(site, answer, point, way, send))
        if way in {Way.DEATH, Way.DEATH_AFTER}:
            if told.exit_code != DIED:
                return [f"the process ended with {told.exit_code} instead of dying"]
            answer = told.get("answer")
            told = in_child(lambda send: _last(site, answer, send))
        elif told.get("sprung") != 1:
            return [f"the process ended with {told.exit_code}, and the call went wrong {told.get('sprung')} times"]
        return _judged(told, site)

    def _site(self) -> Site:
        self._count += 1
        name = f"{self._folder.name}-{self._count}"
        taken = frozenset(Path(self._core.archive_folder).iterdir()) if self._core else frozenset()
        site = Site(folder=self._folder / name, kind=self._kind, core=self._core, salt=name, taken=taken)
        site.prepare(self._schema)
        return site

    def _begun(self) -> tuple[Site, Answer | None]:
        """A site, after its first life if that is none of the rounds, and what the client was told."""
        site = self._site()
        if self.crash is None:
            return site, None
        point, way = self.crash
        told = in_child(lambda send: self._live(site, None, point, way, send))
        if told.exit_code != DIED or not told.get("answer"):
            msg = f"the first life ended with {told.exit_code} instead of dying with a job"
            raise RuntimeError(msg)
        return site, told.get("answer")

    def _live(self, site: Site, before: Answer | None, point: Point | None, way: Way | None, send: Send) -> None:
        """A life whose calls may go wrong: it takes the job if none did before, and carries it to its end."""
        trap, shim = Trap(point, way), self._shim
        count_http(trap)
        life = Life(site, deaths=1 if before else 0)
        count_sql(trap)
        answer: list[Answer] = []

        def answered(status: int, job_id: int | None) -> None:
            answer.append((status, job_id))
            send({"answer": answer[0]})

        def over() -> bool:
            with shim.paused():
                return is_over(site)

        shim.begin(site.folder, point, way)
        if before:
            answered(*before)
        else:
            life.send(answered)
        life.settle(over)
        shim.end()
        send({"sprung": trap.sprung + shim.sprung, "faults": _faults(life, site, answer[0])})
        if point is None:
            send({"labels": {**trap.labels, **_sorted(shim.labels())}})


def _sorted(labels: Sequence[str]) -> dict[Call, list[str]]:
    found: dict[Call, list[str]] = {Call.SYSTEM: [], Call.STORAGE: []}
    for label in labels:
        found[Call.STORAGE if f" {DATABASE}" in label else Call.SYSTEM].append(label)
    return found


def _last(site: Site, answer: Answer | None, send: Send) -> None:
    """The last life, in which nothing goes wrong any more."""
    life = Life(site, deaths=2)
    life.settle(lambda: is_over(site))
    send({"faults": _faults(life, site, answer)})


def _faults(life: Life, site: Site, answer: Answer | None) -> list[str]:
    shown = evidence(site, *(answer or (None, None)))
    return [*life.raised, *(f"{fault}: {text}" for fault, text in judge(shown)), *misplaced(site, shown)]


def _judged(told: Told, site: Site) -> list[str]:
    """What is wrong at the end; what is well is removed."""
    faults: list[str] | None = told.get("faults")
    if told.exit_code or faults is None:
        return [f"the process ended with {told.exit_code}"]
    if not faults:
        shutil.rmtree(site.folder)
    return faults


def ways(point: Point) -> Iterator[tuple[Point, Way]]:
    """The ways in which a call can go wrong and that differ.

    Losing the answer of a call without a lasting effect is no other thing than an error, and dying after it no other than
    dying before it.
    """
    yield point, Way.ERROR
    yield point, Way.DEATH
    if _lasts(point):
        yield point, Way.LOST
        yield point, Way.DEATH_AFTER
        if point.call is Call.SYSTEM:
            yield replace(point, error=errno.ENOSPC), Way.ERROR


def _lasts(point: Point) -> bool:
    match point.call:
        case Call.SYSTEM:
            return not point.label.startswith(("open ", "read ", "fsync "))  # fsync is not carried out
        case Call.SQL:
            return point.label == "COMMIT"
        case Call.STORAGE:
            return False  # what SQLite writes counts from the commit on
        case Call.HTTP:
            return point.label.startswith(("PUT ", "PATCH ", "GET /getid"))


def plan(found: Sequence[Point], core: Core | None) -> list[tuple[Point, Way]]:
    """System calls and statements are those of a site of its own, HTTP calls those of one with the Core."""
    return [each for point in found if (point.call is Call.HTTP) == bool(core) for each in ways(_full(point))]


def _full(point: Point) -> Point:
    """Every other write of the database fails as on a full disk."""
    is_write = point.call is Call.STORAGE and point.label.startswith("write ")
    return replace(point, error=errno.ENOSPC) if is_write and point.occurrence % 2 else point


def crash(todo: Sequence[tuple[Point, Way]], seed: int) -> tuple[Point, Way]:
    """A death right after something with a lasting effect, in the second half of the work; the seed moves it."""
    deaths = [each for each in todo if each[1] is Way.DEATH_AFTER and each[0].call in {Call.SYSTEM, Call.HTTP}]
    later = deaths[len(deaths) // 2 :]
    return later[seed % len(later)]


def choose(todo: Sequence[tuple[Point, Way]], seed: int, many: Collection[Call]) -> list[tuple[Point, Way]]:
    """Bring them into an order, and take a part only of those of which there are too many."""
    chance = random.Random(seed)
    few = [each for each in todo if each[0].call not in many]
    rest = [each for each in todo if each[0].call in many]
    chosen = few + chance.sample(rest, len(rest) // PART)
    chance.shuffle(chosen)
    return chosen


def main() -> None:
    """Run the rounds that are asked for."""
    logging.disable()
    job = json.load(sys.stdin)
    make_small()
    core = Core(**job["core"]) if job["core"] else None
    rounds = Rounds(Path(job["folder"]), Kind(job["kind"]), core)
    gc.freeze()
    found, faults = rounds.rehearse()
    if job["crashes"]:
        rounds.crash = crash(plan(found, core), job["seed"])
        found, faults = rounds.rehearse()
    again, _ = rounds.rehearse()
    todo = plan(found, core)
    unlike = set(todo).symmetric_difference(plan(again, core))
    chosen = choose(todo, job["seed"], job["many"])
    _tell(
        {
            "counted": Counter(point.call for point in found),
            "planned": len(chosen),
            "unlike": sorted({str(point) for point, _ in unlike}),
            "faults": faults,
        }
    )
    for point, way in chosen:
        _tell({**asdict(point), "way": way, "faults": rounds.run(point, way)})


def _tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 (it is a program)


if __name__ == "__main__":
    main()
