"""The service without one of its rules: for each rule a part of it that does not keep it.

What it is not: a model; everything else is the real `Intake`, `Pipeline` and `Recovery`.

Who may call it: `rounds`.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pacifica.ingest import pipeline, register
from pacifica.ingest.core.errors import ClaimLost, IngestError, NeighbourDown
from pacifica.ingest.core.files import FileEntry
from pacifica.ingest.core.jobs import Claim, Job
from pacifica.ingest.core.metadata import Document
from pacifica.ingest.core.states import Kind, Phase
from pacifica.ingest.deposit import Depot
from pacifica.ingest.intake import COMMIT_SILENCE_S, Body, Intake
from pacifica.ingest.pipeline import Pipeline
from pacifica.ingest.ports import IdMode, Parcel, Receipt, RequestMark, Shipment, SourceFile, Upload
from pacifica.ingest.recovery import Recovery
from pacifica.ingest.relocate import Relocation
from pacifica.ingest.retention import Retention
from pacifica.ingest.testing import MemoryJobStore
from pacifica.ingest.testing.faults import can_fail
from pacifica.ingest.work import Work
from tests.faults.model.doubles import Service, Store
from tests.faults.model.plan import FILES
from tests.faults.model.rule import Rule

__all__ = ["MUTANTS"]


def _inside(method: Any) -> Any:
    """What a method of a double does, without the call that can fail."""
    return method.__wrapped__


# --- the store


class _ForgetsTheFirst(Store):
    @can_fail
    def open(self, job_id: int, kind: Kind, user: str, worker: str, landing_zone: str = "") -> bool:
        self._jobs.pop(job_id, None)
        self._statuses.pop(job_id, None)
        opened: bool = _inside(MemoryJobStore.open)(self, job_id, kind, user, worker, landing_zone)
        return opened


class _AcceptsFromAnybody(Store):
    def _upload(self, job_id: int, worker: str) -> Job:
        if job_id not in self._jobs:
            raise ClaimLost(worker)
        return self._jobs[job_id]


class _TrustsOwners(Store):
    def _own(self, claim: Claim, /, **changes: Any) -> None:
        if claim.job_id not in self._jobs:
            raise ClaimLost(claim.job_id)
        self._change(claim.job_id, heartbeat=self._jobs[claim.job_id].heartbeat + 1, **changes)


class _KeepsTheEpoch(Store):
    def _claim(self, job_id: int, worker: str) -> Claim:
        epoch = self._jobs[job_id].epoch
        super()._claim(job_id, worker)
        self._change(job_id, epoch=epoch)
        return Claim(job=self._jobs[job_id], epoch=epoch)

    @can_fail
    def take_over(self, job: Job) -> bool:
        taken: bool = _inside(MemoryJobStore.take_over)(self, job)
        if taken:
            self._change(job.job_id, epoch=job.epoch)
        return taken


class _LooksAtTheRow(Store):
    @can_fail
    def accept(self, job_id: int, worker: str, receipt: Receipt, mark: RequestMark | None = None) -> Job:
        if job_id in self._jobs and self._jobs[job_id].path != str(receipt.path):
            self._events.pop(job_id, None)
        job: Job = _inside(MemoryJobStore.accept)(self, job_id, worker, receipt, mark)
        return job


class _ForgetsKeys(Store):
    @can_fail
    def accept(self, job_id: int, worker: str, receipt: Receipt, mark: RequestMark | None = None) -> Job:
        del mark
        job: Job = _inside(MemoryJobStore.accept)(self, job_id, worker, receipt)
        return job


class _GivesAnyJob(Store):
    def _is_due(self, job: Job) -> bool:
        return super()._is_due(job) or job.phase not in {Phase.READY, Phase.RECEIVING}


class _KeepsIntents(Store):
    def abandon(self, claim: Claim) -> None:
        pass


class _SharesIds(Store):
    @can_fail
    def intend(self, claim: Claim, file_ids: Mapping[int, int]) -> set[int]:
        for file_id in file_ids.values():
            self._ids.pop(file_id, None)
        ours: set[int] = _inside(MemoryJobStore.intend)(self, claim, file_ids)
        return ours


class _NeverFreezes(Store):
    @can_fail
    def freeze(self, claim: Claim, files: int) -> None:
        _inside(MemoryJobStore.freeze)(self, claim, files)
        self._change(claim.job_id, frozen=False)


class _TakesWhatMoved(Store):
    @can_fail
    def take_over(self, job: Job) -> bool:
        if job.job_id in self._jobs:
            self._change(job.job_id, epoch=job.epoch, heartbeat=job.heartbeat, phase=job.phase)
        taken: bool = _inside(MemoryJobStore.take_over)(self, job)
        return taken


class _WaitsForEver(Store):
    def _is_due(self, job: Job) -> bool:
        return job.phase is Phase.READY and job.not_before <= self._clock.now()


class _ExpiresWhatMoved(Store):
    @can_fail
    def expire(self, job: Job) -> bool:
        if job.job_id in self._unclean:
            return False
        phase = self._jobs[job.job_id].phase
        self._change(job.job_id, epoch=job.epoch, phase=job.phase)
        expired: bool = _inside(MemoryJobStore.expire)(self, job)
        self._change(job.job_id, phase=phase)
        return expired


# --- the intake


class _DoesNotCount(Intake):
    def accept(self, kind: Kind, user: str, body: Body, key: str = "") -> Job:
        return super().accept(kind, user, replace(body, length=None), key)


class _AnswersBeforeTheFile(Intake):
    _open: Upload | None = None

    def _receive(self, upload: Upload, berth: Any, body: Body, heart: Any) -> Receipt:
        found = self._write(upload, berth, body.chunks)
        heart.start(COMMIT_SILENCE_S)
        self._open = upload
        folder: Path = self._staging.folder  # type: ignore[attr-defined]  # of the double
        name: str = upload._name  # type: ignore[attr-defined]  # of the double
        return Receipt(path=folder / name, size_bytes=found)

    def hint(self, job: Job) -> None:
        if self._open is not None:
            self._open.commit()
        super().hint(job)


class _CallsUnclearRefused(Intake):
    def _confirm(self, berth: Any, receipt: Receipt, mark: RequestMark | None) -> Job:
        return self._store.accept(berth.job_id, berth.owner, receipt, mark)


class _AnswersBeforeTheRow(Intake):
    _row: tuple[Any, ...] = ()

    def _commit(self, berth: Any, receipt: Receipt, mark: RequestMark | None) -> Job:
        self._row = (berth, receipt, mark)
        jobs: dict[int, Job] = self._store.jobs  # type: ignore[attr-defined]  # of the double
        return jobs[berth.job_id]

    def hint(self, job: Job) -> None:
        super()._commit(*self._row)
        super().hint(job)


# --- the pipeline


class _AsksNobody(Pipeline):
    def _permit(self, document: Document, work: Work) -> None:
        pass


class _NeverWaits(Pipeline):
    def _settle(self, work: Work, fault: IngestError) -> None:
        self._store.fail(work.claim, work.step, str(fault))


class _KeepsNothing(Pipeline):
    def _guard(self, work: Work) -> None:
        super()._guard(work)
        jobs: dict[int, Job] = self._store.jobs  # type: ignore[attr-defined]  # of the double
        if jobs[work.job_id].phase is Phase.FAILED:
            self._staging.remove(Path(work.job.path), work.job.landing_zone)


class _RemovesFirst(Pipeline):
    def _finish(self, work: Work) -> None:
        self._staging.remove(Path(work.job.path), work.job.landing_zone)
        self._store.finish(work.claim)
        self._store.cleaned(work.job_id)


class _SendsFirst(Depot):
    def intend(self, entries: Sequence[FileEntry], numbers: Iterator[int], work: Work) -> dict[int, int]:
        del work
        return {entry.seq: next(numbers) for entry in entries}

    def confirm(self, parcels: Sequence[Parcel], work: Work, verify: str) -> None:
        if parcels:
            self.store.intend(work.claim, {FILES.index(parcel.path): parcel.file_id for parcel in parcels})
        super().confirm(parcels, work, verify)


class _SendsAgain(Depot):
    def intend(self, entries: Sequence[FileEntry], numbers: Iterator[int], work: Work) -> dict[int, int]:
        begun = _inside(MemoryJobStore.intents)(self.store, work.job_id)
        chosen = {entry.seq: begun[entry.seq] for entry in entries if entry.seq in begun}
        return chosen | super().intend([entry for entry in entries if entry.seq not in begun], numbers, work)


class _LetsGoOfTheUnclear(Depot):
    def _unused(self, parcels: Sequence[Parcel], shipment: Shipment) -> list[int]:
        return [parcel.file_id for parcel in parcels if parcel not in shipment.stored]


class _TakesAnyRange(Depot):
    def _free_range(self, count: int) -> range:
        return self.ids.reserve(IdMode.FILE, count)


class _BelievesTheArchive(Depot):
    def verified(self, parcels: Sequence[Parcel], work: Work, verify: str) -> Generator[Parcel, None, None]:
        del work, verify
        yield from parcels


class _LooksAtOneSide(Relocation):
    def settle(self, entries: Sequence[FileEntry], known: Mapping[int, SourceFile], work: Work) -> list[FileEntry]:
        del known
        archived = self.depot.store.file_ids(work.job_id)
        return [entry for entry in entries if entry.seq not in archived]


class _WaitsForTheRest(Relocation):
    def _give_up(self, parcel: Parcel, there: int, flaw: str, source: SourceFile, work: Work) -> None:
        super()._give_up(parcel, there, flaw, replace(source, partial_bytes=None), work)


class _GivesUpForGood(Relocation):
    def _take_back(self, older: Sequence[Parcel], work: Work) -> bool:
        del older, work
        return False


def _parts(old: Any) -> dict[str, Any]:
    """What a part of the service is made of."""
    return {field.name: getattr(old, field.name) for field in fields(old)}


def _moving(relocation: type[Relocation]) -> type[Pipeline]:
    class Changed(Pipeline):
        def __init__(self, **parts: Any) -> None:
            super().__init__(**parts)
            self._relocation = relocation(**_parts(self._relocation))

    return Changed


def _with(depot: type[Depot]) -> type[Pipeline]:
    class Changed(Pipeline):
        def __init__(self, **parts: Any) -> None:
            super().__init__(**parts)
            self._depot = changed = depot(**_parts(self._depot))
            self._relocation = replace(self._relocation, depot=changed)

    return Changed


# --- recovery


class _NeverHints(Recovery):
    def _hint(self, unclaimed_s: float) -> list[int]:
        del unclaimed_s
        return []


class _NeverTakesOver(Recovery):
    def _take_over(self, jobs: Iterable[Job]) -> list[int]:
        return super()._take_over(job for job in jobs if job.phase is not Phase.RUNNING)


class _NeverGivesUp(Recovery):
    def _take_over(self, jobs: Iterable[Job]) -> list[int]:
        return super()._take_over(job for job in jobs if job.phase is not Phase.RECEIVING)


class _NeverCleans(Recovery):
    def _clean(self) -> list[int]:
        return []


# --- retention


class _GivesUpAnything(Retention):
    def _why_kept(self, job: Job) -> str:
        del job
        return ""


class _ForgetsWhatStayed(Retention):
    def remove(self, file_id: int) -> bool:
        with suppress(NeighbourDown):
            self.archive.remove(file_id)
        self.store.removed([file_id])
        return True


def _service(**changes: Any) -> type[Service]:
    return type("Mutant", (Service,), changes)


MUTANTS: dict[Rule, type[Service]] = {
    Rule.JOB_ID_ONCE: _service(store=_ForgetsTheFirst),
    Rule.LENGTH: _service(intake=_DoesNotCount),
    Rule.FILE_BEFORE_ANSWER: _service(intake=_AnswersBeforeTheFile),
    Rule.ROW_BEFORE_ANSWER: _service(intake=_AnswersBeforeTheRow),
    Rule.UPLOAD_OWNER: _service(store=_AcceptsFromAnybody),
    Rule.CONFIRM: _service(intake=_CallsUnclearRefused),
    Rule.ACCEPTED: _service(store=_LooksAtTheRow),
    Rule.KEY_ONCE: _service(store=_ForgetsKeys),
    Rule.EPOCH: _service(store=_TrustsOwners),
    Rule.NEW_EPOCH: _service(store=_KeepsTheEpoch),
    Rule.READY_ONLY: _service(store=_GivesAnyJob),
    Rule.POLICY: _service(pipeline=_AsksNobody),
    Rule.CHECK: _service(patches=((pipeline, "check_bundle", lambda *_: None),)),
    Rule.INTENT_FIRST: _service(pipeline=_with(_SendsFirst)),
    Rule.ABANDON: _service(store=_KeepsIntents),
    Rule.VOID: _service(pipeline=_with(_LetsGoOfTheUnclear)),
    Rule.BYTES_ONCE: _service(store=_KeepsIntents, pipeline=_with(_SendsAgain)),
    Rule.ID_ONCE: _service(store=_SharesIds),
    Rule.PROBE: _service(pipeline=_with(_TakesAnyRange)),
    Rule.READ_BACK: _service(pipeline=_with(_BelievesTheArchive)),
    Rule.BOTH_SIDES: _service(pipeline=_moving(_LooksAtOneSide)),
    Rule.GIVE_UP: _service(pipeline=_moving(_WaitsForTheRest)),
    Rule.TAKE_BACK: _service(pipeline=_moving(_GivesUpForGood)),
    Rule.FREEZE: _service(store=_NeverFreezes),
    Rule.LOOK_UP: _service(patches=((register, "_is_registered", lambda *_: False),)),
    Rule.WAIT: _service(pipeline=_NeverWaits),
    Rule.FAILED_KEEPS: _service(pipeline=_KeepsNothing),
    Rule.DONE_BEFORE_REMOVAL: _service(pipeline=_RemovesFirst),
    Rule.SWEEP_HINTS: _service(recovery=_NeverHints),
    Rule.SWEEP_TAKES_OVER: _service(recovery=_NeverTakesOver),
    Rule.SWEEP_GIVES_UP: _service(recovery=_NeverGivesUp),
    Rule.STILL_THE_SAME: _service(store=_TakesWhatMoved),
    Rule.SWEEP_CLEANS: _service(recovery=_NeverCleans),
    Rule.ONLY_COPY: _service(retention=_GivesUpAnything),
    Rule.STILL_ENDED: _service(store=_ExpiresWhatMoved),
    Rule.GONE_BEFORE_REMOVED: _service(retention=_ForgetsWhatStayed),
    Rule.NEVER_THAT_LONG: _service(store=_WaitsForEver),
}
