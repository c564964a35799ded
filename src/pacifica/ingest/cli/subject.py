"""A standalone server as a process of its own, for `demo`: started on a free port, stopped whatever happens."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pacifica.ingest.core.errors import NeighbourDown
from pacifica.ingest.core.text import printable

__all__ = ["running_server"]

#: How long, in seconds, the server may take to start, and to end in order.
START_S = 60.0
STOP_S = 12.0
#: The pause between two looks at its log, in seconds.
LOOK_EVERY_S = 0.05
#: How much of its log is shown when it does not start, in lines.
TAIL = 10

_URL = re.compile(r"takes uploads at (http://[^\s,]+)")


@contextmanager
def running_server(home: Path) -> Iterator[str]:
    """Run `pacifica-ingest --standalone` meanwhile.

    Args:
        home: its folder; the log is put there as well.

    Yields:
        its URL.

    Raises:
        NeighbourDown: it did not start; the message has the end of its log.

    """
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    line = [sys.executable, "-m", "pacifica.ingest", "--standalone", str(home), "-a", "127.0.0.1", "-p", "0"]
    with log.open("wb") as target:
        server = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.STDOUT)  # noqa: S603 (our own program)
    try:
        yield _address(server, log)
    finally:
        _stop(server)


def _address(server: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + START_S
    pause = threading.Event()
    while time.monotonic() < deadline:
        # In this order: what it says before it ends is read.
        ended = server.poll() is not None
        said = log.read_text(encoding="utf-8", errors="replace")
        found = _URL.search(said)
        if found:
            return found[1]
        if ended:
            break
        pause.wait(LOOK_EVERY_S)
    reason = "it did not start:\n" + "\n".join(map(printable, said.splitlines()[-TAIL:]))
    raise NeighbourDown("server", reason)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            server.wait(STOP_S)
    finally:
        # Its workers end by themselves when it is gone.
        server.kill()
        server.wait()
