"""What work cost: seconds, processor seconds and peak memory of every process of some servers.

Linux only, as the harness is.  Processor seconds are user and system time of all processes together, those that ended
meanwhile included, with the kernel's resolution of 10 ms.  Peak memory is the kernel's own high-water mark of resident
memory (`VmHWM`), set back when the watch begins, so no peak falls between two samples; pages that processes share count
in each of them.
"""

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness import Server
from tests.harness.guard import Process

__all__ = ["Watch", "put_away", "touch_memory"]

_TICKS = os.sysconf("SC_CLK_TCK")
#: Only for processes that end meanwhile; those that live are asked at the end.
_EVERY_S = 0.5
#: What is written to files needs as much memory for them, and some more.
_MEMORY_FOR_BYTE = 1.5
#: A file that is longer is removed at once.
_LONG_BYTES = 1 << 20
#: What is less makes no difference.
_LEAST_BYTES = 16 << 20


def touch_memory(size_bytes: int) -> None:
    """Have the machine give memory for files of that size, before it is measured how fast they are written.

    A virtual machine gets its memory from the host when it touches it for the first time, and may have given back what was
    free for a while: a copy into such memory was five times slower, whoever made it.
    """
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    wanted = min(int(size_bytes * _MEMORY_FOR_BYTE), available // 2)
    if wanted >= _LEAST_BYTES:
        mmap.mmap(-1, wanted, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def put_away(folder: Path) -> None:
    """Give back the space of long files, and leave short ones until the benchmark has ended.

    ext4 looks again and again at each inode that was freed within the last minutes before it takes another one, so that
    files that are made after thousands were removed cost several times as much, whoever makes them.
    """
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size > _LONG_BYTES:
                path.unlink()


class Watch:
    """Watches servers between enter and exit.

    Attributes:
        seconds: from enter to exit, or to `lap`.
        cpu_s: processor seconds.
        memory: name of the process → peak, in bytes: `server`, `worker`, and the largest of their `… child`.
    """

    def __init__(self, *servers: Server) -> None:
        """Watch these; each must run."""
        self._servers = servers
        self._peaks: dict[tuple[str, int], int] = {}
        self._stop = threading.Event()
        self.seconds = self.cpu_s = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        for _, process in self._processes():
            with contextlib.suppress(OSError):  # belongs to another account, or ended: its whole life counts then
                Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")
        self._cpu = self._ticks()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        self._began = time.monotonic()
        return self

    def lap(self) -> float:
        """Seconds since enter."""
        return time.monotonic() - self._began

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self.seconds = self.lap()
        self.cpu_s = (self._ticks() - self._cpu) / _TICKS
        self._stop.set()
        self._thread.join()
        self._look()

    @property
    def memory(self) -> dict[str, int]:
        """See the class."""
        found: dict[str, int] = {}
        for (name, _), peak in self._peaks.items():
            found[name] = max(peak, found.get(name, 0))
        return found

    def figures(self) -> dict[str, float]:
        """All that was measured, by name: `seconds`, `cpu_s`, and `memory NAME` in MiB."""
        memory = {f"memory {name}": peak / 2**20 for name, peak in sorted(self.memory.items())}
        return {"seconds": self.seconds, "cpu_s": self.cpu_s, **memory}

    def _sample(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        for name, process in self._processes():
            if peak := _peak(process.pid):
                key = name, process.pid
                self._peaks[key] = max(peak, self._peaks.get(key, 0))

    def _processes(self) -> Sequence[tuple[str, Process]]:
        return [
            (server.name if process.pid == server.pid else f"{server.name} child", process)
            for server in self._servers
            for process in server.processes()
        ]

    def _ticks(self) -> int:
        return sum(_ticks(process.pid) for _, process in self._processes())


def _peak(pid: int) -> int:
    """High-water mark in bytes; 0 when the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _ticks(pid: int) -> int:
    """User and system time of a process and of its children that ended; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return sum(int(value) for value in fields[11:15])
