"""Sources of a move: where they may lie, and whether they are what the metadata says.

Looks only; what becomes of a source is for `relocate`.  Called by that alone; `pipeline` and `tarutils` wire it.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pacifica.ingest.core.files import FileEntry
from pacifica.ingest.ports import SourceFile

__all__ = ["Place", "Sources", "UnfitSource"]

#: What a source is known by, however its path is spelled.
Place = tuple[int, int, str]

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


#: A folder on the way is opened to look below it, which needs no right to list it.
_ON_THE_WAY = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_LINKED = "is reached through a symbolic link"
_HAS_DIR_FD = os.open in os.supports_dir_fd


class UnfitSource(Exception):
    """A source that must not be moved; `relocate` tells all of them as one fault of the service.

    Attributes:
        reason: what is wrong, as the end of a sentence.
        is_gone: whether nothing is to be seen there.

    """

    def __init__(self, reason: str, *, is_gone: bool = False) -> None:
        """Tell why."""
        super().__init__(reason)
        self.reason = reason
        self.is_gone = is_gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Looks at sources.

    Attributes:
        roots: folders that a source must lie under.
        is_staged: whether a path is a file of the landing zone itself.
        chunk_bytes: how much is read at a time.

    """

    roots: Sequence[Path]
    is_staged: Callable[[Path], bool]
    chunk_bytes: int

    def examine(self, entry: FileEntry, progress: Callable[[int], None]) -> tuple[os.stat_result, Place]:
        """Compare a source with what the metadata says, and tell `progress` what was read.

        Raises:
            UnfitSource: it must not be moved.
            OSError: a fault that may pass.

        """
        try:
            with _spot(*self._placed(Path(entry.source))) as spot:
                status = self._read(spot, entry, progress)
                return status, _place(spot, status)
        except OSError as fault:
            if fault.errno not in _LASTING:
                raise
            is_gone = fault.errno in {errno.ENOENT, errno.ENOTDIR}
            reason = "does not exist" if is_gone else f"cannot be read: {fault.strerror}"
            raise UnfitSource(reason, is_gone=is_gone) from fault

    def ensure_same(self, entry: FileEntry, noted: SourceFile, progress: Callable[[int], None]) -> None:
        """Return when the source is still the file that was checked; raises as `examine`.

        Another client of the same file system, and the same one after a mount, may know it by other numbers: then its
        bytes tell.
        """
        try:
            with _spot(*self._placed(Path(entry.source))) as spot:
                status = os.stat(spot.name, dir_fd=spot.folder, follow_symlinks=False)
        except (OSError, UnfitSource):
            pass  # told by what follows
        else:
            is_known = (status.st_dev, status.st_ino) == (noted.device, noted.inode)
            if is_known and stat.S_ISREG(status.st_mode) and status.st_size == entry.size_bytes:
                return
        self.examine(entry, progress)

    def _placed(self, path: Path) -> tuple[Path, tuple[str, ...]]:
        """The root that a source lies under, and the way from there; refuses one that must not be touched where it is."""
        if not path.is_absolute() or ".." in path.parts:
            reason = "must be an absolute path without '..'"
            raise UnfitSource(reason)
        if self.is_staged(path):
            reason = "is a file of the landing zone itself"
            raise UnfitSource(reason)
        for root in map(Path.absolute, self.roots):
            way = path.parts[len(root.parts) :]
            if path.parts == root.parts + way:
                return root, way
        reason = f"does not lie under {' or '.join(map(str, self.roots))} ([ingest] move_roots)"
        raise UnfitSource(reason)

    def _read(self, spot: "_Spot", entry: FileEntry, progress: Callable[[int], None]) -> os.stat_result:
        with open(spot.name, "rb", opener=spot.open_plain) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                reason = "is not a regular file"
                raise UnfitSource(reason)
            if entry.size_bytes is not None and status.st_size != entry.size_bytes:
                reason = f"has {status.st_size} bytes, the metadata says {entry.size_bytes}"
                raise UnfitSource(reason)
            if entry.digest is not None:
                hasher = entry.digest.start()
                while chunk := file.read(self.chunk_bytes):
                    hasher.update(chunk)
                    progress(len(chunk))
                if hasher.hexdigest() != entry.digest.value:
                    algorithm = entry.digest.algorithm
                    reason = f"has {algorithm} {hasher.hexdigest()}, the metadata says {entry.digest.value}"
                    raise UnfitSource(reason)
            return status


class _Spot(NamedTuple):
    """Where a source lies.

    Attributes:
        name: in the folder; the whole path where the system knows no names in open folders (Windows).
        folder: open; None there.

    """

    name: str
    folder: int | None

    def open_plain(self, path: str, flags: int) -> int:
        """Open without following a link and without waiting for a FIFO's other end; an opener for `open`."""
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            return os.open(path, flags, dir_fd=self.folder)
        except OSError as fault:
            if fault.errno == errno.ELOOP:
                raise UnfitSource(_LINKED) from fault
            raise


@contextmanager
def _spot(root: Path, way: Sequence[str]) -> Iterator[_Spot]:
    """Go down from a root to a source, one folder after the other and through no link, whatever happens meanwhile."""
    if not _HAS_DIR_FD:
        # Nothing better is to be had than to look first.
        if any(root.joinpath(*way[:depth]).is_symlink() for depth in range(1, len(way) + 1)):
            raise UnfitSource(_LINKED)
        yield _Spot(str(root.joinpath(*way)), None)
        return
    *folders, name = way or (".",)
    # The root is the operator's, who may have linked it.
    folder = os.open(root, _ON_THE_WAY & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        for part in folders:
            below = _open_folder(part, folder)
            os.close(folder)
            folder = below
        yield _Spot(name, folder)
    finally:
        os.close(folder)


def _open_folder(name: str, above: int) -> int:
    try:
        return os.open(name, _ON_THE_WAY, dir_fd=above)
    except OSError as fault:
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise UnfitSource(_LINKED) from fault
        raise


def _place(spot: _Spot, status: os.stat_result) -> Place:
    """A file with several names is as many sources."""
    if status.st_nlink == 1:
        return (status.st_dev, status.st_ino, "")
    folder = Path(spot.name).parent.stat() if spot.folder is None else os.fstat(spot.folder)
    return (folder.st_dev, folder.st_ino, Path(spot.name).name)
