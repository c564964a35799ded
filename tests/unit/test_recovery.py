"""The sweep: what it takes over, hints and cleans, and what it leaves alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from pacifica.ingest.core.errors import DatabaseDown, NeighbourDown
from pacifica.ingest.core.jobs import Series
from pacifica.ingest.core.states import Kind, Phase, State, Step
from pacifica.ingest.recovery import LEFTOVERS
from tests.unit.floor import LEASE_S, UPLOAD_LEASE_S, Floor


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    return Floor(tmp_path)


@contextmanager
def watched(floor: Floor, seconds: float) -> Iterator[None]:
    """Sweep, let something happen and time go by, and sweep again."""
    floor.recovery.sweep()
    yield
    floor.clock.advance(seconds)


def test_a_job_whose_owner_stands_still_for_a_lease_is_taken_over_and_done(floor: Floor) -> None:
    job = floor.upload()
    floor.claim(job)
    with watched(floor, LEASE_S):
        pass
    assert floor.recovery.sweep().taken_over == [job.job_id]
    floor.run(job)
    floor.assert_done(job)


def test_a_job_is_left_alone_for_a_lease_of_our_own_clock_however_old_it_is(floor: Floor) -> None:
    job = floor.upload()
    floor.claim(job)
    floor.clock.advance(10 * LEASE_S)
    with watched(floor, LEASE_S - 1):
        pass
    assert floor.recovery.sweep().taken_over == []


def test_an_owner_that_moves_is_never_taken_over(floor: Floor) -> None:
    claim = floor.claim(floor.upload())
    for _ in range(10):
        floor.clock.advance(LEASE_S - 1)
        floor.store.beat(claim)
        assert floor.recovery.sweep().taken_over == []


def test_a_new_owner_has_a_lease_of_its_own(floor: Floor) -> None:
    job = floor.upload()
    with watched(floor, LEASE_S - 1):
        floor.store.release(floor.claim(job))
        floor.claim(job)
    assert floor.recovery.sweep().taken_over == []


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_the_time_of_day_is_nothing_to_a_lease(floor: Floor, jump_s: float) -> None:
    floor.claim(floor.upload())
    with watched(floor, LEASE_S - 1):
        floor.clock.jump(jump_s)
    assert floor.recovery.sweep().taken_over == []


def test_an_owner_that_could_not_write_as_the_database_was_away_is_not_taken_over(floor: Floor) -> None:
    floor.claim(floor.upload())
    floor.store.open(5, Kind.INGEST, "me", "slow")
    with watched(floor, 2):
        pass
    turns = int(2 * UPLOAD_LEASE_S)
    floor.faults.fail("jobs.held", error=DatabaseDown("away"), times=turns)
    for _ in range(turns):
        with pytest.raises(DatabaseDown):
            floor.recovery.sweep()
        floor.clock.advance(1)
    assert floor.recovery.sweep().taken_over == []


def test_an_owner_that_died_in_an_outage_of_the_database_is_taken_over_a_lease_after_it(floor: Floor) -> None:
    job = floor.upload()
    floor.claim(job)
    with watched(floor, 2):
        pass
    floor.faults.fail("jobs.held", error=DatabaseDown("away"))
    with pytest.raises(DatabaseDown):
        floor.recovery.sweep()
    floor.clock.advance(10 * LEASE_S)
    assert floor.recovery.sweep().taken_over == []
    floor.clock.advance(LEASE_S - 2)
    assert floor.recovery.sweep().taken_over == [job.job_id]


def test_the_upload_of_a_dead_server_fails_and_leaves_no_file(floor: Floor) -> None:
    assert floor.store.open(5, Kind.INGEST, "me", "dead")
    floor.staging.admit(None)
    floor.staging.begin(5, Kind.INGEST, "").write(b"half")
    floor.staging.close()
    assert floor.staged() == {"5.tar.part"}
    with watched(floor, UPLOAD_LEASE_S - 1):
        pass
    assert floor.recovery.sweep().taken_over == []
    floor.clock.advance(1)
    assert floor.recovery.sweep().taken_over == [5]
    status = floor.store.status(5)
    assert (status.state, status.step, status.complete) == (State.FAILED, Step.UPLOADING, True)
    assert floor.staged() == set()


def test_a_job_that_nobody_takes_up_is_hinted_again(floor: Floor) -> None:
    job = floor.upload()
    assert floor.recovery.sweep().hinted == []
    floor.clock.advance(6)
    assert floor.recovery.sweep().hinted == [job.job_id]
    assert [sent.job_id for sent in floor.queue.sent] == [job.job_id]


def test_a_job_that_waits_is_hinted_when_its_wait_is_over(floor: Floor) -> None:
    job = floor.upload()
    now = floor.clock.now()
    later = now + timedelta(seconds=100)
    floor.store.wait(floor.claim(job), not_before=later, series=Series(since=now, step=Step.POLICY), reason="away")
    floor.clock.advance(99)
    assert floor.recovery.sweep().hinted == []
    floor.clock.advance(2)
    assert floor.recovery.sweep().hinted == [job.job_id]


def test_after_an_outage_of_the_broker_hints_are_sent_at_once(floor: Floor, caplog: pytest.LogCaptureFixture) -> None:
    job = floor.upload()
    floor.faults.fail("queue.send", error=NeighbourDown("broker", "gone"), times=600)
    for _ in range(600):
        floor.clock.advance(6)
        assert floor.recovery.sweep().hinted == []
    floor.clock.advance(2)
    assert floor.recovery.sweep().hinted == [job.job_id]
    assert len([record for record in caplog.records if "hints put off" in record.message]) == 1


def test_what_a_crash_left_of_a_job_that_is_done_is_removed(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("staging.remove", error=OSError("busy"))
    floor.run(job)
    assert floor.store.job(job.job_id).phase is Phase.DONE
    assert floor.staged()
    assert floor.recovery.sweep().cleaned == [job.job_id]
    assert floor.staged() == set()
    assert floor.recovery.sweep().cleaned == []


def test_who_knows_that_all_owners_are_dead_takes_everything_at_once(floor: Floor) -> None:
    job = floor.upload()
    floor.claim(job)
    floor.store.open(5, Kind.INGEST, "me", "dead")
    assert sorted(floor.recovery.seize_all()) == [5, job.job_id]


@pytest.mark.parametrize("error", [DatabaseDown("away"), RuntimeError("a fault of ours")])
def test_nothing_ends_the_sweep(floor: Floor, error: Exception) -> None:
    class Pauses(threading.Event):
        """Ends the sweep at its third turn."""

        turns = 0

        def wait(self, _timeout: float | None = None) -> bool:
            self.turns += 1
            return self.turns > 2

    floor.faults.fail("jobs.held", error=error)
    floor.recovery.run(Pauses())
    assert floor.faults.calls.count("jobs.held") == 2


def test_what_cannot_be_removed_does_not_end_the_sweep(floor: Floor, caplog: pytest.LogCaptureFixture) -> None:
    first, second = floor.upload(), floor.upload()
    floor.faults.fail("staging.remove", error=PermissionError("denied"), times=3)
    floor.run(first)
    floor.run(second)
    assert floor.recovery.sweep().cleaned == [second.job_id]
    assert "cannot be removed" in caplog.text
    assert floor.recovery.sweep().cleaned == [first.job_id]
    assert floor.staged() == set()


def test_many_files_that_cannot_be_removed_do_not_keep_the_sweep_from_others(floor: Floor) -> None:
    numbers = range(1000, 1000 + LEFTOVERS + 20)
    for number in numbers:
        floor.store.open(number, Kind.INGEST, "me", "dead")
        floor.store.force(number, State.FAILED, Step.UPLOADING, 0, "by hand")
    floor.faults.fail("staging.discard", error=PermissionError("denied"), times=LEFTOVERS)
    assert floor.recovery.sweep().cleaned == []
    assert floor.recovery.sweep().cleaned == list(numbers)[LEFTOVERS:]
    assert floor.recovery.sweep().cleaned == list(numbers)[:LEFTOVERS]


@pytest.mark.parametrize("call", ["jobs.take_over", "jobs.hinted", "queue.send", "jobs.cleaned", "staging.discard"])
def test_a_job_that_raises_does_not_keep_the_sweep_from_the_others(
    floor: Floor, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1001, 1002):
        floor.store.open(number, Kind.INGEST, "me", "dead")
    waiting = [floor.upload().job_id, floor.upload().job_id]
    with watched(floor, UPLOAD_LEASE_S):
        pass
    floor.faults.fail(call, error=ValueError("odd"))
    swept = floor.recovery.sweep()
    is_odd = [call.startswith(start) for start in ("jobs.take", ("jobs.hint", "queue"), ("jobs.clean", "staging"))]
    assert swept.taken_over == [1001, 1002][is_odd[0] :]
    assert swept.hinted == waiting[is_odd[1] :]
    assert swept.cleaned == swept.taken_over[is_odd[2] :]
    assert "a fault of the service itself" in caplog.text


def test_an_upload_that_is_forced_to_fail_leaves_no_file(floor: Floor) -> None:
    floor.store.open(5, Kind.INGEST, "me", "dead")
    floor.staging.admit(None)
    upload = floor.staging.begin(5, Kind.INGEST, "")
    upload.write(b"half")
    upload.close()
    floor.store.force(5, State.FAILED, Step.UPLOADING, 0, "by hand")
    assert floor.recovery.sweep().cleaned == [5]
    assert floor.staged() == set()


def test_an_upload_whose_file_cannot_be_removed_is_given_up_all_the_same(floor: Floor) -> None:
    job = floor.upload()
    floor.store.open(5, Kind.INGEST, "me", "dead")
    floor.faults.fail("staging.discard", error=PermissionError("denied"))
    with watched(floor, UPLOAD_LEASE_S):
        pass
    swept = floor.recovery.sweep()
    assert (swept.taken_over, swept.hinted) == ([5], [job.job_id])


def test_of_two_watchers_one_takes_a_job_over(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    job = floor.upload()
    floor.claim(job)
    first = floor.recovery
    floor.restart()
    first.sweep()
    floor.recovery.sweep()
    floor.clock.advance(LEASE_S)
    assert sorted(first.sweep().taken_over + floor.recovery.sweep().taken_over) == [job.job_id]
    assert floor.names(job).count("taken over") == 1


def test_a_job_that_moved_between_looking_and_taking_is_left_alone(floor: Floor) -> None:
    claim = floor.claim(floor.upload())
    before = floor.store.job(claim.job_id)
    floor.store.beat(claim)
    assert not floor.store.take_over(before)
    assert floor.store.job(claim.job_id).phase is Phase.RUNNING


def test_an_upload_that_still_moves_is_never_given_up(floor: Floor) -> None:
    floor.store.open(5, Kind.INGEST, "me", "slow")
    for _ in range(5):
        floor.clock.advance(UPLOAD_LEASE_S - 1)
        floor.store.receiving(5, "slow")
        assert floor.recovery.sweep().taken_over == []


def test_a_job_whose_worker_died_keeps_the_start_of_its_series_of_faults(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("policy.permit", error=NeighbourDown("policy", "away"))
    before = floor.run(job)
    series = before.failing
    assert series
    floor.clock.advance((before.not_before - floor.clock.now()).total_seconds())
    floor.claim(job)
    with watched(floor, LEASE_S):
        pass
    assert floor.recovery.sweep().taken_over == [job.job_id]
    assert floor.store.job(job.job_id).failing == series


def test_a_hint_is_sent_by_one_watcher_only(floor: Floor) -> None:
    floor.upload()
    floor.clock.advance(6)
    floor.recovery.sweep()
    floor.recovery.sweep()
    assert len(floor.queue.sent) == 1


def test_a_file_is_not_forgotten_while_its_landing_zone_is_not_mounted(
    floor: Floor, caplog: pytest.LogCaptureFixture
) -> None:
    job = floor.upload()
    floor.store.open(5, Kind.INGEST, "me", "dead", job.landing_zone)
    floor.staging.begin(5, Kind.INGEST, job.landing_zone)
    floor.staging.close()
    with watched(floor, UPLOAD_LEASE_S):
        floor.faults.fail("staging.remove", error=OSError("busy"))
        floor.run(job)
        volume = floor.staging.folder.rename(floor.folder / "volume")
    floor.staging.folder.mkdir()
    assert [floor.recovery.sweep().cleaned for _ in range(3)] == [[], [], []]
    assert [record.message for record in caplog.records].count("the staged file of a job cannot be removed") == 2
    floor.staging.folder.rmdir()
    volume.rename(floor.staging.folder)
    assert floor.staged() == {"5.tar.part", f"{job.job_id}.tar"}
    assert floor.recovery.sweep().cleaned == [5, job.job_id]
    assert floor.staged() == set()


@pytest.mark.parametrize("after", [False, True], ids=["not removed", "answer lost"])
def test_what_is_left_of_an_upload_that_was_given_up_is_removed_by_a_later_sweep(floor: Floor, *, after: bool) -> None:
    floor.store.open(5, Kind.INGEST, "me", "dead")
    floor.staging.admit(None)
    upload = floor.staging.begin(5, Kind.INGEST, "")
    upload.write(b"half")
    upload.close()
    with watched(floor, UPLOAD_LEASE_S):
        pass
    floor.faults.fail("staging.discard", error=OSError(5, "Input/output error"), after=after)
    assert floor.recovery.sweep().taken_over == [5]
    floor.recovery.sweep()
    assert floor.staged() == set()
    assert floor.store.leftovers() == []
    assert floor.status(floor.store.job(5)).state is State.FAILED
