"""The Python side of `shim.c`: building it, and telling it what is to go wrong.

Who may call it: `rounds`, in a process that was started with `environment`.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.calls.traps import Call, Point, Way

__all__ = ["Shim", "build"]

_SOURCE = Path(__file__).with_name("shim.c")


def build(folder: Path) -> Path:
    """Compile the shim; returns the library for LD_PRELOAD."""
    library = folder / "shim.so"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True
    )
    return library


class Shim:
    """The shim of this process."""

    def __init__(self) -> None:
        """Find it; `AttributeError` when this process was started without."""
        self._library = ctypes.CDLL(None)
        self._library.shim_labels.restype = ctypes.c_char_p
        self._library.shim_sprung.restype = ctypes.c_long

    def begin(self, folder: Path, point: Point | None, way: Way | None) -> None:
        """Count the calls on a folder from now on, and let `point` go wrong if it is one of them."""
        self._library.shim_begin(os.fsencode(folder))
        if point is not None and way is not None and point.call in {Call.SYSTEM, Call.STORAGE}:
            label = os.fsencode(point.label)
            self._library.shim_arm(label, ctypes.c_long(point.occurrence), int(way), point.error)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing meanwhile."""
        self._library.shim_listen(0)
        yield
        self._library.shim_listen(1)

    def end(self) -> None:
        """Count no more."""
        self._library.shim_listen(0)

    @property
    def sprung(self) -> int:
        """How often something went wrong."""
        return int(self._library.shim_sprung())

    def labels(self) -> list[str]:
        """What was called, in order."""
        return os.fsdecode(self._library.shim_labels()).splitlines()
