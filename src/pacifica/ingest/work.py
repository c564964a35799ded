"""One claim while it is being worked on: the only writer of progress, and the place where work is told to end.

`pipeline` and its steps call it; nobody else does.  Knows ports and core only.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from pacifica.ingest.core.errors import ClaimLost, Stopping, Unavailable
from pacifica.ingest.core.jobs import Claim, Job
from pacifica.ingest.core.states import Step
from pacifica.ingest.ports import Clock, JobStore

__all__ = ["Work"]

logger = logging.getLogger(__name__)

#: Progress is written at most this often, in seconds.
REPORT_EVERY_S = 1.0
#: Being asked to stop waits for so long, in seconds, for what is better brought to its end.
#: Less than what a pool gives to its workers (`local.pool.GRACE_S`).
FINISHING_S = 4.0


class Work:
    """A claim in progress, as a context manager.

    The heart, a thread of its own, beats for as long as the work moved lately or said how long it may be silent
    (`patience`).  Work that hangs for longer stops beating, and another worker takes the job over.

    Attributes:
        claim: what every write is conditional on.
        step: where the work is.

    """

    def __init__(
        self, claim: Claim, *, store: JobStore, clock: Clock, lease_s: float, stopping: Callable[[], bool]
    ) -> None:
        """Work on a claim; `stopping` tells whether this process is to end."""
        self.claim = claim
        self.step = Step.UPLOADING
        self._store = store
        self._clock = clock
        self._lease_s = lease_s
        self._stopping = stopping
        self._total = 0
        self._done = 0
        self._reported = clock.monotonic()
        self._silence_s = lease_s
        self._silent_until = clock.monotonic() + lease_s
        self._lost = False
        self._is_finishing = False
        self._stopped_at: float | None = None
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"heart of job {claim.job_id}", daemon=True)

    @property
    def job(self) -> Job:
        """The job as it was when it was claimed."""
        return self.claim.job

    @property
    def job_id(self) -> int:
        """The job's number."""
        return self.claim.job_id

    def __enter__(self) -> Self:
        """Start the heart."""
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the heart."""
        self._over.set()
        self._heart.join()

    def begin(self, step: Step, total: int = 0) -> None:
        """Enter a step.

        Args:
            step: told to clients at once.
            total: how much `advance` will add up to, in any unit; 0 when it is not known.

        Raises:
            ClaimLost: the job has another owner.
            Stopping: this process is to end.

        """
        self.step, self._total, self._done = step, total, 0
        self._alive()
        self._report()

    def advance(self, amount: int = 0) -> None:
        """Tell that something was done; cheap, so call it often.  Raises as `begin`.

        Args:
            amount: in the unit of `begin`.

        """
        self._done += amount
        self._alive()
        if self._clock.monotonic() - self._reported >= REPORT_EVERY_S:
            self._report()

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Around a call that may rightly be silent for that long, also after it showed progress."""
        self._silence_s = seconds + self._lease_s
        self._silent_until = self._clock.monotonic() + self._silence_s
        try:
            yield
        finally:
            self._silence_s = self._lease_s
            self._silent_until = self._clock.monotonic() + self._lease_s

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Around what would be lost if it were cut short: being asked to stop waits for `FINISHING_S` seconds at most."""
        self._is_finishing = True
        try:
            yield
        finally:
            self._is_finishing = False

    def _is_to_stop(self) -> bool:
        if not self._stopping():
            return False
        if self._stopped_at is None:
            self._stopped_at = self._clock.monotonic()
        return not self._is_finishing or self._clock.monotonic() - self._stopped_at >= FINISHING_S

    def _alive(self) -> None:
        if self._lost:
            msg = f"Job {self.job_id} has another owner now."
            raise ClaimLost(msg)
        if self._is_to_stop():
            msg = "This worker stops; the job goes on later."
            raise Stopping(msg)
        self._silent_until = self._clock.monotonic() + self._silence_s

    def _report(self) -> None:
        """Write progress.  A database that is away for a moment does not stop the work: its next write decides."""
        self._reported = self._clock.monotonic()
        percent = min(100.0, 100.0 * self._done / self._total) if self._total else 0.0
        try:
            self._store.report(self.claim, self.step, percent)
        except Unavailable as fault:
            logger.warning("progress was not written", extra={"job_id": self.job_id, "reason": str(fault)})

    def _beat(self) -> None:
        while not self._over.wait(self._lease_s / 6):
            if self._clock.monotonic() > self._silent_until:
                continue
            try:
                self._store.beat(self.claim)
            except ClaimLost:
                self._lost = True
                return
            except Unavailable as fault:
                logger.warning("heartbeat was not written", extra={"job_id": self.job_id, "reason": str(fault)})
