"""A proxy between the service and one neighbour, which lets chosen requests go wrong.

What it is: `Proxy`, a listener on the loopback that passes HTTP/1.1 on byte by byte, knows one request of a connection
from the next, and asks a plan what becomes of each; `Fault`, what may become of one.

What it is not: a neighbour; the real service does the work.  A full HTTP proxy: no TLS, no `Expect`, no upgrades; of
requests that were sent ahead, each waits for the answer to the one before it, so that answers keep their order.

Who may call it: the fault rounds, and any test that wants a neighbour to misbehave.

Source: RFC 9112, sections 6 (message body) and 9 (connections).
"""

import json
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from tests.harness.ports import LOOPBACK, free_port

__all__ = ["Asked", "Fault", "Plan", "Proxy"]

#: What is read at a time, in bytes.
PIECE: Final = 64 * 1024
#: Into how many pieces a slow answer is cut.
SLOW_PIECES: Final = 10
#: Longer than any thread may need to see that it is over, in seconds.
END_S: Final = 30.0


class Fault(StrEnum):
    """What may become of one request."""

    #: The connection is reset, nobody saw the request, and nobody listens for a while.
    REFUSE = "refuse"
    #: Nothing is read and nothing is answered; after a while, or never, the connection ends.
    HANG = "hang"
    #: The service does it, and the answer takes a while and comes in drops.
    SLOW = "slow"
    #: The service gets the first half of the request (of its body, if it has one), and the connection ends.
    CUT_REQUEST = "cut request"
    #: The service does it, the first half of the answer (of its body, if it has one) comes, and the connection ends.
    CUT_ANSWER = "cut answer"
    #: The service does it, and nothing comes; the connection ends.
    NO_ANSWER = "no answer"
    #: 500, as a service that is ill; it did not see the request.
    ERROR = "500"
    #: 503 that says when to come again; the service did not see the request.
    BUSY = "503"
    #: 200 and a page for people, as from a web server in front of it; the service did not see the request.
    HTML = "html"
    #: 200 and JSON that says nothing; the service did not see the request.
    JSON = "wrong json"
    #: The service gets the first half of the body as if it were all, and the answer says that it got all.
    HALF = "half"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as the plan sees it.

    Attributes:
        method: of HTTP.
        target: path and query.
        length: of its body in bytes; 0 when it has none, or in chunks.

    """

    method: str
    target: str
    length: int


#: Says what becomes of a request; None: nothing bad.  Called by many threads.
Plan = Callable[[Asked], Fault | None]


def _answer(status: HTTPStatus, kind: str, body: bytes, *headers: str) -> tuple[bytes, bytes]:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("ascii"), body


#: Answers that need no service: head and body.
_ANSWERS: Final = {
    Fault.ERROR: _answer(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "application/json",
        json.dumps({"status": "500 Internal Server Error", "message": "It is ill.", "traceback": ""}).encode(),
    ),
    Fault.BUSY: _answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"Too busy.", "Retry-After: 1"),
    Fault.HTML: _answer(HTTPStatus.OK, "text/html", b"<!DOCTYPE html><title>Sign in</title><p>Please sign in."),
    Fault.JSON: _answer(HTTPStatus.OK, "application/json", b'{"answer": 42}'),
}


class _Over(Exception):
    """The connection ends here."""


class Proxy:
    """Listens for one neighbour.  A context manager.

    Attributes:
        port: where it listens.
        url: the same as an address, without a slash at the end.
        asked: every request so far, and what became of it.

    """

    def __init__(
        self, behind: int, plan: Plan = lambda _: None, *, hold_s: float = 1.0, hang_s: float | None = None
    ) -> None:
        """Listen to nothing yet.

        Args:
            behind: the port of the real service.
            plan: see there; may be set anew at any time.
            hold_s: how long, in seconds, a fault takes that takes time.
            hang_s: how long, in seconds, a request hangs; default: `hold_s`.

        """
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.plan = plan
        self.asked: list[tuple[Asked, Fault | None]] = []
        self._behind = behind
        self._hold_s = hold_s
        self._hang_s = hold_s if hang_s is None else hang_s
        self._over = threading.Event()
        self._back_at = 0.0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((LOOPBACK, self.port))

    def __enter__(self) -> Self:
        """Listen."""
        self._start(self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all connections and all threads."""
        self._over.set()
        _end(self._listener)
        with self._lock:
            for connection in self._open:
                _end(connection)
        for thread in self._threads:
            thread.join(END_S)
        self._listener.close()

    # --- connections

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        with self._lock:
            self._threads = [*(one for one in self._threads if one.is_alive()), thread]
            thread.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # It was ended, for a while or for good; it never listens again, also when this thread comes late.
                self._listener.close()
                while not self._over.is_set() and self._back_at > time.monotonic():
                    self._over.wait(self._back_at - time.monotonic())
                if not self._over.is_set():
                    self._listener = socket.create_server((LOOPBACK, self.port))
            else:
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with _Talk(self._kept(connection), lambda: self._kept(self._connected())) as talk, suppress(_Over, OSError):
            while head := talk.next_head():
                self._carry(talk, head)
        with self._lock:
            self._open -= talk.sockets

    def _kept(self, connection: socket.socket) -> socket.socket:
        """Note a connection, so that the end of the proxy ends it."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(connection)
        if self._over.is_set():
            _end(connection)
        return connection

    def _connected(self) -> socket.socket:
        return socket.create_connection((LOOPBACK, self._behind))

    # --- one request

    def _carry(self, talk: "_Talk", head: bytes) -> None:
        """Carry one request.  Raises `_Over` when it was the last of its connection."""
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        asked = Asked(method=method, target=target, length=_length(head) or 0)
        fault = self.plan(asked)
        self.asked.append((asked, fault))
        if fault in _ANSWERS:
            talk.answer(head, *_ANSWERS[fault])
        elif fault in {Fault.REFUSE, Fault.HANG}:
            self._withhold(talk, fault)
        elif fault is Fault.CUT_REQUEST:
            talk.send_request(_half_request(head, talk.client))
            raise _Over
        elif fault is Fault.HALF:
            self._carry_half(talk, head, asked.length)
        else:
            talk.send_request(_message(head, talk.client, head))
            self._bring(talk, head, fault)

    def _withhold(self, talk: "_Talk", fault: Fault) -> None:
        if fault is Fault.HANG:
            self._over.wait(self._hang_s)
        else:
            talk.client.reset()
            self._back_at = time.monotonic() + self._hold_s
            # Wakes the listener, which sits in `accept`.
            _end(self._listener)
        raise _Over

    def _bring(self, talk: "_Talk", head: bytes, fault: Fault | None) -> None:
        """Bring the answer, as far as the fault lets it."""
        answer = talk.answer_head()
        pieces = _message(answer, talk.behind, head)
        if fault is Fault.NO_ANSWER:
            for _ in pieces:
                pass
            raise _Over
        if fault is Fault.CUT_ANSWER:
            whole = b"".join(pieces)
            body = len(whole) - len(answer)
            talk.client.send(whole[: len(answer) + body // 2 if body else len(whole) // 2])
            raise _Over
        if fault is Fault.SLOW:
            pieces = self._in_drops(b"".join(pieces))
        for piece in pieces:
            talk.client.send(piece)
        if _is_last(head) or _is_last(answer) or _ends_with_connection(answer, head):
            raise _Over

    def _in_drops(self, whole: bytes) -> Iterator[bytes]:
        size = max(1, -(-len(whole) // SLOW_PIECES))
        for start in range(0, len(whole), size):
            self._over.wait(self._hold_s / SLOW_PIECES)
            yield whole[start : start + size]

    def _carry_half(self, talk: "_Talk", head: bytes, length: int) -> None:
        """Say to the service that the half is all, and to the client that all was taken."""
        half = length // 2
        shorter = re.sub(rb"(?im)^(content-length:)[^\r\n]*", b"\\1 %d" % half, head)
        body = b"".join(talk.client.exactly(length))
        talk.send_request(iter([shorter, body[:half]]))
        answer = talk.answer_head()
        said = b"".join(_message(answer, talk.behind, head)).removeprefix(answer)
        told = json.dumps(json.loads(said) | {"total_bytes": length}).encode("ascii")
        status = HTTPStatus(int(answer.split(b" ", 2)[1]))
        talk.client.send(b"".join(_answer(status, "application/json", told)))


class _Stream:
    """A connection with what was read ahead of it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.ahead = b""

    def send(self, piece: bytes) -> None:
        self.connection.sendall(piece)

    def reset(self) -> None:
        """End it rudely."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def some(self, limit: int = PIECE) -> bytes:
        """Bytes, as they come; none at the end."""
        found = self.ahead[:limit] or self.connection.recv(limit)
        self.ahead = self.ahead[limit:]
        return found

    def up_to(self, mark: bytes) -> bytes:
        """Everything up to a mark, with it; what there is when the connection ends before."""
        found = b""
        while mark not in found:
            piece = self.some()
            if not piece:
                return found
            found += piece
        end = found.index(mark) + len(mark)
        self.ahead = found[end:] + self.ahead
        return found[:end]

    def exactly(self, length: int) -> Iterator[bytes]:
        """That many bytes.  Raises `_Over` when the connection ends before."""
        while length:
            piece = self.some(min(length, PIECE))
            if not piece:
                raise _Over
            length -= len(piece)
            yield piece

    def chunks(self) -> Iterator[bytes]:
        """A body in chunks with all that frames it."""
        while True:
            line = self.up_to(b"\r\n")
            yield line
            size = int(line.split(b";")[0], 16) if line else 0
            if not size:
                break
            yield from self.exactly(size + len(b"\r\n"))
        while (line := self.up_to(b"\r\n")) not in {b"\r\n", b""}:
            yield line
        yield line

    def rest(self) -> Iterator[bytes]:
        """Everything up to the end of the connection."""
        while piece := self.some():
            yield piece


class _Talk:
    """A client's connection and, from its first request on, the one to the service.  A context manager: closes both."""

    def __init__(self, client: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self.client = _Stream(client)
        self.sockets = {client}
        self._connect = connect
        self._behind: _Stream | None = None

    @property
    def behind(self) -> _Stream:
        """The connection to the service."""
        if self._behind is None:
            self._behind = _Stream(self._connect())
            self.sockets.add(self._behind.connection)
        return self._behind

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self.sockets:
            connection.close()

    def next_head(self) -> bytes:
        """The head of the next request; empty at the end of the connection, on either side."""
        if self._behind is not None and not self.client.ahead:
            waiting = select.poll()
            waiting.register(self.client.connection, select.POLLIN)
            waiting.register(self._behind.connection, select.POLLIN)
            # A service that hangs up an idle connection: the client is to see that.
            if self._behind.connection.fileno() in {ready for ready, _ in waiting.poll()}:
                return b""
        head = self.client.up_to(b"\r\n\r\n")
        return head if head.endswith(b"\r\n\r\n") else b""

    def send_request(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            self.behind.send(piece)

    def answer(self, head: bytes, answer: bytes, body: bytes) -> None:
        """Read a request to its end, and answer it without the service."""
        for _ in _message(head, self.client, head):
            pass
        self.client.send(answer if head.startswith(b"HEAD ") else answer + body)
        if _is_last(head):
            raise _Over

    def answer_head(self) -> bytes:
        """The head of the service's answer; interim ones are passed on before."""
        while (head := self.behind.up_to(b"\r\n\r\n")).split(b" ", 2)[1:2] == [b"100"]:
            self.client.send(head)
        if not head.endswith(b"\r\n\r\n"):
            raise _Over
        return head


def _message(head: bytes, stream: _Stream, request: bytes) -> Iterator[bytes]:
    """A request, or the answer to one: its head, and its body as it is on the wire."""
    yield head
    if head is not request and _has_no_body(head, request):
        return
    if _field(head, b"transfer-encoding").lower() == b"chunked":
        yield from stream.chunks()
    elif (length := _length(head)) is not None:
        yield from stream.exactly(length)
    elif head is not request:
        yield from stream.rest()


def _half_request(head: bytes, client: _Stream) -> Iterator[bytes]:
    length = _length(head)
    if not length:
        yield head[: len(head) // 2]
        return
    yield head
    yield from client.exactly(length // 2)


def _has_no_body(answer: bytes, request: bytes) -> bool:
    return request.startswith(b"HEAD ") or answer.split(b" ", 2)[1] in {b"204", b"304"}


def _ends_with_connection(answer: bytes, request: bytes) -> bool:
    framed = _length(answer) is not None or _field(answer, b"transfer-encoding")
    return not framed and not _has_no_body(answer, request)


def _is_last(head: bytes) -> bool:
    """Whether this request or answer says that the connection ends after it."""
    tokens = {token.strip() for token in _field(head, b"connection").lower().split(b",")}
    first = head.split(b"\r\n", 1)[0]
    return b"close" in tokens or (b"HTTP/1.0" in first and b"keep-alive" not in tokens)


def _field(head: bytes, name: bytes) -> bytes:
    found = re.search(rb"(?im)^%s:[ \t]*([^\r\n]*?)[ \t]*\r$" % re.escape(name), head)
    return found[1] if found else b""


def _length(head: bytes) -> int | None:
    value = _field(head, b"content-length")
    return int(value) if value else None


def _end(connection: socket.socket) -> None:
    """Wake whoever waits for this socket."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
