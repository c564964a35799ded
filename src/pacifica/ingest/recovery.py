"""What makes a crash cost seconds instead of a job: the sweep.

Every server and every worker sweeps; the store lets only one of them act on a job.  Nothing is trusted but the database:
a job whose (epoch, heartbeat) stands still has lost its owner, however long ago it says it was touched.

Knows ports and core only.
"""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
#: Staged files that one sweep tries to remove, at most; the next one goes on behind them.
LEFTOVERS = 100
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
        #: Since when, by the same clock, nobody could be seen: a look at the owners has begun, and has not succeeded yet.
        self._blind_since: float | None = None
        self._unheard = False
        #: The last job whose staged file was tried to be removed; 0 when it is the turn of the first.
        self._cleaned = 0
        #: Jobs whose staged file could not be removed so far, which was told.
        self._unremoved: set[int] = set()

    def run(self, stop: threading.Event) -> None:
        """Sweep until told to stop.  A database that is away is waited for."""
        while not stop.wait(EVERY_S):
            try:
                with _apart():
                    self.sweep()
            except Unavailable as fault:
                logger.warning("sweep put off", extra={"reason": str(fault)})

    def sweep(self, *, unclaimed_s: float = UNCLAIMED_S) -> Swept:
        """Once: take over what stood still, hint what nobody took up, remove what is not needed.

        Args:
            unclaimed_s: how long, in seconds, a READY job may have waited for a worker.

        Raises:
            DatabaseDown: retryable.

        """
        taken_over = self._take_over(self._still())
        hinted = self._hint(unclaimed_s)
        return Swept(hinted=hinted, taken_over=taken_over, cleaned=self._clean())

    def seize_all(self) -> list[int]:
        """Take over every job that has an owner; only for a process that knows that all owners are dead."""
        return self._take_over(self._store.held())

    def _still(self) -> list[Job]:
        """Jobs whose owner showed no progress for a lease.

        While the database was away no owner could give a sign of life: that time does not count.
        """
        if self._blind_since is None:
            self._blind_since = self._clock.monotonic()
        held = self._store.held()
        now = self._clock.monotonic()
        blind_s, self._blind_since = now - self._blind_since, None
        seen = {job.job_id: ((job.epoch, job.heartbeat), now) for job in held}
        for job_id, (sign, _) in seen.items():
            before = self._seen.get(job_id)
            if before and before[0] == sign:
                seen[job_id] = (sign, before[1] + blind_s)
        self._seen = seen
        return [job for job in held if now - seen[job.job_id][1] >= self._lease_s[job.phase]]

    def _take_over(self, jobs: Iterable[Job]) -> list[int]:
        taken_over: list[int] = []
        for job in jobs:
            with _apart(job):
                if self._store.take_over(job):
                    about = {"job_id": job.job_id, "from": job.worker, "phase": str(job.phase)}
                    logger.warning("took a job over", extra=about)
                    taken_over.append(job.job_id)
        return taken_over

    def _hint(self, unclaimed_s: float) -> list[int]:
        hinted: list[int] = []
        for job in self._store.unclaimed(older_than_s=unclaimed_s):
            with _apart(job):
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
        left = self._store.leftovers(after=self._cleaned, limit=LEFTOVERS)
        self._cleaned = left[-1].job_id if len(left) == LEFTOVERS else 0
        cleaned: list[int] = []
        for job in left:
            with _apart(job):
                if self._removed(job):
                    self._store.cleaned(job.job_id)
                    cleaned.append(job.job_id)
        return cleaned

    def _removed(self, job: Job) -> bool:
        """Remove the staged file, or what there is of an upload; what cannot be removed now must not end the sweep."""
        try:
            if job.path:
                self._staging.remove(Path(job.path), job.landing_zone)
            else:
                self._staging.discard(job.job_id, job.kind, job.landing_zone)
        except (OSError, Unavailable) as fault:
            # Once for a job, not for every sweep.
            level = logging.DEBUG if job.job_id in self._unremoved else logging.WARNING
            about = {"job_id": job.job_id, "reason": str(fault)}
            logger.log(level, "the staged file of a job cannot be removed", extra=about)
            self._unremoved.add(job.job_id)
            return False
        self._unremoved.discard(job.job_id)
        return True


@contextmanager
def _apart(job: Job | None = None) -> Iterator[None]:
    """Keep what goes wrong with one job from the others, and from the next sweep.

    Raises:
        Unavailable: what all the others would meet, too; retryable.

    """
    try:
        yield
    except Unavailable:
        raise
    except Exception:
        # Whatever it was: without the sweep, the next crash would cost a job.
        about = {"job_id": job.job_id} if job is not None else {}
        logger.exception("a sweep ran into a fault of the service itself", extra=about)
