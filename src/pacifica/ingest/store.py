"""The job store on a relational database: the truth about jobs.

Fulfils `ports.JobStore` with the tables of `tables` and `orm`.  Every public method is one transaction; every write of an owner is a
compare-and-set on the job's epoch.  Not the place for rules about *when* a job moves: those are in `intake`, `pipeline`
and `recovery`.
"""

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import peewee

from pacifica.ingest.core.errors import ClaimLost, Conflict, JobBusy, KeyReused, NoSuchJob
from pacifica.ingest.core.files import FileIds
from pacifica.ingest.core.jobs import LONGEST_DELAY_S, Claim, Job, Series, Status, fate, resumed
from pacifica.ingest.core.states import Kind, Phase, State, Step
from pacifica.ingest.database import DB, change_each, found, insert, insert_new, insert_once
from pacifica.ingest.orm import IngestState, begin_state, force_phase, is_complete, write_state
from pacifica.ingest.ports import Clock, Event, Receipt, RequestMark, SourceFile
from pacifica.ingest.tables import (
    MAX_ID,
    ArchiveId,
    JobEvent,
    JobRow,
    MoveSource,
    RequestKey,
    aware,
    is_in,
    is_needed,
    naive,
)
from pacifica.ingest.transactions import retried

__all__ = ["SqlJobStore"]

#: Rows of one INSERT; below the limits on parameters of every database.
BATCH = 200
#: A reason longer than this, in characters, is cut: MySQL's TEXT holds 64 KiB.
MAX_REASON = 12_000
#: A job is hinted again after its age, but within these bounds, in seconds: busy workers are not flooded.
HINT_AGAIN_S = (5.0, 600.0)
#: Makes a job that was never hinted look as if its last hint were lost.
LONG_AGO = timedelta(seconds=HINT_AGAIN_S[1])
#: The event of an upload that became a job.
ACCEPTED = "accepted"
#: What some database cannot hold in a text: NUL, and halves of characters as they come from names that are no UTF-8.
UNWRITABLE = re.compile("[\0\ud800-\udfff]")


class SqlJobStore:
    """`ports.JobStore` on SQLite, PostgreSQL, MySQL and MariaDB."""

    def __init__(self, clock: Clock) -> None:
        """Work on the database of this process (`database.use_database`), with the time of `clock`."""
        self._clock = clock

    def _now(self) -> datetime:
        return naive(self._clock.now())

    # --- uploads

    @retried(atomic=True)
    def open(self, job_id: int, kind: Kind, user: str, worker: str, landing_zone: str = "") -> bool:
        """See `ports.JobStore.open`."""
        if not 0 < job_id <= MAX_ID:
            return False
        row = {"job_id": job_id, "kind": kind, "phase": Phase.RECEIVING, "worker": worker, "user": user}
        now = self._now()
        if not insert_once(JobRow, **row, landing_zone=landing_zone, not_before=now, hinted=now):
            return False
        if not begin_state(job_id, State.OK, Step.UPLOADING, 0, now=now):
            # Only an older version knew this job.
            JobRow.delete().where(JobRow.job_id == job_id).execute()
            return False
        return True

    @retried(atomic=True)
    def receiving(self, job_id: int, worker: str) -> None:
        """See `ports.JobStore.receiving`."""
        if not JobRow.update(heartbeat=JobRow.heartbeat + 1).where(_is_received_by(job_id, worker)).execute():
            raise _given_up(job_id)

    @retried(atomic=True)
    def accept(self, job_id: int, worker: str, receipt: Receipt, mark: RequestMark | None = None) -> Job:
        """See `ports.JobStore.accept`."""
        if mark and (first := self._first(job_id, mark)) != job_id:
            return self._job(first)
        if not self._complete(job_id, worker, receipt):
            if not JobEvent.select().where((JobEvent.job_id == job_id) & (JobEvent.name == ACCEPTED)).exists():
                raise _given_up(job_id)
            # An earlier try was committed, and only its answer was lost.  The row does not tell: the job may be over by now.
            return self._job(job_id)
        self._show(job_id, State.OK, Step.UPLOADING, 100)
        self._event(job_id, ACCEPTED, f"{receipt.size_bytes} bytes")
        return self._job(job_id)

    def _complete(self, job_id: int, worker: str, receipt: Receipt) -> bool:
        """Whether it was an upload of this owner, and is a job now."""
        mine = {"worker": worker, "phase": Phase.RECEIVING}
        complete = {"path": str(receipt.path), "size_bytes": receipt.size_bytes}
        due = {"not_before": self._now(), "hinted": self._now()}
        return bool(change_each(JobRow, [job_id], mine, phase=Phase.READY, worker="", **complete, **due))

    def _first(self, job_id: int, mark: RequestMark) -> int:
        """The job that a request became when it was sent for the first time."""
        if insert_once(RequestKey, key=mark.key, fingerprint=mark.fingerprint, job_id=job_id):
            return job_id
        row = RequestKey.get(RequestKey.key == mark.key)
        if row.fingerprint != mark.fingerprint:
            raise KeyReused(row.job_id)
        return int(row.job_id)

    @retried(atomic=True)
    def refuse(self, job_id: int, worker: str) -> None:
        """See `ports.JobStore.refuse`."""
        if JobRow.delete().where(_is_received_by(job_id, worker)).execute():
            IngestState.delete().where(IngestState.job_id == job_id).execute()

    @retried(atomic=True)
    def adopt(self, job_id: int, kind: Kind, user: str, path: Path) -> Job:
        """See `ports.JobStore.adopt`."""
        size = path.stat().st_size if path.exists() else 0
        row = {"job_id": job_id, "kind": kind, "phase": Phase.READY, "user": user, "path": str(path)}
        if insert_once(JobRow, **row, size_bytes=size, not_before=self._now(), hinted=self._now()):
            self._show(job_id, State.OK, Step.UPLOADING, 100)
            self._event(job_id, "adopted", str(path))
        return self._job(job_id)

    # --- reading

    @retried(atomic=False)
    def job(self, job_id: int) -> Job:
        """See `ports.JobStore.job`."""
        return self._job(job_id)

    @retried(atomic=False)
    def status(self, job_id: int) -> Status:
        """See `ports.JobStore.status`."""
        record = found(IngestState, job_id) if abs(job_id) <= MAX_ID else None
        if record is None:
            raise NoSuchJob(job_id)
        return _status(record)

    @retried(atomic=False)
    def statuses(
        self, *, limit: int, state: State | None = None, phases: Collection[Phase] = (), user: str | None = None
    ) -> list[Status]:
        """See `ports.JobStore.statuses`."""
        # Jobs that only 0.4.1 knew have no row of ours.
        found = IngestState.select().join(JobRow, peewee.JOIN.LEFT_OUTER, on=(JobRow.job_id == IngestState.job_id))
        for column, wanted in ((IngestState.state, state), (JobRow.user, user)):
            found = found if wanted is None else found.where(column == wanted)
        found = found.where(JobRow.phase.in_(list(phases))) if phases else found
        newest = found.order_by(IngestState.updated.desc(), IngestState.job_id.desc()).limit(limit)
        return [_status(record) for record in newest]

    @retried(atomic=False)
    def events(self, job_id: int) -> list[Event]:
        """See `ports.JobStore.events`."""
        rows = JobEvent.select().where(JobEvent.job_id == job_id).order_by(JobEvent.id)
        return [Event(at=aware(row.at), name=row.name, text=row.text) for row in rows]

    def _job(self, job_id: int) -> Job:
        row = found(JobRow, job_id) if abs(job_id) <= MAX_ID else None
        if row is None:
            raise NoSuchJob(job_id)
        return row.as_job()

    def _event(self, job_id: int, name: str, text: str = "") -> None:
        insert(JobEvent, job_id=job_id, at=self._now(), name=name, text=_text(text))

    def _show(self, job_id: int, state: State, step: str, percent: float, reason: str = "") -> None:
        """Tell clients; part of the caller's transaction."""
        write_state(job_id, state, step, percent, _text(reason), now=self._now())

    # --- owning a job

    @retried(atomic=True)
    def claim(self, job_id: int, worker: str) -> Claim | None:
        """See `ports.JobStore.claim`."""
        row = JobRow.get_or_none((JobRow.job_id == job_id) & self._due())
        return self._claim(row, worker) if row is not None else None

    @retried(atomic=True)
    def claim_any(self, worker: str) -> Claim | None:
        """See `ports.JobStore.claim_any`."""
        for row in JobRow.select().where(self._due()).order_by(JobRow.not_before, JobRow.job_id).limit(10):
            claim = self._claim(row, worker)
            if claim is not None:
                return claim
        return None

    def _due(self) -> Any:  # noqa: ANN401 (a peewee expression)
        now = self._now()
        # No wait is that long: a clock that jumped back must not hold a job for ever.
        jumped = JobRow.not_before > now + timedelta(seconds=2 * LONGEST_DELAY_S)
        return (JobRow.phase == Phase.READY) & ((JobRow.not_before <= now) | jumped)

    def _claim(self, row: Any, worker: str) -> Claim | None:  # noqa: ANN401 (a peewee row)
        epoch = row.epoch + 1
        changes = {
            "phase": Phase.RUNNING,
            "worker": worker,
            "epoch": epoch,
            "attempt": row.attempt + 1,
            "waiting_for": "",
        }
        series = resumed(row.as_job().failing, due=aware(row.not_before), now=self._clock.now())
        if series is not None:
            changes["failing_since"] = naive(series.since)
        free = (JobRow.job_id == row.job_id) & (JobRow.epoch == row.epoch) & is_in(Phase.READY)
        if not JobRow.update(**changes, heartbeat=0).where(free).execute():
            return None
        self._event(row.job_id, "claimed", worker)
        return Claim(job=self._job(row.job_id), epoch=epoch)

    @retried(atomic=True)
    def beat(self, claim: Claim) -> None:
        """See `ports.JobStore.beat`."""
        self._own(claim)

    @retried(atomic=True)
    def report(self, claim: Claim, step: Step, percent: float) -> None:
        """See `ports.JobStore.report`."""
        self._own(claim)
        # The last word belongs to `finish`: a client stops polling at 100 percent of the last step.
        shown = min(percent, 99.9) if step is Step.INGEST_METADATA else percent
        self._show(claim.job_id, State.OK, step, shown)

    @retried(atomic=True)
    def wait(self, claim: Claim, *, not_before: datetime, series: Series, reason: str) -> None:
        """See `ports.JobStore.wait`."""
        later = naive(not_before)
        due = {"not_before": later, "hinted": later - LONG_AGO}
        why = {"failing_since": naive(series.since), "failing_step": series.step, "waiting_for": _text(reason)}
        self._own(claim, phase=Phase.READY, worker="", **due, **why)
        self._event(claim.job_id, "waiting", f"until {later} UTC: {reason}")

    @retried(atomic=True)
    def release(self, claim: Claim) -> None:
        """See `ports.JobStore.release`."""
        due = {"not_before": self._now(), "hinted": self._now() - LONG_AGO}
        self._own(claim, phase=Phase.READY, worker="", **due)
        self._event(claim.job_id, "released", "the worker stopped")

    @retried(atomic=True)
    def fail(self, claim: Claim, step: Step, reason: str) -> None:
        """See `ports.JobStore.fail`."""
        self._own(claim, phase=Phase.FAILED, worker="", failing_since=None)
        self._show(claim.job_id, State.FAILED, step, 0, reason)
        self._event(claim.job_id, "failed", f"{step}: {reason}")

    @retried(atomic=True)
    def finish(self, claim: Claim) -> None:
        """See `ports.JobStore.finish`."""
        self._own(claim, phase=Phase.DONE, worker="", failing_since=None, unclean=True)
        self._show(claim.job_id, State.OK, Step.INGEST_METADATA, 100)
        self._event(claim.job_id, "done")

    @retried(atomic=True)
    def cleaned(self, job_id: int) -> None:
        """See `ports.JobStore.cleaned`."""
        over = (JobRow.job_id == job_id) & ~is_needed()
        JobRow.update(path="", unclean=False).where(over).execute()

    @retried(atomic=True)
    def retry(self, job_id: int) -> Job:
        """See `ports.JobStore.retry`."""
        job = self._job(job_id)
        if job.phase not in {Phase.FAILED, Phase.READY}:
            msg = f"Job {job_id} is {job.phase}: only a failed or waiting job can be tried again."
            raise JobBusy(msg)
        unchanged = self._is_unchanged(job) & is_needed()
        changes = {"phase": Phase.READY, "epoch": job.epoch + 1, "not_before": self._now(), "hinted": self._now()}
        afresh = {"failing_since": None, "waiting_for": "", "lost_owners": 0}
        if not JobRow.update(**changes, **afresh).where(unchanged).execute():
            msg = f"Job {job_id} was taken up by somebody else just now, or its bundle is being removed."
            raise JobBusy(msg)
        self._show(job_id, State.OK, Step.UPLOADING, 100)
        self._event(job_id, "retried")
        return self._job(job_id)

    @retried(atomic=True)
    def force(self, job_id: int, state: State, step: Step, percent: float, reason: str) -> None:
        """See `ports.JobStore.force`."""
        if not force_phase(job_id, state, complete=is_complete(state, step, percent), now=self._now()):
            msg = f"Job {job_id} is over: only an end can be forced on it, FAILED or 100 percent of 'ingest metadata'."
            raise JobBusy(msg)
        self._show(job_id, state, step, percent, reason)
        self._event(job_id, "forced", f"{state} / {step} / {percent}: {reason}")

    def _own(self, claim: Claim, /, **changes: object) -> None:
        """The one gate of every owner's write: compare the epoch, beat, and set."""
        mine = (JobRow.job_id == claim.job_id) & (JobRow.epoch == claim.epoch) & is_in(Phase.RUNNING)
        if not JobRow.update(heartbeat=JobRow.heartbeat + 1, **changes).where(mine).execute():
            msg = f"Job {claim.job_id} has another owner now."
            raise ClaimLost(msg)

    # --- archive ids

    def intend(self, claim: Claim, file_ids: Mapping[int, int]) -> set[int]:
        """See `ports.JobStore.intend`."""
        return self._intend(claim, file_ids, random.getrandbits(63))

    @retried(atomic=True)
    def _intend(self, claim: Claim, file_ids: Mapping[int, int], mark: int) -> set[int]:
        self._own(claim)
        common = {"job_id": claim.job_id, "state": ArchiveId.INTENT, "mark": mark, "noted": self._now()}
        # Two jobs that want the same ids take them in the same order, and do not wait for each other for ever.
        for batch in _batches(sorted(file_ids.items(), key=lambda item: item[1])):
            insert_new(ArchiveId, ("seq", "file_id"), batch, **common)
        # An id that was known already was passed over.  The mark tells: a row with it is of this call and no other, also
        # when the answer to a first commit was lost.
        found = (ArchiveId.job_id == claim.job_id) & (ArchiveId.state == ArchiveId.INTENT) & (ArchiveId.mark == mark)
        return {seq for (seq,) in _plain(ArchiveId.select(ArchiveId.seq).where(found))}

    @retried(atomic=True)
    def archived(self, claim: Claim, file_ids: Iterable[int]) -> None:
        """See `ports.JobStore.archived`."""
        self._own(claim, failing_since=None, lost_owners=0)
        intents = {"job_id": claim.job_id, "state": ArchiveId.INTENT}
        for batch in _batches(list(file_ids)):
            change_each(ArchiveId, batch, intents, state=ArchiveId.ARCHIVED)

    @retried(atomic=True)
    def abandon(self, claim: Claim, file_ids: Collection[int] | None = None) -> None:
        """See `ports.JobStore.abandon`."""
        self._own(claim)
        mine = (ArchiveId.job_id == claim.job_id) & (ArchiveId.state == ArchiveId.INTENT)
        these = [mine] if file_ids is None else [mine & ArchiveId.file_id.in_(batch) for batch in _batches([*file_ids])]
        for intents in these:
            ArchiveId.update(state=ArchiveId.GARBAGE, noted=self._now()).where(intents).execute()

    @retried(atomic=True)
    def void(self, claim: Claim, file_ids: Collection[int]) -> None:
        """See `ports.JobStore.void`."""
        self._own(claim)
        intents = {"job_id": claim.job_id, "state": ArchiveId.INTENT}
        for batch in _batches(list(file_ids)):
            change_each(ArchiveId, batch, intents, state=ArchiveId.VOID, noted=self._now())

    @retried(atomic=True)
    def take_back(self, claim: Claim, file_id: int) -> None:
        """See `ports.JobStore.take_back`."""
        self._own(claim, failing_since=None, lost_owners=0)
        mine = ArchiveId.job_id == claim.job_id
        row = ArchiveId.get_or_none(mine & (ArchiveId.file_id == file_id) & (ArchiveId.state == ArchiveId.GARBAGE))
        if row is None:
            return
        instead = mine & (ArchiveId.seq == row.seq) & (ArchiveId.state == ArchiveId.INTENT)
        ArchiveId.update(state=ArchiveId.GARBAGE, noted=self._now()).where(instead).execute()
        ArchiveId.update(state=ArchiveId.ARCHIVED).where(ArchiveId.file_id == file_id).execute()

    @retried(atomic=False)
    def file_ids(self, job_id: int) -> Mapping[int, int]:
        """See `ports.JobStore.file_ids`."""
        return self._ids(job_id, ArchiveId.ARCHIVED)

    @retried(atomic=False)
    def intents(self, job_id: int) -> Mapping[int, int]:
        """See `ports.JobStore.intents`."""
        return self._ids(job_id, ArchiveId.INTENT)

    @staticmethod
    def _ids(job_id: int, state: str) -> FileIds:
        wanted = (ArchiveId.job_id == job_id) & (ArchiveId.state == state)
        return FileIds(_plain(ArchiveId.select(ArchiveId.seq, ArchiveId.file_id).where(wanted)))

    @retried(atomic=False)
    def given_up(self, job_id: int) -> dict[int, list[int]]:
        """See `ports.JobStore.given_up`."""
        garbage = (ArchiveId.job_id == job_id) & (ArchiveId.state == ArchiveId.GARBAGE)
        rows = ArchiveId.select(ArchiveId.seq, ArchiveId.file_id).where(garbage)
        found: dict[int, list[int]] = {}
        for seq, file_id in rows.order_by(ArchiveId.file_id.desc()).tuples().iterator():
            found.setdefault(seq, []).append(file_id)
        return found

    @retried(atomic=True)
    def note_sources(self, claim: Claim, sources: Sequence[SourceFile]) -> None:
        """See `ports.JobStore.note_sources`."""
        self._own(claim)
        begun = self._ids(claim.job_id, ArchiveId.INTENT)
        rows = [(source.seq, str(source.device), str(source.inode)) for source in sources if source.seq not in begun]
        mine = MoveSource.job_id == claim.job_id
        are_known = MoveSource.select().where(mine).exists()
        for batch in _batches(rows):
            if are_known:
                # A source that was replaced since an earlier attempt, which did not begin with it, is another file now.
                old = MoveSource.seq.in_([seq for seq, _, _ in batch])
                MoveSource.delete().where(mine & old).execute()
            insert_new(MoveSource, ("seq", "device", "inode"), batch, job_id=claim.job_id)

    @retried(atomic=False)
    def sources(self, job_id: int) -> dict[int, SourceFile]:
        """See `ports.JobStore.sources`."""
        rows = MoveSource.select().where(MoveSource.job_id == job_id)
        return {row.seq: _source(row) for row in rows}

    @retried(atomic=True)
    def note_part(self, claim: Claim, seq: int, size_bytes: int) -> None:
        """See `ports.JobStore.note_part`."""
        self._own(claim)
        mine = (MoveSource.job_id == claim.job_id) & (MoveSource.seq == seq)
        if MoveSource.select().where(mine & (peewee.fn.COALESCE(MoveSource.partial_bytes, 0) < size_bytes)).exists():
            of_place = (ArchiveId.job_id == claim.job_id) & (ArchiveId.seq == seq)
            if not ArchiveId.select().where(of_place & (ArchiveId.state == ArchiveId.GARBAGE)).exists():
                self._own(claim, failing_since=None)
        # Code of schema 2.1 knows no time.
        is_new = (peewee.fn.COALESCE(MoveSource.partial_bytes, -1) != size_bytes) | MoveSource.partial_since.is_null()
        MoveSource.update(partial_bytes=size_bytes, partial_since=self._now()).where(mine & is_new).execute()

    @retried(atomic=True)
    def freeze(self, claim: Claim, files: int) -> None:
        """See `ports.JobStore.freeze`."""
        self._own(claim, frozen=True)
        archived = (ArchiveId.job_id == claim.job_id) & (ArchiveId.state == ArchiveId.ARCHIVED)
        found = ArchiveId.select(ArchiveId.seq).where(archived).distinct().count()
        if found != files:
            msg = (
                f"Job {claim.job_id} has {found} archived files instead of {files}. "
                "Bundle and archived files are kept; an operator has to look at it."
            )
            raise Conflict(msg)

    # --- recovery

    @retried(atomic=False)
    def unclaimed(self, *, older_than_s: float) -> list[Job]:
        """See `ports.JobStore.unclaimed`."""
        rows = (
            JobRow.select()
            .where(self._due() & self._quiet(older_than_s))
            .order_by(JobRow.hinted, JobRow.job_id)
            .limit(1000)
        )
        return [row.as_job() for row in rows if self._hint_is_due(row)]

    def _hint_is_due(self, row: Any) -> bool:  # noqa: ANN401 (a peewee row)
        now = self._now()
        waited = abs((now - row.not_before).total_seconds())
        since_hint = abs((now - row.hinted).total_seconds())
        return since_hint >= min(max(waited / 2, HINT_AGAIN_S[0]), HINT_AGAIN_S[1])

    @retried(atomic=True)
    def hinted(self, job: Job) -> bool:
        """See `ports.JobStore.hinted`."""
        unchanged = self._is_unchanged(job) & is_in(Phase.READY)
        quiet = self._quiet(HINT_AGAIN_S[0] / 2)
        return bool(JobRow.update(hinted=self._now()).where(unchanged & quiet).execute())

    @retried(atomic=True)
    def unhinted(self, job: Job) -> None:
        """See `ports.JobStore.unhinted`."""
        unchanged = (JobRow.job_id == job.job_id) & (JobRow.epoch == job.epoch) & is_in(Phase.READY)
        JobRow.update(hinted=self._now() - LONG_AGO).where(unchanged).execute()

    def _quiet(self, seconds: float) -> Any:  # noqa: ANN401 (a peewee expression)
        """No hint for that long; one from the future was sent before the clock jumped back."""
        now = self._now()
        return (JobRow.hinted <= now - timedelta(seconds=seconds)) | (JobRow.hinted > now + LONG_AGO)

    @retried(atomic=False)
    def held(self) -> list[Job]:
        """See `ports.JobStore.held`."""
        held = JobRow.phase.in_([Phase.RUNNING, Phase.RECEIVING])
        return [row.as_job() for row in JobRow.select().where(held).order_by(JobRow.job_id)]

    @retried(atomic=True)
    def take_over(self, job: Job) -> bool:
        """See `ports.JobStore.take_over`."""
        still = (JobRow.job_id == job.job_id) & (JobRow.epoch == job.epoch) & (JobRow.heartbeat == job.heartbeat)
        fault = fate(job)
        changes = {"phase": Phase.FAILED if fault else Phase.READY, "epoch": job.epoch + 1, "worker": ""}
        changes["unclean"] = job.phase is Phase.RECEIVING
        due = {"not_before": self._now(), "hinted": self._now(), "lost_owners": job.lost_owners + 1}
        if not JobRow.update(**changes, **due).where(still & is_in(job.phase)).execute():
            return False
        self._event(job.job_id, "taken over", f"{job.worker} stood still")
        if fault:
            record = IngestState.get_or_none(IngestState.job_id == job.job_id)
            # The admin command of 0.4.1 took any word, and this one stays.
            step = record.task if record is not None else Step.UPLOADING
            self._show(job.job_id, State.FAILED, step, 0, fault)
            self._event(job.job_id, "failed", f"{step}: {fault}")
        return True

    @retried(atomic=False)
    def leftovers(self, *, after: int = 0, limit: int = 100) -> list[Job]:
        """See `ports.JobStore.leftovers`."""
        left = (JobRow.unclean == True) & (JobRow.job_id > after)  # noqa: E712 (SQL)
        return [row.as_job() for row in JobRow.select().where(left).order_by(JobRow.job_id).limit(limit)]

    # --- retention

    @retried(atomic=False)
    def expired(self, *, older_than_s: float) -> list[Job]:
        """See `ports.JobStore.expired`."""
        before = self._now() - timedelta(seconds=older_than_s)
        ended = JobRow.phase.in_([Phase.FAILED, Phase.DONE]) & (JobRow.path != "") & (JobRow.unclean == False)  # noqa: E712 (SQL)
        rows = JobRow.select().join(IngestState, on=(IngestState.job_id == JobRow.job_id))
        return [row.as_job() for row in rows.where(ended & (IngestState.updated < before)).order_by(JobRow.job_id)]

    @retried(atomic=True)
    def expire(self, job: Job) -> bool:
        """See `ports.JobStore.expire`."""
        unchanged = self._is_unchanged(job) & is_needed()
        if not JobRow.update(epoch=job.epoch + 1, unclean=True).where(unchanged).execute():
            return False
        if job.phase is Phase.FAILED:
            given_up = (ArchiveId.job_id == job.job_id) & ArchiveId.state.in_([ArchiveId.INTENT, ArchiveId.ARCHIVED])
            ArchiveId.update(state=ArchiveId.GARBAGE, noted=self._now()).where(given_up).execute()
        self._event(job.job_id, "expired", "the bundle was kept long enough, and is removed")
        return True

    @retried(atomic=False)
    def garbage(self, *, older_than_s: float) -> list[int]:
        """See `ports.JobStore.garbage`."""
        before = self._now() - timedelta(seconds=older_than_s)
        old = (ArchiveId.state == ArchiveId.GARBAGE) & (ArchiveId.noted < before)
        # What a move gave up may be the only copy, as it can be taken back until the job is done.
        # One that was called done by hand, and still has its document, can be taken back as well.
        is_over = (JobRow.phase == Phase.DONE) & ((JobRow.path == "") | (JobRow.unclean == True))  # noqa: E712 (SQL)
        is_spared = (JobRow.kind == Kind.MOVE) & ~is_over
        spared = JobRow.select(JobRow.job_id).where(is_spared)
        rows = (
            ArchiveId.select(ArchiveId.file_id).where(old & ArchiveId.job_id.not_in(spared)).order_by(ArchiveId.file_id)
        )
        return [file_id for (file_id,) in _plain(rows)]

    @retried(atomic=True)
    def removed(self, file_ids: Collection[int]) -> None:
        """See `ports.JobStore.removed`."""
        for batch in _batches(list(file_ids)):
            garbage = ArchiveId.file_id.in_(batch) & (ArchiveId.state == ArchiveId.GARBAGE)
            ArchiveId.update(state=ArchiveId.REMOVED).where(garbage).execute()

    @staticmethod
    def _is_unchanged(job: Job) -> Any:  # noqa: ANN401 (a peewee expression)
        """The job is as it was read, but for signs of life."""
        return (JobRow.job_id == job.job_id) & (JobRow.epoch == job.epoch) & is_in(job.phase)


T = TypeVar("T")


def _batches(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _is_received_by(job_id: int, worker: str) -> Any:  # noqa: ANN401 (a peewee expression)
    return (JobRow.job_id == job_id) & (JobRow.worker == worker) & is_in(Phase.RECEIVING)


def _given_up(job_id: int) -> ClaimLost:
    return ClaimLost(f"Job {job_id} was given up as its upload stood still.")


def _plain(query: Any) -> Iterable[Any]:  # noqa: ANN401 (a peewee query)
    """Rows of numbers as the database gives them: a million of them take peewee longer than the database."""
    rows: Iterable[Any] = DB.execute(query)
    return rows


def _source(row: Any) -> SourceFile:  # noqa: ANN401 (a peewee row)
    return SourceFile(
        seq=row.seq,
        device=int(row.device),
        inode=int(row.inode),
        partial_bytes=row.partial_bytes,
        partial_since=aware(row.partial_since) if row.partial_since else None,
    )


def _text(reason: str) -> str:
    """A reason as every database takes it."""
    return UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", reason[:MAX_REASON])


def _status(record: Any) -> Status:  # noqa: ANN401 (a peewee row)
    return Status(
        job_id=record.job_id,
        # The admin command of 0.4.1 took any word.
        state=State(record.state) if record.state in set(State) else record.state,
        step=Step(record.task) if record.task in set(Step) else record.task,
        percent=float(record.task_percent),
        reason=record.exception,
        complete=bool(record.complete),
        created=aware(record.created),
        updated=aware(record.updated),
    )
