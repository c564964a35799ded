"""The work on a job, top to bottom, and what becomes of it when a step goes wrong.

`Pipeline.ingest` and `Pipeline.move` are the flow; the steps are `check`, `deposit`, `relocate` and `register`.
`Pipeline.run` is the only caller of both: each fault ends there, as a wait, a failure or a job given back.

Called by the workers (`tasks`, `app`) and by the admin command `retry`.  Knows ports, core and `bundle`.
"""

import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pacifica.ingest.bundle import Bundle, Limits
from pacifica.ingest.check import check_bundle, check_catalogue
from pacifica.ingest.core.errors import BadBundle, BadMetadata, ClaimLost, Conflict, IngestError, Stopping, Unavailable
from pacifica.ingest.core.jobs import Claim, Job, retry_delay_s, series_of
from pacifica.ingest.core.metadata import Document, submission
from pacifica.ingest.core.mistaken import LOOK_BYTES, no_document
from pacifica.ingest.core.states import Kind, Step
from pacifica.ingest.deposit import Depot
from pacifica.ingest.ports import Archive, Catalogue, Clock, Ids, JobStore, Policy, Staging
from pacifica.ingest.register import is_recorded, register
from pacifica.ingest.relocate import STILL_S, Relocation
from pacifica.ingest.source import Sources
from pacifica.ingest.work import Work

__all__ = ["Neighbours", "Pipeline", "Rules", "read_document"]

logger = logging.getLogger(__name__)

#: How long, in seconds, Policy may be silent.
POLICY_SILENCE_S = 120.0
#: How long, in seconds, the reading of headers and metadata may be silent, and how much longer for each byte staged: a
#: million headers of a large bundle take a disk hours.
READING_SILENCE_S = 120.0
READING_SILENCE_PER_BYTE_S = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The four that a job is carried to."""

    ids: Ids
    policy: Policy
    archive: Archive
    catalogue: Catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an operator can set.

    Attributes:
        verify: what is read back from the archive: `full`, `size` or `none`.
        move_roots: folders that sources of a move must lie under.
        chunk_bytes: how much is read at a time.
        retry_for_s: how long a job may wait for a neighbour, in seconds.
        lease_s: a job that stands still for that long, in seconds, is taken over.
        limits: what a bundle, or the document of a move, may cost.
        min_hash: the weakest hash type that a file may have; empty: any.
        still_s: a move that the archive did not go on with for that long, in seconds, is begun anew.

    """

    verify: str
    move_roots: Sequence[Path]
    chunk_bytes: int
    retry_for_s: float
    lease_s: float
    limits: Limits
    min_hash: str
    still_s: float = STILL_S


class Pipeline:
    """Carries claimed jobs to their end."""

    def __init__(
        self, *, store: JobStore, staging: Staging, neighbours: Neighbours, clock: Clock, rules: Rules
    ) -> None:
        """Work with these."""
        self._store = store
        self._staging = staging
        self._ask = neighbours
        self._clock = clock
        self._rules = rules
        self._depot = Depot(store=store, ids=neighbours.ids, archive=neighbours.archive, verify=rules.verify)
        sources = Sources(roots=rules.move_roots, is_staged=staging.owns, chunk_bytes=rules.chunk_bytes)
        self._relocation = Relocation(
            depot=self._depot, sources=sources, min_hash=rules.min_hash, clock=clock, still_s=rules.still_s
        )

    def run(self, claim: Claim, stopping: Callable[[], bool] = lambda: False) -> None:
        """Work on a claimed job until it is done, failed, waiting or given back.  Raises nothing.

        Args:
            claim: the right to do so.
            stopping: whether this process is to end; asked often.

        """
        about = {"job_id": claim.job_id}
        work = Work(claim, store=self._store, clock=self._clock, lease_s=self._rules.lease_s, stopping=stopping)
        try:
            with work:
                self._guard(work)
        except ClaimLost:
            logger.info("another worker has the job now", extra=about)
        except Unavailable as fault:
            # Nothing could be written: the heartbeat stands still, and the job is taken over when the database is back.
            logger.warning("the job is left to recovery", extra={**about, "reason": str(fault)})

    def ingest(self, work: Work) -> None:
        """A bundle, from the staged file to the catalogue."""
        work.begin(Step.OPEN_TAR)
        holder = self._staged(work.job)
        with work.patience(_reading_s(work.job)):
            bundle = Bundle.open(holder, self._rules.limits)
        with bundle:
            work.begin(Step.LOAD_METADATA)
            with work.patience(_reading_s(work.job)):
                document = Document.read(bundle.metadata, bundle.members)
            if not work.job.frozen:
                self._permit(document, work)
                checked = document.files.total_bytes + len(document.files)
                work.begin(Step.INGEST_FILES, checked + self._depot.units_of(document.files))
                check_bundle(bundle, document, work, self._rules.chunk_bytes, self._rules.min_hash)
                self._depot.deposit(bundle, holder, document.files, work)
            self._register(document, work)
        self._finish(work)

    def move(self, work: Work) -> None:
        """Files on a shared file system, from the staged document to the catalogue."""
        work.begin(Step.LOAD_METADATA)
        with work.patience(_reading_s(work.job)):
            document = Document.parse(read_document(self._staged(work.job), self._rules.limits.metadata_bytes))
        if not work.job.frozen:
            self._permit(document, work)
            work.begin(Step.MOVE_FILES, sum(map(self._relocation.units, document.files)))
            known = self._store.sources(work.job_id)
            left = self._relocation.settle(document.files, known, work)
            sources = self._relocation.check(left, known, work)
            check_catalogue(document, work)
            self._relocation.move(left, sources, work)
        self._register(document, work)
        self._finish(work)

    def _permit(self, document: Document, work: Work) -> None:
        work.begin(Step.POLICY)
        submission(document.entries)  # what has none needs no asking
        with work.patience(POLICY_SILENCE_S):
            self._ask.policy.permit(document.registration(work.job_id), work.job.user)

    def _register(self, document: Document, work: Work) -> None:
        work.begin(Step.INGEST_METADATA)
        register(document, work, store=self._store, catalogue=self._ask.catalogue)
        logger.info("registered", extra={"job_id": work.job_id, "files": len(document.files)})

    def _finish(self, work: Work) -> None:
        self._store.finish(work.claim)
        logger.info("done", extra={"job_id": work.job_id})
        self._staging.remove(Path(work.job.path), work.job.landing_zone)
        self._store.cleaned(work.job_id)

    def _staged(self, job: Job) -> Path:
        """The staged file.

        Raises:
            BadBundle: the job has none, as it was done, or its upload was cut off; not retryable.
            Unavailable: this worker cannot see it; retryable, also when its landing zone is here: over a network, names may
                come late.

        """
        if not job.path:
            reason = "The bundle is not in the landing zone any more. Send it again."
            raise BadBundle(reason)
        path = Path(job.path)
        if not self._staging.is_here(path, job.landing_zone):
            reason = f"The landing zone with {path.name} is not mounted on this worker."
            raise Unavailable(reason)
        if not path.exists():
            where = "Somebody removed it" if job.landing_zone else "Is it mounted here? If the file is gone"
            reason = f"{path.name} is not in the landing zone. {where}: send the bundle again."
            raise Unavailable(reason)
        return path

    # --- when a step goes wrong

    def _guard(self, work: Work) -> None:
        try:
            self._carry(work)
        except ClaimLost:
            raise
        except Stopping:
            self._store.release(work.claim)
        except IngestError as fault:
            self._settle(work, fault)
        except OSError as fault:
            self._settle(work, Unavailable(f"{fault.strerror or fault}: {fault.filename or work.job.path}"))
        except Exception:
            logger.exception("the job ran into a fault of the service itself", extra={"job_id": work.job_id})
            reason = f"Internal error; the log of {work.job.worker} has the details. The bundle is kept."
            self._store.fail(work.claim, work.step, reason)

    def _carry(self, work: Work) -> None:
        try:
            (self.ingest if work.job.kind is Kind.INGEST else self.move)(work)
        except (ClaimLost, Stopping, Conflict):
            raise
        except IngestError as fault:
            # What was registered is done, even if stricter rules refuse its document by now.
            if fault.retryable or not work.job.frozen or not self._is_recorded(work):
                raise
            self._finish(work)

    def _is_recorded(self, work: Work) -> bool:
        return is_recorded(work, store=self._store, catalogue=self._ask.catalogue)

    def _settle(self, work: Work, fault: IngestError) -> None:
        """Wait when waiting may help and there is time left, else fail."""
        now = self._clock.now()
        series = series_of(self._store.job(work.job_id), work.step, now)
        failing_for_s = (now - series.since).total_seconds()
        left_s = self._rules.retry_for_s - failing_for_s
        if fault.retryable and left_s > 0:
            delay_s = min(retry_delay_s(failing_for_s, random.random()), left_s)
            logger.info("the job waits", extra={"job_id": work.job_id, "reason": str(fault), "wait_s": delay_s})
            not_before = now + timedelta(seconds=delay_s)
            self._store.wait(work.claim, not_before=not_before, series=series, reason=str(fault))
        else:
            logger.info("the job failed", extra={"job_id": work.job_id, "reason": str(fault)})
            self._store.fail(work.claim, work.step, str(fault))


def _reading_s(job: Job) -> float:
    return READING_SILENCE_S + READING_SILENCE_PER_BYTE_S * job.size_bytes


def read_document(path: Path, limit: int) -> bytes:
    """The document of a move, which may be longer than a request is, as it may not have come by one.

    Args:
        path: where it lies.
        limit: its largest size, in bytes; no more is read.

    Raises:
        BadMetadata: it is larger, or grows, or is surely no JSON; not retryable.
        OSError: it cannot be read.

    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= limit:
            text = file.read(size + 1)
            if len(text) <= size:
                _ensure_may_be_json(text)
                return text
    raise BadMetadata(
        [f"A document of more bytes than allowed: at most {limit} are read ([ingest] max_metadata_size)."]
    )


def _ensure_may_be_json(text: bytes) -> None:
    """Tell a mistake at a place where all that a reader of JSON could say is that it expected a value."""
    if fault := no_document(text[:LOOK_BYTES]):
        raise BadMetadata([fault])
