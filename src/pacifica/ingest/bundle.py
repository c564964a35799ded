"""An indexed, read-only view of a tar bundle.

One pass over the headers builds the index: canonical path → place of the bytes in the file.  Nothing is extracted and
no file of a bundle is ever held in memory, so the cost grows with the number of members and not with their bytes.

The tar is untrusted.  A strict subset is read (`core.tar_header`), and everything on which readers disagree is
refused, with the member named: what was indexed here is what any other tar program sees.  Taken are regular files
below `data/` and one `metadata.txt`; folders are passed over.

Not a tar library: it writes nothing, follows no links and knows no compression.  Not the check of the bytes against
the metadata, which is `pipeline`.  `intake`, `pipeline` and `recovery` may call it, and the façade `tarutils`.
"""

import os
import stat
import threading
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple, Self

from pacifica.ingest.core.errors import BadMetadata, BadPath
from pacifica.ingest.core.mistaken import no_tar
from pacifica.ingest.core.paths import METADATA, is_metadata, member_path
from pacifica.ingest.core.tar_header import BLOCK, EXTENSIONS, NOTHING, Entry, Header, is_end, padded, refuse

__all__ = ["Bundle", "Limits", "Member", "Members"]

_ZEROS: Final = bytes(1 << 20)
_SMALL_WINDOW: Final = 4 << 10
_LARGE_WINDOW: Final = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a bundle may cost us; a bundle above any of these is refused.

    Attributes:
        members: number of members besides metadata.txt, folders included.
        name_length: length of a member's name as the tar spells it, in characters.
        extended_bytes: size of one extended header (PAX records or a GNU long name); it is read into memory.
        metadata_bytes: size of metadata.txt.

    """

    members: int = 1_000_000
    name_length: int = 4096
    extended_bytes: int = 1 << 20
    metadata_bytes: int = 512 << 20


class Member(NamedTuple):
    """One file of a bundle.

    Attributes:
        path: canonical path relative to `data/`.
        offset: where its bytes begin in the tar, in bytes.
        size: how many there are.
        mtime: seconds since 1970, as the tar says; the truth for the catalogue is in the metadata.

    """

    path: str
    offset: int
    size: int
    mtime: float


class Members(Mapping[str, Member]):
    """Canonical path → member, in the order of the archive.

    Flat arrays instead of objects: about 180 bytes a member, which a bundle with a million files needs.
    A `Member` is made when it is asked for.
    """

    __slots__ = ("_mtimes", "_offsets", "_places", "_sizes")

    def __init__(self) -> None:
        """Make an empty index."""
        self._places: dict[str, int] = {}
        self._offsets = array("Q")
        self._sizes = array("Q")
        self._mtimes = array("d")

    def __getitem__(self, path: str) -> Member:
        """The member with this canonical path; `KeyError` when there is none."""
        place = self._places[path]
        return Member(path=path, offset=self._offsets[place], size=self._sizes[place], mtime=self._mtimes[place])

    def __iter__(self) -> Iterator[str]:
        """Canonical paths in the order of the archive."""
        return iter(self._places)

    def __len__(self) -> int:
        """Number of files, without metadata.txt and folders."""
        return len(self._places)

    def __contains__(self, path: object) -> bool:
        """Whether there is a member with this canonical path."""
        return path in self._places

    def _add(self, path: str, offset: int, size: int, mtime: float) -> bool:
        """Append a member; False when the path is taken."""
        place = len(self._offsets)
        if self._places.setdefault(path, place) != place:
            return False
        self._offsets.append(offset)
        self._sizes.append(size)
        self._mtimes.append(mtime)
        return True


class Bundle:
    """An open bundle.  Reading is safe from many threads at once; closing is not, while others read."""

    __slots__ = ("_file", "_metadata", "members")

    #: Files below `data/` by canonical path.
    members: Members

    def __init__(self, file: "_File", limits: Limits) -> None:
        """Index an open file; use `open`."""
        scan = _Scan(file, limits)
        scan.run()
        self._file = file
        self._metadata = scan.metadata
        self.members = scan.members

    @classmethod
    def open(cls, path: str | os.PathLike[str], limits: Limits = Limits()) -> Self:
        """Open and index a bundle.

        Args:
            path: the staged file.
            limits: what it may cost.

        Raises:
            BadBundle: the file is no tar that we take.  Not retryable.
            OSError: the file cannot be opened or read.

        """
        file = _File(path)
        try:
            return cls(file, limits)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        """Use as a context manager: closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def __len__(self) -> int:
        """Number of files, without metadata.txt and folders."""
        return len(self.members)

    def __iter__(self) -> Iterator[Member]:
        """Members in the order of the archive."""
        return iter(self.members.values())

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()

    def fileno(self) -> int:
        """The file's descriptor, for `sendfile` from a member's offset.  Its own position means nothing.

        Raises:
            ValueError: the bundle is closed.

        """
        return self._file.fileno()

    def metadata(self) -> Iterator[bytes]:
        """The contents of metadata.txt, in pieces.

        Raises:
            BadMetadata: the bundle has none.  Not retryable.
            OSError: the file cannot be read.

        """
        if self._metadata is None:
            raise BadMetadata([f"The bundle has no {METADATA}."])
        return self.chunks(self._metadata)

    def chunks(self, member: Member, size: int = 1 << 20) -> Iterator[bytes]:
        """The member's bytes, in order.

        Args:
            member: one of `members`.
            size: length of a chunk in bytes; the last one is shorter.

        Raises:
            BadBundle: the file became shorter since it was opened.  Not retryable.
            ValueError: the bundle is closed, or the chunk size is not positive.
            OSError: the file cannot be read.

        """
        if size <= 0:
            msg = f"a chunk of {size} bytes"
            raise ValueError(msg)
        offset, end = member.offset, member.offset + member.size
        while offset < end:
            chunk = self._file.read_at(offset, min(size, end - offset))
            if not chunk:
                refuse("the bundle became shorter while it was read", member.path)
            yield chunk
            offset += len(chunk)


class _File:
    """A file that many threads read at places of their own."""

    __slots__ = ("_fd", "_lock", "size")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._lock = threading.Lock()
        # Without O_NONBLOCK the opening of a FIFO waits for a writer.
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        status = os.fstat(self._fd)
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            self.close()
            refuse("not a regular file")

    def fileno(self) -> int:
        if self._fd < 0:
            msg = "the bundle is closed"
            raise ValueError(msg)
        return self._fd

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; empty at the end of the file."""
        if hasattr(os, "pread"):
            return os.pread(self.fileno(), size, offset)
        return self.seek_and_read(offset, size)

    def seek_and_read(self, offset: int, size: int) -> bytes:
        """The same where there is no `pread` (Windows): one thread at a time."""
        with self._lock:
            os.lseek(self.fileno(), offset, os.SEEK_SET)
            return os.read(self._fd, size)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Window:
    """A buffer that moves forward over the file.

    Small members lie close together, so that one large read serves hundreds of headers; between large ones a small
    read is cheaper than all the bytes.  The buffer grows while the next header is near, and starts small after a jump.
    """

    __slots__ = ("_base", "_buffer", "_file", "_length")

    def __init__(self, file: _File) -> None:
        self._file = file
        self._base = 0
        self._buffer = b""
        self._length = _SMALL_WINDOW

    def take(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer only at the end of the file."""
        start = offset - self._base
        if start + size > len(self._buffer):
            self._refill(offset, size)
            start = 0
        return self._buffer[start : start + size]

    def _refill(self, offset: int, size: int) -> None:
        near = offset - self._base - len(self._buffer) <= self._length
        self._length = min(self._length * 2, _LARGE_WINDOW) if near else _SMALL_WINDOW
        self._base = offset
        self._buffer = self._read(offset, max(size, self._length))

    def _read(self, offset: int, size: int) -> bytes:
        data = self._file.read_at(offset, size)
        while len(data) < size and (more := self._file.read_at(offset + len(data), size - len(data))):
            data += more
        return data


class _Scan:
    """The one pass over the headers."""

    __slots__ = ("_count", "_file", "_limits", "_window", "members", "metadata")

    def __init__(self, file: _File, limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._window = _Window(file)
        self._count = 0
        self.members = Members()
        self.metadata: Member | None = None

    def run(self) -> None:
        """Index all members, or raise BadBundle."""
        offset = 0
        extension = NOTHING
        waiting = False
        # Each turn moves forward by a block at least, as no size is negative: this ends.
        while not is_end(block := self._window.take(offset, BLOCK)):
            header = Header.read(block, offset)
            offset += BLOCK
            waiting = header.kind in EXTENSIONS
            if waiting:
                size = header.size
                extension = extension.extended(header, self._body(header, offset))
            else:
                entry = Entry.of(header, extension)
                size = entry.size
                self._enter(entry, offset)
                extension = NOTHING
            offset += padded(size)
        if waiting:
            refuse("the bundle ends after an extended header, without its member", extension.name)
        self._check_end(offset)

    def _body(self, header: Header, offset: int) -> bytes:
        if header.size > self._limits.extended_bytes:
            limit = f"at most {self._limits.extended_bytes} are read ([ingest] max_extended_header)"
            header.refuse(f"an extended header of {header.size} bytes; {limit}")
        body = self._window.take(offset, padded(header.size))
        if len(body) < header.size:
            header.refuse("the bundle ends inside this extended header")
        if body[header.size :].strip(b"\0"):
            # Some readers take a long name to its size, and others to the first zero.
            header.refuse("behind an extended header its padding is not zero")
        return body[: header.size]

    def _enter(self, entry: Entry, offset: int) -> None:
        name = entry.name
        self._count += 1
        if self._count > self._limits.members and not is_metadata(name):
            refuse(f"more than {self._limits.members} members ([ingest] max_members)", name)
        if len(name) > self._limits.name_length:
            limit = f"at most {self._limits.name_length} are allowed ([ingest] max_name_length)"
            refuse(f"a name of {len(name)} characters; {limit}", name)
        if offset + padded(entry.size) > self._file.size:
            refuse(f"the bundle ends inside this member of {entry.size} bytes", name)
        if not entry.is_file:
            return
        try:
            new = self.members._add(member_path(name), offset, entry.size, entry.mtime)
        except BadPath as fault:
            if not is_metadata(name):
                refuse(fault.reason, name)
            new = self._enter_metadata(entry, offset)
        if not new:
            refuse("the bundle has two members with this name", name)

    def _enter_metadata(self, entry: Entry, offset: int) -> bool:
        """Keep metadata.txt; False when there is one."""
        if entry.size > self._limits.metadata_bytes:
            limit = f"at most {self._limits.metadata_bytes} are read ([ingest] max_metadata_size)"
            refuse(f"metadata of {entry.size} bytes; {limit}", entry.name)
        new = self.metadata is None
        self._count -= 1
        self.metadata = Member(path=METADATA, offset=offset, size=entry.size, mtime=entry.mtime)
        return new

    def _check_end(self, offset: int) -> None:
        """Nothing but zeros to the end of the file.

        Padding to any length and no end at all are both common: a last member that is whole is enough.
        """
        if self._file.size < BLOCK:
            refuse(no_tar(self._window.take(0, BLOCK), "shorter than a tar header"))
        while offset < self._file.size:
            tail = self._window.take(offset, min(len(_ZEROS), self._file.size - offset))
            if not tail or tail != _ZEROS[: len(tail)]:
                refuse(f"after the end of the archive, at byte {offset}, more bytes follow")
            offset += len(tail)
