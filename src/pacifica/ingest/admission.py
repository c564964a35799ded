"""How many uploads are received at once, in all and for one user, and how many of them are written down at once.

Counts in this process alone: several server processes take as many each.  `intake` asks before anything of an upload is
begun, and before each write; `app` sets the limits.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pacifica.ingest.core.errors import Busy, TooManyUploads

__all__ = ["Admission"]

#: Uploads that write at once.  Python runs one thread at a time: were all of them awake, whoever asks for a state would wait
#: for each of them several times, and two keep a disk busy.
WRITERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Lets uploads in, and counts them.

    Attributes:
        most: uploads at once; 0 is no limit.
        most_per_user: of these for one user; 0 is no limit.
        nobody: the user of requests that name none; many people share it, so that only `most` limits it.
        turn: to be held while something that came is written.

    """

    most: int = 0
    most_per_user: int = 0
    nobody: str = ""
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(WRITERS))
    _under_way: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def upload(self, user: str) -> Iterator[None]:
        """Receive one upload in this block.

        Raises:
            Busy, TooManyUploads: not now; retryable.

        """
        with self._lock:
            if self.most and self._under_way.total() >= self.most:
                raise Busy(self.most)
            if self.most_per_user and user != self.nobody and self._under_way[user] >= self.most_per_user:
                raise TooManyUploads(self.most_per_user)
            self._under_way[user] += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way[user] -= 1
                if not self._under_way[user]:
                    del self._under_way[user]
