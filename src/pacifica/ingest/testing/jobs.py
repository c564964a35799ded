"""The job store in memory, which can fail on command.  It does what `store.SqlJobStore` does, without a database."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

from pacifica.ingest.core.errors import ClaimLost, Conflict, JobBusy, KeyReused, NoSuchJob
from pacifica.ingest.core.jobs import LONGEST_DELAY_S, Claim, Job, Series, Status, fate, forced, resumed
from pacifica.ingest.core.states import Kind, Phase, State, Step
from pacifica.ingest.orm import is_complete
from pacifica.ingest.ports import Clock, Event, Receipt, RequestMark, SourceFile
from pacifica.ingest.tables import MAX_ID, ArchiveId
from pacifica.ingest.testing.faults import Double, Faults, can_fail

__all__ = ["MemoryJobStore"]

#: A job is hinted again after its age, but within these bounds, in seconds.
HINT_AGAIN_S = (5.0, 600.0)
LONG_AGO = timedelta(seconds=HINT_AGAIN_S[1])

#: Of a job.
FIELDS = tuple(field.name for field in fields_of(Job))
_values = attrgetter(*FIELDS)


@dataclass(slots=True, kw_only=True)
class _Id:
    job_id: int
    seq: int
    state: str
    noted: datetime


class MemoryJobStore(Double):
    """`ports.JobStore`."""

    role = "jobs"

    def __init__(self, clock: Clock, faults: Faults | None = None) -> None:
        """Begin empty."""
        super().__init__(faults)
        self._clock = clock
        self._jobs: dict[int, Job] = {}
        self._hints: dict[int, datetime] = {}
        self._unclean: set[int] = set()
        self._statuses: dict[int, Status] = {}
        self._events: dict[int, list[Event]] = {}
        self._ids: dict[int, _Id] = {}
        self._sources: dict[int, dict[int, SourceFile]] = {}
        self._keys: dict[str, tuple[str, int]] = {}

    # --- uploads

    @can_fail
    def open(self, job_id: int, kind: Kind, user: str, worker: str, landing_zone: str = "") -> bool:
        """See `ports.JobStore.open`."""
        if not 0 < job_id <= MAX_ID or job_id in self._jobs or job_id in self._statuses:
            return False
        self._insert(job_id, kind, user, phase=Phase.RECEIVING, worker=worker, landing_zone=landing_zone)
        self._show(job_id, State.OK, Step.UPLOADING, 0)
        return True

    @can_fail
    def receiving(self, job_id: int, worker: str) -> None:
        """See `ports.JobStore.receiving`."""
        job = self._upload(job_id, worker)
        self._change(job_id, heartbeat=job.heartbeat + 1)

    @can_fail
    def accept(self, job_id: int, worker: str, receipt: Receipt, mark: RequestMark | None = None) -> Job:
        """See `ports.JobStore.accept`."""
        if any(event.name == "accepted" for event in self._events.get(job_id, ())):
            return self._jobs[job_id]
        self._upload(job_id, worker)
        if mark:
            fingerprint, first = self._keys.setdefault(mark.key, (mark.fingerprint, job_id))
            if fingerprint != mark.fingerprint:
                raise KeyReused(first)
            if first != job_id:
                return self._jobs[first]
        self._change(job_id, phase=Phase.READY, worker="", path=str(receipt.path), size_bytes=receipt.size_bytes)
        self._due_now(job_id)
        self._show(job_id, State.OK, Step.UPLOADING, 100)
        self._event(job_id, "accepted", f"{receipt.size_bytes} bytes")
        return self._jobs[job_id]

    @can_fail
    def refuse(self, job_id: int, worker: str) -> None:
        """See `ports.JobStore.refuse`."""
        job = self._jobs.get(job_id)
        if job is not None and job.worker == worker and job.phase is Phase.RECEIVING:
            del self._jobs[job_id]
            self._statuses.pop(job_id, None)

    @can_fail
    def adopt(self, job_id: int, kind: Kind, user: str, path: Path) -> Job:
        """See `ports.JobStore.adopt`."""
        if job_id not in self._jobs:
            size_bytes = path.stat().st_size if path.exists() else 0
            self._insert(job_id, kind, user, phase=Phase.READY, path=str(path), size_bytes=size_bytes)
            self._show(job_id, State.OK, Step.UPLOADING, 100)
            self._event(job_id, "adopted", str(path))
        return self._jobs[job_id]

    def _upload(self, job_id: int, worker: str) -> Job:
        job = self._jobs.get(job_id)
        if job is None or job.worker != worker or job.phase is not Phase.RECEIVING:
            msg = f"Job {job_id} was given up as its upload stood still."
            raise ClaimLost(msg)
        return job

    # --- reading

    @can_fail
    def job(self, job_id: int) -> Job:
        """See `ports.JobStore.job`."""
        return self._job(job_id)

    @can_fail
    def status(self, job_id: int) -> Status:
        """See `ports.JobStore.status`."""
        if job_id not in self._statuses:
            raise NoSuchJob(job_id)
        return self._statuses[job_id]

    @can_fail
    def statuses(
        self, *, limit: int, state: State | None = None, phases: Collection[Phase] = (), user: str | None = None
    ) -> list[Status]:
        """See `ports.JobStore.statuses`."""

        def is_wanted(status: Status) -> bool:
            job = self._jobs.get(status.job_id)
            return (
                state in {None, status.state}
                and (not phases or (job is not None and job.phase in phases))
                and user in {None, job.user if job else ""}
            )

        newest = sorted(self._statuses.values(), key=lambda status: (status.updated, status.job_id), reverse=True)
        return list(filter(is_wanted, newest))[:limit]

    @can_fail
    def events(self, job_id: int) -> list[Event]:
        """See `ports.JobStore.events`."""
        return list(self._events.get(job_id, ()))

    def _job(self, job_id: int) -> Job:
        if job_id not in self._jobs:
            raise NoSuchJob(job_id)
        return self._jobs[job_id]

    # --- rows

    def _insert(self, job_id: int, kind: Kind, user: str, *, phase: Phase, **more: Any) -> None:  # noqa: ANN401 (fields)
        fields: dict[str, Any] = {
            "epoch": 0,
            "worker": "",
            "heartbeat": 0,
            "attempt": 0,
            "lost_owners": 0,
            "failing": None,
            "waiting_for": "",
            "frozen": False,
            "path": "",
            "landing_zone": "",
            "size_bytes": 0,
        }
        now = self._clock.now()
        self._jobs[job_id] = Job(job_id=job_id, kind=kind, user=user, phase=phase, not_before=now, **fields | more)
        self._hints[job_id] = now

    def _change(self, job_id: int, **changes: Any) -> None:  # noqa: ANN401 (fields of a job)
        # As `dataclasses.replace`, in half the time: the model of the protocol does this millions of times.
        fields = dict(zip(FIELDS, _values(self._jobs[job_id]), strict=True))
        fields.update(changes)
        self._jobs[job_id] = Job(**fields)

    def _due_now(self, job_id: int) -> None:
        self._change(job_id, not_before=self._clock.now())
        self._hints[job_id] = self._clock.now()

    def _show(self, job_id: int, state: State, step: Step, percent: float, reason: str = "") -> None:
        now = self._clock.now()
        before = self._statuses.get(job_id)
        self._statuses[job_id] = Status(
            job_id=job_id,
            state=state,
            step=step,
            percent=round(float(percent), 5),
            reason=reason,
            complete=is_complete(state, step, percent),
            created=before.created if before is not None else now,
            updated=now,
        )

    def _event(self, job_id: int, name: str, text: str = "") -> None:
        self._events.setdefault(job_id, []).append(Event(at=self._clock.now(), name=name, text=text))

    # --- owning a job

    @can_fail
    def claim(self, job_id: int, worker: str) -> Claim | None:
        """See `ports.JobStore.claim`."""
        return self._claim(job_id, worker) if job_id in self._jobs and self._is_due(self._jobs[job_id]) else None

    @can_fail
    def claim_any(self, worker: str) -> Claim | None:
        """See `ports.JobStore.claim_any`."""
        due = [job for job in self._jobs.values() if self._is_due(job)]
        first = min(due, key=lambda job: (job.not_before, job.job_id), default=None)
        return self._claim(first.job_id, worker) if first is not None else None

    def _is_due(self, job: Job) -> bool:
        now = self._clock.now()
        jumped = job.not_before > now + timedelta(seconds=2 * LONGEST_DELAY_S)
        return job.phase is Phase.READY and (job.not_before <= now or jumped)

    def _claim(self, job_id: int, worker: str) -> Claim:
        job = self._jobs[job_id]
        counted = {"epoch": job.epoch + 1, "attempt": job.attempt + 1, "heartbeat": 0}
        failing = resumed(job.failing, due=job.not_before, now=self._clock.now())
        self._change(job_id, phase=Phase.RUNNING, worker=worker, waiting_for="", failing=failing, **counted)
        self._event(job_id, "claimed", worker)
        return Claim(job=self._jobs[job_id], epoch=job.epoch + 1)

    @can_fail
    def beat(self, claim: Claim) -> None:
        """See `ports.JobStore.beat`."""
        self._own(claim)

    @can_fail
    def report(self, claim: Claim, step: Step, percent: float) -> None:
        """See `ports.JobStore.report`."""
        self._own(claim)
        shown = min(percent, 99.9) if step is Step.INGEST_METADATA else percent
        self._show(claim.job_id, State.OK, step, shown)

    @can_fail
    def wait(self, claim: Claim, *, not_before: datetime, series: Series, reason: str) -> None:
        """See `ports.JobStore.wait`."""
        self._own(claim, phase=Phase.READY, worker="", not_before=not_before, failing=series, waiting_for=reason)
        self._hints[claim.job_id] = not_before - LONG_AGO
        self._event(claim.job_id, "waiting", f"until {not_before.replace(tzinfo=None)} UTC: {reason}")

    @can_fail
    def release(self, claim: Claim) -> None:
        """See `ports.JobStore.release`."""
        self._own(claim, phase=Phase.READY, worker="", not_before=self._clock.now())
        self._hints[claim.job_id] = self._clock.now() - LONG_AGO
        self._event(claim.job_id, "released", "the worker stopped")

    @can_fail
    def fail(self, claim: Claim, step: Step, reason: str) -> None:
        """See `ports.JobStore.fail`."""
        self._own(claim, phase=Phase.FAILED, worker="", failing=None)
        self._show(claim.job_id, State.FAILED, step, 0, reason)
        self._event(claim.job_id, "failed", f"{step}: {reason}")

    @can_fail
    def finish(self, claim: Claim) -> None:
        """See `ports.JobStore.finish`."""
        self._own(claim, phase=Phase.DONE, worker="", failing=None)
        self._unclean.add(claim.job_id)
        self._show(claim.job_id, State.OK, Step.INGEST_METADATA, 100)
        self._event(claim.job_id, "done")

    @can_fail
    def cleaned(self, job_id: int) -> None:
        """See `ports.JobStore.cleaned`."""
        if job_id in self._unclean:
            self._unclean.remove(job_id)
            self._change(job_id, path="")

    @can_fail
    def retry(self, job_id: int) -> Job:
        """See `ports.JobStore.retry`."""
        job = self._job(job_id)
        if job.phase not in {Phase.FAILED, Phase.READY}:
            msg = f"Job {job_id} is {job.phase}: only a failed or waiting job can be tried again."
            raise JobBusy(msg)
        if job_id in self._unclean:
            msg = f"The bundle of job {job_id} is being removed."
            raise JobBusy(msg)
        self._change(job_id, phase=Phase.READY, epoch=job.epoch + 1, failing=None, waiting_for="", lost_owners=0)
        self._due_now(job_id)
        self._show(job_id, State.OK, Step.UPLOADING, 100)
        self._event(job_id, "retried")
        return self._jobs[job_id]

    @can_fail
    def force(self, job_id: int, state: State, step: Step, percent: float, reason: str) -> None:
        """See `ports.JobStore.force`."""
        if job_id in self._jobs:
            self._force_phase(self._jobs[job_id], state, complete=is_complete(state, step, percent))
        self._show(job_id, state, step, percent, reason)
        self._event(job_id, "forced", f"{state} / {step} / {percent}: {reason}")

    def _force_phase(self, job: Job, state: State, *, complete: bool) -> None:
        phase = forced(job, state, complete=complete, is_needed=job.job_id not in self._unclean)
        if phase is None:
            msg = f"Job {job.job_id} is over: only an end can be forced on it."
            raise JobBusy(msg)
        is_over = complete and job.phase is not Phase.DONE
        if is_over or phase is not job.phase:
            afresh: dict[str, Any] = {"failing": None, "waiting_for": "", "lost_owners": 0}
            self._change(job.job_id, phase=phase, epoch=job.epoch + 1, worker="", **afresh)
            self._due_now(job.job_id)
            if job.phase is Phase.RECEIVING:
                self._unclean.add(job.job_id)

    def _own(self, claim: Claim, /, **changes: Any) -> None:  # noqa: ANN401 (fields of a job)
        job = self._jobs.get(claim.job_id)
        if job is None or job.epoch != claim.epoch or job.phase is not Phase.RUNNING:
            msg = f"Job {claim.job_id} has another owner now."
            raise ClaimLost(msg)
        self._change(claim.job_id, heartbeat=job.heartbeat + 1, **changes)

    # --- archive ids

    @can_fail
    def intend(self, claim: Claim, file_ids: Mapping[int, int]) -> set[int]:
        """See `ports.JobStore.intend`."""
        self._own(claim)
        ours = set()
        for seq, file_id in file_ids.items():
            if file_id not in self._ids:
                now = self._clock.now()
                self._ids[file_id] = _Id(job_id=claim.job_id, seq=seq, state=ArchiveId.INTENT, noted=now)
                ours.add(seq)
        return ours

    @can_fail
    def archived(self, claim: Claim, file_ids: Iterable[int]) -> None:
        """See `ports.JobStore.archived`."""
        self._own(claim, failing=None, lost_owners=0)
        for file_id in file_ids:
            found = self._ids.get(file_id)
            if found is not None and found.job_id == claim.job_id and found.state == ArchiveId.INTENT:
                found.state = ArchiveId.ARCHIVED

    @can_fail
    def abandon(self, claim: Claim, file_ids: Collection[int] | None = None) -> None:
        """See `ports.JobStore.abandon`."""
        self._own(claim)
        for file_id, found in self._ids.items():
            is_meant = file_ids is None or file_id in file_ids
            if is_meant and found.job_id == claim.job_id and found.state == ArchiveId.INTENT:
                found.state, found.noted = ArchiveId.GARBAGE, self._clock.now()

    @can_fail
    def void(self, claim: Claim, file_ids: Collection[int]) -> None:
        """See `ports.JobStore.void`."""
        self._own(claim)
        for file_id in file_ids:
            found = self._ids.get(file_id)
            if found is not None and found.job_id == claim.job_id and found.state == ArchiveId.INTENT:
                found.state, found.noted = ArchiveId.VOID, self._clock.now()

    @can_fail
    def take_back(self, claim: Claim, file_id: int) -> None:
        """See `ports.JobStore.take_back`."""
        self._own(claim, failing=None, lost_owners=0)
        found = self._ids.get(file_id)
        if found is None or (found.job_id, found.state) != (claim.job_id, ArchiveId.GARBAGE):
            return
        for other in self._ids.values():
            if (other.job_id, other.seq, other.state) == (claim.job_id, found.seq, ArchiveId.INTENT):
                other.state, other.noted = ArchiveId.GARBAGE, self._clock.now()
        found.state = ArchiveId.ARCHIVED

    @can_fail
    def file_ids(self, job_id: int) -> Mapping[int, int]:
        """See `ports.JobStore.file_ids`."""
        return self._places(job_id, ArchiveId.ARCHIVED)

    @can_fail
    def intents(self, job_id: int) -> Mapping[int, int]:
        """See `ports.JobStore.intents`."""
        return self._places(job_id, ArchiveId.INTENT)

    def _places(self, job_id: int, state: str) -> Mapping[int, int]:
        wanted = (job_id, state)
        return {found.seq: file_id for file_id, found in self._ids.items() if (found.job_id, found.state) == wanted}

    @can_fail
    def given_up(self, job_id: int) -> dict[int, list[int]]:
        """See `ports.JobStore.given_up`."""
        return self._given_up(job_id)

    def _given_up(self, job_id: int) -> dict[int, list[int]]:
        places: dict[int, list[int]] = {}
        for file_id, found in sorted(self._ids.items(), reverse=True):
            if (found.job_id, found.state) == (job_id, ArchiveId.GARBAGE):
                places.setdefault(found.seq, []).append(file_id)
        return places

    @can_fail
    def note_sources(self, claim: Claim, sources: Sequence[SourceFile]) -> None:
        """See `ports.JobStore.note_sources`."""
        self._own(claim)
        known = self._sources.setdefault(claim.job_id, {})
        begun = self._places(claim.job_id, ArchiveId.INTENT)
        known.update({source.seq: source for source in sources if source.seq not in begun})

    @can_fail
    def sources(self, job_id: int) -> dict[int, SourceFile]:
        """See `ports.JobStore.sources`."""
        return dict(self._sources.get(job_id, {}))

    @can_fail
    def note_part(self, claim: Claim, seq: int, size_bytes: int) -> None:
        """See `ports.JobStore.note_part`."""
        self._own(claim)
        known = self._sources.get(claim.job_id, {})
        if seq in known:
            is_grown = size_bytes > (known[seq].partial_bytes or 0)
            if is_grown and seq not in self._given_up(claim.job_id):
                self._own(claim, failing=None)
            if size_bytes != known[seq].partial_bytes:
                known[seq] = replace(known[seq], partial_bytes=size_bytes, partial_since=self._clock.now())

    @can_fail
    def freeze(self, claim: Claim, files: int) -> None:
        """See `ports.JobStore.freeze`."""
        self._own(claim)
        found = len(self._places(claim.job_id, ArchiveId.ARCHIVED))
        if found != files:
            msg = f"Job {claim.job_id} has {found} archived files instead of {files}."
            raise Conflict(msg)
        self._own(claim, frozen=True)

    # --- recovery

    @can_fail
    def unclaimed(self, *, older_than_s: float) -> list[Job]:
        """See `ports.JobStore.unclaimed`."""
        jobs = [job for job in self._jobs.values() if self._is_due(job) and self._is_quiet(job, older_than_s)]
        return sorted(filter(self._hint_is_due, jobs), key=lambda job: (self._hints[job.job_id], job.job_id))

    def _hint_is_due(self, job: Job) -> bool:
        now = self._clock.now()
        waited = abs((now - job.not_before).total_seconds())
        since_hint = abs((now - self._hints[job.job_id]).total_seconds())
        return since_hint >= min(max(waited / 2, HINT_AGAIN_S[0]), HINT_AGAIN_S[1])

    @can_fail
    def hinted(self, job: Job) -> bool:
        """See `ports.JobStore.hinted`."""
        found = self._jobs.get(job.job_id)
        if found is None or found.epoch != job.epoch or found.phase is not Phase.READY:
            return False
        if not self._is_quiet(job, HINT_AGAIN_S[0] / 2):
            return False
        self._hints[job.job_id] = self._clock.now()
        return True

    @can_fail
    def unhinted(self, job: Job) -> None:
        """See `ports.JobStore.unhinted`."""
        found = self._jobs.get(job.job_id)
        if found is not None and found.epoch == job.epoch and found.phase is Phase.READY:
            self._hints[job.job_id] = self._clock.now() - LONG_AGO

    def _is_quiet(self, job: Job, seconds: float) -> bool:
        """No hint for that long; one from the future was sent before the clock jumped back."""
        now, hinted = self._clock.now(), self._hints[job.job_id]
        return hinted <= now - timedelta(seconds=seconds) or hinted > now + LONG_AGO

    @can_fail
    def held(self) -> list[Job]:
        """See `ports.JobStore.held`."""
        held = [job for job in self._jobs.values() if job.phase in {Phase.RUNNING, Phase.RECEIVING}]
        return sorted(held, key=lambda job: job.job_id)

    @can_fail
    def take_over(self, job: Job) -> bool:
        """See `ports.JobStore.take_over`."""
        found = self._jobs.get(job.job_id)
        seen = (job.epoch, job.heartbeat, job.phase)
        if found is None or (found.epoch, found.heartbeat, found.phase) != seen:
            return False
        fault = fate(job)
        phase = Phase.FAILED if fault else Phase.READY
        self._change(job.job_id, phase=phase, epoch=job.epoch + 1, worker="", lost_owners=job.lost_owners + 1)
        self._due_now(job.job_id)
        if job.phase is Phase.RECEIVING:
            self._unclean.add(job.job_id)
        self._event(job.job_id, "taken over", f"{job.worker} stood still")
        if fault:
            step = self._statuses[job.job_id].step
            self._show(job.job_id, State.FAILED, step, 0, fault)
            self._event(job.job_id, "failed", f"{step}: {fault}")
        return True

    @can_fail
    def leftovers(self, *, after: int = 0, limit: int = 100) -> list[Job]:
        """See `ports.JobStore.leftovers`."""
        return [self._jobs[job_id] for job_id in sorted(self._unclean) if job_id > after][:limit]

    # --- retention

    @can_fail
    def expired(self, *, older_than_s: float) -> list[Job]:
        """See `ports.JobStore.expired`."""
        before = self._clock.now() - timedelta(seconds=older_than_s)
        ended = [job for job in self._jobs.values() if job.phase in {Phase.FAILED, Phase.DONE} and job.path]
        old = [job for job in ended if self._statuses[job.job_id].updated < before and job.job_id not in self._unclean]
        return sorted(old, key=lambda job: job.job_id)

    @can_fail
    def expire(self, job: Job) -> bool:
        """See `ports.JobStore.expire`."""
        found = self._jobs.get(job.job_id)
        if found is None or (found.epoch, found.phase) != (job.epoch, job.phase) or job.job_id in self._unclean:
            return False
        self._change(job.job_id, epoch=job.epoch + 1)
        self._unclean.add(job.job_id)
        if job.phase is Phase.FAILED:
            for mine in self._ids.values():
                if mine.job_id == job.job_id and mine.state in {ArchiveId.INTENT, ArchiveId.ARCHIVED}:
                    mine.state, mine.noted = ArchiveId.GARBAGE, self._clock.now()
        self._event(job.job_id, "expired", "the bundle was kept long enough, and is removed")
        return True

    @can_fail
    def garbage(self, *, older_than_s: float) -> list[int]:
        """See `ports.JobStore.garbage`."""
        before = self._clock.now() - timedelta(seconds=older_than_s)
        return sorted(
            file_id
            for file_id, found in self._ids.items()
            if found.state == ArchiveId.GARBAGE and found.noted < before and not self._is_spared(found.job_id)
        )

    def _is_spared(self, job_id: int) -> bool:
        """What a move gave up may be the only copy, as it can be taken back until the job is done."""
        job = self._jobs.get(job_id)
        if job is None or job.kind is not Kind.MOVE:
            return False
        # One that was called done by hand, and still has its document, can be taken back as well.
        return job.phase is not Phase.DONE or (job.path != "" and job_id not in self._unclean)

    @can_fail
    def removed(self, file_ids: Collection[int]) -> None:
        """See `ports.JobStore.removed`."""
        for file_id in file_ids:
            if self._ids[file_id].state == ArchiveId.GARBAGE:
                self._ids[file_id].state = ArchiveId.REMOVED
