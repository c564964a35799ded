"""The landing zone: bodies on `volume_path`, from the first byte until they are archived.

A file is written under a name ending in `.part`, and gets its final name only when it is complete and on disk.  Fulfils
`ports.Staging`.  Knows nothing of what is in a file.

A landing zone is known by a marker: an empty file with a random number in its name.  So a folder on which nothing is
mounted is not taken for a landing zone whose files are gone.
"""

import logging
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pacifica.ingest.core.errors import ClaimLost, Conflict, NoSpace, Unavailable
from pacifica.ingest.core.states import Kind
from pacifica.ingest.disk import begin_writing_out, fsync_folder, make_folder, publish, space
from pacifica.ingest.ports import Receipt

__all__ = ["MARKER", "STAGED", "FolderStaging"]

logger = logging.getLogger(__name__)

#: The names of staged files; a landing zone may be /tmp, where others have files too.
STAGED = re.compile(r"(?P<job_id>[1-9]\d{0,18})(?P<suffix>\.tar|\.json)(?P<part>\.part)?", re.ASCII)
#: What the name of a marker begins with; the landing zone's number follows.
MARKER = ".landing-zone-"
NUMBER = re.compile("[0-9a-f]{32}")
#: A marker is touched when it is older than that, in seconds: a landing zone may be a folder whose old files are removed.
MARKER_AGE_S = 86_400.0
#: A long body begins to go to the disk each time that so many bytes of it came: receiving and writing out overlap.
WRITE_OUT_BYTES = 16 << 20


class FolderStaging:
    """`ports.Staging` in one folder, which is made when it is missing."""

    def __init__(self, folder: Path, keep_free_bytes: int) -> None:
        """Use `folder`, and never fill its file system beyond `keep_free_bytes`."""
        self._folder = folder
        self._keep_free_bytes = keep_free_bytes
        self._landing_zone = ""

    def admit(self, size_bytes: int | None) -> str:
        """See `ports.Staging.admit`."""
        with _usable(self._folder):
            make_folder(self._folder)
            self._room(size_bytes)
            return self._identity()

    def _room(self, size_bytes: int | None) -> None:
        free = shutil.disk_usage(self._folder).free - self._keep_free_bytes
        if free < (size_bytes or 0):
            why = ", as some space is kept free ([ingest] keep_free)" if self._keep_free_bytes else ""
            wanted = size_bytes or "any more"
            msg = f"There is room for {max(free, 0)} bytes, not for {wanted}{why}. Try again later."
            raise NoSpace(msg)

    def _identity(self) -> str:
        """Which landing zone this is.

        Several processes that use a new one at once may make a marker each.  All of them are true for ever.
        """
        if not self._landing_zone or not _marker(self._folder, self._landing_zone).exists():
            found = sorted(filter(_is_marker, self._folder.glob(f"{MARKER}*")))
            self._landing_zone = found[0].name.removeprefix(MARKER) if found else self._establish()
            # Also for the marker of another process that has not come so far.
            fsync_folder(self._folder)
        marker = _marker(self._folder, self._landing_zone)
        if time.time() - marker.stat().st_mtime > MARKER_AGE_S:
            try:
                os.utime(marker)
            except PermissionError:
                # Another user's, who may not come again: it would be removed while we use it.
                self._landing_zone = self._establish()
                fsync_folder(self._folder)
        return self._landing_zone

    def _establish(self) -> str:
        """Make this a landing zone."""
        number = uuid.uuid4().hex
        _marker(self._folder, number).touch(exist_ok=False)
        logger.warning("a new landing zone", extra={"folder": str(self._folder), "landing_zone": number})
        return number

    def begin(self, job_id: int, kind: Kind, landing_zone: str) -> "FolderUpload":
        """See `ports.Staging.begin`."""
        final = self._final(job_id, kind)
        with _usable(self._folder):
            self._require(self._folder, landing_zone)
            _refuse_taken(final)
            # The job id is ours alone by its row in the store, so what lies there is left from a dead process.
            _part(final).unlink(missing_ok=True)
            return FolderUpload(final, self._room)

    def is_here(self, path: Path, landing_zone: str) -> bool:
        """See `ports.Staging.is_here`."""
        return not landing_zone or _marker(path.parent, landing_zone).exists()

    def discard(self, job_id: int, kind: Kind, landing_zone: str) -> None:
        """See `ports.Staging.discard`."""
        final = self._final(job_id, kind)
        self._require(self._folder, landing_zone)
        part = _part(final)
        self._remove(self._folder, landing_zone, part, *([] if _is_theirs(part, final) else [final]))

    def remove(self, path: Path, landing_zone: str) -> None:
        """See `ports.Staging.remove`."""
        if self.is_ours(path, landing_zone):
            self._remove(path.parent, landing_zone, path)

    def is_ours(self, path: Path, landing_zone: str) -> bool:
        """See `ports.Staging.is_ours`."""
        return bool(landing_zone) or (STAGED.fullmatch(path.name) is not None and self._holds(path))

    def _remove(self, folder: Path, landing_zone: str, *paths: Path) -> None:
        self._require(folder, landing_zone)
        for path in paths:
            path.unlink(missing_ok=True)
        # Also when nothing was there: whoever removed it may have died before this.
        if folder.is_dir():
            fsync_folder(folder)

    @staticmethod
    def _require(folder: Path, landing_zone: str) -> None:
        if landing_zone and not _marker(folder, landing_zone).exists():
            msg = f"The landing zone of this job is not mounted here: {_marker(folder, landing_zone).name} is missing."
            raise Unavailable(msg)

    def owns(self, path: Path) -> bool:
        """See `ports.Staging.owns`."""
        is_one = path.name.startswith(MARKER) or STAGED.fullmatch(path.name) is not None
        return is_one and self._holds(path)

    def _holds(self, path: Path) -> bool:
        try:
            return path.parent.samefile(self._folder)
        except FileNotFoundError:
            return False

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
        self._written_out = 0

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """See `ports.Upload.write`."""
        with _usable(self._final.parent), memoryview(chunk) as view:
            # Many bodies at once, and those without a length, have not been counted before.
            self._room(len(view))
            done = 0
            while done < len(view):
                done += self._file.write(view[done:]) or 0
            self._size_bytes += done
            if self._size_bytes - self._written_out >= WRITE_OUT_BYTES:
                begin_writing_out(self._file.fileno(), self._written_out, self._size_bytes - self._written_out)
                self._written_out = self._size_bytes

    def commit(self) -> Receipt:
        """See `ports.Upload.commit`."""
        with _usable(self._final.parent):
            os.fsync(self._file.fileno())
            number = os.fstat(self._file.fileno()).st_ino
            self._file.close()
            self._publish(number)
            fsync_folder(self._final.parent)
        return Receipt(path=self._final, size_bytes=self._size_bytes)

    def _publish(self, number: int) -> None:
        """Give the partial file, known by the number of its inode, its final name; the file of another stays."""
        part = _part(self._final)
        try:
            if part.stat().st_ino != number:
                msg = f"{part.name} is that of another system, which was given the same number; the upload is lost."
                raise ClaimLost(msg)
            publish(part, self._final)
        except FileExistsError as fault:
            part.unlink(missing_ok=True)
            raise _taken(self._final) from fault
        except FileNotFoundError as fault:
            if not self._final.parent.is_dir():
                raise
            msg = f"{part.name} is gone: the upload was given up."
            raise ClaimLost(msg) from fault
        # The file has both names until now; where there are no links, it was renamed.
        part.unlink(missing_ok=True)

    def close(self) -> None:
        """See `ports.Upload.close`."""
        self._file.close()


def _part(final: Path) -> Path:
    return final.with_name(f"{final.name}.part")


def _is_marker(path: Path) -> bool:
    """Whether this is one of our making: anybody may put files into a folder like /tmp."""
    number = path.name.removeprefix(MARKER)
    return NUMBER.fullmatch(number) is not None and stat.S_ISREG(path.lstat().st_mode)


def _marker(folder: Path, landing_zone: str) -> Path:
    return folder / f"{MARKER}{landing_zone}"


def _refuse_taken(final: Path) -> None:
    if final.exists():
        raise _taken(final)


def _taken(final: Path) -> Conflict:
    return Conflict(f"{final.name} is there already, from another system; an operator has to look at it.")


def _is_theirs(part: Path, final: Path) -> bool:
    """Whether a file is surely not ours: while our partial one is there, ours is the same file, or not there yet."""
    try:
        return not part.samefile(final)
    except FileNotFoundError:
        return False


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """Tell faults of the disk as what they are to clients: a service that cannot take anything for now."""
    try:
        with space("uploads"):
            yield
    except NoSpace as fault:
        logger.warning("no space for an upload", extra={"folder": str(folder), "reason": str(fault)})
        raise
    except OSError as fault:
        logger.exception("the landing zone cannot be used")
        msg = f"The landing zone cannot be used ({fault.strerror}). Try again later; the operator has to look at it."
        raise Unavailable(msg) from fault
