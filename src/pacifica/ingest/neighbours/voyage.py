"""Parcels on their way to the archive, on one connection.

Small ones go in bursts, whose answers are read later; a large one goes from the disk to the network inside the kernel.  What
became of each is in the `Shipment`, also when something goes wrong in the middle.

Source: RFC 9112, 9.3.2, and `PUT /{id}`, measured on pacifica-archiveinterface 0.4.2: its 201 proves nothing but that the
request came to its end.
"""

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from pacifica.ingest.core.errors import ArchiveMismatch, NeighbourDown, Stopping, Unavailable
from pacifica.ingest.disk import Holders
from pacifica.ingest.neighbours.http import KIB, Answer, whole
from pacifica.ingest.neighbours.line import Line, LineFault
from pacifica.ingest.ports import Parcel, Progress, Shipment

__all__ = ["BURST", "Voyage"]

#: So many requests are sent together, and as many may be unanswered meanwhile.
BURST: Final = 64
#: Of so many bytes together, about; a longer parcel goes alone.
BURST_BYTES: Final = 64 * KIB
#: When something went wrong, the archive has so long, in seconds, to say what it has.
LAST_WORDS_S: Final = 1.0


class Voyage:
    """Sends parcels on a line and reads the answers.

    Attributes:
        refused: what the archive did not store, with its answer.

    """

    def __init__(
        self,
        line: Line,
        holders: Holders,
        chunk_bytes: int,
        progress: Progress,
        shipment: Shipment,
    ) -> None:
        """Send nothing yet.

        Args:
            line: to the archive.
            holders: what parcels are read from.
            chunk_bytes: of a long parcel are sent before `progress` is told.
            progress: told what was sent; its errors end the voyage.
            shipment: told what became of each parcel.

        """
        self.refused: list[tuple[Parcel, Answer]] = []
        self._line = line
        self._holders = holders
        self._chunk_bytes = chunk_bytes
        self._progress = progress
        self._shipment = shipment
        self._waiting: deque[Parcel] = deque()
        self._sending: Parcel | None = None

    def go(self, left: deque[Parcel]) -> None:
        """Send parcels until none is left, one is refused, or the archive ends the connection.

        Args:
            left: what is to be sent; loses what was begun.

        Raises:
            ArchiveMismatch, NeighbourDown, LineFault, OSError: see `HttpArchive.ship`.

        """
        count = 1
        while left and self._line.is_open and not self.refused:
            try:
                self._load(left, count)
            except (Unavailable, Stopping, OSError) as fault:
                self._hear_last_words(is_broken=isinstance(fault, OSError))
                if self.refused:
                    return
                raise
            # The first answer tells whether the archive keeps a connection: only then others follow before theirs.
            self._settle(0 if count == 1 else BURST)
            count = BURST
        self._settle(0)

    def _hear_last_words(self, *, is_broken: bool) -> None:
        """Read what the archive says of what was sent before something went wrong, and why it did if the archive hung up."""
        self._line.hurry(LAST_WORDS_S)
        with suppress(LineFault, OSError):
            self._settle(0)
            if is_broken and self._sending is not None:
                answer = whole(self._line, self._line.head())
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    self.refused.append((self._sending, answer))

    def _load(self, left: deque[Parcel], count: int) -> None:
        """Send the next burst, or the next long parcel."""
        if left[0].size_bytes > BURST_BYTES:
            self._send_long(left.popleft())
            return
        request = bytearray()
        burst: list[Parcel] = []
        while left and len(burst) < count and len(request) < BURST_BYTES and left[0].size_bytes <= BURST_BYTES:
            parcel = left[0]
            content = self._read(parcel)
            request += self._line.lead("PUT", f"/{parcel.file_id}", parcel.size_bytes)
            request += content
            burst.append(left.popleft())
        self._begin(burst)
        self._line.send(request)
        self._sent(burst)
        self._progress(sum(parcel.size_bytes for parcel in burst))

    def _read(self, parcel: Parcel) -> bytes:
        try:
            content = os.pread(self._holders.of(parcel.holder).fileno(), parcel.size_bytes, parcel.offset)
        except OSError as fault:
            raise _unreadable(parcel, fault) from fault
        if len(content) < parcel.size_bytes:
            raise _short(parcel, parcel.size_bytes - len(content))
        return content

    def _send_long(self, parcel: Parcel) -> None:
        try:
            file = self._holders.of(parcel.holder)
        except OSError as fault:
            raise _unreadable(parcel, fault) from fault
        self._begin([parcel])
        self._line.send(self._line.lead("PUT", f"/{parcel.file_id}", parcel.size_bytes))
        done = 0
        while done < parcel.size_bytes:
            count = min(self._chunk_bytes, parcel.size_bytes - done)
            sent = self._line.send_file(file, parcel.offset + done, count)
            done += sent
            if sent < count:
                raise _short(parcel, parcel.size_bytes - done)
            if done == parcel.size_bytes:
                self._sent([parcel])
            self._progress(sent)

    def _begin(self, burst: Sequence[Parcel]) -> None:
        self._sending = burst[0]
        self._shipment.begun += burst

    def _sent(self, burst: Sequence[Parcel]) -> None:
        """Await answers; not before all is sent: an archive that hangs up before it has everything echoes the length."""
        self._sending = None
        self._waiting += burst

    def _settle(self, keep: int) -> None:
        """Read answers until so many parcels have none."""
        while len(self._waiting) > keep:
            answer = whole(self._line, self._line.head())
            parcel = self._waiting.popleft()
            if answer.status == HTTPStatus.CREATED and answer.field("total_bytes") == parcel.size_bytes:
                self._shipment.stored.append(parcel)
            else:
                self.refused.append((parcel, answer))


def _unreadable(parcel: Parcel, fault: OSError) -> NeighbourDown:
    # Told here, as it would be taken for a fault of the network.
    reason = f"{parcel.path!r} cannot be sent, because {parcel.holder} cannot be read: {fault.strerror}"
    return NeighbourDown("archive", reason)


def _short(parcel: Parcel, missing: int) -> ArchiveMismatch:
    return ArchiveMismatch(parcel.file_id, parcel.path, f"{parcel.holder} ends {missing} bytes too early")
