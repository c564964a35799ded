"""A disk so small that a test can fill it.

What it is: `small_disk`, a tmpfs on a folder, gone at the end whatever happened; `fill`, which leaves no more room than one
likes.

Who may call it: the fault rounds.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.harness import HarnessError

__all__ = ["MIB", "fill", "free", "small_disk"]

MIB = 2**20
PAGE = 4096
BALLAST = "ballast"


@contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[Path]:
    """Make a folder a disk of its own for a while."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        # Lazily: what a failed test left running must not keep it.
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = (
            f"{' '.join(command)}: {done.stderr.strip()}\n"
            "These tests fill a disk, and have to mount a small one.  Run them as root, or in a namespace of your own: "
            "unshare --user --map-root-user --mount .venv/bin/pytest tests/faults/test_disk.py"
        )
        raise HarnessError(message)


def free(disk: Path) -> int:
    """How many bytes there is room for."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def fill(disk: Path, leave: int = 0) -> Path:
    """Write a file that leaves room for so many bytes, rounded up to pages; returns it."""
    ballast = disk / BALLAST
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while (room := free(disk) - leave) >= PAGE:
            file.write(bytes(min(room, MIB)))
    return ballast
