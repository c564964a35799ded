"""Who sends: uploads that cost the machine as little as can be, polls, and crowds of both.

Bodies that lie in a file go from the page cache to the socket without a copy (`sendfile`).  Both services are asked the
same way, with the same pauses.
"""

import contextlib
import json
import multiprocessing
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

__all__ = [
    "Polls",
    "Refused",
    "Trickle",
    "ask_all",
    "post",
    "put_many",
    "send_file",
    "send_many",
    "send_stream",
    "state",
    "until_done",
    "until_started",
    "upload",
]

#: No answer takes longer, in seconds; the original needs minutes for large bundles.
WAIT_S = 3600.0
#: Who asks for a state while much goes on waits no longer for the answer, in seconds.
PATIENCE_S = 10.0
#: Between two questions for the state of a job.
POLL_S = 0.02


class Refused(Exception):
    """A service answered something else than was needed; the figure would mean nothing."""


def _connect(url: str, wait_s: float = WAIT_S) -> socket.socket:
    """A connection that waits so long for each thing; blocking, as `sendfile` wants it."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 80))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    limit = struct.pack("@ll", int(wait_s), int(wait_s % 1 * 1e6))
    for direction in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, direction, limit)
    return connection


def _head(method: str, target: str, length: int = 0, kind: str = "application/octet-stream") -> bytes:
    body = f"Content-Type: {kind}\r\nContent-Length: {length}\r\n" if method != "GET" else ""
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{body}\r\n".encode("ascii")


def _answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    return _whole_answer(connection)[:2]


def _whole_answer(connection: socket.socket) -> tuple[int, bytes, bool]:
    """Status and body of the next answer, and whether the connection may be used again."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    fields = head.lower()
    at = fields.find(b"content-length:")
    if at >= 0:
        length = int(fields[at + 15 :].partition(b"\r\n")[0])
        while len(body) < length:
            body += _received(connection)
    elif b"chunked" in fields:
        while not body.endswith(b"0\r\n\r\n"):
            body += _received(connection)
        size, _, body = body.partition(b"\r\n")
        body = body[: int(size, 16)]
    return int(head.split(b" ", 2)[1]), body, b"connection: close" not in fields


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        msg = "the connection was closed before the answer"
        raise Refused(msg)
    return data


def _job(connection: socket.socket) -> int:
    """The number of the job that an upload became."""
    status, body = _answer(connection)
    if status != 200:
        msg = f"status {status}: {body[:500]!r}"
        raise Refused(msg)
    return int(json.loads(body)["job_id"])


def send_file(url: str, path: Path, target: str = "/upload", wait_s: float = WAIT_S) -> bytes:
    """Send a file as a body, and return the body of the answer, which must have status 200.

    Raises:
        OSError: nothing moved for `wait_s` seconds, or the connection broke.
        Refused: any other answer.

    """
    with _connect(url, wait_s) as connection, path.open("rb", buffering=0) as file:
        size = path.stat().st_size
        connection.sendall(_head("POST", target, size))
        sent = 0
        while sent < size:
            sent += os.sendfile(connection.fileno(), file.fileno(), sent, size - sent)
        status, body = _answer(connection)
    if status != 200:
        msg = f"status {status}: {body[:500]!r}"
        raise Refused(msg)
    return body


def upload(url: str, path: Path, wait_s: float = WAIT_S) -> int:
    """Send a bundle; returns the number of the job; raises as `send_file`."""
    return int(json.loads(send_file(url, path, wait_s=wait_s))["job_id"])


def send_stream(url: str, pieces: Iterable[bytes], length: int) -> int:
    """Send a bundle that is made meanwhile; returns the number of the job."""
    with _connect(url) as connection:
        connection.sendall(_head("POST", "/upload", length))
        for piece in pieces:
            connection.sendall(piece)
        return _job(connection)


def send_many(url: str, path: Path, count: int, at_once: int, wait_s: float = WAIT_S) -> tuple[list[int], list[str]]:
    """Send a bundle many times; returns the jobs, and what went wrong with the others, by standing still, say."""
    jobs: list[int] = []
    faults: list[str] = []

    def send(_: int) -> None:
        try:
            jobs.append(upload(url, path, wait_s))
        except BlockingIOError:
            faults.append(f"nothing moved for {wait_s:g} s")
        except (OSError, ValueError, KeyError, Refused) as fault:
            faults.append(f"{type(fault).__name__}: {fault}")

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(send, range(count)))
    return jobs, faults


def post(url: str, target: str, document: object) -> int:
    """Post a JSON document; returns the number of the job."""
    body = json.dumps(document).encode("ascii")
    with _connect(url) as connection:
        connection.sendall(_head("POST", target, len(body), "application/json") + body)
        return _job(connection)


@contextlib.contextmanager
def _asking(url: str, wait_s: float = WAIT_S) -> Iterator["Asking"]:
    with _connect(url, wait_s) as connection:
        yield Asking(connection)


class Asking:
    """One kept connection that asks for states."""

    def __init__(self, connection: socket.socket) -> None:
        """Ask over `connection`."""
        self._connection = connection

    def state(self, job_id: int) -> dict[str, Any]:
        """What the service tells of a job."""
        self._connection.sendall(_head("GET", f"/get_state?job_id={job_id}"))
        status, body = _answer(self._connection)
        if status != 200:
            msg = f"status {status}: {body[:500]!r}"
            raise Refused(msg)
        found: dict[str, Any] = json.loads(body)
        return found


def state(url: str, job_id: int) -> dict[str, Any]:
    """What the service tells of a job."""
    with _asking(url) as asking:
        return asking.state(job_id)


def until_done(url: str, *jobs: int, poll_s: float = POLL_S) -> dict[str, float]:
    """Wait until jobs have ended well.

    Returns:
        step → seconds from now until the first job was seen in it.

    Raises:
        Refused: one failed.

    """
    began = time.monotonic()
    seen: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        asking = stack.enter_context(_asking(url))
        for job_id in jobs:
            while True:
                try:
                    found = asking.state(job_id)
                except (OSError, Refused):
                    # A server that closed the kept connection is asked on a new one, but only once.
                    asking = stack.enter_context(_asking(url))
                    found = asking.state(job_id)
                seen.setdefault(str(found["task"]), time.monotonic() - began)
                if found["state"] == "FAILED":
                    msg = f"job {job_id} failed at {found['task']}: {found['exception']}"
                    raise Refused(msg)
                if found["task"] == "ingest metadata" and int(float(found["task_percent"])) == 100:
                    break
                if time.monotonic() - began > WAIT_S:
                    msg = f"job {job_id} did not end in {WAIT_S:g} s: {found}"
                    raise Refused(msg)
                time.sleep(poll_s)
    return seen


def until_started(url: str, path: Path) -> float:
    """Upload a bundle, and return the seconds from the answer until a first step is seen."""
    with _asking(url) as asking:
        job_id = upload(url, path)
        began = time.monotonic()
        while asking.state(job_id)["task"] == "UPLOADING":
            time.sleep(0.001)
        took = time.monotonic() - began
    until_done(url, job_id)
    return took


def ask_all(url: str, job_id: int, connections: int, seconds: float) -> tuple[float, list[float]]:
    """Ask for a state over many kept connections, each as fast as it is answered.

    Returns:
        answers per second, and the seconds that each took.

    """
    with contextlib.ExitStack() as stack:
        crowd = _Crowd(url, job_id, stack)
        opened = []
        # One after the other, and each with an answer: a short queue for new connections is not what is measured.
        for _ in range(connections):
            connection = crowd.connected()
            crowd.ask(connection)
            opened.append(crowd.answered(connection))
        crowd.took.clear()
        began = time.monotonic()
        for connection in opened:
            crowd.ask(connection)
        while time.monotonic() < began + seconds:
            for key, _ in crowd.selector.select(1.0):
                if isinstance(key.fileobj, socket.socket):
                    crowd.ask(crowd.answered(key.fileobj))
        return len(crowd.took) / (time.monotonic() - began), crowd.took


class _Crowd:
    """Connections that each ask the same again and again."""

    def __init__(self, url: str, job_id: int, stack: contextlib.ExitStack) -> None:
        self._url, self._stack = url, stack
        self._question = _head("GET", f"/get_state?job_id={job_id}")
        self._asked: dict[int, float] = {}
        self.selector = selectors.DefaultSelector()
        self.took: list[float] = []

    def connected(self) -> socket.socket:
        """A new connection."""
        connection = self._stack.enter_context(_connect(self._url))
        self.selector.register(connection, selectors.EVENT_READ)
        return connection

    def ask(self, connection: socket.socket) -> None:
        """Send the question."""
        self._asked[connection.fileno()] = time.monotonic()
        connection.sendall(self._question)

    def answered(self, connection: socket.socket) -> socket.socket:
        """Take the answer; returns the connection for the next question, a new one when the server ends this one."""
        try:
            status, _, again = _whole_answer(connection)
        except (OSError, Refused):
            # Closed while it was idle, so nothing was answered.
            again = False
        else:
            if status != 200:
                msg = f"get_state answered {status}"
                raise Refused(msg)
            self.took.append(time.monotonic() - self._asked[connection.fileno()])
        if again:
            return connection
        self.selector.unregister(connection)
        connection.close()
        return self.connected()


class Polls:
    """One client that asks for a state every 10 ms while something else goes on; a context manager.

    A process of its own: among the threads of those who send, its own turn would take longer than the answer.

    Attributes:
        took: seconds of each answer, from connecting on; of one that did not come, `PATIENCE_S`.  Known at the end.
    """

    def __init__(self, url: str, job_id: int) -> None:
        """Ask for this job."""
        context = multiprocessing.get_context("spawn")
        self.took: list[float] = []
        self._found, told = context.Pipe(duplex=False)
        self._begun, self._stop = context.Event(), context.Event()
        asked = (url, job_id, told, self._begun, self._stop)
        self._process = context.Process(target=_poll, args=asked, daemon=True)

    def __enter__(self) -> Self:
        """Begin; the first answer came."""
        self._process.start()
        if not self._begun.wait(WAIT_S):
            msg = "nobody asks for states"
            raise Refused(msg)
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self.took = self._found.recv()
        self._process.join()


def _poll(url: str, job_id: int, told: Connection, begun: Event, stop: Event) -> None:
    took: list[float] = []
    while not stop.wait(0.01):
        began = time.monotonic()
        try:
            # Clients that poll connect each time; a server may close what it would have to keep for too many.
            with _asking(url, PATIENCE_S) as asking:
                asking.state(job_id)
        except OSError:
            took.append(PATIENCE_S)
        else:
            took.append(time.monotonic() - began)
        begun.set()
    told.send(took)


@dataclass
class Trickle:
    """Clients that send a kibibyte each half a second, and never come to an end; a context manager."""

    url: str
    clients: int

    def __enter__(self) -> Self:
        """Connect all."""
        self._stop = threading.Event()
        self._connections = [_connect(self.url) for _ in range(self.clients)]
        for connection in self._connections:
            connection.sendall(_head("POST", "/upload", 1 << 30))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self._stop.set()
        self._thread.join()
        for connection in self._connections:
            connection.close()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.sendall(bytes(1024))


def put_many(url: str, first: int, count: int, body: bytes, group: int) -> None:
    """Put files under ids from `first` on into an archive over one connection, `group` requests at a time."""
    with _connect(url) as connection:
        for begin in range(first, first + count, group):
            ids = range(begin, min(begin + group, first + count))
            connection.sendall(b"".join(_head("PUT", f"/{number}", len(body)) + body for number in ids))
            data = b""
            while data.count(b"HTTP/1.1 201 ") < len(ids) or not data.endswith(b"}"):
                data += _received(connection)
