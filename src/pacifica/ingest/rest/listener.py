"""The built-in server: CherryPy's, with other manners.

`100 Continue` is sent when the application begins to read, not before it could refuse.  A connection whose body was not
read to its end is closed, slowly enough for the client to read the answer.  What goes wrong before the application is
asked is told in JSON, too.  A thread is busy with a connection only when there is something to do: whoever sends a head
slowly, or the beginning of a body, or is to read an answer before the end, waits with all others in `line`.
"""

import logging
import math
import socket
import time
from contextlib import suppress
from typing import Any

from cheroot.server import HeaderReader
from cheroot.wsgi import Gateway_10
from cherrypy._cpwsgi_server import CPWSGIHTTPRequest, CPWSGIServer

from pacifica.ingest.rest.answer import error_json
from pacifica.ingest.rest.body import SocketBody
from pacifica.ingest.rest.head import BadHead, ensure_framed, ensure_request_line, split_field
from pacifica.ingest.rest.line import Connection, Line
from pacifica.ingest.rest.pace import Pace

__all__ = ["HEAD_BYTES", "Listener"]

logger = logging.getLogger(__name__)

#: Idle connections kept for their next request.
KEPT_ALIVE = 200
#: The largest head of a request, in bytes.
HEAD_BYTES = 64 * 1024
#: How long it may take to come, in seconds.
HEAD_S = 20.0


class _Headers(HeaderReader):
    """Reads headers by our rules; keeps `Expect` back, as the server would answer it at once."""

    expects_continue = False
    is_old = False

    def __call__(self, rfile: Any, hdict: Any = None) -> Any:  # noqa: ANN401 (no types are published)
        headers = {} if hdict is None else hdict
        known: set[bytes] = set()
        while (line := rfile.readline()) != b"\r\n":
            name, value = split_field(line, known)
            key = name.title()
            # As CGI does: of two the application sees both, and not the one that came last.
            headers[key] = b", ".join((headers[key], value)) if key in headers else value
        ensure_framed(headers.get(b"Content-Length"), headers.get(b"Transfer-Encoding"), is_old=self.is_old)
        self.expects_continue = headers.pop(b"Expect", b"").lower() == b"100-continue"
        return headers


class _Lines:
    """Checks the first line that is not empty before anybody reads it."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 (no types are published)
        self._stream = stream
        self._is_first = True

    def readline(self) -> bytes:
        line: bytes = self._stream.readline()
        # One empty line in front is forgiven: some clients end a body with it.
        if line and (line != b"\r\n" or not self._is_first):
            ensure_request_line(line)
        self._is_first = False
        return line


class _Request(CPWSGIHTTPRequest):  # type: ignore[misc]  # CherryPy has no types
    """One request on a connection."""

    rfile: Any

    def __init__(self, server: "Listener", conn: Connection) -> None:
        super().__init__(server, conn)
        self.header_reader = _Headers()
        self.body: SocketBody | None = None

    def parse_request(self) -> None:
        """Read the head."""
        if self.conn.is_late:
            self.simple_response("408 Request Timeout", "The request came too slowly. Nothing was kept; send it again.")
        else:
            super().parse_request()

    def read_request_line(self) -> bool:
        """Read the first line; it is checked before CherryPy, which takes more and stumbles over some."""
        stream = self.rfile
        self.rfile = _Lines(stream)
        try:
            is_read = bool(super().read_request_line())
            self.header_reader.is_old = self.response_protocol == "HTTP/1.0"
        except BadHead as fault:
            self.simple_response("400 Bad Request", str(fault))
            return False
        else:
            return is_read
        finally:
            self.rfile = stream

    def proceed(self) -> None:
        """Tell the client to send the body, if it waits for that."""
        if self.header_reader.expects_continue and self.response_protocol == "HTTP/1.1":
            self.conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def open_body(self) -> SocketBody:
        """The body, which nobody has read yet."""
        empty = int(self.inheaders.get(b"Content-Length", 0)) == 0 and b"Transfer-Encoding" not in self.inheaders
        self.conn.watch(self.server.pace)
        self.body = SocketBody(
            self.conn.rfile, self.proceed, lambda: not self.server.ready, lambda: self.server.is_cut, empty=empty
        )
        return self.body

    def send_headers(self) -> None:
        """Begin the answer."""
        if self.body is None or not self.body.ended:
            self.close_connection = self.conn.unread = True
        super().send_headers()

    def simple_response(self, status: str, msg: str = "") -> None:
        """Answer without asking the application, and close."""
        self.close_connection = self.conn.unread = True
        body = error_json(status, msg or status.partition(" ")[2])
        lines = [
            f"{self.server.protocol} {status}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        with suppress(OSError):
            self.conn.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


class _Gateway(Gateway_10):
    """Hands a request to the application."""

    def get_environ(self) -> Any:  # noqa: ANN401 (the published type is wrong)
        environ: Any = super().get_environ()  # type: ignore[no-untyped-call]
        environ["wsgi.input"] = self.req.rfile = self.req.open_body()
        return environ


class Listener(CPWSGIServer):  # type: ignore[misc]  # CherryPy has no types
    """The server.

    Attributes:
        pace: how slowly a body may come.
        largest_bytes: the longest body that is taken; 0 is no limit.
        fault: why an address could not be used.

    """

    ConnectionClass = Connection
    keep_alive_conn_limit = KEPT_ALIVE
    _connections: Line
    _cut_at = math.inf

    def __init__(self, adapter: Any, pace: Pace, largest_bytes: int) -> None:  # noqa: ANN401 (no types are published)
        """Take the settings of `adapter`, which is `cherrypy.server`; open nothing."""
        super().__init__(adapter)
        self.pace = pace
        self.largest_bytes = largest_bytes
        self.ConnectionClass.RequestHandlerClass = _Request
        self.gateway = _Gateway
        self.fault: OSError | None = None

    def prepare(self) -> None:
        """Open the socket and start the threads."""
        super().prepare()
        self._connections.close()
        head_s = min(HEAD_S, self.pace.grace_s or HEAD_S)
        self._connections = Line(self, head_s=head_s, pace=self.pace, largest_bytes=self.largest_bytes)

    @property
    def is_cut(self) -> bool:
        """Whether the time is up that requests have when the server stops."""
        return time.monotonic() >= self._cut_at

    def stop(self) -> None:
        """Stop: requests have a while to end."""
        self._cut_at = min(self._cut_at, time.monotonic() + self.shutdown_timeout)
        super().stop()

    def process_conn(self, conn: Connection) -> None:
        """Go on with a connection that came, or on which something came."""
        if self.ssl_adapter is not None:
            # What lies in its buffers cannot be asked for: a thread waits for the head, too.
            self.hand_over(conn)
        else:
            self._connections.take(conn)

    def hand_over(self, conn: Connection) -> None:
        """Let a thread go on with a connection."""
        super().process_conn(conn)

    def linger(self, conn: Connection) -> bool:
        """Close a connection when its client had time to read the answer; false when nobody can wait for that."""
        if self.ssl_adapter is not None or not self.ready:
            return False
        self._connections.take(conn)
        return True

    def bind(self, *address: Any) -> socket.socket:  # noqa: ANN401 (no types are published)
        """Open the socket; called by `prepare` for each address that a name has."""
        try:
            found: socket.socket = super().bind(*address)
        except OSError as fault:
            self.fault = fault
            raise
        return found

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:  # noqa: FBT001, FBT002 (overrides)
        """Log what happens below the application."""
        logger.log(level, "%s", msg, exc_info=traceback)
