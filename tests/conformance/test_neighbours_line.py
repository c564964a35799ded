"""Many requests to the archive on one connection: what is known of each when something goes wrong in the middle."""

import hashlib
from contextlib import closing
from pathlib import Path

import pytest

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import IdTaken, NeighbourDown
from pacifica.ingest.neighbours import HttpArchive, Timeouts
from pacifica.ingest.neighbours.voyage import BURST
from pacifica.ingest.ports import Parcel, Shipment
from tests.conformance.rogue import Reply, Rogue, http

HASTY = Timeouts(connect_s=5.0, answer_s=0.5, transfer_s=0.5)
SIZE = 10
COUNT = 2 * BURST + 5
CREATED = http("201 Created", b'{"total_bytes": %d}' % SIZE)
CONTENT = http("200 OK", b"\0" * SIZE)
MOVED = http("200 OK", b'{"message": "File Moved Successfully"}')
MD5 = hashlib.md5(b"\0" * SIZE, usedforsecurity=False).hexdigest()


def parcels(folder: Path, count: int = COUNT, size: int = SIZE) -> list[Parcel]:
    holder = folder / "holder"
    with holder.open("wb") as file:
        file.truncate(size)
    digest = Digest(algorithm="md5", value=MD5)
    return [
        Parcel(file_id=number, path=f"f{number}", holder=holder, offset=0, size_bytes=size, digest=digest)
        for number in range(1, count + 1)
    ]


def ignore(_count: int) -> None:
    pass


def ship(rogue: Rogue, sent: list[Parcel]) -> tuple[Shipment, NeighbourDown | IdTaken | None]:
    shipment = Shipment()
    try:
        HttpArchive(rogue.url, timeouts=HASTY).ship(sent, ignore, shipment)
    except (NeighbourDown, IdTaken) as fault:
        return shipment, fault
    return shipment, None


def test_requests_do_not_wait_for_answers(tmp_path: Path) -> None:
    """The first one does; then nothing is answered before a whole burst came."""
    silent = [Reply(raw=b"")] * (BURST - 1)
    with Rogue(Reply(raw=CREATED), *silent, Reply(raw=CREATED * BURST), Reply(raw=CREATED)) as rogue:
        shipment, fault = ship(rogue, parcels(tmp_path, BURST + 1))
        assert fault is None
        assert len(shipment.stored) == BURST + 1
        assert (rogue.connections, len(rogue.requests)) == (1, BURST + 1)


def test_objects_are_asked_for_without_waiting(tmp_path: Path) -> None:
    silent = [Reply(raw=b"")] * (BURST - 1)
    with Rogue(Reply(raw=CONTENT), *silent, Reply(raw=CONTENT * BURST)) as rogue:
        found = list(HttpArchive(rogue.url, timeouts=HASTY).digests(parcels(tmp_path, BURST + 1), ignore))
        assert found == [(MD5, SIZE)] * (BURST + 1)
        assert rogue.connections == 1


@pytest.mark.parametrize("chunks", [b"a\r\n%b\r\n0\r\n\r\n", b"3;x=y\r\n%.3b\r\n7\r\n%.7b\r\n0\r\nT: 1\r\n\r\n"])
def test_objects_in_chunks(tmp_path: Path, chunks: bytes) -> None:
    body = chunks.replace(b"%b", b"\0" * 10).replace(b"%.3b", b"\0" * 3).replace(b"%.7b", b"\0" * 7)
    with Rogue(Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)) as rogue:
        assert list(HttpArchive(rogue.url).digests(parcels(tmp_path), ignore)) == [(MD5, SIZE)] * COUNT
        assert rogue.connections == 1


@pytest.mark.parametrize(
    "raw", [CREATED.replace(b"HTTP/1.1", b"HTTP/1.0"), CREATED.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)]
)
def test_an_archive_that_hangs_up_after_each_answer_gets_one_at_a_time(tmp_path: Path, raw: bytes) -> None:
    with Rogue(Reply(raw=raw, then="close")) as rogue:
        shipment, fault = ship(rogue, parcels(tmp_path, 5))
        assert fault is None
        assert len(shipment.stored) == rogue.connections == len(rogue.requests) == 5


ENDLESS = {
    "to the end of the connection": b"HTTP/1.1 200 OK\r\n\r\n",
    "a great length": b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999999\r\n\r\n",
    "a great chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("how", ENDLESS)
def test_an_object_without_an_end_is_not_read_on_and_the_connection_is_closed(tmp_path: Path, how: str) -> None:
    with Rogue(Reply(raw=ENDLESS[how], then="pour")) as rogue:
        archive = HttpArchive(rogue.url, timeouts=HASTY)
        sent = parcels(tmp_path, 2)
        with closing(archive.digests(sent, ignore)) as found:
            assert next(found)[1] > SIZE
        assert rogue.hung_up.wait(5)
        rogue.hung_up.clear()
        assert archive.digest(sent[0].file_id, "md5", ignore, most_bytes=SIZE)[1] > SIZE
        assert rogue.hung_up.wait(5)


GIVEN_UP = {
    "with an answer": Reply(raw=CONTENT.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), then="close"),
    "without a word": Reply(raw=b"", then="close"),
    "within a head": Reply(raw=CONTENT[:20], then="close"),
    "within a body": Reply(raw=CONTENT[:-1], then="close"),
    "rudely": Reply(raw=b"", then="reset"),
}


@pytest.mark.parametrize("how", GIVEN_UP)
def test_an_archive_that_gives_up_a_connection_gets_the_rest_of_the_questions_on_another(
    tmp_path: Path, how: str
) -> None:
    """It hangs up with requests unread, so answers that it gave may be lost, too."""
    with Rogue(*[Reply(raw=CONTENT)] * 20, GIVEN_UP[how], Reply(raw=CONTENT)) as rogue:
        assert list(HttpArchive(rogue.url).digests(parcels(tmp_path), ignore)) == [(MD5, SIZE)] * COUNT
        assert rogue.connections == 2


def test_an_archive_that_gives_up_a_connection_is_asked_for_the_other_sizes_on_another() -> None:
    told = Reply(raw=b"HTTP/1.1 204 No Content\r\nX-Content-Length: 10\r\n\r\n")
    with Rogue(*[told] * 20, Reply(raw=b"", then="close"), told) as rogue:
        assert list(HttpArchive(rogue.url).sizes(range(1, COUNT + 1))) == [SIZE] * COUNT
        assert rogue.connections == 2


@pytest.mark.parametrize("then", ["close", "reset"])
def test_an_archive_that_hangs_up_at_the_first_question_of_a_connection_is_down(tmp_path: Path, then: str) -> None:
    with Rogue(*[Reply(raw=CONTENT)] * 20, Reply(raw=b"", then=then)) as rogue:
        found = HttpArchive(rogue.url).digests(parcels(tmp_path), ignore)
        assert next(found) == (MD5, SIZE)
        with pytest.raises(NeighbourDown):
            list(found)
        assert rogue.connections == 2


@pytest.mark.parametrize("then", ["close", "reset", "hang"])
def test_what_has_no_answer_is_begun_and_not_stored(tmp_path: Path, then: str) -> None:
    with Rogue(*[Reply(raw=CREATED)] * 20, Reply(raw=b"", then=then)) as rogue:
        sent = parcels(tmp_path)
        shipment, fault = ship(rogue, sent)
        assert isinstance(fault, NeighbourDown)
        # When it hangs up with requests unread, answers that were on their way are lost.
        assert 1 <= len(shipment.stored) <= 20
        assert then != "hang" or len(shipment.stored) == 20
        assert sent[0] in shipment.stored
        assert set(sent[:21]) <= set(shipment.begun)
        # No more than two bursts are under way.
        assert len(shipment.begun) <= 1 + 2 * BURST


def test_one_that_is_refused_stops_what_follows_and_no_other(tmp_path: Path) -> None:
    refusal = http("500 Error", b'{"traceback": "OSError: [Errno 28] No space left on device"}')
    absent = http("404 Not Found")
    begun = 1 + 2 * BURST
    answers = [*[Reply(raw=CREATED)] * 20, Reply(raw=refusal), *[Reply(raw=CREATED)] * (begun - 21)]
    with Rogue(*answers, Reply(raw=absent)) as rogue:
        sent = parcels(tmp_path)
        shipment, fault = ship(rogue, sent)
        assert isinstance(fault, NeighbourDown)
        assert "No space left" in fault.reason
        assert "/21 answered 500" in fault.reason
        assert shipment.taken == []
        assert shipment.stored == [parcel for parcel in shipment.begun if parcel.file_id != 21]
        assert shipment.begun == sent[:begun]


def test_an_id_that_is_taken_is_told_apart_from_the_others(tmp_path: Path) -> None:
    longer = http("204 No Content", b"", "X-Content-Length: 11")
    with Rogue(*[Reply(raw=CREATED)] * 3, Reply(raw=http("500 Error")), Reply(raw=CREATED), Reply(raw=longer)) as rogue:
        sent = parcels(tmp_path, 5)
        shipment, fault = ship(rogue, sent)
        assert isinstance(fault, IdTaken)
        assert fault.file_id == 4
        assert shipment.taken == [sent[3]]
        assert shipment.stored == [*sent[:3], sent[4]]


def test_a_count_that_is_wrong_is_no_good_answer(tmp_path: Path) -> None:
    wrong = http("201 Created", b'{"total_bytes": 9}')
    with Rogue(Reply(raw=CREATED), Reply(raw=wrong), Reply(raw=CREATED)) as rogue:
        sent = parcels(tmp_path, 3)
        shipment, fault = ship(rogue, sent)
        assert isinstance(fault, NeighbourDown)
        assert shipment.stored == [sent[0], sent[2]]


@pytest.mark.parametrize("raw", [CREATED + b"x", CREATED + CREATED], ids=["a byte", "an answer"])
def test_more_than_was_asked_for_is_not_taken_for_the_next_answer(tmp_path: Path, raw: bytes) -> None:
    with Rogue(Reply(raw=raw)) as rogue:
        archive = HttpArchive(rogue.url, timeouts=HASTY)
        archive.ship(parcels(tmp_path, 1), ignore, Shipment())
        archive.ship(parcels(tmp_path, 1), ignore, Shipment())
        assert rogue.connections == 2


def test_an_archive_that_refuses_a_long_file_before_it_has_it_is_heard(tmp_path: Path) -> None:
    full = http("507 Insufficient Storage", b'{"message": "full"}', "Connection: close")
    with Rogue(Reply(raw=full, then="close", reads_body=False)) as rogue:
        _, fault = ship(rogue, parcels(tmp_path, 1, 64 << 20))
        assert isinstance(fault, NeighbourDown)


def move(rogue: Rogue, sent: list[Parcel]) -> tuple[Shipment, NeighbourDown]:
    shipment = Shipment()
    with pytest.raises(NeighbourDown) as fault:
        HttpArchive(rogue.url, timeouts=HASTY).adopt_all(sent, lambda: None, ignore, shipment)
    return shipment, fault.value


@pytest.mark.parametrize("then", ["close", "reset", "hang"])
def test_a_move_that_has_no_answer_is_begun_and_not_stored(tmp_path: Path, then: str) -> None:
    with Rogue(*[Reply(raw=MOVED)] * 20, Reply(raw=b"", then=then)) as rogue:
        sent = parcels(tmp_path)
        shipment, _ = move(rogue, sent)
        assert 1 <= len(shipment.stored) <= 20
        assert set(shipment.stored) < set(shipment.begun) == set(sent[: 1 + BURST])


def test_a_move_that_is_refused_stops_what_follows_and_no_other(tmp_path: Path) -> None:
    refusal = http("500 Internal Server Error", b"{}")
    with Rogue(*[Reply(raw=MOVED)] * 5, Reply(raw=refusal), Reply(raw=MOVED)) as rogue:
        sent = parcels(tmp_path)
        shipment, fault = move(rogue, sent)
        assert "answered 500" in str(fault)
        assert shipment.begun == sent[: 1 + BURST]
        assert [one for one in shipment.begun if one not in shipment.stored] == [sent[5]]


def test_long_files_and_long_paths_are_moved_by_few(tmp_path: Path) -> None:
    for sent, together in (
        (parcels(tmp_path, 9, 1 << 19), 2),
        ([one._replace(holder=Path("/" + "a" * 4000)) for one in parcels(tmp_path, 9)], 4),
    ):
        seen: list[int] = []
        shipment = Shipment()
        with Rogue(*[Reply(raw=MOVED)] * 9) as rogue:
            archive = HttpArchive(rogue.url, timeouts=HASTY)
            archive.adopt_all(sent, lambda: seen.append(len(shipment.begun)), ignore, shipment)  # noqa: B023
        assert seen == [0, *range(1, 9, together)]
