"""What makes a crash cost seconds instead of a job: the sweep.

Every server and every worker sweeps; the store lets only one of them act on a job.  Nothing is trusted but the database:
a job whose (epoch, heartbeat) stands still has lost its owner, however long ago it says it was touched.

Knows ports and core only.
"""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from pacifica.ingest.core.errors import NeighbourDown, Unavailable
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Phase
from pacifica.ingest.ports import Clock, JobStore, Queue, Staging

__all__ = ["Recovery", "Swept"]

logger = logging.getLogger(__name__)

#: The pause between two sweeps, in seconds.
EVERY_S = 2.0
#: A READY job is hinted again when nobody took it up for that long, in seconds.
UNCLAIMED_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did, as lists of job ids."""

    hinted: list[int]
    taken_over: list[int]
    cleaned: list[int]


class Recovery:
    """Sweeps the store for jobs that nobody works on."""

    def __init__(
        self,
        *,
        store: JobStore,
        staging: Staging,
        queue: Queue,
        clock: Clock,
        lease_s: float,
        upload_lease_s: float,
    ) -> None:
        """Take work over after `lease_s` seconds without a heartbeat, uploads after `upload_lease_s`."""
        self._store = store
        self._staging = staging
        self._queue = queue
        self._clock = clock
        self._lease_s = {Phase.RUNNING: lease_s, Phase.RECEIVING: upload_lease_s}
        #: Job → (epoch, heartbeat) and when this process first saw it so, by its own monotonic clock.
        self._seen: dict[int, tuple[tuple[int, int], float]] = {}
        self._unheard = False

    def run(self, stop: threading.Event) -> None:
        """Sweep until told to stop.  A database that is away is waited for."""
        while not stop.wait(EVERY_S):
            try:
                self.sweep()
            except Unavailable as fault:
                logger.warning("sweep put off", extra={"reason": str(fault)})
            except Exception:
                # Whatever it was: without the sweep, the next crash would cost a job.
                logger.exception("a sweep ran into a fault of the service itself")

    def sweep(self, *, unclaimed_s: float = UNCLAIMED_S) -> Swept:
        """Once: take over what stood still, hint what nobody took up, remove what is not needed.

        Args:
            unclaimed_s: how long, in seconds, a READY job may have waited for a worker.

        Raises:
            DatabaseDown: retryable.

        """
        taken_over = [job.job_id for job in self._still() if self._take_over(job)]
        hinted = self._hint(unclaimed_s)
        return Swept(hinted=hinted, taken_over=taken_over, cleaned=self._clean())

    def seize_all(self) -> list[int]:
        """Take over every job that has an owner; only for a process that knows that all owners are dead."""
        return [job.job_id for job in self._store.held() if self._take_over(job)]

    def _still(self) -> list[Job]:
        """Jobs whose owner showed no progress for a lease."""
        now = self._clock.monotonic()
        held = self._store.held()
        seen = {job.job_id: ((job.epoch, job.heartbeat), now) for job in held}
        for job_id, (sign, _) in seen.items():
            before = self._seen.get(job_id)
            if before and before[0] == sign:
                seen[job_id] = before
        self._seen = seen
        return [job for job in held if now - seen[job.job_id][1] >= self._lease_s[job.phase]]

    def _take_over(self, job: Job) -> bool:
        if not self._store.take_over(job):
            return False
        logger.warning("took a job over", extra={"job_id": job.job_id, "from": job.worker, "phase": str(job.phase)})
        return True

    def _hint(self, unclaimed_s: float) -> list[int]:
        hinted: list[int] = []
        for job in self._store.unclaimed(older_than_s=unclaimed_s):
            if not self._store.hinted(job):
                continue
            try:
                self._queue.send(job)
            except NeighbourDown as fault:
                # Once for an outage, not for every sweep.
                level = logging.DEBUG if self._unheard else logging.WARNING
                logger.log(level, "hints put off", extra={"reason": str(fault)})
                self._unheard = True
                self._store.unhinted(job)
                break
            self._unheard = False
            hinted.append(job.job_id)
        return hinted

    def _clean(self) -> list[int]:
        cleaned: list[int] = []
        for job in self._store.leftovers():
            if self._removed(job):
                self._store.cleaned(job.job_id)
                cleaned.append(job.job_id)
        return cleaned

    def _removed(self, job: Job) -> bool:
        """Remove the staged file, or what there is of an upload; what cannot be removed now must not end the sweep."""
        try:
            if job.path:
                self._staging.remove(Path(job.path))
            else:
                self._staging.discard(job.job_id, job.kind)
        except OSError as fault:
            about = {"job_id": job.job_id, "reason": str(fault)}
            logger.warning("the staged file of a job cannot be removed", extra=about)
            return False
        return True
