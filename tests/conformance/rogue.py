"""A server on the loopback that answers whatever bytes a test tells it to, and keeps what it was asked.

Not a double of a neighbour: it knows nothing of HTTP but where a request ends.
"""

import re
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

__all__ = ["Reply", "Rogue", "http"]

#: Longer than any deadline of a test; only a failing test waits that long.
PATIENCE_S = 30.0
#: Between two bytes of a reply that trickles.
DRIP_S = 0.02
#: Sent at once by a reply that pours.
POUR_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What happens to one request.

    Attributes:
        raw: bytes sent back.
        then: `keep` waits for the next request, `close` hangs up, `reset` hangs up rudely, `hang` keeps silent until
            the client gives up, `trickle` sends blanks, slowly, until the client gives up, `pour` sends zeros as fast as it
            can until the client hangs up.
        reads_body: whether the body of the request is read before answering.

    """

    raw: bytes
    then: str = "keep"
    reads_body: bool = True


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    """An answer with its Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Rogue:
    """Gives its replies in turn, the last one for ever.  A context manager."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        #: Head and body of each request.
        self.requests: list[tuple[bytes, bytes]] = []
        #: How often somebody connected.
        self.connections = 0
        #: Set whenever a connection was hung up by the server.
        self.hung_up = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _start(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        with suppress(OSError):
            while not self._over.is_set():
                connection, _ = self._listener.accept()
                connection.settimeout(PATIENCE_S)
                self._open.append(connection)
                self.connections += 1
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, suppress(OSError):
            while head := self._head(stream):
                reply = self._next(head)
                body = self._body(stream, head) if reply.reads_body else b""
                self.requests.append((head, body))
                connection.sendall(reply.raw)
                if reply.then != "keep":
                    self._finish(connection, reply.then)
                    break
        self.hung_up.set()

    def _next(self, head: bytes) -> Reply:  # noqa: ARG002 (all requests are alike)
        with self._lock:
            return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    @staticmethod
    def _head(stream: Any) -> bytes:
        lines = []
        while (line := stream.readline()) not in {b"\r\n", b""}:
            lines.append(line)
        return b"".join(lines)

    @staticmethod
    def _body(stream: Any, head: bytes) -> bytes:
        length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
        return bytes(stream.read(int(length[1]))) if length else b""

    def _finish(self, connection: socket.socket, how: str) -> None:
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "hang":
            self._over.wait(PATIENCE_S)
        elif how == "pour":
            while not self._over.is_set():
                connection.sendall(bytes(POUR_BYTES))
        elif how == "trickle":
            while not self._over.wait(DRIP_S):
                connection.sendall(b" ")
