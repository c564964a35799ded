"""How slowly a sender may send before the connection is cut.

A rule only: it is told what arrived, by whoever reads.  A pause is limited by the time-out of the socket, as nothing
arrives in it; this is for those who send a byte now and then.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from pacifica.ingest.config import Settings
from pacifica.ingest.core.errors import TooSlow

__all__ = ["Pace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What is asked of a sender.

    Attributes:
        bytes_per_s: the least rate, on the average since the request began; 0 asks for nothing.
        grace_s: how long the rate does not matter, in seconds, in all.

    """

    bytes_per_s: int = 0
    grace_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> "Pace":
        """What the operator asks for."""
        return cls(bytes_per_s=settings.ingest.min_rate, grace_s=float(settings.ingest.min_rate_after))

    def deadline(self, began: float, arrived: int) -> float:
        """Until when, by the clock that `began` is of, more has to come than these bytes."""
        return began + self.grace_s + arrived / self.bytes_per_s if self.bytes_per_s else math.inf

    def watch(self, clock: Callable[[], float] = time.monotonic) -> Callable[[int], None]:
        """Begin; what is returned wants to be told how many bytes arrived, and raises `TooSlow`."""
        began, found = clock(), 0

        def arrived(count: int) -> None:
            nonlocal found
            found += count
            if clock() > self.deadline(began, found):
                raise TooSlow(self.bytes_per_s)

        return arrived
