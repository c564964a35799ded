"""Connections that wait, all in one thread: for a request, or for the client to read the last answer.

cheroot would read a request in a thread of its own, so that a few dozen clients that send a byte a second could stop
everything.  Here what arrives is kept in the connection until the request is whole, or there is enough of a long one.

Not for TLS, where a thread waits, as the bytes on the socket are not those of the request.  `listener` alone uses this.
"""

import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cheroot.connections import ConnectionManager
from cheroot.makefile import StreamReader
from cheroot.server import HTTPConnection

from pacifica.ingest.rest.head import awaited, is_decided
from pacifica.ingest.rest.pace import Pace

__all__ = ["Connection", "Line"]

#: As much of a request as is kept, in bytes; of a longer one a thread reads the rest.
KEPT_BYTES = 80 * 1024
#: How long, in seconds, a connection with unread bytes stays open behind the answer: closed at once, it would be reset,
#: and the client might never see the answer.  As long as bytes come, up to the second.
LINGER_S = 2.0
LINGER_MOST_S = 10.0
#: What is thrown away at once then, in bytes.
DRAIN_BYTES = 256 * 1024


class _Raw(socket.SocketIO):
    """The bytes of a connection."""

    arrived: Callable[[int], None] | None = None
    ended = False

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 (any buffer)
        found = super().readinto(buffer)
        if found == 0:
            self.ended = True
        elif found and self.arrived:
            self.arrived(found)
        return found


class _Reader(StreamReader):
    """Reads a connection, and keeps the beginning of a request."""

    # Not in the published types.
    _read_buf: bytes
    _read_pos: int

    def __init__(self, sock: socket.socket) -> None:
        super(StreamReader, self).__init__(_Raw(sock, "rb"), KEPT_BYTES)
        self.bytes_read = 0

    def gather(self) -> bytes:
        """Take what is there, and return all that is kept; the socket must not block."""
        kept = len(self._read_buf) - self._read_pos
        found: bytes = self.peek(kept + 1)
        return found


class Connection(HTTPConnection):
    """A connection.

    Attributes:
        unread: bytes may be left that nobody wants.
        is_begun: a part of a request came, since `began`, in seconds of the monotonic clock.
        is_late: its request did not come in time.
        is_lingering: it was answered for the last time.
        until: when the line gives it up, in seconds of the monotonic clock; None while it does not wait.

    """

    unread = False
    is_late = False
    is_lingering = False
    is_begun = False
    until: float | None = None
    began = 0.0
    _linger_until = 0.0
    rfile: Any

    def __init__(self, server: Any, sock: socket.socket, makefile: Any) -> None:  # noqa: ANN401 (not typed)
        """Take a connection that came."""
        super().__init__(server, sock, makefile)
        if server.ssl_adapter is None:
            self.rfile = _Reader(sock)

    def watch(self, pace: Pace) -> None:
        """See to it that the body that follows comes fast enough."""
        if isinstance(self.rfile, _Reader):
            raw: Any = self.rfile.raw
            raw.arrived = pace.watch()

    def gather(self) -> bytes | None:
        """What came of a request; None when the connection ended before one."""
        raw = self.rfile.raw
        raw.arrived = None
        self.socket.settimeout(0)
        try:
            found = self.rfile.gather()
        except OSError:
            return None
        finally:
            self.socket.settimeout(self.server.timeout)
        return None if raw.ended and not found else found

    @property
    def has_ended(self) -> bool:
        """Whether the client sends no more."""
        return bool(self.rfile.raw.ended)

    def close(self) -> None:
        """Close, after the client had time to read the answer."""
        if self.unread and not self.is_lingering:
            self.is_lingering = True
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
                self._linger_until = time.monotonic() + LINGER_MOST_S
                if self.server.linger(self):
                    return
                self._linger()
        super().close()

    def drain(self) -> bool:
        """Throw away what came; false when there is no use in waiting for more."""
        self.socket.settimeout(0)
        try:
            is_open = bool(self.socket.recv(DRAIN_BYTES))
        except BlockingIOError:
            is_open = True
        except OSError:
            return False
        self.until = min(time.monotonic() + LINGER_S, self._linger_until)
        return is_open

    def _linger(self) -> None:
        deadline = time.monotonic() + LINGER_S
        left = LINGER_S
        while left > 0:
            self.socket.settimeout(left)
            if not self.socket.recv(DRAIN_BYTES):
                return
            left = deadline - time.monotonic()


class Line(ConnectionManager):
    """All connections that no thread is busy with."""

    # Not in the published types.
    _selector: Any

    def __init__(self, server: Any, *, head_s: float, pace: Pace, largest_bytes: int) -> None:  # noqa: ANN401 (not typed)
        """Wait for connections.

        Args:
            server: the listener.
            head_s: how long a head may take to come, in seconds.
            pace: how slowly the body behind it may come.
            largest_bytes: the longest body that is taken; 0 is no limit.

        """
        super().__init__(server)
        self._head_s = head_s
        self._pace = pace
        self._largest_bytes = largest_bytes

    def put(self, conn: Connection) -> None:
        """Wait for the next request of a connection."""
        self.take(conn)

    def take(self, conn: Connection) -> None:
        """Look at a connection: it waits on, goes to a thread, or is closed."""
        if conn.is_lingering:
            if conn.drain():
                self._wait(conn)
            else:
                conn.close()
            return
        found = conn.gather()
        if found is None:
            conn.close()
        elif conn.has_ended or self._is_enough(found):
            conn.until, conn.is_begun = None, False
            self.server.hand_over(conn)
        else:
            now = time.monotonic()
            if found and not conn.is_begun:
                conn.began = now
            conn.is_begun = bool(found)
            conn.until = self._deadline(conn.began, found, now)
            self._wait(conn)

    def _is_enough(self, found: bytes) -> bool:
        """Whether a thread should go on; early, if it will refuse the request."""
        if len(found) >= KEPT_BYTES:
            return True
        return is_decided(found) and len(found) >= awaited(found, self._largest_bytes)

    def _deadline(self, began: float, found: bytes, now: float) -> float:
        """Until when more has to come."""
        if found and not is_decided(found):
            return began + self._head_s
        pause_s: float = self.server.timeout
        return min(now + pause_s, self._pace.deadline(began, len(found))) if found else now + pause_s

    def _wait(self, conn: Connection) -> None:
        try:
            self._selector.register(conn.socket.fileno(), selectors.EVENT_READ, data=conn)
        except (KeyError, ValueError, OSError):
            # The server stops.
            conn.close()

    def _expire(self, threshold: float) -> None:  # noqa: ARG002 (each connection has a time of its own)
        """Give up those that waited for too long; called twice a second."""
        now = time.monotonic()
        waiting = [(number, conn) for number, conn in self._selector.connections if conn is not self.server]
        for number, conn in waiting:
            if conn.until is None or conn.until > now:
                continue
            self._selector.unregister(number)
            if conn.is_lingering or not conn.is_begun:
                conn.close()
            else:
                conn.is_late = True
                self.server.hand_over(conn)
