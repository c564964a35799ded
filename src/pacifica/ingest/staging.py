"""The landing zone: bodies on `volume_path`, from the first byte until they are archived.

A file is written under a name ending in `.part`, and gets its final name only when it is complete and on disk.  Fulfils
`ports.Staging`.  Knows nothing of what is in a file.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pacifica.ingest.core.errors import Conflict, NoSpace, Unavailable
from pacifica.ingest.core.states import Kind
from pacifica.ingest.disk import fsync_folder, make_folder, space
from pacifica.ingest.ports import Receipt

__all__ = ["FolderStaging"]

logger = logging.getLogger(__name__)


class FolderStaging:
    """`ports.Staging` in one folder, which is made when it is missing."""

    def __init__(self, folder: Path, keep_free_bytes: int) -> None:
        """Use `folder`, and never fill its file system beyond `keep_free_bytes`."""
        self._folder = folder
        self._keep_free_bytes = keep_free_bytes

    def admit(self, size_bytes: int | None) -> None:
        """See `ports.Staging.admit`."""
        with _usable():
            make_folder(self._folder)
            self._room(size_bytes)

    def _room(self, size_bytes: int | None) -> None:
        free = shutil.disk_usage(self._folder).free - self._keep_free_bytes
        if free < (size_bytes or 0):
            msg = f"There is room for {max(free, 0)} bytes, not for {size_bytes or 'any more'}. Try again later."
            raise NoSpace(msg)

    def begin(self, job_id: int, kind: Kind) -> "FolderUpload":
        """See `ports.Staging.begin`."""
        final = self._final(job_id, kind)
        with _usable():
            _refuse_taken(final)
            # The job id is ours alone by its row in the store, so what lies there is left from a dead process.
            _part(final).unlink(missing_ok=True)
            return FolderUpload(final, self._room)

    def discard(self, job_id: int, kind: Kind) -> None:
        """See `ports.Staging.discard`."""
        final = self._final(job_id, kind)
        for path in (_part(final), final):
            self.remove(path)

    def remove(self, path: Path) -> None:
        """See `ports.Staging.remove`."""
        path.unlink(missing_ok=True)

    def _final(self, job_id: int, kind: Kind) -> Path:
        return self._folder / f"{job_id}{kind.suffix}"


class FolderUpload:
    """`ports.Upload` into a file of a folder."""

    def __init__(self, final: Path, room: Callable[[int], None]) -> None:
        """Open the partial file; there must be none.  Asks `room` before it takes more space."""
        self._final = final
        self._room = room
        self._file = _part(final).open("xb", buffering=0)
        self._size_bytes = 0

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """See `ports.Upload.write`."""
        with _usable(), memoryview(chunk) as view:
            # Many bodies at once, and those without a length, have not been counted before.
            self._room(len(view))
            done = 0
            while done < len(view):
                done += self._file.write(view[done:]) or 0
        self._size_bytes += done

    def commit(self) -> Receipt:
        """See `ports.Upload.commit`."""
        with _usable():
            os.fsync(self._file.fileno())
            self._file.close()
            try:
                _refuse_taken(self._final)
            except Conflict:
                _part(self._final).unlink()
                raise
            _part(self._final).rename(self._final)
            fsync_folder(self._final.parent)
        return Receipt(path=self._final, size_bytes=self._size_bytes)

    def close(self) -> None:
        """See `ports.Upload.close`."""
        self._file.close()


def _part(final: Path) -> Path:
    return final.with_name(f"{final.name}.part")


def _refuse_taken(final: Path) -> None:
    if final.exists():
        msg = f"{final.name} is there already, from another system; an operator has to look at it."
        raise Conflict(msg)


@contextmanager
def _usable() -> Iterator[None]:
    """Tell faults of the disk as what they are to clients: a service that cannot take anything for now."""
    try:
        with space("uploads"):
            yield
    except OSError as fault:
        logger.exception("the landing zone cannot be used")
        msg = f"The landing zone cannot be used ({fault.strerror}). Try again later; the operator has to look at it."
        raise Unavailable(msg) from fault
