"""What the adapters that read and keep files on a disk share: durable names, open files, and the fault of a full disk.

Not a file store: `staging` and `local.objects` are.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pacifica.ingest.core.errors import NoSpace

__all__ = [
    "CANNOT",
    "Holders",
    "begin_writing_out",
    "fsync_file",
    "fsync_folder",
    "link",
    "make_folder",
    "publish",
    "space",
]

#: The file system has no hard links or denies this one, or the kernel cannot copy between these two files.
CANNOT = {errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Holders(ExitStack):
    """Files that hold what is to be sent or copied, each opened once; closed at the end of the block."""

    def __init__(self) -> None:
        """Open nothing yet."""
        super().__init__()
        self._files: dict[Path, BinaryIO] = {}

    def of(self, path: Path) -> BinaryIO:
        """The file of a path.  Raises `OSError`."""
        if path not in self._files:
            self._files[path] = self.enter_context(path.open("rb", buffering=0))
        return self._files[path]


def fsync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    _fsync(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable; on Windows, where folders cannot be opened, the system does it by itself."""
    if os.name == "nt":
        return
    _fsync(folder, os.O_RDONLY)


def begin_writing_out(handle: int, offset: int, size_bytes: int) -> None:
    """Let the kernel begin to write a part of an open file to the disk, and do not wait: the fsync that follows finds less.

    Linux takes it so when it is told that the part will not be needed; what is not on the disk yet stays in memory, too.
    """
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # it is a hint, and the fsync tells what is wrong
            os.posix_fadvise(handle, offset, size_bytes, os.POSIX_FADV_DONTNEED)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, durably; nothing happens when it is there."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


def publish(temp: str | Path, final: str | Path) -> None:
    """Give a finished file its name.  Raises `FileExistsError` when that is taken, and changes nothing then."""
    try:
        link(temp, final)
    except OSError as fault:
        if fault.errno not in CANNOT:
            raise
        # The file system has no links: nothing better is to be had than to look first.
        if Path(final).exists():
            raise FileExistsError(final) from fault
        Path(temp).rename(final)


def link(temp: str | Path, final: str | Path) -> None:
    """The one step that cannot overwrite, on either system."""
    if os.name == "nt":
        Path(temp).rename(final)
        return
    try:
        os.link(temp, final)
    except FileExistsError:
        # A network file system that repeats a request complains about what its first try did.
        if not Path(final).samefile(temp):
            raise


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def space(purpose: str) -> Iterator[None]:
    """Tell the fault of a full disk, or of a used up quota, as `NoSpace`; `purpose` names the disk to the reader."""
    try:
        yield
    except OSError as fault:
        if fault.errno not in _FULL:
            raise
        msg = f"The disk for {purpose} is full. Try again later."
        raise NoSpace(msg) from fault
