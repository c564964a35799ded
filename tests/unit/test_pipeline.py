"""Whole jobs on the doubles: what clients see, and what becomes of each fault."""

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from pacifica.ingest.core.errors import (
    ClaimLost,
    Conflict,
    DatabaseDown,
    IngestError,
    NeighbourDown,
    NoSpace,
    Refused,
)
from pacifica.ingest.core.jobs import Claim, Job, Series
from pacifica.ingest.core.states import Kind, Phase, State, Step
from pacifica.ingest.testing import BundleBuilder
from pacifica.ingest.work import Work
from tests.unit.floor import FILES, LEASE_S, Floor, TickingClock, bundle, registered

DOWN = NeighbourDown("archive", "away")


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    return Floor(tmp_path)


def send(floor: Floor, kind: Kind) -> Job:
    return floor.upload() if kind is Kind.INGEST else floor.move()


# --- the flow

STEPS = {
    Kind.INGEST: [Step.OPEN_TAR, Step.LOAD_METADATA, Step.POLICY, Step.INGEST_FILES, Step.INGEST_METADATA],
    Kind.MOVE: [Step.LOAD_METADATA, Step.POLICY, Step.MOVE_FILES, Step.INGEST_METADATA],
}


@pytest.mark.parametrize("kind", Kind)
def test_a_job_passes_its_steps_and_is_done(floor: Floor, kind: Kind) -> None:
    job = floor.run(send(floor, kind))
    assert floor.store.told == [(step, 0) for step in STEPS[kind]]
    assert floor.names(job) == ["accepted", "claimed", "done"]
    assert job.path == ""
    assert floor.staged() == set()


@pytest.mark.parametrize("verify", ["full", "size", "none"])
@pytest.mark.parametrize("kind", Kind)
def test_percent_grows_to_100_in_the_files_step_and_never_beyond(tmp_path: Path, kind: Kind, verify: str) -> None:
    floor = Floor(tmp_path, verify=verify, clock=TickingClock())
    files = {"a": b"x" * 10_000, "b": b"y" * 30_000, "empty": b""}
    job = floor.upload(bundle(files).build()) if kind is Kind.INGEST else floor.move(floor.document(files))
    floor.run(job)
    told = [percent for step, percent in floor.store.told if step is kind.files_step]
    assert all(before <= after for before, after in pairwise(told))
    assert told[-1] == 100
    assert told.count(100) == 1, "100 percent is told when all is done, and not before"


@pytest.mark.parametrize("kind", Kind)
def test_percent_counts_what_an_earlier_attempt_did(tmp_path: Path, kind: Kind) -> None:
    floor = Floor(tmp_path, clock=TickingClock())
    job = send(floor, kind)
    floor.faults.fail("archive.digest", error=DOWN, at=3)
    floor.run(job)
    floor.store.told.clear()
    floor.run_when_due(job)
    told = [percent for step, percent in floor.store.told if step is kind.files_step]
    assert told[-1] == 100
    assert told.count(100) == 1


def test_clients_are_told_100_percent_of_the_last_step_only_when_the_job_is_done(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("jobs.finish", error=DatabaseDown("away"))
    floor.run(job)
    assert not floor.status(job).complete
    assert floor.status(job).percent < 100


@pytest.mark.parametrize("kind", Kind)
def test_policy_is_asked_for_the_authenticated_user_before_anything_is_sent(floor: Floor, kind: Kind) -> None:
    floor.run(send(floor, kind))
    ((document, user),) = floor.policy.asked
    assert user == "dmlb2001"
    assert document[-1] == {"destinationTable": "Transactions._id", "value": 7}
    assert not any("_id" in entry for entry in document)
    calls = floor.faults.calls
    assert calls.index("policy.permit") < calls.index("ids.reserve", calls.index("jobs.claim"))


@pytest.mark.parametrize("kind", Kind)
def test_the_archive_and_the_catalogue_hold_what_was_sent(floor: Floor, kind: Kind) -> None:
    job = send(floor, kind)
    floor.run(job)
    floor.assert_done(job)


@pytest.mark.parametrize("kind", Kind)
def test_a_job_without_files_is_a_transaction(floor: Floor, kind: Kind) -> None:
    floor.incoming.mkdir()
    job = floor.upload(bundle({}).build()) if kind is Kind.INGEST else floor.move(floor.document({}))
    floor.run(job)
    floor.assert_done(job, {})


def test_the_bundle_decides_what_a_folder_called_data_means(floor: Floor) -> None:
    builder = BundleBuilder().member("data/data/x", b"1").entry("data/x", b"1")
    job = floor.upload(builder.build())
    floor.run(job)
    floor.assert_done(job, {"data/x": b"1"})


def test_the_bundle_goes_only_when_the_job_is_done(floor: Floor) -> None:
    floor.run(floor.upload())
    order = ["catalogue.register", "jobs.finish", "staging.remove", "jobs.cleaned"]
    assert [call for call in floor.faults.calls if call in order] == order


@pytest.mark.parametrize("call", ["staging.remove", "jobs.cleaned"])
@pytest.mark.parametrize("error", [OSError("busy"), DatabaseDown("away")])
def test_a_job_that_is_done_stays_done_when_its_bundle_cannot_be_removed(
    floor: Floor, call: str, error: Exception
) -> None:
    job = floor.upload()
    floor.faults.fail(call, error=error)
    floor.run(job)
    assert floor.status(job).complete
    assert floor.status(job).state is State.OK
    floor.recovery.sweep()
    floor.assert_done(job)


# --- permanent faults


@dataclass(frozen=True)
class Permanent:
    name: str
    content: Callable[[], bytes]
    step: Step
    reason: str


PERMANENT = [
    Permanent("no tar", lambda: b"this is no tar file " * 100, Step.OPEN_TAR, "not a tar file"),
    Permanent("a link", bundle().member("data/l", type=b"2", linkname="d").build, Step.OPEN_TAR, "symbolic link"),
    Permanent("no metadata", bundle().metadata(b"").build, Step.LOAD_METADATA, "no metadata.txt"),
    Permanent("no JSON", bundle().metadata(b"[").build, Step.LOAD_METADATA, "not JSON"),
    Permanent(
        "a size", bundle().add("s", b"1", size=2).build, Step.INGEST_FILES, "'s' has 1 bytes, the metadata says 2"
    ),
    Permanent("a digest", bundle().add("s", b"1", hashsum="0" * 64).build, Step.INGEST_FILES, "'s': sha256 is"),
    Permanent("a missing member", bundle().entry("s").build, Step.INGEST_FILES, "'s' is named by the metadata"),
    Permanent("an unnamed member", bundle().member("data/s").build, Step.INGEST_METADATA, "'s' is in the bundle"),
    Permanent("a mimetype", bundle().add("s", mimetype="x").build, Step.INGEST_METADATA, ".mimetype: expected"),
    Permanent("a file named twice", bundle().entry("d", b"last").build, Step.INGEST_METADATA, "named 2 times"),
]


@pytest.mark.parametrize("case", PERMANENT, ids=lambda case: case.name)
def test_a_bundle_that_cannot_be_taken_fails_at_its_step_and_is_kept(floor: Floor, case: Permanent) -> None:
    job = floor.upload(case.content())
    floor.run(job)
    floor.assert_failed(job, case.step, case.reason)
    assert floor.archive.objects == {}
    assert floor.catalogue.transactions == {}
    assert floor.names(job) == ["accepted", "claimed", "failed"]


def test_all_faults_of_a_bundle_are_told_at_once(floor: Floor) -> None:
    builder = bundle().add("s", b"1", size=2).entry("t").member("data/u").add("v", mimetype="x")
    job = floor.upload(builder.build())
    floor.run(job)
    for reason in ("'s' has 1 bytes", "'t' is named by the metadata", "'u' is in the bundle", ".mimetype: expected"):
        floor.assert_failed(job, Step.INGEST_FILES, reason)


@pytest.mark.parametrize(("kind", "step"), [(Kind.INGEST, Step.INGEST_FILES), (Kind.MOVE, Step.MOVE_FILES)])
def test_a_weak_digest_is_refused_where_the_operator_says_so(tmp_path: Path, kind: Kind, step: Step) -> None:
    floor = Floor(tmp_path, min_hash="sha384")
    job = send(floor, kind)
    floor.run(job)
    for path in FILES:
        floor.assert_failed(job, step, f"{path!r}: ")
    reason = "sha256 is too weak, allowed are sha384, sha512, sha3_384, sha3_512, blake2b ([ingest] min_hash)"
    assert floor.status(job).reason.count(reason) == len(FILES)
    assert floor.archive.objects == {}


@pytest.mark.parametrize("kind", Kind)
def test_a_digest_that_is_as_strong_as_the_operator_wants_is_taken(tmp_path: Path, kind: Kind) -> None:
    floor = Floor(tmp_path, min_hash="blake2s")
    job = send(floor, kind)
    floor.run(job)
    floor.assert_done(job)


def test_a_weak_digest_hides_no_other_fault(tmp_path: Path) -> None:
    floor = Floor(tmp_path, min_hash="sha512")
    job = floor.upload(bundle({}).add("s", b"1", size=2).entry("t").add("u", b"1", hashsum="0" * 64).build())
    floor.run(job)
    for reason in ("'s' has 1 bytes", "'t' is named by the metadata", "'u': sha256 is 6b86", "'u': sha256 is too weak"):
        floor.assert_failed(job, Step.INGEST_FILES, reason)


@pytest.mark.parametrize(
    ("kind", "step", "reason"),
    [
        (Kind.INGEST, Step.OPEN_TAR, "at most 500 are read"),
        (Kind.MOVE, Step.LOAD_METADATA, "at most 500 are read ([ingest] max_metadata_size)"),
    ],
)
def test_a_document_that_is_larger_than_the_operator_wants_is_not_read(
    tmp_path: Path, kind: Kind, step: Step, reason: str
) -> None:
    floor = Floor(tmp_path, metadata_bytes=500)
    job = send(floor, kind)
    floor.run(job)
    floor.assert_failed(job, step, reason)


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b"nonsense"])
def test_a_move_whose_document_cannot_be_read_fails_at_load_metadata(floor: Floor, text: bytes) -> None:
    job = floor.upload(text, Kind.MOVE)
    floor.run(job)
    floor.assert_failed(job, Step.LOAD_METADATA, "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "not JSON but empty"),
        (bundle().build(), "not JSON but a tar file: is /upload meant?"),
        (gzip.compress(b"[]"), "not JSON but compressed with gzip"),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n[]\r\n--x--\r\n', "send the document itself"),
    ],
    ids=["empty", "a tar", "gzip", "a form"],
)
def test_what_came_in_place_of_a_document_is_named(floor: Floor, text: bytes, told: str) -> None:
    job = floor.upload(text, Kind.MOVE)
    floor.run(job)
    floor.assert_failed(job, Step.LOAD_METADATA, told)


@pytest.mark.parametrize("kind", Kind)
def test_what_policy_refuses_fails_and_is_kept(floor: Floor, kind: Kind) -> None:
    floor.policy.refusal = "not yours"
    job = send(floor, kind)
    floor.run(job)
    floor.assert_failed(job, Step.POLICY, "not yours")
    assert floor.archive.objects == {}


@pytest.mark.parametrize("error", [Refused("no such instrument"), Conflict("something else is there")])
@pytest.mark.parametrize("kind", Kind)
def test_what_the_catalogue_refuses_fails_and_is_kept(floor: Floor, kind: Kind, error: IngestError) -> None:
    floor.faults.fail("catalogue.register", error=error)
    job = send(floor, kind)
    floor.run(job)
    floor.assert_failed(job, Step.INGEST_METADATA, str(error))


@pytest.mark.parametrize("kind", Kind)
def test_a_job_waits_for_a_landing_zone_that_is_away(floor: Floor, kind: Kind) -> None:
    job = send(floor, kind)
    away = floor.staging.folder.rename(floor.folder / "away")
    assert "is not mounted on this worker" in floor.run(job).waiting_for
    away.rename(floor.staging.folder)
    floor.run_when_due(job)
    floor.assert_done(job)


@pytest.mark.parametrize("kind", Kind)
def test_a_job_whose_staged_file_is_gone_fails_with_that_reason(floor: Floor, kind: Kind) -> None:
    job = send(floor, kind)
    Path(job.path).unlink()
    while floor.run_when_due(job).phase is Phase.READY:
        pass
    status = floor.status(job)
    assert status.state is State.FAILED
    assert "is not in the landing zone. Somebody removed it" in status.reason


def test_a_job_without_a_staged_file_fails_at_once(floor: Floor) -> None:
    floor.store.open(5, Kind.INGEST, "me", "upload")
    job = floor.store.job(5)
    assert floor.store.take_over(job)
    floor.recovery.sweep()
    floor.run(floor.store.retry(job.job_id))
    assert "not in the landing zone any more" in floor.status(job).reason


def test_a_failed_job_goes_on_where_it_stood_when_it_is_tried_again(floor: Floor) -> None:
    floor.faults.fail("catalogue.register", error=Refused("no such instrument"))
    job = floor.upload()
    floor.run(job)
    floor.store.retry(job.job_id)
    floor.run(job)
    floor.assert_done(job)
    assert floor.archive.sent.total() == len(FILES)


# --- transient faults

#: Call → step in which it is made, for both kinds.
TRANSIENT = {
    "policy.permit": Step.POLICY,
    "ids.reserve": None,
    "archive.size": None,
    "archive.digest": None,
    "archive.flush": None,
    "jobs.intend": None,
    "jobs.archived": None,
    "catalogue.register": Step.INGEST_METADATA,
    "jobs.freeze": Step.INGEST_METADATA,
    "jobs.file_ids": None,
}


@pytest.mark.parametrize("call", TRANSIENT)
@pytest.mark.parametrize("kind", Kind)
def test_a_transient_fault_makes_the_job_wait_and_then_go_on(floor: Floor, kind: Kind, call: str) -> None:
    job = send(floor, kind)
    floor.faults.fail(call, error=DatabaseDown("away") if call.startswith("jobs") else DOWN)
    waiting = floor.run(job)
    assert waiting.phase is Phase.READY
    assert "away" in waiting.waiting_for
    assert waiting.failing
    assert waiting.failing.since == floor.clock.now()
    assert waiting.not_before > floor.clock.now()
    assert floor.store.claim(job.job_id, "worker") is None
    status = floor.status(job)
    assert (status.state, status.step, status.reason) == (State.OK, TRANSIENT[call] or kind.files_step, "")
    assert not status.complete
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.names(job) == ["accepted", "claimed", "waiting", "claimed", "done"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "/x"), PermissionError(13, "Permission denied")])
def test_a_disk_that_fails_makes_the_job_wait(floor: Floor, error: OSError) -> None:
    job = floor.upload()
    floor.faults.fail("archive.store", error=error)
    assert (error.strerror or "?") in floor.run(job).waiting_for
    floor.run_when_due(job)
    floor.assert_done(job)


def test_an_archive_that_is_full_makes_the_job_wait(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("archive.store", error=NoSpace("full"))
    assert floor.run(job).waiting_for == "full"


def waits(floor: Floor, count: int) -> list[float]:
    """How long so many jobs wait after their first fault, in seconds."""
    floor.faults.fail("policy.permit", error=DOWN, times=count)
    jobs = [floor.run(floor.upload()) for _ in range(count)]
    return [(job.not_before - floor.clock.now()).total_seconds() for job in jobs]


def test_waits_have_jitter(floor: Floor) -> None:
    found = waits(floor, 40)
    assert all(1 <= wait_s <= 2 for wait_s in found)
    assert len(set(found)) > 10


def test_a_series_of_faults_is_counted_from_its_first_and_ends_after_retry_for(floor: Floor) -> None:
    job = floor.upload()
    start = floor.clock.now()
    floor.faults.fail("policy.permit", error=DOWN, times=10**6)
    attempts = 0
    while floor.store.job(job.job_id).phase is Phase.READY:
        after = floor.run_when_due(job)
        attempts += 1
        assert after.failing in {Series(since=start, step=Step.POLICY), None}
        assert after.not_before <= start + timedelta(seconds=120)
    assert floor.clock.now() == start + timedelta(seconds=120), "the last attempt is at the very end"
    assert 5 < attempts < 200
    floor.assert_failed(job, Step.POLICY, "away")


def test_a_job_that_got_further_begins_a_new_series(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("policy.permit", error=DOWN)
    floor.run(job)
    floor.clock.advance(119)
    floor.faults.fail("ids.reserve", error=DOWN)
    later = floor.run(job)
    assert later.failing == Series(since=floor.clock.now(), step=Step.INGEST_FILES)
    floor.clock.advance(60)
    floor.faults.fail("policy.permit", error=DOWN)
    again = floor.run(job).failing
    assert again
    assert again.step is Step.INGEST_FILES, "it did not get further than before"
    assert again.since < floor.clock.now()


def test_a_job_that_waited_for_a_worker_is_tried_before_it_fails(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("policy.permit", error=DOWN, times=2)
    floor.run(job)
    floor.clock.advance(3600)
    assert floor.run(job).phase is Phase.READY
    floor.clock.advance(3600)
    floor.run(job)
    floor.assert_done(job)


def test_a_clock_that_was_set_back_makes_no_series_endless(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("policy.permit", error=DOWN, times=10**6)
    floor.run(job)
    floor.clock.jump(-86_400)
    for _ in range(1000):
        found = floor.run(job)
        if found.phase is Phase.FAILED:
            return
        floor.clock.advance((found.not_before - floor.clock.now()).total_seconds())
    pytest.fail("it never fails")


def test_an_archived_file_ends_the_series(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("policy.permit", error=DOWN)
    floor.run(job)
    floor.clock.advance(100)
    floor.faults.fail("catalogue.register", error=DOWN)
    later = floor.run(job)
    assert later.failing == Series(since=floor.clock.now(), step=Step.INGEST_METADATA)
    floor.clock.advance(119)
    floor.run(job)
    floor.assert_done(job)


@pytest.mark.parametrize("call", ["archive.store", "archive.digest", "archive.flush"])
def test_an_archive_that_stays_away_fails_the_job_however_far_a_window_comes(floor: Floor, call: str) -> None:
    job = floor.upload()
    floor.faults.fail(call, error=DOWN, times=10**6)
    for _ in range(500):
        if floor.run_when_due(job).phase is not Phase.READY:
            break
    floor.assert_failed(job, Step.INGEST_FILES, "away")


@pytest.mark.parametrize("call", ["policy.permit", "archive.store", "catalogue.register"])
def test_without_patience_a_transient_fault_fails_the_job_at_once(tmp_path: Path, call: str) -> None:
    floor = Floor(tmp_path, retry_for_s=0)
    job = floor.upload()
    floor.faults.fail(call, error=DOWN)
    floor.run(job)
    assert floor.names(job) == ["accepted", "claimed", "failed"]
    assert floor.is_kept(job)
    floor.store.retry(job.job_id)
    floor.run(job)
    floor.assert_done(job)


def test_a_clock_that_jumps_back_holds_no_job(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("policy.permit", error=DOWN, times=2)
    floor.run(job)
    floor.clock.jump(-86_400)
    assert (floor.run_when_due(job).not_before - floor.clock.now()).total_seconds() <= 600
    floor.run_when_due(job)
    floor.assert_done(job)


# --- ends that are none


@pytest.mark.parametrize("asked", range(12))
@pytest.mark.parametrize("kind", Kind)
def test_a_worker_that_stops_gives_its_job_back_at_once(floor: Floor, kind: Kind, asked: int) -> None:
    job = send(floor, kind)
    left = iter([False] * asked)
    floor.pipeline.run(floor.claim(job), lambda: next(left, True))
    back = floor.store.job(job.job_id)
    assert back.phase is Phase.READY
    assert back.not_before <= floor.clock.now()
    assert back.failing is None
    assert floor.names(job) == ["accepted", "claimed", "released"]
    floor.run(job)
    floor.assert_done(job)


@pytest.mark.parametrize("call", ["policy.permit", "archive.store", "catalogue.register"])
def test_who_lost_the_claim_writes_nothing_more(floor: Floor, call: str) -> None:
    job = floor.upload()
    claim = floor.claim(job)
    floor.faults.fail(call, error=ClaimLost("taken over"))
    assert floor.store.take_over(claim.job)
    before = floor.store.job(job.job_id), floor.status(job), floor.names(job)
    floor.pipeline.run(claim)
    assert (floor.store.job(job.job_id), floor.status(job), floor.names(job)) == before
    assert not {"jobs.wait", "jobs.fail", "jobs.release"} & set(floor.faults.calls)
    assert floor.catalogue.transactions == {}


@pytest.mark.parametrize("call", ["policy.permit", "archive.store", "catalogue.register", "jobs.finish"])
def test_a_fault_of_the_service_fails_the_job_and_is_told_to_the_log_alone(
    floor: Floor, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    job = floor.upload()
    floor.faults.fail(call, error=ZeroDivisionError("secret"))
    floor.run(job)
    status = floor.status(job)
    assert status.state is State.FAILED
    assert "secret" not in status.reason
    assert "log of worker" in status.reason
    assert floor.is_kept(job)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "secret" in caplog.text
    assert record.__dict__["job_id"] == job.job_id
    floor.store.retry(job.job_id)
    floor.run(job)
    floor.assert_done(job)


@pytest.mark.parametrize("call", ["jobs.wait", "jobs.fail", "jobs.job"])
def test_a_job_whose_end_cannot_be_written_is_left_to_recovery(
    floor: Floor, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    job = floor.upload() if call != "jobs.fail" else floor.upload(b"")
    floor.faults.fail("policy.permit", error=DOWN)
    floor.faults.fail(call, error=DatabaseDown("away"))
    floor.pipeline.run(floor.claim(job))
    assert floor.store.job(job.job_id).phase is Phase.RUNNING
    assert "left to recovery" in caplog.text


class WatchedWork(Work):
    """Work that remembers how long it was allowed to be silent, in seconds."""

    def __init__(self, floor: Floor, claim: Claim) -> None:
        super().__init__(claim, store=floor.store, clock=floor.clock, lease_s=LEASE_S, stopping=lambda: False)
        self.allowed: list[float] = []

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        self.allowed.append(seconds)
        with super().patience(seconds):
            yield


@pytest.mark.parametrize("kind", Kind)
def test_reading_a_large_bundle_may_take_longer_than_a_lease(floor: Floor, kind: Kind) -> None:
    claim = floor.claim(send(floor, kind))
    work = WatchedWork(floor, replace(claim, job=replace(claim.job, size_bytes=10**11)))
    (floor.pipeline.ingest if kind is Kind.INGEST else floor.pipeline.move)(work)
    reads = 2 if kind is Kind.INGEST else 1
    assert all(allowed > 10_000 for allowed in work.allowed[:reads]), "100 GB of headers at 10 MB/s"
    assert max(work.allowed[reads:]) <= 300


def test_ids_of_the_transaction_are_those_of_the_archive(floor: Floor) -> None:
    job = floor.move(json.loads(json.dumps(floor.document())))
    floor.run(job)
    assert set(registered(floor.catalogue.transactions[job.job_id]).values()) == set(floor.archive.objects)
