"""Accepting: the order that loses nothing, and refusals that leave nothing."""

import errno
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pacifica.ingest import intake
from pacifica.ingest.admission import WRITERS
from pacifica.ingest.core.errors import (
    ClaimLost,
    Conflict,
    DatabaseDown,
    IngestError,
    KeyReused,
    LengthMismatch,
    NeighbourDown,
    NoSpace,
    NoSuchJob,
    TooLarge,
    Unavailable,
    Unconfirmed,
)
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Kind, Phase, State, Step
from pacifica.ingest.intake import COMMIT_SILENCE_S, ID_TRIES, SIGN_OF_LIFE_S, UNCONFIRMED_S, Body, Intake
from pacifica.ingest.ports import IdMode, Receipt
from pacifica.ingest.recovery import Recovery
from pacifica.ingest.testing import Faults, ManualClock, MemoryIds, MemoryQueue, MemoryStaging
from pacifica.ingest.testing.landing import MemoryUpload
from tests.harness.waiting import until
from tests.unit.floor import Store

DOWN = DatabaseDown("away")


class Gate:
    """Intake on doubles that keep everything in memory."""

    def __init__(self, max_bytes: int = 0) -> None:
        self.clock = ManualClock()
        self.faults = Faults()
        self.store = Store(self.clock, self.faults)
        self.ids = MemoryIds(self.faults)
        self.queue = MemoryQueue(self.faults)
        self.stops = False
        self.pauses: Callable[[float], bool] = self.pause
        self._max_bytes = max_bytes
        self.use(MemoryStaging(self.faults))

    def use(self, staging: MemoryStaging) -> None:
        """Let bodies land there."""
        self.staging = staging
        self.intake = Intake(
            store=self.store,
            staging=staging,
            ids=self.ids,
            queue=self.queue,
            clock=self.clock,
            pause=lambda seconds: self.pauses(seconds),  # noqa: PLW0108 (a test changes it)
            max_bytes=self._max_bytes,
        )

    def accept(self, *chunks: bytes | memoryview, length: int | None = None, kind: Kind = Kind.INGEST) -> Job:
        return self.intake.accept(kind, "dmlb2001", Body(chunks=chunks, length=length))

    def pause(self, seconds: float) -> bool:
        """Let time pass, and see whether the process stops."""
        self.clock.advance(seconds)
        return self.stops

    def sweep(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Let a lease of uploads pass."""
        recovery = Recovery(
            store=self.store,
            staging=self.staging,
            queue=self.queue,
            clock=self.clock,
            lease_s=1,
            upload_lease_s=1,
        )
        recovery.sweep()
        meanwhile()
        self.clock.advance(1)
        recovery.sweep()

    def assert_empty(self) -> None:
        assert self.staging.files == {}
        assert self.store.jobs == []
        assert self.store.statuses_now == {}


@pytest.fixture
def gate() -> Gate:
    return Gate()


# --- accepted


@pytest.mark.parametrize(("kind", "name"), [(Kind.INGEST, "1.tar"), (Kind.MOVE, "1.json")])
@pytest.mark.parametrize("length", [6, None], ids=["announced", "chunked"])
def test_a_body_becomes_a_job_that_is_ready(gate: Gate, kind: Kind, name: str, length: int | None) -> None:
    job = gate.accept(b"abc", memoryview(b"def"), length=length, kind=kind)
    assert (job.job_id, job.kind, job.phase, job.user, job.size_bytes) == (1, kind, Phase.READY, "dmlb2001", 6)
    assert gate.staging.files == {Path(job.path): b"abcdef"}
    assert Path(job.path).name == name
    status = gate.store.status(1)
    assert (status.state, status.step, status.percent, status.complete) == (State.OK, Step.UPLOADING, 100, False)


def test_the_file_is_durable_before_the_row_and_no_worker_is_told_before_the_answer(gate: Gate) -> None:
    gate.accept(b"abc")
    order = ["staging.admit", "ids.reserve", "jobs.open", "staging.begin", "upload.write", "upload.commit"]
    assert gate.faults.calls == [*order, "upload.close", "jobs.accept"]


def test_an_empty_body_is_a_job_too(gate: Gate) -> None:
    job = gate.accept(length=0)
    assert gate.staging.files == {Path(job.path): b""}


def test_an_upload_has_a_turn_while_it_writes_and_none_while_it_waits(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: dict[str, list[int]] = {"waits": [], "writes": []}
    write = MemoryUpload.write

    def watched(upload: MemoryUpload, chunk: bytes) -> None:
        turns["writes"].append(gate.intake._admission.turn._value)
        write(upload, chunk)

    def arriving() -> Iterator[bytes]:
        for _ in range(3):
            turns["waits"].append(gate.intake._admission.turn._value)
            yield b"abc"

    monkeypatch.setattr(MemoryUpload, "write", watched)
    gate.intake.accept(Kind.INGEST, "dmlb2001", Body(chunks=arriving(), length=9))
    assert turns == {"waits": [WRITERS] * 3, "writes": [WRITERS - 1] * 3}


def test_a_number_that_is_taken_is_passed_over(gate: Gate) -> None:
    first = gate.accept(b"a")
    gate.ids.next_id[IdMode.JOB] = first.job_id
    second = gate.accept(b"b")
    assert second.job_id == first.job_id + 1
    assert gate.staging.files == {Path(first.path): b"a", Path(second.path): b"b"}


def test_a_service_that_gives_only_numbers_that_are_taken_is_not_asked_for_ever(gate: Gate) -> None:
    for number in range(1, ID_TRIES + 1):
        gate.store.open(number, Kind.INGEST, "", "other")
    with pytest.raises(NeighbourDown, match="uniqueid"):
        gate.accept(b"a")
    assert gate.staging.files == {}
    assert len(gate.store.jobs) == ID_TRIES


def test_a_slow_upload_shows_that_it_lives(gate: Gate) -> None:
    signs: list[int] = []

    def slow() -> Iterator[bytes]:
        for _ in range(6):
            yield b"a"
            gate.clock.advance(SIGN_OF_LIFE_S / 2 + 0.1)
            signs.append(gate.store.jobs[0].heartbeat)

    gate.intake.accept(Kind.INGEST, "", Body(chunks=slow(), length=6))
    assert signs == [0, 0, 1, 1, 2, 2]


def test_a_database_that_is_away_for_a_moment_does_not_end_a_slow_upload(gate: Gate) -> None:
    def slow() -> Iterator[bytes]:
        for _ in range(3):
            yield b"a"
            gate.clock.advance(SIGN_OF_LIFE_S + 1)

    gate.faults.fail("jobs.receiving", error=DOWN)
    assert gate.intake.accept(Kind.INGEST, "", Body(chunks=slow(), length=3)).phase is Phase.READY


# --- refused


@dataclass(frozen=True)
class Refusal:
    name: str
    chunks: tuple[bytes, ...]
    length: int | None
    error: type[IngestError]
    stages: bool = True


REFUSALS = [
    Refusal("cut", (b"abc",), 4, LengthMismatch),
    Refusal("nothing arrives", (), 4, LengthMismatch),
    Refusal("more than announced", (b"abc", b"de"), 4, LengthMismatch),
    Refusal("announced too large", (b"abc",), 11, TooLarge, stages=False),
    Refusal("chunked and too large", (b"abcdef", b"ghijkl"), None, TooLarge),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
def test_a_refused_upload_leaves_nothing(case: Refusal) -> None:
    gate = Gate(max_bytes=10)
    with pytest.raises(case.error):
        gate.accept(*case.chunks, length=case.length)
    gate.assert_empty()
    assert ("staging.begin" in gate.faults.calls) is case.stages


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    assert Gate(max_bytes=6).accept(b"abc", b"def").size_bytes == 6


@pytest.mark.parametrize(("free", "takes_id"), [(2, False), (4, True)])
def test_a_disk_that_is_full_refuses_and_leaves_nothing(gate: Gate, free: int, *, takes_id: bool) -> None:
    gate.staging.free_bytes = free
    with pytest.raises(NoSpace):
        gate.accept(b"abc", b"def", length=None if takes_id else 6)
    gate.assert_empty()
    assert ("ids.reserve" in gate.faults.calls) is takes_id


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O"), ConnectionResetError(), KeyboardInterrupt()])
def test_a_connection_that_breaks_leaves_nothing(gate: Gate, error: BaseException) -> None:
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise error

    with pytest.raises(type(error)):
        gate.intake.accept(Kind.INGEST, "", Body(chunks=broken(), length=6))
    gate.assert_empty()


@pytest.mark.parametrize("call", ["staging.begin", "upload.write", "upload.commit"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_disk_that_fails_leaves_nothing(gate: Gate, call: str, *, after: bool) -> None:
    gate.faults.fail(call, error=OSError(errno.EIO, "I/O"), after=after)
    with pytest.raises(OSError, match="I/O"):
        gate.accept(b"abc", length=3)
    gate.assert_empty()


def test_a_number_whose_place_somebody_else_has_is_passed_over(gate: Gate) -> None:
    path = MemoryStaging.path(1, Kind.INGEST)
    gate.staging.files[path] = b"from another system"
    job = gate.accept(b"abc")
    assert job.job_id == 2
    assert gate.store.jobs == [job]
    assert gate.staging.files == {path: b"from another system", Path(job.path): b"abc"}


def test_a_file_that_somebody_else_puts_there_meanwhile_stays_as_it_is(gate: Gate) -> None:
    path = MemoryStaging.path(1, Kind.INGEST)

    def chunks() -> Iterator[bytes]:
        yield b"abc"
        gate.staging.files[path] = b"from another system"

    with pytest.raises(Conflict):
        gate.intake.accept(Kind.INGEST, "", Body(chunks=chunks(), length=3))
    assert gate.staging.files == {path: b"from another system"}
    assert gate.store.jobs == []


# --- neighbours and the database are away


@pytest.mark.parametrize(
    ("call", "error"), [("ids.reserve", NeighbourDown("uniqueid", "away")), ("jobs.open", DOWN)], ids=["ids", "jobs"]
)
def test_without_a_number_nothing_is_received(gate: Gate, call: str, error: IngestError) -> None:
    gate.faults.fail(call, error=error)
    with pytest.raises(type(error)):
        gate.accept(b"abc")
    gate.assert_empty()
    assert "staging.begin" not in gate.faults.calls


def test_a_row_whose_answer_was_lost_ends_without_a_file(gate: Gate) -> None:
    gate.faults.fail("jobs.open", error=DOWN, after=True)
    with pytest.raises(DatabaseDown):
        gate.accept(b"abc")
    gate.sweep()
    assert gate.staging.files == {}
    assert [job.phase for job in gate.store.jobs] == [Phase.FAILED]


#: A fault that the library of the database raises unexpectedly, and one of the process.
ERRORS = [RuntimeError("who knows"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=["unexpected", "process"])
def test_a_commit_whose_answer_was_lost_keeps_the_file(gate: Gate, error: BaseException) -> None:
    gate.faults.fail("jobs.accept", error=error, after=True)
    with pytest.raises(type(error)):
        gate.accept(b"abc")
    gate.sweep()
    (job,) = gate.store.jobs
    assert job.phase is Phase.READY
    assert gate.staging.files == {Path(job.path): b"abc"}


@pytest.mark.parametrize("error", ERRORS, ids=["unexpected", "process"])
def test_a_commit_that_failed_ends_without_a_file(gate: Gate, error: BaseException) -> None:
    gate.faults.fail("jobs.accept", error=error)
    with pytest.raises(type(error)):
        gate.accept(b"abc")
    gate.sweep()
    assert [job.phase for job in gate.store.jobs] == [Phase.FAILED]
    assert gate.staging.files == {}


@pytest.mark.parametrize("key", ["", "1"])
@pytest.mark.parametrize("times", [1, 5])
def test_a_commit_whose_answer_was_lost_is_found_when_the_database_is_back(gate: Gate, key: str, times: int) -> None:
    gate.faults.fail("jobs.accept", error=DOWN, after=True)
    gate.faults.fail("jobs.accept", error=DOWN, at=2, times=times - 1)
    job = again(gate, key=key)
    assert gate.store.jobs == [job]
    assert job.phase is Phase.READY
    assert gate.staging.files == {Path(job.path): b"abc"}


def test_a_job_that_is_over_before_its_commit_is_found_is_accepted_all_the_same(gate: Gate) -> None:
    def work(seconds: float) -> bool:
        claim = gate.store.claim(1, "a fast worker")
        assert claim
        gate.store.finish(claim)
        gate.staging.remove(Path(claim.job.path), claim.job.landing_zone)
        gate.store.cleaned(1)
        return Gate.pause(gate, seconds)

    gate.pauses = work
    gate.faults.fail("jobs.accept", error=DOWN, after=True)
    job = gate.accept(b"abc")
    assert (job.job_id, job.phase, job.path) == (1, Phase.DONE, "")
    assert gate.staging.files == {}


@pytest.mark.parametrize("key", ["", "1"])
@pytest.mark.parametrize("after", [False, True], ids=["not done", "answer lost"])
def test_what_cannot_be_confirmed_is_told_with_the_number_of_the_job_which_ends(
    gate: Gate, key: str, *, after: bool
) -> None:
    gate.faults.fail("jobs.accept", error=DOWN, times=100, after=after)
    before = gate.clock.monotonic()
    with pytest.raises(Unconfirmed) as fault:
        again(gate, key=key)
    assert UNCONFIRMED_S <= gate.clock.monotonic() - before < 2 * UNCONFIRMED_S
    job = gate.store.job(fault.value.job_id)
    gate.sweep()
    if after:
        assert gate.store.job(job.job_id).phase is Phase.READY
        assert gate.staging.files == {Path(job.path): b"abc"}
    else:
        assert gate.staging.files == {}
        assert "send it again" in gate.store.status(job.job_id).reason


def test_a_server_that_stops_does_not_wait_for_the_database(gate: Gate) -> None:
    gate.stops = True
    gate.faults.fail("jobs.accept", error=DOWN, times=100)
    with pytest.raises(Unconfirmed):
        gate.accept(b"abc")
    assert gate.faults.calls.count("jobs.accept") == 1


# --- the heart


class SlowDisk(MemoryStaging):
    """A landing zone whose sync takes as long as something says."""

    def __init__(self, wait: Callable[[], None]) -> None:
        super().__init__()
        self._wait = wait

    def begin(self, job_id: int, kind: Kind, landing_zone: str) -> MemoryUpload:  # noqa: ARG002 (of the port)
        wait = self._wait

        class Upload(MemoryUpload):
            def commit(self) -> Receipt:
                wait()
                return super().commit()

        return Upload(self, self.path(job_id, kind))


def test_an_upload_lives_while_a_slow_disk_syncs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "SIGN_OF_LIFE_S", 0.001)
    gate = Gate()

    def slowly() -> None:
        for _ in range(3):
            gate.sweep(
                lambda beats=gate.store.jobs[0].heartbeat: until(lambda: gate.store.jobs[0].heartbeat > beats + 1)
            )

    gate.use(SlowDisk(slowly))
    assert gate.accept(b"abc").phase is Phase.READY


def test_a_disk_that_hangs_does_not_beat_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "SIGN_OF_LIFE_S", 0.001)
    gate = Gate()

    def hangs() -> None:
        gate.clock.advance(COMMIT_SILENCE_S + 1)
        (heart,) = [thread for thread in threading.enumerate() if thread.name == "heart of upload 1"]
        until(lambda: not heart.is_alive(), "the last beat")
        gate.sweep()

    gate.use(SlowDisk(hangs))
    with pytest.raises(ClaimLost):
        gate.accept(b"abc")
    assert gate.staging.files == {}


def test_an_upload_has_no_thread_while_it_arrives(gate: Gate) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"abc"
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("heart")]

    gate.intake.accept(Kind.INGEST, "", Body(chunks=chunks(), length=3))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("heart")]


# --- given up


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O"), Unavailable("not mounted")])
def test_what_cannot_be_discarded_stays_listed_and_hides_no_reason(gate: Gate, error: Exception) -> None:
    gate.faults.fail("staging.discard", error=error)
    with pytest.raises(LengthMismatch):
        gate.accept(b"abc", length=4)
    assert [job.phase for job in gate.store.jobs] == [Phase.RECEIVING]
    gate.sweep()
    assert gate.staging.files == {}


def taken_over(gate: Gate) -> Callable[[], Iterator[bytes]]:
    def chunks() -> Iterator[bytes]:
        yield b"abc"
        gate.sweep()
        yield b"def"

    return chunks


def test_an_upload_that_was_given_up_is_refused_and_leaves_nothing(gate: Gate) -> None:
    with pytest.raises(ClaimLost):
        gate.intake.accept(Kind.INGEST, "", Body(chunks=taken_over(gate)(), length=6))
    assert gate.staging.files == {}
    status = gate.store.status(1)
    assert (status.state, status.step, status.complete) == (State.FAILED, Step.UPLOADING, True)


def test_an_upload_that_an_operator_ended_is_refused_and_leaves_nothing(gate: Gate) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"abc"
        gate.store.force(1, State.FAILED, Step.UPLOADING, 0, "by hand")
        gate.sweep()
        yield b"def"

    with pytest.raises(ClaimLost):
        gate.intake.accept(Kind.INGEST, "", Body(chunks=chunks(), length=6))
    assert gate.staging.files == {}
    assert gate.store.status(1).reason == "by hand"
    assert gate.store.leftovers() == []


def test_an_upload_that_was_given_up_at_its_last_moment_is_refused_and_leaves_nothing(gate: Gate) -> None:
    gate.faults.fail("jobs.accept", error=ClaimLost("given up"))
    with pytest.raises(ClaimLost):
        gate.accept(b"abc")
    assert gate.staging.files == {}


def test_a_refused_upload_that_cannot_be_forgotten_is_told_as_what_it_was(gate: Gate) -> None:
    gate.faults.fail("jobs.refuse", error=DOWN)
    with pytest.raises(LengthMismatch):
        gate.accept(b"abc", length=4)
    assert gate.staging.files == {}
    gate.sweep()
    assert gate.store.status(1).state is State.FAILED


# --- requests that are sent again


def again(gate: Gate, content: bytes = b"abc", key: str = "1", user: str = "me", kind: Kind = Kind.INGEST) -> Job:
    return gate.intake.accept(kind, user, Body(chunks=[content[:1], content[1:]], length=None), key)


def test_a_request_that_is_sent_again_is_the_same_job_and_leaves_nothing_more(gate: Gate) -> None:
    job = again(gate)
    assert again(gate) == again(gate) == job
    assert gate.store.jobs == [job]
    assert gate.staging.files == {Path(job.path): b"abc"}


def test_a_request_that_is_sent_again_tells_what_became_of_the_job(gate: Gate) -> None:
    job = again(gate)
    gate.store.force(job.job_id, State.FAILED, Step.POLICY, 0, "no")
    assert again(gate).phase is Phase.FAILED


@pytest.mark.parametrize("other", [{"content": b"abd"}, {"content": b""}, {"kind": Kind.MOVE}])
def test_a_key_that_came_with_something_else_is_refused_and_leaves_nothing(gate: Gate, other: dict[str, Any]) -> None:
    job = again(gate)
    with pytest.raises(KeyReused):
        again(gate, **other)
    assert gate.store.jobs == [job]
    assert gate.staging.files == {Path(job.path): b"abc"}


@pytest.mark.parametrize("other", [{"key": "2"}, {"key": ""}, {"user": "you"}, {"key": "e1", "user": "m"}])
def test_other_keys_and_other_users_make_other_jobs(gate: Gate, other: dict[str, Any]) -> None:
    assert again(gate) != again(gate, **other)
    assert len(gate.store.jobs) == len(gate.staging.files) == 2


def test_without_a_key_every_request_is_a_job(gate: Gate) -> None:
    assert again(gate, key="") != again(gate, key="")


def test_a_refused_request_takes_no_key(gate: Gate) -> None:
    with pytest.raises(LengthMismatch):
        gate.intake.accept(Kind.INGEST, "me", Body(chunks=[b"ab"], length=3), "1")
    assert again(gate).phase is Phase.READY


# --- hints


def test_a_hint_carries_the_job(gate: Gate) -> None:
    job = gate.accept(b"abc")
    assert gate.queue.sent == []
    gate.intake.hint(job)
    assert gate.queue.sent == [job]


def test_a_hint_that_is_lost_troubles_nobody(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    job = gate.accept(b"abc")
    gate.faults.fail("queue.send", error=NeighbourDown("broker", "away"))
    gate.intake.hint(job)
    assert "hint lost" in caplog.text
    assert gate.store.job(job.job_id).phase is Phase.READY


def test_what_was_refused_is_unknown(gate: Gate) -> None:
    with pytest.raises(LengthMismatch):
        gate.accept(b"abc", length=4)
    with pytest.raises(NoSuchJob):
        gate.store.status(1)
