"""One connection on which many requests are sent before the first is answered: HTTP/1.1 pipelining.

A bundle of a hundred thousand small files is a hundred thousand requests, and waiting for each answer takes much longer than
the request.  The bodies of large files go from the disk to the network inside the kernel.  An answer is read strictly:
what two readers could take for two things is a fault.

Source: RFC 9112, 6.3 and 9.3.2.  Only `http` makes a `Line`, and only `archive` uses it.
"""

import re
import socket
import time
from collections import deque
from collections.abc import Generator, Mapping
from http import HTTPStatus
from typing import BinaryIO, Final
from urllib.parse import urlsplit

__all__ = ["Head", "Line", "LineCut", "LineFault"]

#: What is read from the network at once, in bytes.
BUFFER_BYTES: Final = 256 * 1024
#: The longest head of an answer, and the longest line between two chunks, in bytes.
HEAD_BYTES: Final = 64 * 1024
CHUNK_LINE_BYTES: Final = 1024
#: The most lines that a head, and the end of a chunked body, may have.
LINES: Final = 100

_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[^\r\n]*)?")


class LineFault(Exception):
    """What came is no answer; the message says why, for people."""


class LineCut(LineFault, ConnectionError):
    """The other side hung up before its answer came to an end."""


class Head:
    """The beginning of an answer.

    Attributes:
        status: of HTTP.
        headers: lower-case name → value; of one that comes twice, both, with a comma.
        length: of the body in bytes; None when only its end tells.
        chunked: the body comes in chunks.
        last: no other answer follows on this connection.

    """

    __slots__ = ("chunked", "headers", "last", "length", "status")

    def __init__(self, text: bytes, method: str) -> None:
        """Read a head, without the empty line at its end, of the answer to a request by `method`.

        Raises:
            LineFault: it is none.

        """
        first, *lines = text.split(b"\r\n")
        match = _STATUS.fullmatch(first)
        if match is None:
            msg = f"the answer is not HTTP: {first[:40]!r}"
            raise LineFault(msg)
        self.status = int(match[2])
        self.headers = _fields(lines)
        connection = self.headers.get("connection", "").lower()
        self.chunked = "transfer-encoding" in self.headers
        self.length = self._length(method)
        endless = self.length is None and not self.chunked
        self.last = endless or "close" in connection or (match[1] == b"0" and "keep-alive" not in connection)

    def _length(self, method: str) -> int | None:
        told = self.headers.get("content-length")
        if self.chunked:
            if told is not None or self.headers["transfer-encoding"].lower() != "chunked":
                msg = "the answer has a body of no clear length"
                raise LineFault(msg)
            return None
        if self.status < HTTPStatus.OK or self.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            return 0
        if method == "HEAD":
            return 0
        if told is not None and not _LENGTH.fullmatch(told.encode("latin-1")):
            msg = f"the answer has no clear length: {told[:40]!r}"
            raise LineFault(msg)
        return None if told is None else int(told)


def _fields(lines: list[bytes]) -> Mapping[str, str]:
    if len(lines) > LINES:
        msg = f"the answer has more than {LINES} headers"
        raise LineFault(msg)
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name[-1:].isspace() or name[:1].isspace():
            msg = f"the answer has a header that is none: {line[:40]!r}"
            raise LineFault(msg)
        key, text = name.lower().decode("latin-1"), value.strip(b" \t").decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


class Line:
    """Requests go out in order, and the answers come back in order.

    Attributes:
        asked: the request whose answer was read last, or is waited for: method and address, for messages.
        answered: how many answers came whole.
        is_open: whether further requests may be sent.
        is_clean: whether every request was answered and every answer read to its end, so that others may use the connection.

    """

    def __init__(self, connection: socket.socket, url: str, headers: Mapping[str, str], wait_s: float) -> None:
        """Talk on an open connection.

        Args:
            connection: nobody else uses it.
            url: of the service, without user and password.
            headers: of every request.
            wait_s: longest pause of either side, and the longest time for an answer that is no object, in seconds.

        """
        self.asked = url
        self.answered = 0
        self.is_open = True
        self._socket = connection
        self._socket.settimeout(wait_s)
        self._url = url
        self._path = urlsplit(url).path
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._wait_s = wait_s
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._waiting: deque[tuple[str, str]] = deque()
        self._is_reading = False
        self._last: tuple[bytes, str, Head] | None = None

    @property
    def is_clean(self) -> bool:
        """See the class."""
        return self.is_open and not self._waiting and not self._is_reading and self._start == self._end

    # --- requests

    def lead(self, method: str, path: str, length: int | None = None, kind: str = "application/octet-stream") -> bytes:
        """The head of a request, which the caller is about to send with a body of that length and kind, or without one."""
        self._waiting.append((method, path))
        about = "" if length is None else f"Content-Type: {kind}\r\nContent-Length: {length}\r\n"
        return f"{method} {self._path}{path} HTTP/1.1\r\n{self._headers}{about}\r\n".encode("latin-1")

    def send(self, request: bytes | bytearray) -> None:
        """Send bytes of requests.  Raises `OSError`."""
        self._socket.sendall(request)

    def send_file(self, file: BinaryIO, offset: int, count: int) -> int:
        """Send bytes of a file; returns how many, fewer when it ends before.  Raises `OSError`."""
        return self._socket.sendfile(file, offset, count)

    def hurry(self, wait_s: float) -> None:
        """Have no more patience than that, in seconds, from now on."""
        self._wait_s = wait_s
        self._socket.settimeout(wait_s)

    def give_up(self) -> None:
        """Send and read nothing more: the rest of an answer is of no use."""
        self.is_open = False

    # --- answers

    def head(self) -> Head:
        """Wait for the next answer; interim ones are passed over.

        Raises:
            LineFault, OSError: there is none.

        """
        deadline = time.monotonic() + self._wait_s
        method, path = self._waiting.popleft()
        self.asked = f"{method} {self._url}{path}"
        # Whoever gives up here leaves a connection that nobody may use.
        self._is_reading = True
        while True:
            head = self._read_head(self._until(b"\r\n\r\n", HEAD_BYTES, deadline), method)
            if head.status == HTTPStatus.SWITCHING_PROTOCOLS:
                msg = "the answer is of another protocol"
                raise LineFault(msg)
            if head.status >= HTTPStatus.OK:
                break
        self.is_open = not head.last
        return head

    def _read_head(self, text: bytes, method: str) -> Head:
        # Those of a thousand small objects are all alike within a second.
        if self._last is None or self._last[:2] != (text, method):
            self._last = (text, method, Head(text, method))
        return self._last[2]

    def body(self, head: Head, deadline: float | None = None) -> Generator[memoryview, None, None]:
        """The body of the answer whose head was read last, in pieces that are good until the next one.

        Args:
            head: of it.
            deadline: of `time.monotonic`; None for an object of any length, which may take as long as it moves.

        Raises:
            LineFault, OSError: it does not end as it should.

        """
        if head.chunked:
            yield from self._chunks(deadline)
        elif head.length is not None:
            yield from self._exactly(head.length, deadline)
        else:
            while self._start < self._end or self._fill(deadline):
                yield self._take(self._end - self._start)
        self._is_reading = False
        self.answered += 1

    def words(self, head: Head, limit: int) -> bytes:
        """The whole body of an answer that is no object."""
        deadline = time.monotonic() + self._wait_s
        found = bytearray()
        for piece in self.body(head, deadline):
            found += piece
            if len(found) > limit:
                msg = f"the answer is longer than {limit} bytes"
                raise LineFault(msg)
        return bytes(found)

    def _exactly(self, count: int, deadline: float | None) -> Generator[memoryview, None, None]:
        while count:
            if self._start == self._end and not self._fill(deadline):
                msg = f"the connection ended {count} bytes before the answer did"
                raise LineCut(msg)
            piece = self._take(min(count, self._end - self._start))
            count -= len(piece)
            yield piece

    def _chunks(self, deadline: float | None) -> Generator[memoryview, None, None]:
        while True:
            line = self._until(b"\r\n", CHUNK_LINE_BYTES, deadline)
            match = _CHUNK.fullmatch(line)
            if match is None:
                msg = f"the answer has a chunk of no clear length: {line[:40]!r}"
                raise LineFault(msg)
            count = int(match[1], 16)
            if not count:
                break
            yield from self._exactly(count, deadline)
            if self._until(b"\r\n", CHUNK_LINE_BYTES, deadline):
                msg = "the answer has a chunk that is longer than it says"
                raise LineFault(msg)
        for _ in range(LINES):
            if not self._until(b"\r\n", CHUNK_LINE_BYTES, deadline):
                return
        msg = "the chunked answer has too many trailers"
        raise LineFault(msg)

    def _take(self, count: int) -> memoryview:
        start, self._start = self._start, self._start + count
        return self._view[start : start + count]

    def _until(self, mark: bytes, limit: int, deadline: float | None) -> bytes:
        """What comes before a mark, which is passed over."""
        looked = 0
        while (place := self._buffer.find(mark, self._start + looked, self._end)) < 0:
            looked = max(0, self._end - self._start - len(mark) + 1)
            if looked > limit:
                msg = f"the answer has no end of its head, or of a line, within {limit} bytes"
                raise LineFault(msg)
            if not self._fill(deadline):
                msg = "the connection ended before the answer"
                raise LineCut(msg)
        found = bytes(self._view[self._start : place])
        self._start = place + len(mark)
        return found

    def _fill(self, deadline: float | None) -> int:
        """Read what is there; returns how many bytes, 0 at the end of the connection."""
        if deadline is not None and time.monotonic() > deadline:
            msg = "the answer does not end"
            raise LineFault(msg)
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == BUFFER_BYTES:
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        count = self._socket.recv_into(self._view[self._end :])
        self._end += count
        if not count:
            self.is_open = False
        return count
