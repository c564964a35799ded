"""What the adapters that keep files on a disk share: durable names, and the fault of a full disk.

Not a file store: `staging` and `local.archive` are.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacifica.ingest.core.errors import NoSpace

__all__ = ["fsync_file", "fsync_folder", "make_folder", "space"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def fsync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    _fsync(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable; on Windows, where folders cannot be opened, the system does it by itself."""
    if os.name == "nt":
        return
    _fsync(folder, os.O_RDONLY)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, durably; nothing happens when it is there."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


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
