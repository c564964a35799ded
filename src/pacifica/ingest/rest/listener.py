"""The built-in server: CherryPy's, with three manners changed.

`100 Continue` is sent when the application begins to read, not before it could refuse.  A connection whose body was not
read to its end is closed, slowly enough for the client to read the answer.  What goes wrong before the application is
asked is told in JSON, too.
"""

import logging
import socket
import time
from contextlib import suppress
from typing import Any

from cheroot.server import HeaderReader, HTTPConnection
from cheroot.wsgi import Gateway_10
from cherrypy._cpwsgi_server import CPWSGIHTTPRequest, CPWSGIServer

from pacifica.ingest.rest.answer import error_json
from pacifica.ingest.rest.body import SocketBody

__all__ = ["Listener"]

logger = logging.getLogger(__name__)

#: How long, in seconds, a connection with unread bytes stays open behind the answer: closed at once, it would be reset,
#: and the client might never see the answer.
LINGER_S = 2.0
#: Idle connections kept for their next request.
KEPT_ALIVE = 200


class _Headers(HeaderReader):
    """Reads headers; keeps `Expect` back, as the server would answer it at once."""

    expects_continue = False

    def __call__(self, rfile: Any, hdict: Any = None) -> Any:  # noqa: ANN401 (no types are published)
        headers = super().__call__(rfile, hdict)
        self.expects_continue = headers.pop(b"Expect", b"").lower() == b"100-continue"
        return headers


class _Request(CPWSGIHTTPRequest):  # type: ignore[misc]  # CherryPy has no types
    """One request on a connection."""

    def __init__(self, server: "Listener", conn: "_Connection") -> None:
        super().__init__(server, conn)
        self.header_reader = _Headers()
        self.body: SocketBody | None = None

    def proceed(self) -> None:
        """Tell the client to send the body, if it waits for that."""
        if self.header_reader.expects_continue and self.response_protocol == "HTTP/1.1":
            self.conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def open_body(self) -> SocketBody:
        """The body, which nobody has read yet."""
        empty = int(self.inheaders.get(b"Content-Length", 0)) == 0 and b"Transfer-Encoding" not in self.inheaders
        self.body = SocketBody(self.conn.rfile, self.proceed, empty=empty)
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


class _Connection(HTTPConnection):
    """A connection.

    Attributes:
        unread: bytes may be left that nobody wants.

    """

    unread = False

    def close(self) -> None:
        """Close, after the client had time to read the answer."""
        if self.unread:
            with suppress(OSError):
                self._linger()
        super().close()

    def _linger(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + LINGER_S
        left = LINGER_S
        while left > 0:
            self.socket.settimeout(left)
            if not self.socket.recv(64 * 1024):
                return
            left = deadline - time.monotonic()


class Listener(CPWSGIServer):  # type: ignore[misc]  # CherryPy has no types
    """The server.

    Attributes:
        fault: why an address could not be used.

    """

    ConnectionClass = _Connection
    keep_alive_conn_limit = KEPT_ALIVE

    def __init__(self, adapter: Any) -> None:  # noqa: ANN401 (no types are published)
        """Take the settings of `adapter`, which is `cherrypy.server`; open nothing."""
        super().__init__(adapter)
        self.ConnectionClass.RequestHandlerClass = _Request
        self.gateway = _Gateway
        self.fault: OSError | None = None

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
