"""What is removed when it is old enough: bundles of jobs that failed, and archive objects on the garbage list.

Nothing is removed by itself; the admin command `gc` asks for it.  What may still be of use is never touched: a job that
somebody tries again at this very moment, objects that some transaction has, and whatever is the only copy.

Knows ports and core only.
"""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Kind, Phase
from pacifica.ingest.ports import Archive, Catalogue, JobStore, Staging

__all__ = ["Retention"]

logger = logging.getLogger(__name__)

#: How many garbage ids the catalogue is asked for at once.
BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Removes what is too old.

    Attributes:
        store: knows what failed, and what is garbage.
        staging: where the bundles are.
        archive: where the garbage is.
        catalogue: knows which objects are in use.
        keep_s: how long failed bundles and garbage are kept, in seconds.

    """

    store: JobStore
    staging: Staging
    archive: Archive
    catalogue: Catalogue
    keep_s: float

    def bundles(self) -> Iterator[tuple[Job, str]]:
        """Jobs that ended and whose bundle is too old, each with the reason why it stays, which is empty when it can go.

        Raises:
            Unavailable: retryable.

        """
        for job in self.store.expired(older_than_s=self.keep_s):
            yield job, self._why_kept(job)

    def drop(self, job: Job) -> bool:
        """Remove the bundle of a job that ended, and give up what it archived; False when it is being tried again.

        Raises:
            Unavailable: retryable; what was begun is ended by the sweep of a server or worker.

        """
        if not self.store.expire(job):
            return False
        self.staging.remove(Path(job.path), job.landing_zone)
        self.store.cleaned(job.job_id)
        logger.info("bundle removed, it was too old", extra={"job_id": job.job_id})
        return True

    def is_ours(self, job: Job) -> bool:
        """Whether `drop` removes the bundle of a job, or only gives it up, as it lies where others keep their files."""
        return self.staging.is_ours(Path(job.path), job.landing_zone)

    def garbage(self) -> Iterator[int]:
        """Archive ids on the garbage list that are too old, without those that some transaction has.

        Raises:
            Unavailable: retryable.

        """
        ids = iter(self.store.garbage(older_than_s=self.keep_s))
        while batch := list(itertools.islice(ids, BATCH)):
            in_use = self.catalogue.registered(batch)
            if in_use:
                # UniqueID gave a number twice: our attempt to use it was in vain, and another service has it.
                logger.warning("garbage ids that are in use elsewhere are left alone", extra={"file_ids": in_use})
            yield from (file_id for file_id in batch if file_id not in in_use)

    def remove(self, file_id: int) -> bool:
        """Remove an object that `garbage` told of; False when nothing was there.

        Called twice, or by two at once, one of them finds nothing.

        Raises:
            Unavailable: it stays on the list; retryable.

        """
        was_there = self.archive.remove(file_id)
        self.store.removed([file_id])
        return was_there

    def _why_kept(self, job: Job) -> str:
        """Why a bundle cannot be removed, or something would be lost with it; empty when it can, and nothing would."""
        if not self.staging.is_here(Path(job.path), job.landing_zone):
            return "its landing zone is not mounted here"
        if job.phase is Phase.DONE:
            # Somebody may have called it so by hand.
            is_registered = self.catalogue.lookup(job.job_id) is not None
            return "" if is_registered else "the job is called done, but the catalogue has no such transaction"
        if job.kind is Kind.MOVE and self._has_begun(job.job_id):
            return "the move began, so its sources are consumed"
        if job.frozen and self.catalogue.lookup(job.job_id) is not None:
            return "the job is called failed, but the catalogue has its transaction"
        return ""

    def _has_begun(self, job_id: int) -> bool:
        return any(kept(job_id) for kept in (self.store.file_ids, self.store.intents, self.store.given_up))
