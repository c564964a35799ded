"""Which archive a folder is: told by a marker in it, which the database remembers.

The marker is an empty file with a random number in its name.  So the empty folder on which an archive is not mounted is not
taken for the archive.  Used by `archive`; knows nothing of objects but the names of their outermost folders.
"""

import hashlib
import logging
import re
import stat
import threading
import uuid
from pathlib import Path
from typing import Protocol

from pacifica.ingest.core.errors import NeighbourDown
from pacifica.ingest.database import insert_once
from pacifica.ingest.disk import fsync_file, fsync_folder, make_folder
from pacifica.ingest.tables import ArchiveId, ArchiveRoot
from pacifica.ingest.transactions import retried

__all__ = ["MARKER", "DatabaseMemory", "Memory", "ProcessMemory", "Root"]

logger = logging.getLogger(__name__)

#: What the name of a marker begins with; the number of the archive follows.
MARKER = ".archive-"
NUMBER = re.compile("[0-9a-f]{32}")
#: The outermost folders of objects: that there is one tells an archive of an earlier version, without a marker.
OUTERMOST = re.compile(r"\d{3,}", re.ASCII)


class Memory(Protocol):
    """What is remembered of archives when their folders are not there."""

    def number(self, folder: Path) -> str:
        """The number of the archive in a folder; empty when none is known.

        Raises:
            DatabaseDown: retryable.

        """

    def remember(self, folder: Path, number: str) -> str:
        """Remember the number of an archive for ever; its marker must be durable.

        Returns:
            the number that counts: that of another process if it was faster.

        Raises:
            DatabaseDown: retryable.

        """

    def has_objects(self) -> bool:
        """Whether anything was ever archived, wherever that was.

        Raises:
            DatabaseDown: retryable.

        """


class DatabaseMemory:
    """`Memory` in the database of this process."""

    @retried(atomic=False)
    def number(self, folder: Path) -> str:
        """See `Memory.number`."""
        row = ArchiveRoot.get_or_none(ArchiveRoot.key == _key(folder))
        return row.number if row else ""

    def remember(self, folder: Path, number: str) -> str:
        """See `Memory.remember`."""
        self._insert(folder, number)
        return self.number(folder)

    @retried(atomic=True)
    def _insert(self, folder: Path, number: str) -> None:
        insert_once(ArchiveRoot, key=_key(folder), folder=str(folder), number=number)

    @retried(atomic=False)
    def has_objects(self) -> bool:
        """See `Memory.has_objects`."""
        # Not garbage: a crash before the first object of a new archive leaves some.
        there = ArchiveId.state == ArchiveId.ARCHIVED
        return bool(ArchiveId.select(ArchiveId.file_id).where(there).exists())


class ProcessMemory:
    """`Memory` that lasts as long as it is kept itself: for an archive without a database."""

    def __init__(self, *, has_objects: bool = False) -> None:
        """Remember nothing, or only that there are objects somewhere."""
        self._numbers: dict[Path, str] = {}
        self._has_objects = has_objects

    def number(self, folder: Path) -> str:
        """See `Memory.number`."""
        return self._numbers.get(folder, "")

    def remember(self, folder: Path, number: str) -> str:
        """See `Memory.remember`."""
        return self._numbers.setdefault(folder, number)

    def has_objects(self) -> bool:
        """See `Memory.has_objects`."""
        return self._has_objects


class Root:
    """The folder of an archive."""

    def __init__(self, folder: Path, memory: Memory) -> None:
        """Look at `folder`, an absolute path, when asked."""
        self._folder = folder
        self._memory = memory
        self._number = ""
        self._lock = threading.Lock()

    def require(self) -> None:
        """Return when the archive is here; one that nobody used yet is begun.

        Several processes that begin one at once may make a marker each.  All of them are true for ever, and one of them is
        remembered.

        Raises:
            NeighbourDown: it is not; the reason says what to do; retryable.
            DatabaseDown: retryable.

        """
        if not self._number:
            with self._lock:
                self._number = self._memory.number(self._folder) or self._begin()
        self._ensure(self._number)

    def inspect(self) -> str:
        """As `require`, but nothing is begun; returns the name of the marker, empty when there is none yet."""
        number = self._memory.number(self._folder)
        if number:
            self._ensure(number)
        else:
            number = self._found()
            if not number:
                self._ensure_new()
        return number and f"{MARKER}{number}"

    def _ensure(self, number: str) -> None:
        marker = self._marker(number)
        if not marker.exists():
            reason = (
                f"{self._folder} is not mounted here: {marker.name} is missing. Mount it; if this is the archive all the "
                f"same, and somebody removed that file, make it again: touch {marker}"
            )
            raise NeighbourDown("archive", reason)

    def _begin(self) -> str:
        number = self._found()
        if not number:
            self._ensure_new()
            number = self._establish()
        # Also the marker of another process or of a person, who may not have come so far.
        fsync_file(self._marker(number))
        fsync_folder(self._folder)
        return self._memory.remember(self._folder, number)

    def _found(self) -> str:
        markers = sorted(filter(_is_marker, self._folder.glob(f"{MARKER}*")))
        return markers[0].name.removeprefix(MARKER) if markers else ""

    def _ensure_new(self) -> None:
        """A folder without a marker is an archive of an earlier version, or a new one, which is the first."""
        if self._memory.has_objects() and not self._is_used():
            reason = (
                f"{self._folder} is empty, and files were archived before: it may not be mounted here. Mount it; if it is "
                f"a new archive, make the folder and its marker: touch {self._marker(uuid.uuid4().hex)}"
            )
            raise NeighbourDown("archive", reason)

    def _is_used(self) -> bool:
        return self._folder.is_dir() and any(OUTERMOST.fullmatch(path.name) for path in self._folder.iterdir())

    def _establish(self) -> str:
        number = uuid.uuid4().hex
        make_folder(self._folder)
        self._marker(number).touch(exist_ok=False)
        logger.warning("a new archive", extra={"folder": str(self._folder), "archive": number})
        return number

    def _marker(self, number: str) -> Path:
        return self._folder / f"{MARKER}{number}"


def _is_marker(path: Path) -> bool:
    number = path.name.removeprefix(MARKER)
    return NUMBER.fullmatch(number) is not None and stat.S_ISREG(path.lstat().st_mode)


def _key(folder: Path) -> str:
    """A path may be longer than any key."""
    return hashlib.sha256(bytes(folder)).hexdigest()
