"""Files that already lie on a shared file system, moved into the archive.

A step of `pipeline`.  The archive consumes the source, so nothing can be sent again: what became of an unclear move is
found out from what is left on both sides.

Source: the job protocol in `docs/architecture.md`, "Move".
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pacifica.ingest.core.errors import ArchiveMismatch, FaultyBundle
from pacifica.ingest.core.metadata import FileEntry
from pacifica.ingest.deposit import SILENCE_S, Depot, windows
from pacifica.ingest.ports import Parcel, SourceFile
from pacifica.ingest.work import Work

__all__ = ["Relocation"]

#: Faults of a source that somebody has to mend; any other, as of a disk or a mount, may pass.
_LASTING = {
    errno.EACCES,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENXIO,
    errno.EPERM,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocation:
    """Moves sources into the archive.

    Attributes:
        depot: the archive with its bookkeeping.
        roots: folders that a source must lie under.
        chunk_bytes: how much is read at a time.

    """

    depot: Depot
    roots: Sequence[Path]
    chunk_bytes: int

    def units(self, entry: FileEntry) -> int:
        """How much one file advances the work: it is checked, and then archived as `deposit` does."""
        return (entry.size_bytes or 0) + self.depot.units(entry)

    def settle(self, entries: Sequence[FileEntry], work: Work) -> list[FileEntry]:
        """Bring to an end what an earlier attempt began.

        Returns:
            the files that are still to be moved and that nothing was begun with.

        Raises:
            ArchiveMismatch: it cannot be told yet what became of a file; retryable.

        """
        store = self.depot.store
        begun, sources = store.intents(work.job_id), store.sources(work.job_id)
        archived = store.file_ids(work.job_id)
        for entry in entries:
            if entry.seq in archived:
                work.advance(self.units(entry))
            elif entry.seq in begun:
                work.advance(entry.size_bytes or 0)
                self._finish(_parcel(entry, begun[entry.seq]), sources[entry.seq], work)
        return [entry for entry in entries if entry.seq not in archived and entry.seq not in begun]

    def check(self, entries: Sequence[FileEntry], work: Work) -> list[SourceFile]:
        """Look at every source before the first is consumed.

        Returns:
            what each of them is.

        Raises:
            FaultyBundle: all faults at once; not retryable.

        """
        faults: list[str] = []
        sources: list[SourceFile] = []
        for entry in entries:
            # A file that lies on tape is silent until it was fetched.
            with work.patience(SILENCE_S):
                found = list(self._faults(entry, sources, work))
            faults += [f"{entry.path!r}: source {entry.source!r} {fault}" for fault in found]
        if faults:
            raise FaultyBundle(faults)
        return sources

    def move(self, entries: Sequence[FileEntry], sources: Sequence[SourceFile], work: Work) -> None:
        """Move checked files.

        Raises:
            Unavailable: retryable; `settle` goes on from there.

        """
        store = self.depot.store
        store.note_sources(work.claim, sources)
        known = {source.seq: source for source in sources}
        numbers = self.depot.numbers(len(entries), work)
        for window in windows(entries):
            chosen = self.depot.intend(window, numbers, work)
            for entry in window:
                parcel = _parcel(entry, chosen[entry.seq])
                self._ensure_untouched(parcel, known[entry.seq], work)
                self._adopt(parcel, work)
                self._record(parcel, work)

    def _finish(self, parcel: Parcel, source: SourceFile, work: Work) -> None:
        """Bring to an end what was begun with one file, as far as both sides tell what became of it."""
        there = self._size(parcel, work)
        is_here = _is_same(parcel, source)
        if there is None and not is_here:
            reason = f"neither the archive nor {str(parcel.holder)!r} has it"
            raise ArchiveMismatch(parcel.file_id, parcel.path, reason)
        if there not in {None, parcel.size_bytes}:
            reason = f"it has {there} bytes there, and {str(parcel.holder)!r} is {'still there' if is_here else 'gone'}"
            raise ArchiveMismatch(parcel.file_id, parcel.path, reason)
        if there is not None and is_here:
            # The archive ended between copying and removing.  It is asked again only when these are our bytes.
            self.depot.compare(parcel, work, lambda _: work.advance())
        if is_here:
            self._adopt(parcel, work)
        self._record(parcel, work)

    def _ensure_untouched(self, parcel: Parcel, source: SourceFile, work: Work) -> None:
        """Before the archive is asked for the first time: what is in the way now is not ours, and another id will do."""
        there = self._size(parcel, work)
        if there is None and _is_same(parcel, source):
            return
        # None of these intents was begun with: those before it are fulfilled.
        self.depot.store.abandon(work.claim)
        reason = "the source was changed meanwhile" if there is None else "the id holds something else already"
        raise ArchiveMismatch(parcel.file_id, parcel.path, reason)

    def _size(self, parcel: Parcel, work: Work) -> int | None:
        with work.patience(SILENCE_S):
            return self.depot.archive.size(parcel.file_id)

    def _adopt(self, parcel: Parcel, work: Work) -> None:
        with work.patience(SILENCE_S):
            self.depot.archive.adopt(parcel.file_id, parcel.holder)

    def _record(self, parcel: Parcel, work: Work) -> None:
        with work.patience(SILENCE_S):
            self.depot.archive.flush()
        self.depot.read_back(parcel, work)
        self.depot.store.archived(work.claim, [parcel.file_id])
        work.advance(1 + parcel.size_bytes)

    def _faults(self, entry: FileEntry, sources: list[SourceFile], work: Work) -> Iterator[str]:
        """What is wrong with one source; appends to `sources` what it is."""
        path = Path(entry.source)
        fault = _place_fault(path, self.roots)
        if fault:
            yield fault
            return
        try:
            yield from self._content_faults(entry, path, sources, work)
        except OSError as problem:
            if problem.errno not in _LASTING:
                raise
            yield f"cannot be read: {problem.strerror}"

    def _content_faults(self, entry: FileEntry, path: Path, sources: list[SourceFile], work: Work) -> Iterator[str]:
        with open(path, "rb", opener=_open_plain) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                yield "is not a regular file"
                return
            if entry.size_bytes is not None and status.st_size != entry.size_bytes:
                yield f"has {status.st_size} bytes, the metadata says {entry.size_bytes}"
                return
            if entry.digest is not None:
                hasher = entry.digest.start()
                while chunk := file.read(self.chunk_bytes):
                    hasher.update(chunk)
                    work.advance(len(chunk))
                if hasher.hexdigest() != entry.digest.value:
                    algorithm = entry.digest.algorithm
                    yield f"has {algorithm} {hasher.hexdigest()}, the metadata says {entry.digest.value}"
                    return
            sources.append(SourceFile(seq=entry.seq, device=status.st_dev, inode=status.st_ino))


def _open_plain(path: str, flags: int) -> int:
    """Open without following a link and without waiting for a FIFO's other end."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _place_fault(path: Path, roots: Sequence[Path]) -> str | None:
    """Why a source must not be touched where it is; None when it may be."""
    if not path.is_absolute() or ".." in path.parts:
        return "must be an absolute path without '..'"
    root = next((root for root in roots if path.is_relative_to(root.absolute())), None)
    if root is None:
        return f"does not lie under {' or '.join(str(root) for root in roots)} ([ingest] move_roots)"
    below = path.relative_to(root.absolute())
    if any((root / Path(*below.parts[:depth])).is_symlink() for depth in range(1, len(below.parts) + 1)):
        return "is reached through a symbolic link"
    return None if path.exists() else "does not exist"


def _is_same(parcel: Parcel, source: SourceFile) -> bool:
    """Whether the source is still the file that was checked."""
    try:
        status = parcel.holder.lstat()
    except OSError:
        return False
    return (status.st_dev, status.st_ino, status.st_size) == (source.device, source.inode, parcel.size_bytes)


def _parcel(entry: FileEntry, file_id: int) -> Parcel:
    if entry.digest is None or entry.size_bytes is None:  # pragma: no cover (the check refuses such a file)
        raise AssertionError(entry.path)
    return Parcel(
        file_id=file_id,
        path=entry.path,
        holder=Path(entry.source),
        offset=0,
        size_bytes=entry.size_bytes,
        digest=entry.digest,
    )
