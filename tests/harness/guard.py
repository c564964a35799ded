"""The guard: kills whole process trees, and outlives a test run to clean up after it.

What it is: the only code of the harness that sends a signal, and a small second
process, the watcher, that holds the read end of a pipe. When the test process ends in any way,
SIGKILL included, the pipe closes and the watcher kills what was still registered.

What it is not: a way to find processes by name. It knows only processes that this
harness started, each by its number *and* its start time, so that a number that the
system gave away again is never hit. Linux only (it reads ``/proc``).

Who may call it: `tests.harness.command` and `tests.harness.process`. The file also runs as a
script (``python guard.py``), so it imports nothing from its own package.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

__all__ = ["Guard", "Process", "find", "guard", "kill_tree", "tree"]

_PROC = Path("/proc")
_POLL_S = 0.01


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One live process, told apart from a later one with the same number.

    Attributes:
        pid: The process number.
        started: Start time in clock ticks since boot.
        parent: Number of the parent.
        session: Number of the session; every server of ours leads its own.
        name: The command's short name (at most 15 characters).
        dead: It ended, and its parent has not asked for its exit code yet.
    """

    pid: int
    started: int
    parent: int
    session: int
    name: str
    dead: bool

    def alive(self) -> bool:
        """Tell whether this very process still runs (a zombie does not)."""
        now = find(self.pid)
        return now is not None and now.started == self.started and not now.dead

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def find(pid: int) -> Process | None:
    """Read one process from the process table; None when there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Process(
        pid=pid,
        started=int(fields[19]),
        parent=int(fields[1]),
        session=int(fields[3]),
        name=head.partition("(")[2],
        dead=fields[0] in {"Z", "X"},
    )


def tree(leader: Process) -> list[Process]:
    """List the live processes that belong to a session leader.

    Returns:
        The leader, its descendants in whatever session, and what else is in its
        session; the leader first. Empty when nothing is left.
    """
    now = find(leader.pid)
    if now is not None and now.started != leader.started:
        # The system gives a number away again only when no session has it either.
        return []
    table = [p for p in (find(int(e.name)) for e in _PROC.iterdir() if e.name.isdigit()) if p]
    found = {p.pid: p for p in table if leader.pid in {p.pid, p.session}}
    grew = True
    while grew:
        more = [p for p in table if p.parent in found and p.pid not in found]
        found.update((p.pid, p) for p in more)
        grew = bool(more)
    live = (p for p in found.values() if not p.dead)
    return sorted(live, key=lambda p: (p.pid != leader.pid, p.pid))


def kill_tree(leader: Process, *, wait_s: float = 10.0) -> bool:
    """Kill (SIGKILL) a session leader and everything that it started.

    The leader goes first, so that it starts no replacement for its children.

    Args:
        leader: A session leader that this harness started; it may have ended already.
        wait_s: How long to wait for the last process to vanish.

    Returns:
        True when nothing is left of the tree.
    """
    deadline = time.monotonic() + wait_s
    known: dict[int, Process] = {}
    while True:
        known.update((p.pid, p) for p in tree(leader))
        known = {number: p for number, p in known.items() if p.alive()}
        if not known:
            return True
        for process in known.values():
            process.send(signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)


class Guard:
    """The test process's end of the pipe to the watcher process.

    The watcher is started with the first call of `watch`. Threads may share one guard;
    a forked child must not use its parent's.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._lock = threading.Lock()
        self._watcher: subprocess.Popen[bytes] | None = None

    def watch(self, leader: Process) -> None:
        """Have the tree of `leader` killed should this process end."""
        self._say(f"+ {leader.pid} {leader.started}")

    def forget(self, leader: Process) -> None:
        """Take `leader` off the list; it was stopped in order."""
        self._say(f"- {leader.pid} {leader.started}")

    def _say(self, line: str) -> None:
        with self._lock:
            if self._watcher is None:
                self._watcher = subprocess.Popen(
                    [sys.executable, "-I", "-S", __file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            assert self._watcher.stdin is not None
            self._watcher.stdin.write(f"{line}\n".encode())
            self._watcher.stdin.flush()


#: The one of this process.
guard = Guard()


def _serve() -> None:
    """Run the watcher: keep the list, and clean up when the pipe closes."""
    watched: set[tuple[int, int]] = set()
    for line in sys.stdin:
        sign, pid, started = line.split()
        change = watched.add if sign == "+" else watched.discard
        change((int(pid), int(started)))
    for pid, started in watched:
        gone = Process(pid=pid, started=started, parent=0, session=pid, name="", dead=True)
        kill_tree(gone)


if __name__ == "__main__":
    _serve()
