"""Many schedules, on the model and on the service: what was found, and how often what happened.

Who may call it: `tests/faults/test_model.py`, and the command line in `__main__`.
"""

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice

from tests.faults.model.doubles import Real, Service, as_processes
from tests.faults.model.imagined import Imagined
from tests.faults.model.mutants import MUTANTS
from tests.faults.model.plan import plan
from tests.faults.model.play import Play, Result, Step, shrink
from tests.faults.model.rule import Rule
from tests.faults.model.sql import SqlService, on_sqlite
from tests.faults.oracle import Evidence

__all__ = ["Tally", "Violation", "compare", "model", "on_sql", "reds", "service", "short", "told", "tour"]

#: Schedules that one process plays before it tells.
BATCH = 500
#: No more processes than that.
PROCESSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A schedule that went wrong: on which side, and what is wrong."""

    seed: int
    side: str
    faults: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a number of schedules came to.

    Attributes:
        schedules: how many were played, by side.
        happened: how often each call went in each way, as (call, way), on the model.
        ended: how many jobs came to which end, on the model.
        violations: all that were found.

    """

    schedules: Counter[str] = field(default_factory=Counter)
    happened: Counter[tuple[str, str]] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Put two together."""
        self.schedules += other.schedules
        self.happened += other.happened
        self.ended += other.ended
        self.violations += other.violations


def model(seed: int, off: Rule | None = None, steps: Iterable[Step] | None = None) -> Result:
    """Play a schedule on the model."""
    return Play(Imagined(plan(seed), off), steps).run()


def service(seed: int, off: Rule | None = None, steps: Iterable[Step] | None = None) -> Result:
    """Play a schedule on the service."""
    changed = Service if off is None else MUTANTS[off]
    with as_processes(changed) as folder:
        return Play(Real(plan(seed), folder, changed), steps).run()


def on_sql(seeds: Iterable[int], kind: type[Service] = SqlService) -> Iterator[tuple[int, Result, Result]]:
    """Play schedules on the model and on the service with its real job store; gives the seed and both results."""
    with on_sqlite(kind) as folder:
        for seed in seeds:
            imagined = model(seed)
            yield seed, imagined, Play(Real(plan(seed), folder, kind), imagined.steps).run()


def compare(imagined: Result, real: Result) -> Iterator[str]:
    """Where model and service are not the same: the first call, or the end."""
    both = zip(imagined.trace, real.trace, strict=False)
    differing = None
    if imagined.trace != real.trace:
        differing = next((place for place, (one, other) in enumerate(both) if one != other), None)
    if differing is not None:
        yield f"step {differing}: the model takes {imagined.trace[differing]}, the service {real.trace[differing]}"
    elif len(imagined.trace) != len(real.trace):
        yield f"the model takes {len(imagined.trace)} steps, the service {len(real.trace)}"
    elif imagined.standing != real.standing:
        yield f"when the faults stop, the model stands before {imagined.standing}, the service before {real.standing}"
    else:
        for one, other in zip(imagined.ends, real.ends, strict=True):
            if one != other and _plain(one) != _plain(other):
                yield f"the model ends with {one}, the service with {other}"


def _plain(evidence: Evidence) -> Evidence:
    """Without the words of a reason: they are the service's own."""
    jobs = {job_id: replace(job, reason="told" if job.reason else "") for job_id, job in evidence.jobs.items()}
    files = [(job_id, sorted(files, key=lambda file: file.file_id)) for job_id, files in evidence.transactions]
    return replace(evidence, jobs=jobs, transactions=files)


def reds(off: Rule, play: Callable[..., Result], seeds: Iterable[int]) -> Iterator[int]:
    """Seeds with which the oracle notices that a rule is missing."""
    return (seed for seed in seeds if play(seed, off).wrong)


def tour(first: int, schedules: int, on_service: int, told: Callable[[Tally], None] = lambda _: None) -> Tally:
    """Play many schedules.

    Args:
        first: the first seed.
        schedules: how many on the model.
        on_service: how many of them on the service too; both must do the same.
        told: is called with what there is so far, from time to time.

    """
    batches = [
        (start, min(BATCH, first + schedules - start), max(0, min(BATCH, first + on_service - start)))
        for start in range(first, first + schedules, BATCH)
    ]
    # The batches on the service take longest, and come first.
    total = Tally()
    count = min(PROCESSES, os.cpu_count() or 1)
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        for tally in pool.map(_batch, *zip(*batches, strict=True)):
            total.add(tally)
            told(total)
    return total


def _batch(first: int, schedules: int, on_service: int) -> Tally:
    tally = Tally()
    with as_processes() as folder:
        for seed in range(first, first + schedules):
            imagined = model(seed)
            tally.schedules["model"] += 1
            tally.happened.update((call or "", how) for who, call, how in imagined.trace if who)
            tally.happened.update(("", call or "") for who, call, _ in imagined.trace if not who)
            tally.ended.update(str(job.phase) for job in imagined.ends[0].jobs.values())
            _note(tally, seed, "model", imagined)
            if seed < first + on_service:
                # The same steps are not drawn again.
                real = Play(Real(plan(seed), folder), imagined.steps).run()
                tally.schedules["service"] += 1
                _note(tally, seed, "service", real)
                differing = tuple(compare(imagined, real))
                if differing:
                    tally.violations.append(Violation(seed=seed, side="difference", faults=differing))
    return tally


def _note(tally: Tally, seed: int, side: str, result: Result) -> None:
    if result.wrong:
        faults = tuple(f"{fault}: {text}" for fault, text in result.wrong)
        tally.violations.append(Violation(seed=seed, side=side, faults=faults))


def short(violation: Violation) -> list[Step]:
    """The fewest steps with which a schedule goes wrong in the same way."""
    seed = violation.seed
    kinds = {fault.partition(":")[0] for fault in violation.faults}

    def is_red(steps: Sequence[Step]) -> bool:
        if violation.side == "difference":
            return any(compare(model(seed, steps=steps), service(seed, steps=steps)))
        played = (model if violation.side == "model" else service)(seed, steps=steps)
        return bool(kinds & {str(fault) for fault, _ in played.wrong})

    return shrink((service if violation.side == "service" else model)(seed).steps, is_red)


def told(violation: Violation) -> str:
    """A violation for people: the seed, what is wrong, and the steps that lead there."""
    steps = short(violation)
    play = service if violation.side == "service" else model
    lines = [f"seed {violation.seed}, {violation.side}: {plan(violation.seed)}", *violation.faults, "steps:"]
    for who, call, how in islice(play(violation.seed, steps=steps).trace, len(steps)):
        lines.append(f"  {who or 'world':16} {call:20} {how}")
    lines.append("  then the faults stop, everybody comes to an end, and the operator tries again what failed")
    return "\n".join(lines)
