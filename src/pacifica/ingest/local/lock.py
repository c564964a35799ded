"""One service for one folder.

The operating system drops the lock when its holder dies, however it dies.
"""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from pacifica.ingest.core.errors import Unavailable
from pacifica.ingest.disk import make_folder

__all__ = ["FolderLock"]


class FolderLock:
    """The right to serve a folder, as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Lock nothing yet."""
        self._path = folder / "lock"

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            Unavailable: another process has it; retryable.

        """
        make_folder(self._path.parent)
        self._file = self._path.open("a+", encoding="ascii")
        try:
            _lock(self._file.fileno())
        except OSError as fault:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            msg = f"{self._path.parent} is served by another process already (pid {holder}): stop that one first."
            raise Unavailable(msg) from fault
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self._file.close()


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        # A byte far behind the text, so that others can still read who holds the lock.
        os.lseek(handle, 1 << 20, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
