"""The archive behind the Archive Interface service.  Fulfils `ports.Archive`.

Source: `PUT`, `PATCH`, `GET`, `HEAD` and `DELETE /{id}`, measured on pacifica-archiveinterface 0.4.2 with its POSIX backend.
"""

import hashlib
import inspect
from collections.abc import Generator
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Final

from pacifica.ingest.core.errors import ArchiveMismatch, NeighbourDown
from pacifica.ingest.neighbours.http import MIB, TIMEOUTS, Client, Timeouts
from pacifica.ingest.ports import Parcel, Progress

__all__ = ["HttpArchive"]

#: How the service's system tells that a file does not exist, in a text for people, its only place.
_ABSENT: Final = "[Errno 2]"
#: How it tells any trouble of the system.
_TROUBLE: Final = "[Errno "


class HttpArchive:
    """`ports.Archive` over HTTP.

    With more than one connection the service's POSIX backend stores wrong bytes, unless it runs with one thread.
    """

    def __init__(
        self, url: str, connections: int = 1, chunk_bytes: int = 4 * MIB, *, timeouts: Timeouts = TIMEOUTS
    ) -> None:
        """Use the service at `url`, with so many connections, and send and read `chunk_bytes` at a time."""
        self._client = Client("archive", url, connections=connections, timeouts=timeouts)
        self._chunk_bytes = chunk_bytes
        self._wait_s = timeouts.transfer_s

    def size(self, file_id: int) -> int | None:
        """See `ports.Archive.size`."""
        answer = self._client.ask("HEAD", f"/{file_id}", wait_s=self._wait_s)
        if answer.status == HTTPStatus.NOT_FOUND or (
            answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and self._is_absent(file_id)
        ):
            return None
        length = answer.headers.get("X-Content-Length", "")
        if answer.status not in {HTTPStatus.OK, HTTPStatus.NO_CONTENT} or not (length.isascii() and length.isdigit()):
            raise self._client.down(answer)
        return int(length)

    def store(self, parcel: Parcel, progress: Progress) -> None:
        """See `ports.Archive.store`.

        Raises:
            ArchiveMismatch: `holder` ends before the parcel does; retryable.
            NeighbourDown: retryable, under another id.

        """
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(parcel.size_bytes)}
        with closing(_pieces(parcel, self._chunk_bytes, progress)) as body:
            answer = self._client.ask("PUT", f"/{parcel.file_id}", body=body, headers=headers, wait_s=self._wait_s)
            # An archive that answers and hangs up before it took everything echoes the length all the same.
            is_sent = inspect.getgeneratorstate(body) == inspect.GEN_CLOSED
        if answer.status != HTTPStatus.CREATED or answer.field("total_bytes") != parcel.size_bytes or not is_sent:
            raise self._client.down(answer)

    def adopt(self, file_id: int, source: Path) -> None:
        """See `ports.Archive.adopt`."""
        answer = self._client.ask_json("PATCH", f"/{file_id}", {"path": str(source)}, wait_s=self._wait_s)
        if answer.status != HTTPStatus.OK or answer.field("message") is None:
            raise self._client.down(answer)

    def digest(self, file_id: int, algorithm: str, progress: Progress) -> tuple[str, int]:
        """See `ports.Archive.digest`.

        Raises:
            NeighbourDown: also when nothing lies under the id; retryable.

        """
        hasher = hashlib.new(algorithm, usedforsecurity=False)
        length = 0
        with closing(self._client.download(f"/{file_id}", self._chunk_bytes)) as pieces:
            for piece in pieces:
                hasher.update(piece)
                length += len(piece)
                progress(len(piece))
        return hasher.hexdigest(), length

    def remove(self, file_id: int) -> None:
        """See `ports.Archive.remove`."""
        answer = self._client.ask("DELETE", f"/{file_id}", wait_s=self._wait_s)
        if answer.status != HTTPStatus.OK and not self._is_absent(file_id):
            raise self._client.down(answer)

    def flush(self) -> None:
        """See `ports.Archive.flush`; the service has no such thing."""

    def location(self, file_id: int) -> str:
        """See `ports.Archive.location`: the URL of the object, without a password."""
        return f"{self._client.url}/{file_id}"

    def _is_absent(self, file_id: int) -> bool:
        """Whether a 500 means that nothing lies there: the service says the same 500 to an unknown id and to any trouble.

        A HEAD has no text, so an empty range is read for its complaint.  Without one (other backends, tracebacks turned
        off) the 500 counts as absence, as it does for every client of the service.
        """
        answer = self._client.ask("GET", f"/{file_id}?byte_range=0-0", wait_s=self._wait_s)
        words = answer.words()
        if answer.status == HTTPStatus.NOT_FOUND or (
            answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and (_ABSENT in words or _TROUBLE not in words)
        ):
            return True
        raise self._client.down(answer)


def _pieces(parcel: Parcel, chunk_bytes: int, progress: Progress) -> Generator[bytes, None, None]:
    """The bytes of a parcel; what was taken by the network is told to `progress`, whose errors end the request."""
    left = parcel.size_bytes
    try:
        with parcel.holder.open("rb", buffering=0) as file:
            file.seek(parcel.offset)
            while left:
                piece = file.read(min(left, chunk_bytes))
                if not piece:
                    reason = f"{parcel.holder} ends {left} bytes too early"
                    raise ArchiveMismatch(parcel.file_id, parcel.path, reason)
                yield piece
                left -= len(piece)
                progress(len(piece))
    except OSError as fault:
        # Told here, as the HTTP client would take it for a fault of the network.
        reason = f"{parcel.path!r} cannot be sent, because {parcel.holder} cannot be read: {fault.strerror}"
        raise NeighbourDown("archive", reason) from fault
