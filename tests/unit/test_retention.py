"""What `gc` removes, and what it must never touch."""

from pathlib import Path

import pytest

from pacifica.ingest.core.errors import NeighbourDown, Refused
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Kind, State, Step
from pacifica.ingest.retention import Retention
from tests.unit.floor import FILES, Floor

KEEP_S = 30 * 86_400.0


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    return Floor(tmp_path)


def retention(floor: Floor) -> Retention:
    return Retention(
        store=floor.store, staging=floor.staging, archive=floor.archive, catalogue=floor.catalogue, keep_s=KEEP_S
    )


def collect(floor: Floor) -> tuple[list[int], list[int]]:
    """Remove all that is old; returns the jobs and the archive ids."""
    keeper = retention(floor)
    jobs = [job.job_id for job, reason in keeper.bundles() if not reason and keeper.drop(job)]
    return jobs, [file_id for file_id in keeper.garbage() if keeper.remove(file_id)]


def fails(floor: Floor, call: str, kind: Kind = Kind.INGEST) -> Job:
    """A job that failed at a call, at the second one if there are several."""
    job = floor.upload() if kind is Kind.INGEST else floor.move()
    floor.faults.fail(call, error=Refused("no"), at=2 if call.startswith("archive") else 1)
    return floor.run(job)


def test_a_failed_bundle_goes_when_it_is_old_and_its_archived_files_as_much_later(floor: Floor) -> None:
    job = fails(floor, "catalogue.register")
    assert collect(floor) == ([], [])
    floor.clock.advance(KEEP_S + 1)
    assert collect(floor) == ([job.job_id], [])
    assert (floor.staged(), len(floor.archive.objects)) == (set(), len(FILES))
    floor.clock.advance(KEEP_S + 1)
    assert len(collect(floor)[1]) == len(FILES)
    assert floor.archive.objects == {}
    assert collect(floor) == ([], [])
    assert floor.status(job).state is State.FAILED


def test_garbage_goes_and_what_is_registered_stays(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("archive.store", error=NeighbourDown("archive", "away"), after=True)
    floor.run(job)
    floor.run_when_due(job)
    floor.assert_done(job)
    (garbage,) = [
        file_id
        for file_id, state in floor.store.ids.items()
        if floor.archive.objects.keys() >= {file_id} and state == "garbage"
    ]
    floor.clock.advance(KEEP_S + 1)
    assert collect(floor) == ([], [garbage])
    floor.assert_done(job)


def test_an_object_that_another_transaction_has_stays_whatever_our_list_says(floor: Floor) -> None:
    first = floor.upload()
    floor.run(first)
    # UniqueID gives a number twice, and the store of this service forgot that it had it before.
    taken = next(iter(floor.store.file_ids(first.job_id).values()))
    floor.store._ids[taken].state = "garbage"
    floor.clock.advance(KEEP_S + 1)
    assert collect(floor) == ([], [])
    assert taken in floor.archive.objects


def test_a_move_that_began_is_never_given_up(floor: Floor) -> None:
    fails(floor, "archive.adopt", Kind.MOVE)
    floor.clock.advance(KEEP_S + 1)
    before = dict(floor.archive.objects)
    assert before
    assert collect(floor) == ([], [])
    assert floor.archive.objects == before


def test_a_move_that_gave_up_what_it_began_is_never_given_up(floor: Floor) -> None:
    job = fails(floor, "archive.adopt", Kind.MOVE)
    for file_id in floor.store.ids:
        floor.store._ids[file_id].state = "garbage"
    before = dict(floor.archive.objects)
    assert before
    floor.clock.advance(KEEP_S + 1)
    assert collect(floor) == ([], [])
    floor.clock.advance(KEEP_S + 1)
    assert collect(floor) == ([], [])
    assert (floor.archive.objects, floor.is_kept(job)) == (before, True)


def test_a_move_that_did_not_begin_goes(floor: Floor) -> None:
    job = fails(floor, "policy.permit", Kind.MOVE)
    floor.clock.advance(KEEP_S + 1)
    assert collect(floor) == ([job.job_id], [])


def test_a_job_that_is_registered_though_it_failed_keeps_everything(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("jobs.finish", error=Refused("no"))
    floor.run(job)
    assert floor.status(job).state is State.FAILED
    floor.clock.advance(KEEP_S + 1)
    assert collect(floor) == ([], [])
    assert floor.is_kept(job)


def test_a_job_that_is_tried_again_meanwhile_stays(floor: Floor) -> None:
    job = fails(floor, "policy.permit")
    floor.clock.advance(KEEP_S + 1)
    keeper = retention(floor)
    ((old, _),) = keeper.bundles()
    floor.store.retry(job.job_id)
    assert not keeper.drop(old)
    floor.run(job)
    floor.assert_done(job)


def test_what_was_begun_to_be_removed_is_ended_by_the_sweep(floor: Floor) -> None:
    job = fails(floor, "policy.permit")
    floor.clock.advance(KEEP_S + 1)
    keeper = retention(floor)
    floor.faults.fail("staging.remove", error=NeighbourDown("disk", "away"))
    with pytest.raises(NeighbourDown):
        keeper.drop(job)
    floor.recovery.sweep()
    assert floor.staged() == set()
    assert floor.store.job(job.job_id).path == ""


def test_a_bundle_whose_landing_zone_is_not_mounted_is_kept_and_told(floor: Floor) -> None:
    job = fails(floor, "policy.permit")
    floor.clock.advance(KEEP_S + 1)
    away = floor.staging.folder.rename(floor.folder / "away")
    assert [reason for _, reason in retention(floor).bundles()] == ["its landing zone is not mounted here"]
    away.rename(floor.staging.folder)
    assert floor.is_kept(job)
    assert collect(floor) == ([job.job_id], [])


def test_an_archive_that_cannot_remove_is_asked_again(floor: Floor) -> None:
    fails(floor, "catalogue.register")
    for _ in range(2):
        floor.clock.advance(KEEP_S + 1)
        floor.faults.fail("archive.remove", error=NeighbourDown("archive", "away"))
        keeper = retention(floor)
        for job, _ in keeper.bundles():
            keeper.drop(job)
    with pytest.raises(NeighbourDown):
        collect(floor)
    assert len(collect(floor)[1]) == len(FILES)


def test_a_live_job_is_never_touched(floor: Floor) -> None:
    waiting = floor.upload()
    floor.faults.fail("policy.permit", error=NeighbourDown("policy", "away"))
    floor.run(waiting)
    running = floor.upload()
    floor.claim(running)
    done_by_hand = fails(floor, "policy.permit")
    floor.store.force(done_by_hand.job_id, State.OK, Step.INGEST_METADATA, 100, "")
    floor.clock.advance(KEEP_S + 1)
    assert collect(floor) == ([], [])
    for job in (waiting, running, done_by_hand):
        assert floor.is_kept(job)
    # What the store calls done is done when the catalogue has it.
    floor.catalogue.transactions[done_by_hand.job_id] = []
    assert collect(floor) == ([done_by_hand.job_id], [])


def test_why_a_bundle_stays_is_told(floor: Floor) -> None:
    by_hand = fails(floor, "policy.permit")
    floor.store.force(by_hand.job_id, State.OK, Step.INGEST_METADATA, 100, "")
    moved = fails(floor, "archive.adopt", Kind.MOVE)
    registered = fails(floor, "jobs.finish")
    gone = fails(floor, "policy.permit")
    floor.clock.advance(KEEP_S + 1)
    told = {job.job_id: reason for job, reason in retention(floor).bundles()}
    assert "no such transaction" in told[by_hand.job_id]
    assert "sources are consumed" in told[moved.job_id]
    assert "has its transaction" in told[registered.job_id]
    assert told[gone.job_id] == ""


def test_what_the_archive_does_not_clearly_remove_stays_on_the_list(floor: Floor) -> None:
    job = fails(floor, "catalogue.register")
    floor.clock.advance(KEEP_S + 1)
    collect(floor)
    floor.clock.advance(KEEP_S + 1)
    keeper = retention(floor)
    first, *others = keeper.garbage()
    floor.faults.fail("archive.remove", error=NeighbourDown("archive", "500"), after=True)
    with pytest.raises(NeighbourDown):
        keeper.remove(first)
    # It is removed, and the answer was lost: another time it is found to be gone.
    assert list(keeper.garbage()) == [first, *others]
    assert [keeper.remove(file_id) for file_id in (first, *others)] == [False, *(True for _ in others)]
    assert list(keeper.garbage()) == []
    assert floor.store.file_ids(job.job_id) == {}


def test_the_archive_is_always_asked_to_remove_whatever_it_says_of_the_size(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("archive.store", error=NeighbourDown("archive", "away"), after=True)
    floor.run(job)
    floor.run_when_due(job)
    (garbage,) = (file_id for file_id, state in floor.store.ids.items() if state == "garbage")
    floor.clock.advance(KEEP_S + 1)
    begin = len(floor.faults.calls)
    assert collect(floor) == ([], [garbage])
    assert "archive.size" not in floor.faults.calls[begin:]
