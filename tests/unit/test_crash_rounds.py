"""Every call fails once: one upload and one move, once for each call to a port and each way in which it can go wrong.

And several things go wrong in one job, in an order that a seed decides.  One oracle judges all.
"""

import errno
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from pacifica.ingest import deposit
from pacifica.ingest.core.errors import DatabaseDown, NeighbourDown
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Kind, Phase, State
from pacifica.ingest.intake import Body
from pacifica.ingest.tables import ArchiveId
from pacifica.ingest.testing import Faults
from tests.unit.floor import FILES, Floor, bundle, registered

#: More turns than any job takes, of two seconds each.
TURNS = 2000
TURN_S = 2.0


class Death(BaseException):
    """The process is gone: nothing catches it, and nothing that it would do afterwards happens."""


class Mortal(Protocol):
    """Faults of a process that can die."""

    dead: bool


#: A way to go wrong: told the process, and which call it is.
Way = Callable[[Mortal, str], None]


class Trap(Faults):
    """Lets one call go wrong, in one way.

    Attributes:
        calls: as of `Faults`.
        sprung: whether it happened.

    """

    def __init__(self, at: int, way: Way, *, after: bool) -> None:
        super().__init__()
        self._at = at
        self._way = way
        self._after = after
        self.sprung = False
        self.dead = False

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        self.calls.append(call)
        if self.dead:
            raise Death
        is_due = len(self.calls) == self._at and not self.sprung
        if is_due and not self._after:
            self._spring(call)
        yield
        if is_due and self._after:
            self._spring(call)

    def _spring(self, call: str) -> None:
        self.sprung = True
        self._way(self, call)


class Chaos(Faults):
    """Lets calls go wrong by chance."""

    def __init__(self, ways: Sequence[Way], chance: random.Random, budget: list[None]) -> None:
        """Take one from `budget` for each fault; processes that follow each other share it."""
        super().__init__()
        self._ways = ways
        self._chance = chance
        self._budget = budget
        self.dead = False

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        self._roll(call)
        yield
        self._roll(call)

    def _roll(self, call: str) -> None:
        if self.dead:
            raise Death
        if self._budget and self._chance.random() < 1 / 30:
            self._budget.pop()
            self._chance.choice(self._ways)(self, call)


def is_down(_: Mortal, call: str) -> None:
    """The other side is away, or its answer is lost."""
    role = call.partition(".")[0]
    if role == "jobs":
        raise DatabaseDown("away")
    if role in {"staging", "upload"}:
        raise OSError(errno.EIO, "Input/output error")
    raise NeighbourDown(role, "away")


def is_faulty(_: Mortal, call: str) -> None:
    """A fault of our own, or of a library, that nobody expects."""
    raise RuntimeError(call)


def dies(process: Mortal, _: str) -> None:
    process.dead = True
    raise Death


class Round:
    """One job from the client's first byte until nothing is left to do, with workers that act on hints only."""

    def __init__(self, folder: Path, kind: Kind, verify: str = "full", *, is_cut: bool = False) -> None:
        folder.mkdir()
        self.floor = Floor(folder, verify=verify)
        self.kind = kind
        self.body = bundle().build() if kind is Kind.INGEST else json.dumps(self.floor.document()).encode()
        self.answered: Job | None = None
        self.failures: list[str] = []
        self.faults: Callable[[], Faults] = Faults
        self._lacks = 1 if is_cut else 0

    def run(self) -> None:
        body = Body(chunks=[self.body[:100], self.body[100:]], length=len(self.body) + self._lacks)
        with self._crashes():
            self.answered = self.floor.intake.accept(self.kind, "dmlb2001", body)
        if self.answered is not None:
            with self._crashes():
                self.floor.intake.hint(self.answered)
        self.settle()
        self.floor.staging.close()

    def settle(self) -> None:
        """Let sweepers and workers do what they do until all is over."""
        for _ in range(TURNS):
            with self._crashes():
                self.floor.recovery.sweep()
            while self.floor.queue.sent:
                self._work(self.floor.queue.sent.pop(0))
            self._bring_back()
            if self._is_over():
                return
            self.floor.clock.advance(TURN_S)
        pytest.fail(f"stuck: {self.floor.store.jobs}")

    def _is_over(self) -> bool:
        jobs = self.floor.store.jobs
        ended = all(job.phase is Phase.DONE or (job.phase is Phase.FAILED and not job.path) for job in jobs)
        return ended and not self.floor.store.unclean

    def overtake(self, _: Mortal, __: str) -> None:
        """The caller stands still for so long that others do all that is left; then it goes on."""
        mine = self.floor.faults
        self.floor.restart(self.faults())
        self.settle()
        self.floor.restart(mine)

    @contextmanager
    def _crashes(self) -> Iterator[None]:
        """What escapes ends the process, and another takes its place."""
        try:
            yield
        except (Death, Exception):  # noqa: BLE001 (also a fault of our own)
            self.floor.restart(self.faults())

    def _work(self, hint: Job) -> None:
        with self._crashes():
            claim = self.floor.store.claim(hint.job_id, "worker")
            if claim is not None:
                self.floor.pipeline.run(claim)

    def _bring_back(self) -> None:
        """Do what an operator does with a job that failed by a fault of the service."""
        for job in self.floor.store.jobs:
            if job.phase is Phase.FAILED and job.path:
                status = self.floor.store.statuses_now[job.job_id]
                assert status.state is State.FAILED
                assert status.reason
                assert self.floor.is_kept(job)
                self.failures.append(status.reason)
                with self._crashes():
                    self.floor.store.retry(job.job_id)

    def judge(self) -> None:
        """The one oracle."""
        floor, jobs = self.floor, self.floor.store.jobs
        done = [job for job in jobs if job.phase is Phase.DONE]
        if self.answered is not None:
            assert [job.job_id for job in done] == [self.answered.job_id], "an answered upload is complete"
        for job in jobs:
            # Whatever is not done was never answered, and nothing of it is kept.
            assert job in done or floor.store.statuses_now[job.job_id].state is State.FAILED
        assert len(done) <= 1
        assert floor.staged() == set(), "no bundle is left behind"
        assert list(floor.catalogue.transactions) == [job.job_id for job in done], "one transaction for each job"
        for job in done:
            assert floor.archived(job) == FILES, "the archive holds what was sent"
        if self.kind is Kind.MOVE:
            left = sum(1 for _ in floor.incoming.iterdir())
            assert left == (0 if done else len(FILES)), "a source is either archived or where it was"
        self._judge_ids()

    def _judge_ids(self) -> None:
        floor = self.floor
        live = {
            file_id for document in floor.catalogue.transactions.values() for file_id in registered(document).values()
        }
        listed = {file_id for file_id, state in floor.store.ids.items() if state != ArchiveId.ARCHIVED}
        assert floor.archive.objects.keys() <= live | listed, "an object that nobody knows of"
        assert not live & listed, "a live object is on the garbage list"
        if self.kind is Kind.INGEST:
            # A move that was overtaken is asked for again under its id, but its source is gone: no bytes follow.
            assert max(floor.archive.sent.values(), default=1) == 1, "an id was sent bytes twice"


WAYS: dict[str, Callable[[Round], Way]] = {
    "down": lambda _: is_down,
    "death": lambda _: dies,
    "fault": lambda _: is_faulty,
    "overtaken": lambda case: case.overtake,
}


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a job of few files has several windows."""
    monkeypatch.setattr(deposit, "WINDOW_FILES", 2)


def calls_of(rehearsal: Round) -> list[str]:
    """The calls of a round in which nothing goes wrong."""
    faults = rehearsal.floor.faults
    rehearsal.run()
    rehearsal.judge()
    assert rehearsal.failures == []
    return faults.calls


def spring(case: Round, at: int, way: str, *, after: bool) -> Trap:
    """Run a round in which one call goes wrong."""
    random.seed(at)
    trap = Trap(at, WAYS[way](case), after=after)
    case.floor.restart(trap)
    case.run()
    assert trap.sprung
    return trap


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("verify", ["full", "none"])
@pytest.mark.parametrize("kind", Kind)
def test_whichever_call_goes_wrong_nothing_is_lost_stuck_or_done_twice(
    tmp_path: Path, kind: Kind, verify: str, way: str, *, after: bool
) -> None:
    calls = calls_of(Round(tmp_path / "rehearsal", kind, verify))
    assert {"staging.begin", "jobs.accept", "queue.send", "jobs.claim", "catalogue.register", "staging.remove"} <= set(
        calls
    )
    for at, call in enumerate(calls, start=1):
        case = Round(tmp_path / str(at), kind, verify)
        trap = spring(case, at, way, after=after)
        assert trap.calls[at - 1] == call
        with told(f"{way} {'after' if after else 'before'} call {at}, {call}"):
            case.judge()
            assert way == "fault" or case.failures == [], "what passes by itself needs no operator"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("way", WAYS)
def test_whichever_call_goes_wrong_an_upload_that_was_cut_off_leaves_nothing(
    tmp_path: Path, way: str, *, after: bool
) -> None:
    calls = calls_of(Round(tmp_path / "rehearsal", Kind.INGEST, is_cut=True))
    assert "jobs.refuse" in calls
    for at, call in enumerate(calls, start=1):
        case = Round(tmp_path / str(at), Kind.INGEST, is_cut=True)
        spring(case, at, way, after=after)
        with told(f"{way} {'after' if after else 'before'} call {at}, {call}"):
            case.judge()
            assert case.answered is None
            assert case.floor.catalogue.transactions == {}
            assert case.floor.archive.objects == {}


@pytest.mark.parametrize("seed", range(400))
@pytest.mark.parametrize("kind", Kind)
def test_whatever_goes_wrong_after_the_answer_the_job_is_done_once(tmp_path: Path, kind: Kind, seed: int) -> None:
    random.seed(seed)
    case = Round(tmp_path / "round", kind)
    ways = [way(case) for way in WAYS.values()]
    chance = random.Random(seed)
    budget = [None] * 8
    case.faults = lambda: Chaos(ways, chance, budget)
    case.answered = case.floor.upload(case.body, kind)
    case.floor.restart(case.faults())
    case.settle()
    case.judge()


@contextmanager
def told(about: str) -> Iterator[None]:
    """Name the case in a failure."""
    try:
        yield
    except AssertionError as fault:
        fault.add_note(about)
        raise
