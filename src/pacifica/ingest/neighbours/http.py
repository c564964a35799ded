"""One small HTTP client under the four adapters: the only place that knows urllib3.

It follows no redirect, asks no proxy, repeats nothing, reads no endless answer, and tells every fault of the network as
`NeighbourDown`.  What an answer means is for the adapters: those that they know have a meaning, all others are `down`.
Only they may call it.
"""

import json
import os
import re
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError
from urllib3.util import make_headers, parse_url

from pacifica.ingest.core.errors import NeighbourDown
from pacifica.ingest.neighbours.line import Head, Line, LineFault

__all__ = ["KIB", "MIB", "TIMEOUTS", "Answer", "Client", "Timeouts", "native", "whole"]

#: What can be sent: bytes, or pieces of a length that is told in the headers.
Body = bytes | Iterator[bytes]

KIB: Final = 1024
MIB: Final = 1024 * KIB

#: Longer answers are garbage, except where an adapter says otherwise.
_MAX_ANSWER: Final = MIB
#: Characters of a service's own words that are passed on.
_MAX_WORDS: Final = 500

_JSON: Final = {"Content-Type": "application/json"}
#: A JSON body of that many bytes at most is kept in memory, which is one of 100,000 files; a longer one is made again to be
#: sent.
_KEPT: Final = 40 * MIB
#: Elements of a JSON list that are written at a time.
_PIECE: Final = 256

_GOOD: Final = range(200, 300)
_ELSEWHERE: Final = range(300, 400)

_SECRET: Final = re.compile(r"//[^/\s@]*@")
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
#: The line of a Python traceback that names the error.
_ERROR_LINE: Final = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|DoesNotExist): .*", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a call may take before the neighbour counts as away.

    Attributes:
        connect_s: until there is a connection, in seconds.
        answer_s: until a small request is answered, from its first byte to its last, in seconds.
        transfer_s: between two signs of life while bytes of files are moved, in seconds.  All calls to the archive wait
            that long, as it may serve one request at a time and be busy with somebody else's long file.
        per_file_s: added to `answer_s` for each entry of a document that is registered, in seconds; measured: 0.0024.

    """

    connect_s: float = 10.0
    answer_s: float = 60.0
    transfer_s: float = 300.0
    per_file_s: float = 0.02


TIMEOUTS: Final = Timeouts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that arrived whole.

    Attributes:
        asked: method and address, for messages.
        status: of HTTP.
        headers: names in any case.
        body: all bytes.

    """

    asked: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 (it is whatever the service sent)
        """The decoded body, None when it is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def field(self, name: str) -> Any:  # noqa: ANN401 (as above)
        """A member of the JSON object in the body, None when there is no such thing."""
        found = self.json()
        return found.get(name) if isinstance(found, dict) else None

    def words(self) -> str:
        """What the service says about an error, in one short line; empty when it says nothing that a person can use.

        The services put the reason of a 500 only at the end of a traceback.
        """
        traceback, message = self.field("traceback"), self.field("message")
        errors = _ERROR_LINE.findall(traceback) if isinstance(traceback, str) else []
        if errors and self.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return _printable(errors[-1])
        return _printable(message) if isinstance(message, str) else ""


class Client:
    """One service.  Threads may share one; a process that was forked off gets connections of its own."""

    def __init__(self, neighbour: str, url: str, *, connections: int = 1, timeouts: Timeouts = TIMEOUTS) -> None:
        """Connect to nothing yet.

        Args:
            neighbour: the role, for messages.
            url: http or https, with an optional path, and optional user and password for HTTP Basic.
            connections: that are open at once at most; further calls wait for one.
            timeouts: see there.

        """
        parts = parse_url(url)
        self.url = parts._replace(auth=None, query=None, fragment=None).url.rstrip("/")
        self.timeouts = timeouts
        self._neighbour = neighbour
        self._secure = parts.scheme == "https"
        self._host = parts.host or ""
        self._port = parts.port
        self._path = (parts.path or "").rstrip("/")
        self._connections = connections
        self._headers = {"Host": parts.netloc or "", "User-Agent": "pacifica-ingest", "Accept-Encoding": "identity"}
        if parts.auth:
            self._headers |= make_headers(basic_auth=parts.auth)
        self._pool = self._new_pool()
        self._owner = os.getpid()

    def ask(
        self,
        method: str,
        path: str = "",
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float | None = None,
        limit: int = _MAX_ANSWER,
    ) -> Answer:
        """Send one request and read the whole answer.

        Args:
            method: of HTTP.
            path: below the address of the service, with its query.
            body: bytes, or pieces when `headers` has their Content-Length; what their iterator raises passes through.
            headers: more of them.
            wait_s: longest wait for the answer to begin, and again for it to end; default: `Timeouts.answer_s`.
            limit: longest answer taken, in bytes.

        Raises:
            NeighbourDown: no whole answer; retryable.

        """
        patience_s = self.timeouts.answer_s if wait_s is None else wait_s
        with self._exchange(method, path, body, headers, patience_s) as response:
            return self._read(response, self._asked(method, path), limit, time.monotonic() + patience_s)

    def ask_json(
        self, method: str, path: str, document: Mapping[str, object], *, wait_s: float | None = None
    ) -> Answer:
        """`ask` with a JSON object as the body."""
        body = json.dumps(document).encode("ascii")
        return self.ask(method, path, body=body, headers=_JSON, wait_s=wait_s)

    def ask_list(
        self,
        method: str,
        path: str,
        document: Iterable[object],
        *,
        headers: Mapping[str, str] | None = None,
        wait_s: float | None = None,
    ) -> Answer:
        """`ask` with a JSON list as the body; its elements are never held together, and asked for twice when the text is long."""
        body, length = _written(document)
        about = {**_JSON, "Content-Length": str(length), **(headers or {})}
        return self.ask(method, path, body=body, headers=about, wait_s=wait_s)

    def download(self, path: str, piece_bytes: int) -> Generator[bytes, None, None]:
        """GET a body of any length in pieces, which come as the network brings them.

        Raises:
            NeighbourDown: any status but 200, or the body does not end as announced; retryable.

        """
        wait_s = self.timeouts.transfer_s
        with self._exchange("GET", path, None, None, wait_s) as response:
            if response.status != HTTPStatus.OK:
                raise self.down(self._read(response, self._asked("GET", path), _MAX_ANSWER, time.monotonic() + wait_s))
            while piece := response.read1(piece_bytes):
                yield piece

    @contextmanager
    def line(self) -> Iterator[Line]:
        """A connection of its own for many requests, whose answers `whole` reads.

        Raises:
            NeighbourDown: also for what `Line` raises within the block; retryable.

        """
        pool = self._connected()
        try:
            with pool.lent(self.timeouts.connect_s) as connection:
                line = Line(connection.sock, self.url, self._headers, self.timeouts.transfer_s)
                try:
                    yield line
                except (LineFault, OSError) as fault:
                    reason = f"{line.asked}: {self._broken(fault)}"
                    raise NeighbourDown(self._neighbour, reason) from fault
                finally:
                    if not line.is_clean:
                        connection.close()
        except HTTPError as fault:
            reason = f"{self.url}: {self._told(fault, self.timeouts.transfer_s)}"
            raise NeighbourDown(self._neighbour, reason) from fault

    def _broken(self, fault: Exception) -> str:
        """As `_told`, of what a `Line` raises."""
        match fault:
            case TimeoutError():
                return f"no answer within {self.timeouts.transfer_s:g} s"
            case OSError() if not isinstance(fault, LineFault):
                return _printable(f"the connection broke: {fault.strerror or fault}")
        return _printable(str(fault))

    def down(self, answer: Answer) -> NeighbourDown:
        """The error for an answer that the adapter has no use for."""
        said = answer.words()
        if answer.status in _GOOD:
            said = "but not what was expected"
        elif answer.status in _ELSEWHERE:
            said = "redirects are not followed"
        reason = f"{answer.asked} answered {answer.status}{': ' if said else ''}{said}"
        return NeighbourDown(self._neighbour, reason)

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: Body | None, headers: Mapping[str, str] | None, wait_s: float
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request; the answer's body can be read within the block."""
        try:
            response = self._connected().urlopen(
                method,
                f"{self._path}{path}" or "/",
                body=body,
                headers={**self._headers, **(headers or {})},
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=urllib3.Timeout(connect=self.timeouts.connect_s, read=wait_s),
                preload_content=False,
                decode_content=False,
            )
            try:
                yield response
            finally:
                # A connection whose answer was not read to its end would give the rest to the next request.
                response.close()
                response.release_conn()
        except HTTPError as fault:
            reason = f"{self._asked(method, path)}: {self._told(fault, wait_s)}"
            raise NeighbourDown(self._neighbour, reason) from fault

    def _read(self, response: urllib3.BaseHTTPResponse, asked: str, limit: int, deadline: float) -> Answer:
        pieces: list[bytes] = []
        length = 0
        # An interim answer (1xx) has no body, and its connection is left unread: the final answer is yet to come.
        while response.status >= HTTPStatus.OK and (piece := response.read1(64 * KIB)):
            pieces.append(piece)
            length += len(piece)
            if length > limit:
                reason = f"{asked}: the answer is longer than {limit} bytes"
                raise NeighbourDown(self._neighbour, reason)
            if time.monotonic() > deadline:
                reason = f"{asked}: the answer does not end"
                raise NeighbourDown(self._neighbour, reason)
        return Answer(asked=asked, status=response.status, headers=response.headers, body=b"".join(pieces))

    def _asked(self, method: str, path: str) -> str:
        return f"{method} {self.url}{path.partition('?')[0]}"

    def _told(self, fault: HTTPError, wait_s: float) -> str:
        """One short line, without the address and its password."""
        match fault:
            case NewConnectionError(__cause__=OSError() as cause):
                return f"no connection: {cause.strerror or cause}"
            case ConnectTimeoutError():
                return f"no connection within {self.timeouts.connect_s:g} s"
            case ReadTimeoutError():
                return f"no answer within {wait_s:g} s"
        return _printable(f"the connection broke, or the answer is not HTTP: {fault.args[-1] if fault.args else fault}")

    def _connected(self) -> "_Pool | _SecurePool":
        if self._owner != os.getpid():
            self._pool, self._owner = self._new_pool(), os.getpid()
        return self._pool

    def _new_pool(self) -> "_Pool | _SecurePool":
        kind = _SecurePool if self._secure else _Pool
        return kind(self._host, self._port, maxsize=self._connections, block=True, send_s=self.timeouts.transfer_s)


class _Patient(HTTPConnection):
    """A connection with a time limit of its own for sending; urllib3 takes the one for connecting."""

    def __init__(self, *args: Any, send_s: float, **options: Any) -> None:  # noqa: ANN401 (passed on)
        super().__init__(*args, **options)
        self._send_s = send_s

    def send(self, data: Any) -> None:  # noqa: ANN401 (as in the base)
        if self.sock is None:
            self.connect()
        self.sock.settimeout(self._send_s)
        super().send(data)


class _PatientSecure(_Patient, HTTPSConnection):
    """The same with TLS."""


class _Lending:
    """A pool that lends its connections, too."""

    @contextmanager
    def lent(self: Any, connect_s: float) -> Iterator[HTTPConnection]:
        """An open connection, which nobody else has meanwhile."""
        connection = self._get_conn()
        try:
            if connection.is_closed:
                connection.timeout = connect_s
                connection.connect()
            yield connection
        except BaseException:
            connection.close()
            raise
        finally:
            self._put_conn(connection)


class _Pool(_Lending, urllib3.HTTPConnectionPool):
    ConnectionCls = _Patient


class _SecurePool(_Lending, urllib3.HTTPSConnectionPool):
    ConnectionCls = _PatientSecure


def native(name: str) -> str:
    """The name of a user as text: one that came in a header has a character for each byte."""
    try:
        return name.encode("latin-1").decode()
    except UnicodeError:
        return name


def whole(line: Line, head: Head) -> Answer:
    """The answer on a line that begins so, when it is no object.  Raises as `Line`."""
    return Answer(asked=line.asked, status=head.status, headers=head.headers, body=line.words(head, _MAX_ANSWER))


def _written(document: Iterable[object]) -> tuple[Body, int]:
    """A list as JSON, and its length in bytes, which the services want to know before they read."""
    length = 0
    kept: list[bytes] = []
    for piece in _pieces(document):
        length += len(piece)
        if length <= _KEPT:
            kept.append(piece)
        else:
            kept.clear()
    return (iter(kept) if length <= _KEPT else _pieces(document)), length


def _pieces(document: Iterable[object]) -> Iterator[bytes]:
    elements = iter(document)
    before = "["
    while some := list(islice(elements, _PIECE)):
        yield (before + json.dumps(some)[1:-1]).encode("ascii")
        before = ", "
    yield ("[]" if before == "[" else "]").encode("ascii")


def _printable(text: str) -> str:
    line = _SECRET.sub("//***@", _UNPRINTABLE.sub(" ", text)).strip()
    return line if len(line) <= _MAX_WORDS else f"{line[:_MAX_WORDS]}…"
