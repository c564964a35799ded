"""What `ports.JobStore` promises of uploads, of what is told, and of the ends of jobs, on the double and every database."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pacifica.ingest.core.errors import ClaimLost, JobBusy, KeyReused, NoSuchJob
from pacifica.ingest.core.jobs import LOST_OWNERS, Claim, Job, Series
from pacifica.ingest.core.states import Kind, Phase, State, Step
from pacifica.ingest.ports import JobStore, RequestMark
from pacifica.ingest.testing import ManualClock
from tests.conformance.jobs import JOB, at_once, claimed, everything, names, numbers, ready, receipt, wait

MARK = RequestMark(key="k" * 64, fingerprint="f" * 80)

# --- uploads


def test_an_opened_job_is_being_received(store: JobStore, clock: ManualClock) -> None:
    assert store.open(JOB, Kind.MOVE, "dmlb2001", "upload")
    job, status = store.job(JOB), store.status(JOB)
    assert (job.kind, job.phase, job.user, job.worker) == (Kind.MOVE, Phase.RECEIVING, "dmlb2001", "upload")
    assert (status.state, status.step, status.percent, status.complete) == (State.OK, Step.UPLOADING, 0, False)
    assert status.created == status.updated == clock.now()


def test_an_id_is_taken_once_also_by_the_same_upload(store: JobStore) -> None:
    assert store.open(JOB, Kind.INGEST, "a", "first")
    before = everything(store)
    assert not store.open(JOB, Kind.MOVE, "b", "second")
    assert not store.open(JOB, Kind.MOVE, "b", "first")
    assert everything(store) == before


def test_of_many_that_open_an_id_at_once_one_gets_it(store: JobStore) -> None:
    for job_id in range(100, 105):
        won = at_once(12, lambda number, job_id=job_id: store.open(job_id, Kind.INGEST, "a", f"upload {number}"))
        assert won.count(True) == 1
        assert store.job(job_id).worker == f"upload {won.index(True)}"


def test_an_accepted_upload_is_ready_and_due(store: JobStore, clock: ManualClock) -> None:
    job = ready(store)
    assert job == store.job(JOB)
    assert (job.phase, job.worker, job.path, job.size_bytes) == (Phase.READY, "", "/staging/5.tar", 10)
    assert job.not_before == clock.now()
    status = store.status(JOB)
    assert (status.state, status.step, status.percent, status.complete) == (State.OK, Step.UPLOADING, 100, False)
    assert names(store) == ["accepted"]


def test_accepting_again_after_a_lost_answer_changes_nothing(store: JobStore) -> None:
    job = ready(store)
    assert store.accept(JOB, "upload", receipt()) == job
    assert names(store) == ["accepted"]


def test_accepting_again_finds_a_job_that_is_over_and_cleaned_by_now(store: JobStore) -> None:
    ready(store)
    claim = store.claim(JOB, "a fast worker")
    assert claim
    store.finish(claim)
    store.cleaned(JOB)
    before = everything(store)
    assert store.accept(JOB, "upload", receipt()) == before[0]
    assert (before[0].phase, before[0].path) == (Phase.DONE, "")
    assert everything(store) == before


def test_a_job_knows_its_landing_zone_when_its_file_is_gone_too(store: JobStore, tmp_path: Path) -> None:
    store.open(JOB, Kind.INGEST, "a", "upload", "a7")
    assert store.job(JOB).landing_zone == "a7"
    assert store.accept(JOB, "upload", receipt()).landing_zone == "a7"
    claim = store.claim(JOB, "worker")
    assert claim
    store.finish(claim)
    store.cleaned(JOB)
    assert store.job(JOB).landing_zone == "a7"
    assert store.adopt(JOB + 1, Kind.INGEST, "", tmp_path / "6.tar").landing_zone == "", "version 0.4.1 had none"


def test_only_the_upload_itself_can_show_life_be_accepted_or_refused(store: JobStore) -> None:
    store.open(JOB, Kind.INGEST, "a", "upload")
    before = everything(store)
    with pytest.raises(ClaimLost):
        store.receiving(JOB, "another")
    with pytest.raises(ClaimLost):
        store.accept(JOB, "another", receipt())
    store.refuse(JOB, "another")
    assert everything(store) == before


def test_a_sign_of_life_moves_the_heartbeat(store: JobStore) -> None:
    store.open(JOB, Kind.INGEST, "a", "upload")
    before = store.job(JOB)
    store.receiving(JOB, "upload")
    assert store.job(JOB).heartbeat > before.heartbeat
    assert not store.take_over(before)


def test_a_refused_upload_is_forgotten_and_its_id_is_free(store: JobStore) -> None:
    store.open(JOB, Kind.INGEST, "a", "upload")
    store.refuse(JOB, "upload")
    store.refuse(JOB, "upload")
    for tell in (store.job, store.status):
        with pytest.raises(NoSuchJob):
            tell(JOB)
    assert store.open(JOB, Kind.INGEST, "a", "upload")


def test_an_accepted_upload_cannot_be_refused(store: JobStore) -> None:
    ready(store)
    before = everything(store)
    store.refuse(JOB, "upload")
    assert everything(store) == before


def test_a_file_that_no_upload_brought_becomes_a_ready_job(store: JobStore, tmp_path: Path) -> None:
    path = tmp_path / "5.json"
    path.write_bytes(b"12345")
    job = store.adopt(JOB, Kind.MOVE, "a", path)
    assert (job.phase, job.kind, job.path, job.size_bytes) == (Phase.READY, Kind.MOVE, str(path), 5)
    assert store.status(JOB).step is Step.UPLOADING
    assert store.claim(JOB, "worker") is not None


def test_adopting_a_job_that_is_there_returns_it_as_it_stands(store: JobStore, tmp_path: Path) -> None:
    claimed(store)
    before = everything(store)
    assert store.adopt(JOB, Kind.MOVE, "b", tmp_path / "other") == before[0]
    assert everything(store) == before


def test_of_many_that_adopt_a_job_at_once_one_makes_it(store: JobStore, tmp_path: Path) -> None:
    jobs = at_once(12, lambda number: store.adopt(JOB, Kind.INGEST, f"user {number}", tmp_path / str(number)))
    assert len({job.user for job in jobs}) == 1
    assert names(store) == ["adopted"]


# --- reading


@pytest.mark.parametrize("job_id", [JOB, 0, -1, 2**63 - 1, 2**63, 10**30])
def test_an_unknown_id_is_no_job(store: JobStore, job_id: int) -> None:
    for tell in (store.job, store.status, store.retry):
        with pytest.raises(NoSuchJob):
            tell(job_id)


def test_the_jobs_that_changed_last_come_first(store: JobStore, clock: ManualClock) -> None:
    for job_id in (1, 2, 3):
        clock.advance(1)
        ready(store, job_id)
    clock.advance(1)
    store.force(2, State.OK, Step.OPEN_TAR, 0, "")
    assert [status.job_id for status in store.statuses(limit=9)] == [2, 3, 1]
    assert [status.job_id for status in store.statuses(limit=2)] == [2, 3]


def test_the_history_is_told_from_the_beginning(store: JobStore, clock: ManualClock) -> None:
    claim = claimed(store)
    clock.advance(5)
    store.fail(claim, Step.OPEN_TAR, "broken")
    events = store.events(JOB)
    assert [event.name for event in events] == ["accepted", "claimed", "failed"]
    assert (events[-1].at, events[1].text) == (clock.now(), "worker")
    assert "broken" in events[-1].text


# --- telling


def test_clients_are_told_where_a_job_is(store: JobStore, clock: ManualClock) -> None:
    claim = claimed(store)
    created = store.status(JOB).created
    clock.advance(3)
    store.report(claim, Step.INGEST_FILES, 100 / 3)
    status = store.status(JOB)
    assert (status.state, status.step, status.complete, status.reason) == (State.OK, Step.INGEST_FILES, False, "")
    assert status.percent == pytest.approx(100 / 3, abs=1e-3)
    assert (status.created, status.updated) == (created, clock.now())


def test_the_last_step_says_100_percent_only_when_the_job_is_done(store: JobStore) -> None:
    claim = claimed(store)
    store.report(claim, Step.INGEST_METADATA, 100)
    status = store.status(JOB)
    assert not status.complete
    assert status.percent < 100
    store.finish(claim)
    status = store.status(JOB)
    assert (status.step, status.percent, status.complete) == (Step.INGEST_METADATA, 100, True)
    assert (store.job(JOB).phase, store.job(JOB).worker) == (Phase.DONE, "")


def test_a_waiting_job_says_why_and_is_still_ok(store: JobStore, clock: ManualClock) -> None:
    wait(store, claimed(store), clock, 5)
    job, status = store.job(JOB), store.status(JOB)
    assert (job.phase, job.worker, job.waiting_for) == (Phase.READY, "", "the archive is down")
    assert (job.failing, job.not_before) == (
        Series(since=clock.now(), step=Step.INGEST_FILES),
        clock.now() + timedelta(seconds=5),
    )
    assert (status.state, status.complete) == (State.OK, False)


def test_a_claim_after_a_wait_keeps_the_start_of_the_faults_until_something_succeeds(
    store: JobStore, clock: ManualClock
) -> None:
    wait(store, claimed(store), clock, 0)
    claim = store.claim(JOB, "worker")
    assert claim is not None
    assert (claim.job.failing, claim.job.waiting_for, claim.job.attempt) == (
        Series(since=clock.now(), step=Step.INGEST_FILES),
        "",
        2,
    )
    store.archived(claim, [])
    assert store.job(JOB).failing is None


def test_a_released_job_is_due_at_once(store: JobStore) -> None:
    store.release(claimed(store))
    assert (store.job(JOB).phase, store.job(JOB).worker) == (Phase.READY, "")
    assert numbers(store.unclaimed(older_than_s=5)) == [JOB]
    assert store.claim(JOB, "another") is not None


def test_a_failed_job_keeps_its_file_and_says_why(store: JobStore) -> None:
    store.fail(claimed(store), Step.INGEST_FILES, "data/a: sha1 is wrong")
    job, status = store.job(JOB), store.status(JOB)
    assert (job.phase, job.path, job.worker) == (Phase.FAILED, "/staging/5.tar", "")
    assert (status.state, status.step, status.complete) == (State.FAILED, Step.INGEST_FILES, True)
    assert status.reason == "data/a: sha1 is wrong"


@pytest.mark.parametrize("text", ["x" * 100_000, "𝔘🧪" * 20_000, "日本語 'quoted' \\ %s"])
def test_a_reason_may_hold_every_character_and_is_cut_where_nobody_reads_on(store: JobStore, text: str) -> None:
    claim = claimed(store)
    store.fail(claim, Step.INGEST_FILES, text)
    reason = store.status(JOB).reason
    assert reason == text[: len(reason)]
    assert len(reason) >= min(len(text), 10_000)


def test_what_is_no_text_cannot_keep_a_job_from_failing(store: JobStore, clock: ManualClock) -> None:
    text = "data/\udcff\x00"
    claim = claimed(store)
    later = clock.now()
    store.wait(claim, not_before=later, series=Series(since=later, step=Step.POLICY), reason=text)
    assert store.job(JOB).waiting_for.startswith("data/")
    again = store.claim(JOB, "worker")
    assert again is not None
    store.fail(again, Step.INGEST_FILES, text)
    assert store.status(JOB).state is State.FAILED
    assert store.status(JOB).reason.startswith("data/")


def test_a_user_may_have_every_name(store: JobStore) -> None:
    name = "jürgen 🧪 O'Brien\\" * 30
    store.open(JOB, Kind.INGEST, name, "upload")
    assert store.job(JOB).user == name


# --- the end, and what may follow


def test_the_file_of_a_job_that_is_done_is_left_over_until_it_is_cleaned(store: JobStore) -> None:
    store.finish(claimed(store))
    assert [(job.job_id, job.path) for job in store.leftovers()] == [(JOB, "/staging/5.tar")]
    store.cleaned(JOB)
    store.cleaned(JOB)
    assert store.leftovers() == []
    assert store.job(JOB).path == ""


def test_the_file_of_any_other_job_is_no_leftover(store: JobStore) -> None:
    ready(store, 1)
    claimed(store, 2)
    store.fail(claimed(store, 3), Step.OPEN_TAR, "")
    assert store.leftovers() == []
    for job_id in (1, 2, 3):
        store.cleaned(job_id)
        assert store.job(job_id).path == f"/staging/{job_id}.tar"


def test_a_failed_job_can_be_tried_again_from_where_it_stands(store: JobStore, clock: ManualClock) -> None:
    claim = claimed(store)
    store.intend(claim, {0: 10, 1: 11})
    store.archived(claim, [10])
    store.fail(claim, Step.INGEST_FILES, "broken")
    clock.advance(5)
    job = store.retry(JOB)
    assert (job.phase, job.failing, job.not_before, job.path) == (
        Phase.READY,
        None,
        clock.now(),
        "/staging/5.tar",
    )
    status = store.status(JOB)
    assert (status.state, status.complete, status.reason) == (State.OK, False, "")
    assert (store.file_ids(JOB), store.intents(JOB)) == ({0: 10}, {1: 11})
    assert store.claim(JOB, "worker") is not None


def test_a_waiting_job_can_be_tried_at_once(store: JobStore, clock: ManualClock) -> None:
    wait(store, claimed(store), clock, 600)
    job = store.retry(JOB)
    assert (job.not_before, job.waiting_for, job.failing) == (clock.now(), "", None)
    assert store.claim(JOB, "worker") is not None


@pytest.mark.parametrize("phase", [Phase.RECEIVING, Phase.RUNNING, Phase.DONE])
def test_a_job_that_runs_or_is_done_cannot_be_tried_again(store: JobStore, phase: Phase) -> None:
    if phase is Phase.RECEIVING:
        store.open(JOB, Kind.INGEST, "a", "upload")
    else:
        claim = claimed(store)
        if phase is Phase.DONE:
            store.finish(claim)
    before = everything(store)
    with pytest.raises(JobBusy):
        store.retry(JOB)
    assert everything(store) == before


def test_of_many_that_retry_a_job_at_once_none_loses_it(store: JobStore) -> None:
    store.fail(claimed(store), Step.OPEN_TAR, "")

    def again(_: int) -> bool:
        try:
            return bool(store.retry(JOB))
        except JobBusy:
            return False

    assert any(at_once(8, again))
    assert store.claim(JOB, "worker") is not None


@pytest.mark.parametrize(
    ("state", "step", "percent", "phase"),
    [
        (State.FAILED, Step.OPEN_TAR, 0, Phase.FAILED),
        (State.OK, Step.INGEST_METADATA, 100, Phase.DONE),
        (State.OK, Step.INGEST_FILES, 50, Phase.RUNNING),
    ],
)
def test_a_forced_end_stops_the_owner_and_keeps_the_file(  # noqa: PLR0917 (parameters of one case)
    store: JobStore, clock: ManualClock, state: State, step: Step, percent: float, phase: Phase
) -> None:
    claim = claimed(store)
    clock.advance(2)
    store.force(JOB, state, step, percent, "by hand")
    status = store.status(JOB)
    assert (status.state, status.step, status.percent, status.reason) == (state, step, percent, "by hand")
    assert (status.updated, status.complete) == (clock.now(), phase is not Phase.RUNNING)
    assert store.job(JOB).phase is phase
    assert store.leftovers() == []
    if phase is not Phase.RUNNING:
        with pytest.raises(ClaimLost):
            store.beat(claim)


def test_forcing_a_live_state_wakes_a_job_that_had_failed(store: JobStore, clock: ManualClock) -> None:
    claim = claimed(store)
    store.fail(claim, Step.OPEN_TAR, "")
    clock.advance(2)
    store.force(JOB, State.OK, Step.UPLOADING, 100, "")
    again = store.claim(JOB, "another")
    assert again is not None
    assert again.epoch > claim.epoch


def test_a_forced_change_begins_afresh(store: JobStore, clock: ManualClock) -> None:
    for end in ((State.FAILED, Step.OPEN_TAR, 0), (State.OK, Step.INGEST_METADATA, 100)):
        job_id = JOB + len(end[0])
        wait(store, claimed(store, job_id), clock, 5)
        clock.advance(10)
        store.claim(job_id, "another")
        assert store.take_over(store.job(job_id))
        assert store.job(job_id).failing
        store.force(job_id, *end, "by hand")
        job = store.job(job_id)
        assert (job.failing, job.waiting_for, job.lost_owners, job.worker) == (None, "", 0, "")


@pytest.mark.parametrize("end", [(State.FAILED, Step.UPLOADING, 0), (State.OK, Step.INGEST_METADATA, 100)])
def test_a_forced_end_of_an_upload_leaves_it_to_the_sweep(store: JobStore, end: tuple[State, Step, float]) -> None:
    store.open(JOB, Kind.INGEST, "a", "upload")
    store.force(JOB, *end, "by hand")
    for late in (lambda: store.receiving(JOB, "upload"), lambda: store.accept(JOB, "upload", receipt())):
        with pytest.raises(ClaimLost):
            late()
    assert [job.job_id for job in store.leftovers()] == [JOB]
    store.refuse(JOB, "upload")
    store.cleaned(JOB)
    assert store.leftovers() == []
    assert (store.status(JOB).state, store.status(JOB).complete) == (end[0], True)


def test_a_job_that_was_called_done_keeps_its_file_and_can_be_called_failed_and_tried_again(store: JobStore) -> None:
    claim = claimed(store)
    store.force(JOB, State.OK, Step.INGEST_METADATA, 100, "")
    assert (store.job(JOB).phase, store.job(JOB).path) == (Phase.DONE, claim.job.path)
    assert store.leftovers() == []
    store.force(JOB, State.FAILED, Step.INGEST_FILES, 0, "it was not")
    assert store.job(JOB).phase is Phase.FAILED
    assert store.retry(JOB).path == claim.job.path
    assert store.claim(JOB, "another") is not None


@pytest.mark.parametrize("is_cleaned", [False, True])
def test_a_live_state_does_not_fit_a_job_that_is_done(store: JobStore, *, is_cleaned: bool) -> None:
    store.finish(claimed(store))
    if is_cleaned:
        store.cleaned(JOB)
    before = everything(store)
    with pytest.raises(JobBusy, match="over"):
        store.force(JOB, State.OK, Step.INGEST_METADATA, 99, "")
    assert everything(store) == before


def test_a_live_state_that_comes_with_the_end_of_a_job_is_not_what_stays(store: JobStore) -> None:
    def act(number: int, claim: Claim) -> None:
        if number:
            store.finish(claim)
            return
        with suppress(JobBusy):
            store.force(claim.job_id, State.OK, Step.OPEN_TAR, 50, "")

    for job_id in range(100, 130):
        claim = claimed(store, job_id)
        at_once(2, lambda number, claim=claim: act(number, claim))
        assert store.job(job_id).phase is Phase.DONE
        assert store.status(job_id).complete


def test_a_job_that_is_done_stays_done_whatever_clients_are_told(store: JobStore) -> None:
    store.finish(claimed(store))
    store.force(JOB, State.FAILED, Step.UPLOADING, 0, "told")
    assert (store.status(JOB).state, store.status(JOB).step) == (State.FAILED, Step.UPLOADING)
    assert store.claim(JOB, "another") is None
    assert store.job(JOB).phase is Phase.DONE
    assert [job.job_id for job in store.leftovers()] == [JOB], "its staged file goes all the same"


def test_a_state_can_be_forced_on_an_unknown_job(store: JobStore) -> None:
    store.force(JOB, State.OK, Step.OPEN_TAR, 12.5, "")
    assert (store.status(JOB).step, store.status(JOB).percent) == (Step.OPEN_TAR, 12.5)
    assert not store.open(JOB, Kind.INGEST, "a", "upload")
    with pytest.raises(NoSuchJob):
        store.job(JOB)


# --- requests that are sent again


def accepted(store: JobStore, job_id: int, mark: RequestMark | None) -> int:
    """Upload once more; returns the job that the request became."""
    assert store.open(job_id, Kind.INGEST, "a", "upload")
    return store.accept(job_id, "upload", receipt(job_id), mark).job_id


def test_a_request_that_is_sent_again_is_the_same_job(store: JobStore) -> None:
    assert accepted(store, 5, MARK) == 5
    assert accepted(store, 6, MARK) == 5
    assert store.job(6).phase is Phase.RECEIVING, "it is the caller who forgets it"
    store.refuse(6, "upload")
    assert accepted(store, 7, MARK) == 5


def test_a_key_that_came_with_something_else_is_refused(store: JobStore) -> None:
    accepted(store, 5, MARK)
    assert store.open(6, Kind.INGEST, "a", "upload")
    with pytest.raises(KeyReused, match="job 5") as refused:
        store.accept(6, "upload", receipt(6), RequestMark(key=MARK.key, fingerprint="other"))
    assert refused.value.job_id == 5
    assert store.job(6).phase is Phase.RECEIVING, "it is the caller who forgets it"


def test_requests_with_other_keys_are_other_jobs(store: JobStore) -> None:
    marks = [None, MARK, RequestMark(key="other", fingerprint=MARK.fingerprint), None]
    assert [accepted(store, 5 + number, mark) for number, mark in enumerate(marks)] == [5, 6, 7, 8]


def test_of_many_with_one_key_at_once_one_becomes_a_job(store: JobStore) -> None:
    found = set(at_once(8, lambda number: accepted(store, 5 + number, MARK)))
    assert len(found) == 1
    assert {job_id for job_id in range(5, 13) if store.job(job_id).phase is Phase.READY} == found


def test_an_upload_that_was_given_up_takes_no_key(store: JobStore) -> None:
    assert store.open(5, Kind.INGEST, "a", "upload")
    assert store.take_over(store.job(5))
    with pytest.raises(ClaimLost):
        store.accept(5, "upload", receipt(5), MARK)
    assert accepted(store, 6, MARK) == 6


# --- owners that are lost


def lose_owners(store: JobStore, count: int) -> None:
    """Let so many owners die with the job."""
    for _ in range(count):
        assert store.claim(JOB, "mortal")
        assert store.take_over(store.job(JOB))


def test_a_job_that_costs_too_many_owners_in_a_row_fails(store: JobStore) -> None:
    ready(store)
    lose_owners(store, LOST_OWNERS - 1)
    assert store.job(JOB).phase is Phase.READY
    claim = store.claim(JOB, "mortal")
    assert claim
    store.report(claim, Step.OPEN_TAR, 0)
    assert store.take_over(store.job(JOB))
    status = store.status(JOB)
    assert (store.job(JOB).phase, status.state, status.step, status.complete) == (
        Phase.FAILED,
        State.FAILED,
        Step.OPEN_TAR,
        True,
    )
    assert "10 workers in a row died or hung with this job, the last was mortal" in status.reason
    assert store.job(JOB).path


def test_an_archived_file_and_a_retry_end_the_row_of_lost_owners(store: JobStore) -> None:
    ready(store)
    lose_owners(store, LOST_OWNERS - 1)
    claim = store.claim(JOB, "worker")
    assert claim
    store.archived(claim, [])
    assert store.take_over(store.job(JOB))
    lose_owners(store, LOST_OWNERS - 2)
    assert store.retry(JOB).lost_owners == 0
    lose_owners(store, LOST_OWNERS - 1)
    assert store.job(JOB).phase is Phase.READY


# --- retention

WEEK_S = 7 * 86_400.0


def failed(store: JobStore) -> Job:
    """A job that failed with one file archived, one under way and one id given up."""
    claim = claimed(store)
    store.intend(claim, {0: 10})
    store.abandon(claim)
    store.intend(claim, {0: 11, 1: 12})
    store.archived(claim, [11])
    store.fail(claim, Step.INGEST_FILES, "no")
    return store.job(JOB)


def test_a_failed_job_expires_once_when_it_is_old_enough(store: JobStore, clock: ManualClock) -> None:
    job = failed(store)
    assert store.garbage(older_than_s=WEEK_S) == store.expired(older_than_s=WEEK_S) == []
    clock.advance(WEEK_S + 1)
    assert store.expired(older_than_s=WEEK_S) == [job]
    assert store.garbage(older_than_s=WEEK_S) == [10]
    assert store.expire(job)
    assert not store.expire(job)
    assert store.expired(older_than_s=WEEK_S) == []
    assert [left.path for left in store.leftovers()] == [job.path]
    assert store.status(JOB).reason == "no"
    assert store.file_ids(JOB) == store.intents(JOB) == {}
    assert store.garbage(older_than_s=WEEK_S) == [10], "what is garbage since now is kept as long"
    store.cleaned(JOB)
    assert (store.leftovers(), store.job(JOB).path, store.job(JOB).phase) == ([], "", Phase.FAILED)
    clock.advance(WEEK_S + 1)
    assert store.garbage(older_than_s=WEEK_S) == [10, 11, 12]
    store.removed([10, 12])
    assert store.garbage(older_than_s=WEEK_S) == [11]


def test_a_job_that_expires_cannot_be_tried_again_and_one_that_is_tried_again_does_not_expire(
    store: JobStore, clock: ManualClock
) -> None:
    job = failed(store)
    clock.advance(WEEK_S)
    store.retry(JOB)
    assert not store.expire(job)
    store.force(JOB, State.FAILED, Step.POLICY, 0, "no")
    assert store.expire(store.job(JOB))
    with pytest.raises(JobBusy):
        store.retry(JOB)
    with pytest.raises(JobBusy):
        store.force(JOB, State.OK, Step.UPLOADING, 0, "")
    assert store.status(JOB).state is State.FAILED


def test_of_many_that_expire_or_retry_a_job_at_once_one_does(store: JobStore, clock: ManualClock) -> None:
    job = failed(store)
    clock.advance(WEEK_S)

    def act(number: int) -> bool:
        if number % 2:
            return store.expire(job)
        try:
            return bool(store.retry(JOB))
        except JobBusy:
            return False

    at_once(8, act)
    assert (store.job(JOB).phase is Phase.READY) == (store.leftovers() == [])


def test_live_and_done_jobs_do_not_expire_and_one_that_was_done_by_hand_does(
    store: JobStore, clock: ManualClock
) -> None:
    ready(store, 6)
    claimed(store, 7)
    store.finish(claimed(store, 8))
    failed(store)
    store.force(JOB, State.OK, Step.INGEST_METADATA, 100, "")
    clock.advance(WEEK_S + 1)
    (job,) = store.expired(older_than_s=WEEK_S)
    assert (job.job_id, job.phase) == (JOB, Phase.DONE)
    assert store.expire(job)
    assert store.file_ids(JOB) == {0: 11}, "somebody may need it"


@pytest.mark.parametrize("end", ["running", "waiting", "failed", "done"])
def test_what_a_move_gave_up_is_no_garbage_to_be_removed_until_the_move_is_done(
    store: JobStore, clock: ManualClock, end: str
) -> None:
    claim = claimed(store, JOB, Kind.MOVE)
    other = claimed(store, 6)
    store.intend(claim, {0: 10})
    store.intend(other, {0: 11})
    store.abandon(claim)
    store.abandon(other)
    if end == "waiting":
        wait(store, claim, clock, 5)
    elif end == "failed":
        store.fail(claim, Step.MOVE_FILES, "no")
    elif end == "done":
        store.finish(claim)
    clock.advance(WEEK_S + 1)
    assert store.garbage(older_than_s=WEEK_S) == ([10, 11] if end == "done" else [11])


def test_only_garbage_is_removed(store: JobStore) -> None:
    failed(store)
    store.removed([11, 12])
    assert (store.file_ids(JOB), store.intents(JOB)) == ({0: 11}, {1: 12})


# --- lists


def test_jobs_are_listed_by_state_phase_and_user(store: JobStore) -> None:
    ready(store, 6)
    store.finish(claimed(store, 7))
    failed(store)
    store.force(8, State.FAILED, Step.OPEN_TAR, 0, "only an older version knew it")

    def listed(**wanted: Any) -> set[int]:
        return {status.job_id for status in store.statuses(limit=10, **wanted)}

    assert listed() == {5, 6, 7, 8}
    assert listed(state=State.FAILED) == {5, 8}
    assert listed(phases=[Phase.FAILED]) == {5}
    assert listed(phases=[Phase.READY, Phase.DONE]) == {6, 7}
    assert listed(state=State.OK, phases={Phase.READY}, user="dmlb2001") == {6}
    assert listed(user="somebody") == set()
    assert len(store.statuses(limit=1, state=State.FAILED)) == 1
