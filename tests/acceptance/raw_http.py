"""HTTP by hand: bytes out, answers in, for what no client library would send."""

import json
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

#: No answer may take longer, in seconds.
ANSWER_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer.

    Attributes:
        status: the status code.
        headers: names in lower case.
        body: all bytes.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def head(method: str, address: str, *headers: str) -> bytes:
    """A request line and headers; the Host is there already."""
    lines = [f"{method} {address} HTTP/1.1", "Host: ingest", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunks(body: bytes, size: int, end: bytes = b"0\r\n\r\n") -> bytes:
    """A chunked body."""
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


class Wire:
    """One connection to a server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_S)
        self._stream = self._socket.makefile("rb")

    def send(self, *data: bytes) -> Self:
        for part in data:
            self._socket.sendall(part)
        return self

    def finish(self) -> Self:
        """Send no more, and still read."""
        self._socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """Break the connection off."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer; `100 Continue` is one."""
        status = self._stream.readline()
        assert status, "the connection ended without an answer"
        headers = {}
        while (line := self._stream.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0")) if method != "HEAD" else 0
        return Answer(status=int(status.split()[1]), headers=headers, body=self._stream.read(length))

    def rest(self) -> bytes:
        """All that comes until the server closes the connection."""
        return self._stream.read()

    def ended(self) -> bool:
        """Whether the server closed the connection and sent nothing more."""
        with suppress(ConnectionError):
            return self._stream.read(1) == b""
        return True

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
