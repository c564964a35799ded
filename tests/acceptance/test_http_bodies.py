"""Request bodies on real sockets: whole, cut, chunked, refused, slow, large."""

import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.raw_http import Answer, Wire, chunks, head
from tests.acceptance.stage import Standalone, until
from tests.harness import request
from tests.harness.landing import landed

BODY = bytes(range(256)) * 3000
MIB = 1024 * 1024
LIMIT = 20 * MIB

CHUNKED = "Transfer-Encoding: chunked"


class Small(Standalone):
    """A service whose files end at a size, as those on a full disk do."""

    LARGEST_KIB = 2048

    def command(self) -> Sequence[str | Path]:
        return ["sh", "-c", f'ulimit -f {self.LARGEST_KIB * 2}; exec "$@"', "sh", *super().command()]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    limits = {"INGEST_MAX_UPLOAD_SIZE": f"{LIMIT} B", "INGEST_UPLOAD_TIMEOUT": "1"}
    with Standalone(tmp_path_factory.mktemp("bodies"), **limits) as running:
        yield running


@pytest.fixture
def wire(service: Standalone) -> Iterator[Wire]:
    with Wire(service.url) as connection:
        yield connection


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


def staged(service: Standalone, answer: Answer) -> bytes:
    assert answer.status == 200, answer
    return (service.home / "staging" / f"{answer.json()['job_id']}.tar").read_bytes()


def jobs(service: Standalone) -> set[int]:
    """Every job that the service knows in any way."""
    database = sqlite3.connect(service.home / "ingest.sqlite3")
    found = database.execute("SELECT job_id FROM ingest_job UNION SELECT id FROM ingeststate").fetchall()
    database.close()
    return {job_id for (job_id,) in found}


@pytest.fixture
def nothing_left(service: Standalone) -> Iterator[None]:
    """After the test there is no job and no file that was not there before."""
    folder = service.home / "staging"
    before = jobs(service), landed(folder)
    yield
    until(lambda: (jobs(service), landed(folder)) == before, "the refused upload to be forgotten")


def refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json()["code"]) == (status, code), answer


# --- whole


@pytest.mark.parametrize("size", [1, 100, 8191, 8192, 8193, len(BODY)])
def test_a_chunked_body_is_kept_whole_in_chunks_of_any_size(service: Standalone, wire: Wire, size: int) -> None:
    body = BODY[: 20_000 if size < 1000 else None]
    wire.send(head("POST", "/upload", CHUNKED), chunks(body, size))
    assert staged(service, wire.answer()) == body


def test_chunk_extensions_and_trailers_are_passed_over(service: Standalone, wire: Wire) -> None:
    body = b'3 ; name="a;b"\r\nabc\r\n002\r\nde\r\n0\r\nTrailer: a\r\nOther: b\r\n\r\n'
    wire.send(head("POST", "/upload", CHUNKED), body, head("GET", "/"))
    assert staged(service, wire.answer()) == b"abcde"
    assert wire.answer().status == 200


def test_a_body_that_comes_in_pieces_is_kept_whole(service: Standalone, wire: Wire) -> None:
    request_bytes = head("POST", "/upload", length(BODY)) + BODY
    for place in range(0, len(request_bytes), 99_991):
        wire.send(request_bytes[place : place + 99_991])
    assert staged(service, wire.answer()) == BODY


def test_an_empty_body_is_a_body(service: Standalone, wire: Wire) -> None:
    assert staged(service, wire.send(head("POST", "/upload", "Content-Length: 0")).answer()) == b""
    assert staged(service, wire.send(head("POST", "/upload", CHUNKED), chunks(b"", 1)).answer()) == b""


def test_a_connection_is_used_again(service: Standalone, wire: Wire) -> None:
    """As the uploader does: send, then poll."""
    for body in (BODY, b"short", BODY):
        sent = wire.send(head("POST", "/upload", length(body)), body).answer()
        assert staged(service, sent) == body
        asked = wire.send(head("GET", f"/get_state?job_id={sent.json()['job_id']}")).answer()
        assert asked.json()["job_id"] == sent.json()["job_id"]


def test_nothing_is_read_beyond_the_body(service: Standalone, wire: Wire) -> None:
    """Both requests lie in the server's buffer at once."""
    wire.send(head("POST", "/upload", length(BODY)) + BODY + head("GET", "/"))
    assert staged(service, wire.answer()) == BODY
    assert wire.answer().json() == {"message": "Pacifica Ingest Up and Running"}


def test_many_uploads_at_once_all_succeed(service: Standalone) -> None:
    def upload(number: int) -> bool:
        body = b"%d" % number * 100_000
        with Wire(service.url) as wire:
            return staged(service, wire.send(head("POST", "/upload", length(body)), body).answer()) == body

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(upload, range(64)))


# --- cut


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("arrived", [b"", b"a", BODY[:-1]])
def test_a_body_shorter_than_its_length_is_refused(wire: Wire, arrived: bytes) -> None:
    answer = wire.send(head("POST", "/upload", length(BODY)), arrived).finish().answer()
    refused(answer, 400, "length_mismatch")
    assert f"{len(BODY)} bytes were announced, {len(arrived)} arrived" in answer.json()["message"]
    assert wire.ended()


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "arrived", [b"", b"5", b"5\r\n", b"5\r\nabc", b"5\r\nabcde", b"5\r\nabcde\r\n", b"0", b"0\r\n"]
)
def test_a_cut_chunked_body_is_refused(wire: Wire, arrived: bytes) -> None:
    refused(wire.send(head("POST", "/upload", CHUNKED), arrived).finish().answer(), 400, "length_mismatch")
    assert wire.ended()


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(("header", "arrived"), [(length(BODY), BODY[:100_000]), (CHUNKED, b"5\r\nabc")])
def test_of_an_upload_that_is_reset_nothing_is_left(service: Standalone, header: str, arrived: bytes) -> None:
    known = jobs(service)
    wire = Wire(service.url)
    wire.send(head("POST", "/upload", header), arrived)
    until(lambda: jobs(service) != known, "the upload to begin")
    wire.reset()


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("header", "arrived", "status", "code"),
    [
        (length(BODY), BODY[:100_000], 400, "length_mismatch"),
        (CHUNKED, b"5\r\nabc", 400, "length_mismatch"),
        # Nobody began to read it.
        (length(BODY), BODY[:100], 408, "too_slow"),
    ],
)
def test_a_pause_longer_than_upload_timeout_ends_the_upload(
    wire: Wire, header: str, arrived: bytes, status: int, code: str
) -> None:
    refused(wire.send(head("POST", "/upload", header), arrived).answer(), status, code)


# --- framed wrongly


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n0\r\n\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n",
        b" 1\r\na\r\n0\r\n\r\n",
        b"1\na\n0\n\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"2\r\na\r\n0\r\n\r\n",
        b"f" * 16 + b"\r\n",
        b"1;" + b"a" * 10_000 + b"\r\na\r\n0\r\n\r\n",
        b"0\r\n" + b"Trailer: a\r\n" * 200 + b"\r\n",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_chunked_body_that_is_framed_wrongly_is_refused(wire: Wire, body: bytes) -> None:
    answer = wire.send(head("POST", "/upload", CHUNKED), body).finish().answer()
    assert answer.status == 400
    assert wire.ended()


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 1", CHUNKED],
        ["Content-Length: +1"],
        ["Content-Length: -1"],
        ["Content-Length: 1_0"],
        ["Content-Length: 0x1"],
        ["Content-Length: 1, 1"],
        ["Content-Length: " + "9" * 30],
        ["Transfer-Encoding: identity"],
        ["Transfer-Encoding: chunked, chunked"],
    ],
    ids=str,
)
def test_a_body_whose_end_is_not_sure_is_refused(wire: Wire, headers: list[str]) -> None:
    answer = wire.send(head("POST", "/upload", *headers), b"1\r\na\r\n0\r\n\r\n").answer()
    assert answer.status == 400
    assert wire.ended()


# --- Expect


def test_who_expects_it_is_told_to_continue(service: Standalone, wire: Wire) -> None:
    wire.send(head("POST", "/upload", length(BODY), "Expect: 100-Continue"))
    assert wire.answer().status == 100
    assert staged(service, wire.send(BODY).answer()) == BODY
    wire.send(head("POST", "/upload", CHUNKED, "Expect: 100-continue"))
    assert wire.answer().status == 100
    assert staged(service, wire.send(chunks(BODY, 1000)).answer()) == BODY


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("address", "header", "status"),
    [
        ("/upload", f"Content-Length: {LIMIT + 1}", 413),
        ("/move", f"Content-Length: {LIMIT + 1}", 413),
        ("/upload", "Content-Length: +1", 400),
        ("/nothing", "Content-Length: 1", 404),
        ("/get_state", "Content-Length: 1", 405),
    ],
)
def test_a_body_that_is_refused_anyway_is_not_asked_for(wire: Wire, address: str, header: str, status: int) -> None:
    assert wire.send(head("POST", address, header, "Expect: 100-continue")).answer().status == status
    assert wire.ended()


# --- refused


@pytest.mark.usefixtures("nothing_left")
def test_who_sends_more_than_the_limit_can_read_the_refusal(wire: Wire) -> None:
    """All is sent before anything is read, as most clients do."""
    wire.send(head("POST", "/upload", f"Content-Length: {LIMIT + MIB}"), b"a" * (LIMIT + MIB))
    refused(wire.answer(), 413, "too_large")
    assert wire.ended()


@pytest.mark.usefixtures("nothing_left")
def test_a_chunked_body_beyond_the_limit_is_refused(wire: Wire) -> None:
    wire.send(head("POST", "/upload", CHUNKED), chunks(b"a" * (LIMIT + MIB), MIB))
    refused(wire.answer(), 413, "too_large")
    assert wire.ended()


def test_a_body_of_exactly_the_limit_is_taken(service: Standalone, wire: Wire) -> None:
    body = b"a" * LIMIT
    assert staged(service, wire.send(head("POST", "/upload", length(body)), body).answer()) == body


def test_a_document_of_a_move_has_a_limit_of_its_own(tmp_path: Path) -> None:
    with Standalone(tmp_path, INGEST_MAX_METADATA_SIZE="4096 B") as service:
        with Wire(service.url) as wire:
            wire.send(head("POST", "/move", "Content-Length: 4097", "Expect: 100-continue"))
            refused(wire.answer(), 413, "too_large")
        with Wire(service.url) as wire:
            wire.send(head("POST", "/move", CHUNKED), chunks(b"a" * 4097, 100))
            refused(wire.answer(), 413, "too_large")
        with Wire(service.url) as wire:
            assert wire.send(head("POST", "/move", length(b"a" * 4096)), b"a" * 4096).answer().status == 200


def test_an_upload_for_which_there_is_no_room_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with Standalone(tmp_path, INGEST_KEEP_FREE="1000 TB") as full:
        for header in (length(BODY), CHUNKED):
            with Wire(full.url) as wire:
                answer = wire.send(head("POST", "/upload", header, "Expect: 100-continue")).answer()
                refused(answer, 507, "no_space")
                assert int(answer.headers["retry-after"]) > 0
        assert jobs(full) == set()


def test_of_an_upload_that_fills_the_disk_nothing_is_left(tmp_path: Path) -> None:
    with Small(tmp_path) as small, Wire(small.url) as wire, Wire(small.url) as other:
        wire.send(head("POST", "/upload", f"Content-Length: {8 * MIB}"), b"a" * 8 * MIB)
        answer = wire.answer()
        refused(answer, 507, "no_space")
        assert int(answer.headers["retry-after"]) > 0
        assert landed(small.home / "staging") == []
        assert jobs(small) == set()
        assert staged(small, other.send(head("POST", "/upload", length(b"ok")), b"ok").answer()) == b"ok"


# --- slow and large


def test_slow_uploads_do_not_keep_others_from_being_answered(tmp_path: Path) -> None:
    with Standalone(tmp_path) as service:
        # So much that each has a thread.
        begun = 100_000
        slow = [Wire(service.url).send(head("POST", "/upload", length(BODY)), BODY[:begun]) for _ in range(30)]
        until(lambda: len(jobs(service)) == len(slow), "all to be under way")
        assert request("GET", service.url, wait_s=10).status == 200
        for wire in slow:
            assert wire.send(BODY[begun:]).answer().status == 200
            wire.close()


@pytest.mark.parametrize("header", [f"Content-Length: {300 * MIB}", CHUNKED])
def test_memory_stays_flat(tmp_path: Path, header: str) -> None:
    def peak_kib() -> int:
        status = Path(f"/proc/{service.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    block = bytes(MIB)
    with Standalone(tmp_path) as service:
        with Wire(service.url) as wire:
            assert wire.send(head("POST", "/upload", length(block)), block).answer().status == 200
        before = peak_kib()
        with Wire(service.url) as wire:
            wire.send(head("POST", "/upload", header))
            # One chunk is as large as the body: nobody may want to hold it in memory.
            wire.send(b"" if header != CHUNKED else b"%x\r\n" % (300 * MIB))
            for _ in range(300):
                wire.send(block)
            assert wire.send(b"" if header != CHUNKED else b"\r\n0\r\n\r\n").answer().status == 200
        assert peak_kib() - before < 20 * 1024
