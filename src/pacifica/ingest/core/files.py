"""The files of a document, and their archive ids, as flat arrays.

A bundle may have a million files, and an object for each of them would take kilobytes.  `FileEntry` is the value that
everybody works with; it is made when it is asked for.  Not the reading of a document (`metadata`).  Any floor may import
this.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, overload

from pacifica.ingest.core.digests import ALGORITHMS, Digest

__all__ = ["FileEntry", "FileIds", "Files"]

_ALGORITHMS: Final = tuple(ALGORITHMS)
_PLACES: Final = {name: place for place, name in enumerate(_ALGORITHMS)}
#: Stands for a size, a digest or an id that there is not.
_NONE: Final = -1


class FileEntry(NamedTuple):
    """One file as the metadata names it.  A named tuple, as it is made many times for each of a million files.

    Attributes:
        seq: its place among the files of the document, from 0.
        at: its index in the document, for messages.
        path: canonical path below `data/`.
        size_bytes: length, or None when the document does not give one (a fault that the check reports).
        digest: what the bytes must hash to, or None when it cannot be read (a fault as well).
        source: for moves, where the file lies now; else empty.

    """

    seq: int
    at: int
    path: str
    size_bytes: int | None
    digest: Digest | None
    source: str


class Files(Sequence[FileEntry]):
    """Files in the order of their document: about 70 bytes each, and its path.

    Attributes:
        paths: of each.
        total_bytes: of all whose length is known.

    """

    __slots__ = ("_algorithms", "_ats", "_digests", "_ends", "_sizes", "_sources", "paths", "total_bytes")

    def __init__(self) -> None:
        """Begin with none."""
        self.paths: list[str] = []
        self.total_bytes = 0
        self._ats = array("Q")
        self._sizes = array("q")
        self._algorithms = array("b")
        #: One after the other, as they have different lengths; and where each ends.
        self._digests = bytearray()
        self._ends = array("Q")
        self._sources: dict[int, str] = {}

    def add(self, *, at: int, path: str, size_bytes: int | None, digest: Digest | None, source: str) -> FileEntry:
        """Append a file; see `FileEntry`."""
        seq = len(self.paths)
        self.paths.append(path)
        self.total_bytes += size_bytes or 0
        self._ats.append(at)
        self._sizes.append(_NONE if size_bytes is None else size_bytes)
        self._algorithms.append(_NONE if digest is None else _PLACES[digest.algorithm])
        if digest is not None:
            self._digests += bytes.fromhex(digest.value)
        self._ends.append(len(self._digests))
        if source:
            self._sources[seq] = source
        return FileEntry(seq=seq, at=at, path=path, size_bytes=size_bytes, digest=digest, source=source)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.paths)

    def __eq__(self, other: object) -> bool:
        """Whether these are the same files in the same order."""
        return isinstance(other, Files) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it grows

    @overload
    def __getitem__(self, seq: int) -> FileEntry: ...
    @overload
    def __getitem__(self, seq: slice) -> Sequence[FileEntry]: ...
    def __getitem__(self, seq: int | slice) -> FileEntry | Sequence[FileEntry]:
        """The file at a place, or those of some places."""
        if isinstance(seq, slice):
            return [self[each] for each in range(*seq.indices(len(self)))]
        if seq < 0:
            seq += len(self)
        size = self._sizes[seq]
        return FileEntry(
            seq=seq,
            at=self._ats[seq],
            path=self.paths[seq],
            size_bytes=None if size == _NONE else size,
            digest=self._digest(seq),
            source=self._sources.get(seq, ""),
        )

    def _digest(self, seq: int) -> Digest | None:
        place = self._algorithms[seq]
        if place == _NONE:
            return None
        start = self._ends[seq - 1] if seq else 0
        return Digest(algorithm=_ALGORITHMS[place], value=self._digests[start : self._ends[seq]].hex())


class FileIds(Mapping[int, int]):
    """Place of a file → its archive id, eight bytes each."""

    __slots__ = ("_count", "_ids")

    def __init__(self, found: Iterable[tuple[int, int]] = ()) -> None:
        """Keep pairs of place and id; the last one of a place counts."""
        self._ids = array("q")
        self._count = 0
        for seq, file_id in found:
            if seq >= len(self._ids):
                self._ids.extend([_NONE] * (seq + 1 - len(self._ids)))
            self._count += self._ids[seq] == _NONE
            self._ids[seq] = file_id

    def __getitem__(self, seq: int) -> int:
        """The id of the file at a place; `KeyError` when it has none."""
        file_id = self._ids[seq] if 0 <= seq < len(self._ids) else _NONE
        if file_id == _NONE:
            raise KeyError(seq)
        return file_id

    def __iter__(self) -> Iterator[int]:
        """Places, in order."""
        return (seq for seq, file_id in enumerate(self._ids) if file_id != _NONE)

    def __len__(self) -> int:
        """How many files have one."""
        return self._count
