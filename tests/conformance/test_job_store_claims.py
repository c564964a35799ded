"""What `ports.JobStore` promises of claims, archive ids and recovery, on the double and on every database."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from pacifica.ingest.core.errors import ClaimLost, Conflict
from pacifica.ingest.core.jobs import LONGEST_DELAY_S, Claim, Job, Series
from pacifica.ingest.core.states import Kind, Phase, State, Step
from pacifica.ingest.ports import JobStore, SourceFile
from pacifica.ingest.testing import ManualClock
from tests.conformance.jobs import JOB, at_once, claimed, everything, names, numbers, ready, receipt, wait

# --- claims


def test_a_claim_makes_a_job_run_in_a_new_epoch(store: JobStore) -> None:
    before = ready(store)
    claim = store.claim(JOB, "worker")
    assert claim is not None
    assert claim.job == store.job(JOB)
    assert (claim.job.phase, claim.job.worker, claim.job.attempt) == (Phase.RUNNING, "worker", 1)
    assert claim.epoch == claim.job.epoch > before.epoch
    assert store.claim(JOB, "worker") is None


def test_only_a_ready_job_can_be_claimed(store: JobStore) -> None:
    store.open(1, Kind.INGEST, "a", "upload")
    store.fail(claimed(store, 2), Step.OPEN_TAR, "")
    store.finish(claimed(store, 3))
    assert [store.claim(job_id, "worker") for job_id in (1, 2, 3, 4)] == [None] * 4
    assert store.claim_any("worker") is None


def test_of_many_that_claim_a_job_at_once_one_gets_it(store: JobStore) -> None:
    for job_id in range(100, 105):
        ready(store, job_id)
        won = [claim for claim in at_once(12, lambda n, job_id=job_id: store.claim(job_id, f"worker {n}")) if claim]
        assert len(won) == 1
        assert store.job(job_id) == won[0].job


def test_workers_that_take_any_job_get_each_job_once(store: JobStore) -> None:
    for job_id in range(100, 150):
        ready(store, job_id)

    def work(number: int) -> list[int]:
        done: list[int] = []
        while claim := store.claim_any(f"worker {number}"):
            store.finish(claim)
            done.append(claim.job_id)
        return done

    done = [job_id for jobs in at_once(8, work) for job_id in jobs]
    assert sorted(done) == list(range(100, 150))
    assert {store.job(job_id).attempt for job_id in done} == {1}


def test_the_job_that_is_due_longest_is_taken_first(store: JobStore, clock: ManualClock) -> None:
    for job_id in (3, 1, 2):
        ready(store, job_id)
        clock.advance(1)
    taken = [store.claim_any("worker") for _ in range(4)]
    assert [claim and claim.job_id for claim in taken] == [3, 1, 2, None]


def test_a_job_that_waits_is_not_due_before_its_time(store: JobStore, clock: ManualClock) -> None:
    wait(store, claimed(store), clock, 0.25)
    clock.advance(0.2)
    assert store.claim(JOB, "worker") is None
    assert store.claim_any("worker") is None
    assert store.unclaimed(older_than_s=0) == []
    clock.advance(0.1)
    assert numbers(store.unclaimed(older_than_s=0)) == [JOB]
    assert store.claim(JOB, "worker") is not None


@pytest.mark.parametrize("take", [lambda store: store.claim(JOB, "w"), lambda store: store.claim_any("w")])
def test_a_clock_that_jumped_back_does_not_hold_a_job(
    store: JobStore, clock: ManualClock, take: Callable[[JobStore], Claim | None]
) -> None:
    wait(store, claimed(store), clock, LONGEST_DELAY_S)
    assert take(store) is None
    clock.jump(-86_400)
    assert take(store) is not None


def test_time_in_which_a_job_waits_for_a_worker_is_not_part_of_its_series(store: JobStore, clock: ManualClock) -> None:
    began = clock.now()
    wait(store, claimed(store), clock, 5)
    clock.advance(3605)
    claim = store.claim(JOB, "another")
    assert claim is not None
    assert (
        claim.job.failing == store.job(JOB).failing == Series(since=began + timedelta(hours=1), step=Step.INGEST_FILES)
    )


def test_a_series_of_a_clock_that_jumped_back_begins_with_the_claim(store: JobStore, clock: ManualClock) -> None:
    wait(store, claimed(store), clock, 5)
    clock.jump(-86_400)
    claim = store.claim(JOB, "another")
    assert claim is not None
    assert claim.job.failing == Series(since=clock.now(), step=Step.INGEST_FILES)


SOURCE = SourceFile(seq=0, device=2**64 - 1, inode=2**64 - 1)
OWNERS_WRITES: dict[str, Callable[[JobStore, Claim, ManualClock], object]] = {
    "beat": lambda store, claim, _: store.beat(claim),
    "report": lambda store, claim, _: store.report(claim, Step.OPEN_TAR, 50),
    "wait": lambda store, claim, clock: wait(store, claim, clock, 5),
    "release": lambda store, claim, _: store.release(claim),
    "fail": lambda store, claim, _: store.fail(claim, Step.OPEN_TAR, "broken"),
    "finish": lambda store, claim, _: store.finish(claim),
    "intend": lambda store, claim, _: store.intend(claim, {9: 99}),
    "archived": lambda store, claim, _: store.archived(claim, [10]),
    "abandon": lambda store, claim, _: store.abandon(claim),
    "void": lambda store, claim, _: store.void(claim, [10]),
    "take_back": lambda store, claim, _: store.take_back(claim, 11),
    "note_sources": lambda store, claim, _: store.note_sources(claim, [SOURCE]),
    "note_part": lambda store, claim, _: store.note_part(claim, 0, 3),
    "freeze": lambda store, claim, _: store.freeze(claim, 0),
}
LOSSES: dict[str, Callable[[JobStore, Claim, ManualClock], object]] = {
    "taken over": lambda store, _, __: store.take_over(store.job(JOB)),
    "claimed by another": lambda store, _, __: (store.take_over(store.job(JOB)), store.claim(JOB, "another")),
    "forced to an end": lambda store, _, __: store.force(JOB, State.FAILED, Step.OPEN_TAR, 0, ""),
    "done": lambda store, claim, _: store.finish(claim),
    "waiting": lambda store, claim, clock: wait(store, claim, clock, 5),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("write", OWNERS_WRITES)
def test_a_lost_claim_writes_nothing(store: JobStore, clock: ManualClock, write: str, loss: str) -> None:
    claim = claimed(store)
    store.note_sources(claim, [SOURCE])
    store.intend(claim, {0: 10, 1: 11})
    store.abandon(claim, [11])
    LOSSES[loss](store, claim, clock)
    before = everything(store)
    with pytest.raises(ClaimLost):
        OWNERS_WRITES[write](store, claim, clock)
    assert everything(store) == before
    assert store.intend(claimed(store, 6), {9: 99}) == {9}


@pytest.mark.parametrize(
    "write",
    ["beat", "report", "intend", "archived", "abandon", "void", "take_back", "note_sources", "note_part", "freeze"],
)
def test_every_write_of_the_owner_is_a_sign_of_progress(store: JobStore, clock: ManualClock, write: str) -> None:
    claim = claimed(store)
    before = store.job(JOB)
    OWNERS_WRITES[write](store, claim, clock)
    assert store.job(JOB).heartbeat > before.heartbeat
    assert not store.take_over(before)


# --- archive ids


def test_free_ids_become_ours_and_taken_ones_do_not(store: JobStore) -> None:
    first, second = claimed(store, 1), claimed(store, 2)
    assert store.intend(first, {0: 10, 1: 11, 2: 12}) == {0, 1, 2}
    assert store.intend(second, {0: 9, 1: 10, 7: 12, 3: 13}) == {0, 3}
    assert store.intents(1) == {0: 10, 1: 11, 2: 12}
    assert store.intents(2) == {0: 9, 3: 13}


def test_an_id_is_given_once_also_to_the_same_job(store: JobStore) -> None:
    claim = claimed(store)
    assert store.intend(claim, {0: 10}) == {0}
    assert store.intend(claim, {0: 10}) == set()
    store.archived(claim, [10])
    assert store.intend(claim, {0: 10, 1: 10}) == set()
    assert (store.file_ids(JOB), store.intents(JOB)) == ({0: 10}, {})


def test_an_id_that_became_garbage_is_never_given_again(store: JobStore) -> None:
    claim = claimed(store)
    store.intend(claim, {0: 10, 1: 11})
    store.archived(claim, [11])
    store.abandon(claim)
    assert (store.file_ids(JOB), store.intents(JOB)) == ({1: 11}, {})
    assert store.intend(claim, {0: 10}) == set()
    assert store.intend(claimed(store, 6), {0: 10}) == set()
    assert store.intend(claim, {0: 12}) == {0}


def test_an_id_that_is_void_is_no_garbage_and_never_given_again(store: JobStore, clock: ManualClock) -> None:
    claim = claimed(store)
    store.intend(claim, {0: 10, 1: 11, 2: 12})
    store.archived(claim, [11])
    store.void(claim, [10])
    store.abandon(claim)
    clock.advance(1)
    assert (store.file_ids(JOB), store.intents(JOB)) == ({1: 11}, {})
    assert store.garbage(older_than_s=0) == [12]
    assert store.intend(claim, {0: 10}) == set()
    assert store.intend(claimed(store, 6), {0: 10}) == set()
    store.fail(claim, Step.INGEST_FILES, "no")
    assert store.expire(store.job(JOB))
    clock.advance(1)
    assert store.garbage(older_than_s=0) == [11, 12]


def test_only_an_intent_of_the_job_itself_can_become_void(store: JobStore, clock: ManualClock) -> None:
    first, second = claimed(store, 1), claimed(store, 2)
    store.intend(first, {0: 10, 1: 11, 2: 12})
    store.archived(first, [10])
    store.void(second, [11])
    store.void(first, [10, 99])
    store.void(first, [])
    assert (store.file_ids(1), store.intents(1)) == ({0: 10}, {1: 11, 2: 12})
    store.abandon(first)
    store.void(first, [11])
    clock.advance(1)
    assert store.garbage(older_than_s=0) == [11, 12]


def test_garbage_is_as_old_as_the_moment_at_which_it_was_given_up(store: JobStore, clock: ManualClock) -> None:
    claim = claimed(store)
    store.intend(claim, {0: 10})
    clock.advance(1000)
    store.abandon(claim)
    clock.advance(10)
    assert store.garbage(older_than_s=20) == []
    assert store.garbage(older_than_s=5) == [10]


def test_what_a_move_gave_up_stays_until_a_job_that_was_called_done_cannot_be_taken_back(
    store: JobStore, clock: ManualClock
) -> None:
    claim = claimed(store, kind=Kind.MOVE)
    store.intend(claim, {0: 10})
    store.abandon(claim)
    store.force(JOB, State.OK, Step.INGEST_METADATA, 100, "")
    clock.advance(1)
    assert store.garbage(older_than_s=0) == []
    assert store.expire(store.job(JOB))
    assert store.garbage(older_than_s=0) == [10]
    store.cleaned(JOB)
    assert store.garbage(older_than_s=0) == [10]


def test_one_intent_is_abandoned_alone_and_what_was_given_up_is_told_with_the_highest_first(
    store: JobStore, clock: ManualClock
) -> None:
    claim = claimed(store)
    store.intend(claim, {0: 30, 1: 11, 2: 12})
    store.intend(claimed(store, 6), {0: 13})
    store.archived(claim, [12])
    store.abandon(claim, [30, 12, 13])
    assert (store.file_ids(JOB), store.intents(JOB), store.given_up(JOB)) == ({2: 12}, {1: 11}, {0: [30]})
    clock.advance(1)
    store.intend(claim, {0: 20})
    store.abandon(claim)
    assert (store.intents(JOB), store.given_up(JOB)) == ({}, {0: [30, 20], 1: [11]})
    assert store.intents(6) == {0: 13}


def test_a_garbage_id_that_is_whole_after_all_is_taken_back_instead_of_what_was_intended_later(
    store: JobStore, clock: ManualClock
) -> None:
    claim = claimed(store)
    store.intend(claim, {0: 10, 1: 11})
    store.abandon(claim, [10])
    store.intend(claim, {0: 20})
    wait(store, claim, clock, 5)
    clock.advance(5)
    again = store.claim(JOB, "worker")
    assert again is not None
    store.take_back(again, 10)
    store.take_back(again, 10)
    assert (store.file_ids(JOB), store.intents(JOB), store.given_up(JOB)) == ({0: 10}, {1: 11}, {0: [20]})
    assert store.job(JOB).failing is None


def test_only_garbage_of_the_job_itself_is_taken_back(store: JobStore) -> None:
    first, second = claimed(store, 1), claimed(store, 2)
    store.intend(first, {0: 10, 1: 11, 2: 12})
    store.archived(first, [11])
    store.abandon(first, [12])
    store.abandon(second)
    for file_id in (10, 11, 12, 99):
        store.take_back(second, file_id)
    for file_id in (10, 11, 99):
        store.take_back(first, file_id)
    assert (store.file_ids(1), store.intents(1), store.given_up(1)) == ({1: 11}, {0: 10}, {2: [12]})
    assert store.file_ids(2) == {}


def test_only_an_intent_of_the_job_itself_can_be_fulfilled(store: JobStore) -> None:
    first, second = claimed(store, 1), claimed(store, 2)
    store.intend(first, {0: 10, 1: 11})
    store.abandon(first)
    store.intend(first, {0: 20})
    store.archived(second, [20, 99])
    store.archived(first, [10, 99])
    assert (store.file_ids(1), store.file_ids(2), store.intents(1)) == ({}, {}, {0: 20})


def test_nothing_to_record_is_recorded_at_once(store: JobStore) -> None:
    claim = claimed(store)
    assert store.intend(claim, {}) == set()
    store.archived(claim, [])
    store.note_sources(claim, [])
    store.abandon(claim, [])
    assert everything(store)[3:] == ({}, {}, {}, {})


def test_a_large_window_is_recorded_whole(store: JobStore) -> None:
    claim = claimed(store)
    window = {seq: 10_000 + seq for seq in range(1000)}
    assert store.intend(claim, window) == set(window)
    store.archived(claim, window.values())
    assert store.file_ids(JOB) == window
    store.note_sources(claim, [SourceFile(seq=seq, device=1, inode=seq) for seq in window])
    assert len(store.sources(JOB)) == 1000
    store.freeze(claim, 1000)


def test_of_many_jobs_that_want_an_id_at_once_one_gets_it(store: JobStore) -> None:
    claims = [claimed(store, job_id) for job_id in range(1, 9)]
    for start in range(1000, 1300, 100):
        # Everybody asks in an order of his own.
        wanted = [dict(enumerate(random.sample(range(start, start + 100), 100), start)) for _ in claims]
        given = at_once(8, lambda number, wanted=wanted: store.intend(claims[number], wanted[number]))
        taken = [wanted[number][seq] for number, seqs in enumerate(given) for seq in seqs]
        assert sorted(taken) == list(range(start, start + 100))
    owned = [file_id for claim in claims for file_id in store.intents(claim.job_id).values()]
    assert sorted(owned) == list(range(1000, 1300))


def test_what_is_known_of_a_source_stays_while_its_intent_is_unfulfilled(store: JobStore) -> None:
    claim = claimed(store)
    store.note_sources(claim, [SOURCE, SourceFile(seq=1, device=2, inode=3)])
    store.intend(claim, {0: 77})
    store.note_sources(claim, [SourceFile(seq=0, device=1, inode=1), SourceFile(seq=1, device=1, inode=1)])
    assert store.sources(JOB) == {0: SOURCE, 1: SourceFile(seq=1, device=1, inode=1)}


def test_how_much_of_a_source_was_found_is_known_until_it_is_checked_anew(store: JobStore, clock: ManualClock) -> None:
    claim = claimed(store)
    other = SourceFile(seq=1, device=2, inode=3)
    store.note_sources(claim, [SOURCE, other])
    store.intend(claim, {0: 77})
    for size_bytes in (0, 2**40):
        clock.advance(5)
        since = clock.now()
        for _ in range(2):
            store.note_part(claim, 0, size_bytes)
            clock.advance(5)
        assert store.sources(JOB) == {0: replace(SOURCE, partial_bytes=size_bytes, partial_since=since), 1: other}
    store.note_part(claim, 9, 5)
    store.note_sources(claim, [SOURCE])
    assert store.sources(JOB)[0].partial_bytes == 2**40
    store.abandon(claim)
    store.note_sources(claim, [SOURCE])
    assert store.sources(JOB) == {0: SOURCE, 1: other}


def test_a_part_that_grows_under_the_first_id_ends_the_series_of_faults(store: JobStore, clock: ManualClock) -> None:
    claim = claimed(store)
    store.note_sources(claim, [SOURCE])
    store.intend(claim, {0: 77})

    def faulty() -> Claim:
        wait(store, claim, clock, 0)
        again = store.claim(JOB, "worker")
        assert again is not None
        assert again.job.failing is not None
        return again

    for size_bytes, is_progress in ((0, False), (3, True), (3, False), (2, False), (5, True)):
        claim = faulty()
        store.note_part(claim, 0, size_bytes)
        assert (store.job(JOB).failing is None) is is_progress, size_bytes
    # Else an archive that cuts every copy short would be waited for for ever.
    store.abandon(claim, [77])
    store.intend(claim, {0: 78})
    claim = faulty()
    store.note_part(claim, 0, 9)
    assert store.job(JOB).failing is not None


def test_a_map_is_frozen_only_when_it_is_whole(store: JobStore) -> None:
    claim = claimed(store)
    store.intend(claim, {0: 10, 1: 11})
    store.archived(claim, [10])
    with pytest.raises(Conflict, match="1 archived files instead of 2"):
        store.freeze(claim, 2)
    assert not store.job(JOB).frozen
    store.archived(claim, [11])
    store.freeze(claim, 2)
    assert store.job(JOB).frozen
    store.release(claim)
    again = store.claim(JOB, "worker")
    assert again is not None
    assert again.job.frozen


# --- recovery


def test_a_job_that_was_hinted_lately_is_not_hinted_again(store: JobStore, clock: ManualClock) -> None:
    job = ready(store)
    assert store.unclaimed(older_than_s=5) == []
    clock.advance(6)
    assert store.unclaimed(older_than_s=5) == [job]
    assert store.hinted(job)
    assert not store.hinted(job)
    assert store.unclaimed(older_than_s=5) == []
    clock.advance(6)
    assert numbers(store.unclaimed(older_than_s=5)) == [JOB]


def test_hints_of_a_job_that_nobody_takes_become_rare_but_never_end(store: JobStore, clock: ManualClock) -> None:
    ready(store)
    hints = [0.0]
    for _ in range(4000):
        clock.advance(2)
        for job in store.unclaimed(older_than_s=5):
            assert store.hinted(job)
            hints.append(clock.monotonic())
    gaps = [after - before for before, after in pairwise(hints)]
    assert gaps == sorted(gaps)
    assert max(gaps) <= 602
    assert len(hints) < 40


def test_a_clock_that_jumped_back_does_not_hold_hints(store: JobStore, clock: ManualClock) -> None:
    ready(store)
    clock.jump(-86_400)
    (job,) = store.unclaimed(older_than_s=5)
    assert store.hinted(job)
    assert not store.hinted(job)
    assert store.unclaimed(older_than_s=5) == []
    clock.advance(86_400)
    assert numbers(store.unclaimed(older_than_s=5)) == [JOB]


def test_a_hint_that_could_not_be_sent_may_be_sent_again_at_once(store: JobStore, clock: ManualClock) -> None:
    job = ready(store)
    clock.advance(3600)
    assert store.hinted(job)
    clock.advance(10)
    assert store.unclaimed(older_than_s=5) == []
    store.unhinted(job)
    assert numbers(store.unclaimed(older_than_s=5)) == [JOB]
    assert store.hinted(job)


def test_of_many_that_hint_at_once_one_does(store: JobStore, clock: ManualClock) -> None:
    ready(store)
    clock.advance(6)
    (job,) = store.unclaimed(older_than_s=5)
    assert at_once(8, lambda _: store.hinted(job)).count(True) == 1


def test_a_job_that_was_claimed_needs_no_hint(store: JobStore, clock: ManualClock) -> None:
    job = ready(store)
    clock.advance(6)
    store.claim(JOB, "worker")
    assert store.unclaimed(older_than_s=5) == []
    assert not store.hinted(job)


def test_a_job_whose_wait_is_over_is_hinted_soon(store: JobStore, clock: ManualClock) -> None:
    wait(store, claimed(store), clock, 300)
    clock.advance(301)
    assert numbers(store.unclaimed(older_than_s=5)) == [JOB]


def test_jobs_that_have_an_owner_are_held(store: JobStore) -> None:
    ready(store, 1)
    store.open(2, Kind.INGEST, "a", "upload")
    claimed(store, 3)
    store.finish(claimed(store, 4))
    store.fail(claimed(store, 6), Step.OPEN_TAR, "")
    assert sorted(numbers(store.held())) == [2, 3]


def test_a_job_whose_owner_stood_still_is_ready_again(store: JobStore, clock: ManualClock) -> None:
    claim = claimed(store)
    store.report(claim, Step.INGEST_FILES, 50)
    (job,) = store.held()
    clock.advance(30)
    assert store.take_over(job)
    assert not store.take_over(job)
    after = store.job(JOB)
    assert (after.phase, after.worker, after.not_before) == (Phase.READY, "", clock.now())
    assert after.epoch > claim.epoch
    assert store.status(JOB).state is State.OK
    assert "taken over" in names(store)
    assert store.claim(JOB, "another") is not None


def test_an_upload_that_stood_still_fails_and_its_sender_is_told(store: JobStore) -> None:
    store.open(JOB, Kind.INGEST, "a", "upload")
    assert store.take_over(store.job(JOB))
    status = store.status(JOB)
    assert store.job(JOB).phase is Phase.FAILED
    assert (status.state, status.step, status.complete) == (State.FAILED, Step.UPLOADING, True)
    for late in (lambda: store.receiving(JOB, "upload"), lambda: store.accept(JOB, "upload", receipt())):
        with pytest.raises(ClaimLost):
            late()


def test_a_word_that_is_not_documented_stays_when_a_job_is_taken_over(store: JobStore) -> None:
    store.open(JOB, Kind.INGEST, "a", "upload")
    word = "half way"
    store.force(JOB, State.OK, word, 50, "")  # type: ignore[arg-type]  # as `update_state` and 0.4.1 write it
    assert store.take_over(store.job(JOB))
    status = store.status(JOB)
    assert (status.state, status.step, status.complete) == (State.FAILED, word, True)


def test_leftovers_are_told_in_pages_in_the_order_of_their_numbers(store: JobStore) -> None:
    for job_id in (7, 3, 9, 5, 8, 2):
        store.finish(claimed(store, job_id))
    assert numbers(store.leftovers(limit=4)) == [2, 3, 5, 7]
    assert numbers(store.leftovers(after=7, limit=4)) == [8, 9]
    assert store.leftovers(after=9) == []
    store.cleaned(5)
    assert numbers(store.leftovers()) == [2, 3, 7, 8, 9]


@pytest.mark.parametrize("moved", ["beat", "epoch", "phase"])
def test_a_job_that_moved_since_it_was_looked_at_is_not_taken_over(store: JobStore, moved: str) -> None:
    claim = claimed(store)
    job = store.job(JOB)
    if moved == "beat":
        store.beat(claim)
    elif moved == "phase":
        store.finish(claim)
    else:
        store.release(claim)
        store.claim(JOB, "another")
    before = everything(store)
    assert not store.take_over(job)
    assert everything(store) == before


def test_of_many_that_take_a_job_over_at_once_one_does(store: JobStore) -> None:
    claimed(store)
    job = store.job(JOB)
    assert at_once(8, lambda _: store.take_over(job)).count(True) == 1


def test_an_owner_that_moves_while_it_is_taken_over_loses_or_keeps_the_job_whole(store: JobStore) -> None:
    for job_id in range(100, 120):
        claim = claimed(store, job_id)
        job = store.job(job_id)

        def move(number: int, claim: Claim = claim, job: Job = job) -> bool:
            try:
                return store.take_over(job) if number else store.intend(claim, {0: job.job_id}) == {0}
            except ClaimLost:
                return False

        kept, taken = at_once(2, move)
        assert kept != taken
        assert store.intents(job_id) == ({0: job_id} if kept else {})
