"""The archive behind the Archive Interface service.  Fulfils `ports.Archive`.

Source: `PUT`, `PATCH`, `GET`, `HEAD` and `DELETE /{id}`, measured on pacifica-archiveinterface 0.4.2 with its POSIX backend.
"""

import json
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Final

from pacifica.ingest.core.digests import digested
from pacifica.ingest.core.errors import IdTaken, NeighbourDown
from pacifica.ingest.disk import Holders
from pacifica.ingest.neighbours.http import KIB, MIB, TIMEOUTS, Answer, Client, Timeouts, whole
from pacifica.ingest.neighbours.line import Line
from pacifica.ingest.neighbours.voyage import BURST, Voyage
from pacifica.ingest.ports import Parcel, Progress, Shipment

__all__ = ["HttpArchive"]

#: How the service's system tells that a file does not exist, in a text for people, its only place.
_ABSENT: Final = "[Errno 2]"
#: How it tells any trouble of the system.
_TROUBLE: Final = "[Errno "


#: Moves of files that have so many bytes together at most, and paths of so many characters, are asked for together.  A crash
#: leaves all of them to be looked at, an archive may have to copy, and what is asked for must be sent at once.
MOVED_BYTES: Final = MIB
WISH_CHARACTERS: Final = 16 * KIB


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
        answer = self._client.ask("HEAD", _object(file_id), wait_s=self._wait_s)
        if _is_unclear(answer):
            self._ensure_absent(self._client.ask("GET", _nothing_of(file_id), wait_s=self._wait_s))
            return None
        return self._told_size(answer)

    def sizes(self, file_ids: Sequence[int]) -> Generator[int | None, None, None]:
        """See `ports.Archive.sizes`."""
        for start in range(0, len(file_ids), BURST):
            burst = file_ids[start : start + BURST]
            answers = self._ask_all("HEAD", [_object(file_id) for file_id in burst])
            unclear = [file_id for file_id, answer in zip(burst, answers, strict=True) if _is_unclear(answer)]
            complaints = iter(self._ask_all("GET", [_nothing_of(file_id) for file_id in unclear]))
            for answer in answers:
                if _is_unclear(answer):
                    self._ensure_absent(next(complaints))
                    yield None
                else:
                    yield self._told_size(answer)

    def store(self, parcel: Parcel, progress: Progress) -> None:
        """See `ports.Archive.store`; raises as `ship`."""
        self.ship([parcel], progress, Shipment())

    def ship(self, parcels: Sequence[Parcel], progress: Progress, shipment: Shipment) -> None:
        """See `ports.Archive.ship`.

        Raises:
            ArchiveMismatch: `holder` ends before the parcel does; retryable.
            IdTaken, NeighbourDown: retryable, under another id.

        """
        left = deque(parcels)
        refused: list[tuple[Parcel, Answer]] = []
        while left and not refused:
            with self._client.line() as line, Holders() as holders:
                voyage = Voyage(line, holders, self._chunk_bytes, progress, shipment)
                voyage.go(left)
                refused = voyage.refused
        # On another connection, and not before every answer is there: the archive is to have one request at a time.
        shipment.taken += [parcel for parcel, _ in refused if self._is_anothers(parcel)]
        for parcel, answer in refused:
            down = self._client.down(answer)
            if parcel in shipment.taken:
                raise IdTaken(parcel.file_id, parcel.path) from down
            raise down

    def adopt(self, file_id: int, source: Path) -> None:
        """See `ports.Archive.adopt`."""
        answer = self._client.ask_json("PATCH", _object(file_id), _wish(source), wait_s=self._wait_s)
        if not _is_adopted(answer):
            raise self._client.down(answer)

    def adopt_all(
        self, parcels: Sequence[Parcel], ready: Callable[[], object], progress: Progress, shipment: Shipment
    ) -> None:
        """See `ports.Archive.adopt_all`; raises as `adopt`."""
        left = deque(parcels)
        refused: list[Answer] = []
        while left and not refused:
            with self._client.line() as line:
                count = 1
                while left and line.is_open and not refused:
                    ready()
                    group = _taken_from(left, count)
                    shipment.begun += group
                    line.send(b"".join(_request(line, parcel) for parcel in group))
                    moved_bytes = 0
                    for parcel in group:
                        answer = whole(line, line.head())
                        if _is_adopted(answer):
                            shipment.stored.append(parcel)
                            moved_bytes += parcel.size_bytes
                        else:
                            refused.append(answer)
                    # Not before all answers were read: it may end this.
                    progress(moved_bytes)
                    # The first answer tells whether the archive keeps a connection.
                    count = BURST
        for answer in refused:
            raise self._client.down(answer)

    def digest(
        self, file_id: int, algorithm: str, progress: Progress, *, most_bytes: int | None = None
    ) -> tuple[str, int]:
        """See `ports.Archive.digest`.

        Raises:
            NeighbourDown: also when nothing lies under the id; retryable.

        """
        with closing(self._client.download(f"/{file_id}", self._chunk_bytes)) as pieces:
            return digested(pieces, algorithm, progress, most_bytes)

    def digests(self, parcels: Sequence[Parcel], progress: Progress) -> Generator[tuple[str, int], None, None]:
        """See `ports.Archive.digests`; raises as `digest`."""
        left = deque(parcels)
        while left:
            with self._reading() as line:
                asked = _ask_for(line, [left[0]])
                while left and line.is_open:
                    found = self._digest(line, left[0], progress)
                    left.popleft()
                    asked -= 1
                    yield found
                    # The first answer tells whether the archive keeps a connection: only then others are asked for before
                    # theirs, and the archive reads the next ones while these are digested.
                    if line.is_open and asked < BURST:
                        asked += _ask_for(line, [*islice(left, asked, asked + BURST)])

    def _digest(self, line: Line, parcel: Parcel, progress: Progress) -> tuple[str, int]:
        head = line.head()
        if head.status != HTTPStatus.OK:
            raise self._client.down(whole(line, head))
        found = digested(line.body(head), parcel.digest.algorithm, progress, parcel.size_bytes)
        if found[1] > parcel.size_bytes:
            line.give_up()
        return found

    def remove(self, file_id: int) -> bool:
        """See `ports.Archive.remove`.

        What is believed to be gone is asked for never again: a 500 without words proves nothing here, and neither does
        a 200 with a page for people, which comes from a web server in between.
        """
        answer = self._client.ask("DELETE", f"/{file_id}", wait_s=self._wait_s)
        if answer.status == HTTPStatus.OK and (not answer.body or answer.field("message") is not None):
            return True
        if answer.status == HTTPStatus.NOT_FOUND or (
            answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and _ABSENT in answer.words()
        ):
            return False
        raise self._client.down(answer)

    def flush(self) -> None:
        """See `ports.Archive.flush`; the service has no such thing."""

    def location(self, file_id: int) -> str:
        """See `ports.Archive.location`: the URL of the object, without a password."""
        return f"{self._client.url}/{file_id}"

    def _is_anothers(self, parcel: Parcel) -> bool:
        """Whether what lies under the id of a PUT that was answered with an error cannot come from that PUT.

        What the service kept of it is the whole or the beginning.
        """
        try:
            size = self.size(parcel.file_id)
            if size is None or size < parcel.size_bytes:
                return False
            return size > parcel.size_bytes or (
                self.digest(parcel.file_id, parcel.digest.algorithm, _unheard, most_bytes=size)[0]
                != parcel.digest.value
            )
        except NeighbourDown:
            return False

    @contextmanager
    def _reading(self) -> Iterator[Line]:
        """A connection for requests that change nothing.

        An archive that ends it with requests unread resets it, and answers on their way are lost.  Those requests are for
        another connection, unless this one gave no answer at all.
        """
        with self._client.line() as line:
            try:
                yield line
            except ConnectionError:
                if not line.answered:
                    raise
                line.give_up()

    def _ask_all(self, method: str, paths: Sequence[str]) -> list[Answer]:
        """The answers to requests that change nothing, and whose answers are short."""
        answers: list[Answer] = []
        while len(answers) < len(paths):
            with self._reading() as line:
                count = 1
                while len(answers) < len(paths) and line.is_open:
                    group = paths[len(answers) : len(answers) + count]
                    line.send(b"".join(line.lead(method, path) for path in group))
                    for _ in group:
                        answers.append(whole(line, line.head()))
                        if not line.is_open:
                            break
                    count = BURST
        return answers

    def _told_size(self, answer: Answer) -> int | None:
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        length = answer.headers.get("x-content-length", "")
        if answer.status not in {HTTPStatus.OK, HTTPStatus.NO_CONTENT} or not (length.isascii() and length.isdigit()):
            raise self._client.down(answer)
        return int(length)

    def _ensure_absent(self, answer: Answer) -> None:
        """Return when a 500 means that nothing lies there: the service says the same to an unknown id and to any trouble.

        A HEAD has no text, so an empty range is read for its complaint.  Without one (other backends, tracebacks turned
        off, something in front of the service) the 500 counts as absence, as it does for every client of the service: no
        upload would ever pass otherwise.  What is in the way is then found out by the answer to the PUT or by reading
        back; a move that finds nothing on either side waits.  Only `remove` wants proof.
        """
        words = answer.words()
        if answer.status != HTTPStatus.NOT_FOUND and not (
            answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and (_ABSENT in words or _TROUBLE not in words)
        ):
            raise self._client.down(answer)


def _object(file_id: int) -> str:
    return f"/{file_id}"


def _nothing_of(file_id: int) -> str:
    return f"/{file_id}?byte_range=0-0"


def _ask_for(line: Line, parcels: Sequence[Parcel]) -> int:
    """Ask for objects; returns for how many."""
    if parcels:
        line.send(b"".join(line.lead("GET", _object(parcel.file_id)) for parcel in parcels))
    return len(parcels)


def _is_unclear(answer: Answer) -> bool:
    return answer.status == HTTPStatus.INTERNAL_SERVER_ERROR


def _is_adopted(answer: Answer) -> bool:
    return answer.status == HTTPStatus.OK and answer.field("message") is not None


def _wish(source: Path) -> dict[str, object]:
    return {"path": str(source)}


def _request(line: Line, parcel: Parcel) -> bytes:
    body = json.dumps(_wish(parcel.holder)).encode("ascii")
    return line.lead("PATCH", _object(parcel.file_id), len(body), "application/json") + body


def _taken_from(left: deque[Parcel], count: int) -> list[Parcel]:
    """The next ones: some short ones, or a long one, which the archive may have to copy."""
    group: list[Parcel] = []
    moved = written = 0
    while left and len(group) < count:
        moved += left[0].size_bytes
        written += len(str(left[0].holder))
        if group and (moved > MOVED_BYTES or written > WISH_CHARACTERS):
            break
        group.append(left.popleft())
    return group


def _unheard(_count: int) -> None:
    """Nobody waits for progress."""
