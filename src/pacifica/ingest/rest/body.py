"""Request bodies as streams of chunks, read around CherryPy, which would take 8 KiB at a time and parse forms.

How a body is framed is decided here, and strictly: what two readers could take for two things is refused.  The built-in
server gives a `SocketBody` for `wsgi.input`; other servers their own, and uWSGI needs help with chunks and `Expect`.
Knows neither CherryPy nor jobs.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from types import ModuleType
from typing import Any, Protocol

from pacifica.ingest.core.errors import BadRequest, LengthMismatch, LengthRequired, Unavailable
from pacifica.ingest.intake import Body
from pacifica.ingest.rest.head import BadHead, split_field
from pacifica.ingest.rest.pace import Pace

__all__ = ["SocketBody", "Stream", "receive", "uwsgi"]

#: What is read from a socket at once, in bytes, at most; larger is not faster.
BUFFER_BYTES = 256 * 1024
#: The same for servers that wait until a block is full.  Small, so that a slow sender is seen to be alive.
BLOCK_BYTES = 128 * 1024
#: The longest line of a chunked body, and the most lines after its end, that are taken.
LINE_BYTES = 4096
TRAILERS = 100

#: Sockets on which uWSGI speaks HTTP with the client itself.
_HTTP_SOCKETS = {"http-socket", "http11-socket", "https-socket"}

_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?\r\n")


class Stream(Protocol):
    """What a server reads a connection through."""

    def readinto1(self, buffer: memoryview, /) -> int:
        """Read what is there, at least one byte; 0 when the connection has ended."""
        ...

    def readline(self, size: int, /) -> bytes:
        """Read a line with its end, or `size` bytes of it; shorter when the connection has ended."""
        ...


class SocketBody:
    """The body of one request to the built-in server.

    Attributes:
        ended: nothing of it is left on the connection, which can be used for another request then.

    """

    def __init__(
        self,
        stream: Stream,
        proceed: Callable[[], None],
        stopping: Callable[[], bool],
        cut: Callable[[], bool],
        *,
        empty: bool,
    ) -> None:
        """Read from `stream`.

        Args:
            stream: of the connection.
            proceed: tells a client that waits to send; called before the first byte is read.
            stopping: whether the server stops, which cuts connections.
            cut: whether they are cut by now.
            empty: there is nothing to read.

        """
        self._stream = stream
        self._proceed = proceed
        self._stopping = stopping
        self._cut = cut
        self.ended = empty

    def counted(self, length_bytes: int) -> Iterator[memoryview]:
        """The chunks of a body of known length; ends early when the connection does.

        Raises:
            Unavailable: we ended it ourselves; retryable.

        """
        left = length_bytes
        view = memoryview(bytearray(min(BUFFER_BYTES, left)))
        try:
            self._proceed()
            while left:
                found = self._read(view[:left])
                if not found:
                    self._refuse_stopping()
                    return
                left -= found
                yield view[:found]
        except OSError:  # a reset, or a pause that is too long
            return
        self.ended = True

    def _read(self, buffer: memoryview) -> int:
        """Read what is there; 0 when the connection has ended, or is cut: a fast sender is heard beyond that, for ever."""
        return 0 if self._cut() else self._stream.readinto1(buffer)

    def _refuse_stopping(self) -> None:
        if self._stopping():
            msg = "The server stops. Nothing was kept; send it again."
            raise Unavailable(msg)

    def chunked(self) -> Iterator[memoryview]:
        """The chunks of a chunked body, in pieces.

        Raises:
            LengthMismatch, BadRequest: it has no proper end; not retryable.
            Unavailable: we ended it ourselves; retryable.

        """
        view = memoryview(bytearray(BUFFER_BYTES))
        total = 0
        try:
            self._proceed()
            while left := self._chunk_size(total):
                while left:
                    found = self._read(view[:left])
                    if not found:
                        self._refuse_stopping()
                        raise LengthMismatch(None, total)
                    left -= found
                    total += found
                    yield view[:found]
                self._expect_line(b"\r\n", total)
            self._skip_trailers(total)
        except OSError as fault:
            raise LengthMismatch(None, total) from fault
        self.ended = True

    def _chunk_size(self, total: int) -> int:
        line = self._line(total)
        match = _CHUNK_SIZE.fullmatch(line)
        if not match:
            msg = f"After {total} bytes of the chunked body, {line[:40]!r} is no chunk size."
            raise BadRequest(msg)
        return int(match[1], 16)

    def _expect_line(self, expected: bytes, total: int) -> None:
        line = self._line(total)
        if line != expected:
            msg = f"After {total} bytes of the chunked body, a chunk is longer than it says."
            raise BadRequest(msg)

    def _skip_trailers(self, total: int) -> None:
        known: set[bytes] = set()
        for _ in range(TRAILERS):
            line = self._line(total)
            if line == b"\r\n":
                return
            try:
                split_field(line, known)
            except BadHead as fault:
                raise BadRequest(str(fault)) from fault
        msg = "The chunked body has too many trailers."
        raise BadRequest(msg)

    def _line(self, total: int) -> bytes:
        line = self._stream.readline(LINE_BYTES)
        if not line.endswith(b"\n") and len(line) < LINE_BYTES:
            self._refuse_stopping()
            raise LengthMismatch(None, total)
        return line


class _WsgiBody:
    """The body of one request to another WSGI server."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def counted(self, length_bytes: int) -> Iterator[bytes]:
        """As `SocketBody.counted`."""
        left = length_bytes
        try:
            self._proceed()
            while left:
                block = self._environ["wsgi.input"].read(min(BLOCK_BYTES, left))
                if not block:
                    return
                left -= len(block)
                yield block
        except OSError:
            return

    def chunked(self) -> Iterator[bytes]:
        """As `SocketBody.chunked`."""
        server = uwsgi()
        if server:
            read = server.chunked_read
        elif self._environ.get("wsgi.input_terminated"):
            read = partial(self._environ["wsgi.input"].read, BLOCK_BYTES)
        else:
            msg = "This server cannot read chunked bodies; send Content-Length."
            raise LengthRequired(msg)
        total = 0
        try:
            self._proceed()
            while block := read():
                total += len(block)
                yield block
        except OSError as fault:
            raise LengthMismatch(None, total) from fault

    def _proceed(self) -> None:
        """Ask a client that waits for it to send; only uWSGI's own HTTP socket leaves that to the application."""
        server = uwsgi()
        if server and _expects(self._environ) and _HTTP_SOCKETS & server.opt.keys():
            server.send(b"HTTP/1.1 100 Continue\r\n\r\n")


def receive(environ: Mapping[str, Any], pace: Pace) -> Body:
    """The body of a request that must have one.

    Args:
        environ: the WSGI environment.
        pace: how slowly it may come.  The built-in server looks at every byte; others are seen by the block.

    Raises:
        LengthRequired, BadRequest: where it ends cannot be known for sure; not retryable.

    """
    length = _length(environ)
    found = environ["wsgi.input"]
    body = found if isinstance(found, SocketBody) else _WsgiBody(environ)
    chunks: Iterator[bytes | memoryview] = body.chunked() if length is None else body.counted(length)
    return Body(chunks=_paced(chunks, pace), length=length)


def _paced(chunks: Iterator[bytes | memoryview], pace: Pace) -> Iterator[bytes | memoryview]:
    arrived = pace.watch()
    for chunk in chunks:
        arrived(len(chunk))
        yield chunk


def _length(environ: Mapping[str, Any]) -> int | None:
    """Content-Length in bytes; None for a chunked body."""
    length = environ.get("CONTENT_LENGTH") or None
    encoding = environ.get("HTTP_TRANSFER_ENCODING")
    if encoding is None and length is None:
        msg = "Send Content-Length, or send the body chunked."
        raise LengthRequired(msg)
    if encoding is None:
        if not _LENGTH.fullmatch(str(length)):
            msg = f"Content-Length is no number of bytes: {str(length)[:40]!r}"
            raise BadRequest(msg)
        return int(str(length))
    if length is not None:
        msg = "Send Content-Length or Transfer-Encoding, not both."
        raise BadRequest(msg)
    if encoding.strip().lower() != "chunked" or environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        msg = f"Transfer-Encoding {encoding[:40]!r} cannot be read here; chunked can, in HTTP/1.1."
        raise BadRequest(msg)
    return None


def _expects(environ: Mapping[str, Any]) -> bool:
    return str(environ.get("HTTP_EXPECT", "")).lower() == "100-continue"


@cache
def uwsgi() -> ModuleType | None:
    """The module that uWSGI gives to programs that run in it; None elsewhere."""
    try:
        return importlib.import_module("uwsgi")
    except ModuleNotFoundError:
        return None
