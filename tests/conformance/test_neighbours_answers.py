"""Whatever a neighbour answers, the HTTP adapters raise nothing but what the tree of errors has."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import Conflict, IdTaken, NeighbourDown, PolicyRefused, Refused
from pacifica.ingest.neighbours import HttpArchive, HttpCatalogue, HttpIds, HttpPolicy, Timeouts
from pacifica.ingest.ports import IdMode, Parcel
from tests.conformance.rogue import Reply, Rogue, http

HASTY = Timeouts(connect_s=5.0, answer_s=0.3, transfer_s=0.3, per_file_s=0.0)
DOCUMENT = [{"destinationTable": "Transactions._id", "value": 5}]
BODY = b"0123456789"
#: Bytes that are no answer to a GET of an object, but bytes: only the digest tells them from the right ones.
ANY_200 = frozenset({"digest"})


def _parcel(folder: Path) -> Parcel:
    holder = folder / "holder"
    holder.write_bytes(BODY)
    digest = Digest(algorithm="md5", value="0" * 32)
    return Parcel(file_id=5, path="a/b", holder=holder, offset=0, size_bytes=len(BODY), digest=digest)


def _ignore(_count: int) -> None:
    pass


#: Every call that goes over the wire.
CALLS: dict[str, Callable[[str, Path], Any]] = {
    "reserve": lambda url, _: HttpIds(url, timeouts=HASTY).reserve(IdMode.FILE, 2),
    "permit": lambda url, _: HttpPolicy(f"{url}/ingest", "X-User", timeouts=HASTY).permit(DOCUMENT, "me"),
    "size": lambda url, _: HttpArchive(url, timeouts=HASTY).size(5),
    "store": lambda url, folder: HttpArchive(url, timeouts=HASTY).store(_parcel(folder), _ignore),
    "adopt": lambda url, folder: HttpArchive(url, timeouts=HASTY).adopt(5, folder / "x"),
    "remove": lambda url, _: HttpArchive(url, timeouts=HASTY).remove(5),
    "digest": lambda url, _: HttpArchive(url, timeouts=HASTY).digest(5, "md5", _ignore),
    "register": lambda url, _: HttpCatalogue(f"{url}/ingest", timeouts=HASTY).register(5, DOCUMENT),
    "people_of": lambda url, _: HttpCatalogue(f"{url}/ingest", timeouts=HASTY).people_of("me"),
    "lookup": lambda url, _: HttpCatalogue(f"{url}/ingest", timeouts=HASTY).lookup(5),
}


def error(status: str, message: str = "", traceback: str = "") -> bytes:
    """An error page of the services."""
    page = {"status": status, "message": message, "traceback": traceback, "version": "18.10.0"}
    return http(status, json.dumps(page).encode(), "Content-Type: application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An answer that is of no use.

    Attributes:
        name: of the case.
        reply: what comes.
        but_for: calls for which it is an answer all the same.

    """

    name: str
    reply: Reply
    but_for: frozenset[str] = frozenset()


def case(name: str, raw: bytes, then: str = "close", but_for: frozenset[str] = frozenset()) -> Case:
    return Case(name=name, reply=Reply(raw=raw, then=then), but_for=but_for)


HTML = b"<html><body>It works!</body></html>"
NO_ANSWERS = [
    case("hangs up", b""),
    case("resets", b"", "reset"),
    case("says nothing", b"", "hang"),
    case("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n"),
    case("binary", bytes(range(256)) * 4),
    case("no status", b"HTTP/1.1 OK\r\n\r\n"),
    case("an endless status line", b"HTTP/1.1 200 " + b"x" * 200_000),
    case("an endless header", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000),
    case("a thousand headers", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n"),
    case("cut in the headers", b"HTTP/1.1 200 OK\r\nContent-Le", "hang"),
    case("only an interim answer", b"HTTP/1.1 103 Early Hints\r\n\r\n", "hang"),
    case("switches protocols", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "hang"),
]
BAD_BODIES = [
    case("cut in the body", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    case("reset in the body", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "reset"),
    case("silent in the body", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "hang"),
    case("cut between chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"),
    case("cut in a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"),
    case("chunks of no length", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{"),
    case("chunks of negative length", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{"),
    case("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
]
WRONG_BODIES = [
    case(f"JSON {text[:10].decode()}", http("200 OK", text, "Content-Type: application/json"), "keep", ANY_200)
    for text in (b"null", b"true", b"0", b'"success"', b"{}", b"[1]", b"[[]]", b"[" * 100_000, b"1" * 100_000)
] + [
    case("HTML", http("200 OK", HTML, "Content-Type: text/html"), "keep", ANY_200),
    case("not UTF-8", http("200 OK", b'{"status": "\xff\xfe"}'), "keep", ANY_200),
    case("packed", http("200 OK", b"\x1f\x8b\x08\0\0", "Content-Encoding: gzip"), "keep", ANY_200),
    case("nothing", http("200 OK"), "keep", ANY_200 | {"remove"}),
    case("no content", http("204 No Content"), "keep"),
    case("unread bytes behind", http("200 OK", b"{}") + b"HTTP/1.1 200 OK\r\n\r\n", "keep", ANY_200),
    case("a word for a size", http("204 No Content", b"", "X-Content-Length: File Not Found"), "keep"),
    case("a negative size", http("204 No Content", b"", "X-Content-Length: -1"), "keep"),
    case("an Arabic size", "HTTP/1.1 204 OK\r\nX-Content-Length: ٣\r\n\r\n".encode(), "keep"),
]
#: With a size, as a HEAD of the archive has it, they would be good answers.
STATUSES = [
    case(status, http(status, HTML, "Content-Type: text/html", "X-Content-Length: 10"), "keep")
    for status in (
        "202 Accepted", "203 Non-Authoritative", "206 Partial Content", "300 Multiple Choices", "304 Not Modified",
        "400 Bad Request", "401 Unauthorized", "403 Forbidden", "405 Method Not Allowed", "408 Request Timeout",
        "410 Gone", "411 Length Required", "415 Unsupported Media Type", "418 Teapot", "425 Too Early",
        "429 Too Many Requests", "501 Not Implemented", "502 Bad Gateway", "503 Service Unavailable",
        "504 Gateway Timeout", "599 Whatever", "999 Beyond",
    )
] + [
    case("404 Not Found", http("404 Not Found", HTML), "keep", frozenset({"remove", "size"})),
    case("500 Error", http("500 Error", HTML), "keep", frozenset({"size"})),
]  # fmt: skip
CASES = NO_ANSWERS + BAD_BODIES + WRONG_BODIES + STATUSES


@pytest.mark.usefixtures("stack_alone")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_useless_answer_means_that_the_neighbour_is_down(case: Case, call: str, tmp_path: Path) -> None:
    if call in case.but_for:
        with Rogue(case.reply) as rogue:
            CALLS[call](rogue.url, tmp_path)
        return
    with Rogue(case.reply) as rogue:
        with pytest.raises(NeighbourDown) as fault:
            CALLS[call](rogue.url, tmp_path)
        assert rogue.requests
    assert fault.value.neighbour in {"uniqueid", "policy", "archive", "metadata"}
    assert 10 < len(fault.value.reason) < 700
    assert fault.value.reason.isprintable()
    assert "<html>" not in fault.value.reason


@pytest.mark.parametrize("call", [call for call in CALLS if call not in {"digest", "size"}])
def test_an_answer_that_trickles_for_ever_is_given_up(call: str, tmp_path: Path) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"
    with Rogue(Reply(raw=raw, then="trickle")) as rogue, pytest.raises(NeighbourDown, match="does not end"):
        CALLS[call](rogue.url, tmp_path)


@pytest.mark.parametrize("call", [call for call in CALLS if call not in {"digest", "lookup", "size"}])
def test_an_answer_that_is_too_long_is_not_read(call: str, tmp_path: Path) -> None:
    with Rogue(Reply(raw=http("200 OK", b" " * (2 << 20)))) as rogue, pytest.raises(NeighbourDown, match="longer"):
        CALLS[call](rogue.url, tmp_path)


@pytest.mark.parametrize("call", CALLS)
def test_nobody_at_the_address_means_down(call: str, tmp_path: Path) -> None:
    with Rogue(Reply(raw=b"")) as rogue:
        url = rogue.url
    with pytest.raises(NeighbourDown, match="refused"):
        CALLS[call](url, tmp_path)


@pytest.mark.parametrize("call", CALLS)
def test_an_unknown_host_means_down(call: str, tmp_path: Path) -> None:
    with pytest.raises(NeighbourDown, match="no connection"):
        CALLS[call]("http://no-such-host.invalid:80", tmp_path)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("call", CALLS)
def test_no_redirect_is_followed(call: str, status: str, tmp_path: Path) -> None:
    with Rogue(Reply(raw=http("200 OK", b"{}"))) as other:
        moved = http(status, b"", f"Location: {other.url}/", "X-Content-Length: 10")
        with Rogue(Reply(raw=moved)) as rogue, pytest.raises(NeighbourDown, match="redirects are not followed"):
            CALLS[call](rogue.url, tmp_path)
        assert other.connections == 0


# --- what the statuses of single calls mean


def test_a_refusal_of_policy_is_passed_on() -> None:
    reply = Reply(raw=error("412 Precondition Failed", "Invalid values for project", "Traceback …"))
    with Rogue(reply) as rogue, pytest.raises(PolicyRefused, match="Invalid values for project"):
        HttpPolicy(rogue.url, "X-User").permit(DOCUMENT, "me")


def test_a_refusal_of_policy_without_words_is_a_refusal() -> None:
    with Rogue(Reply(raw=http("412 No", HTML))) as rogue, pytest.raises(PolicyRefused, match="does not say why"):
        HttpPolicy(rogue.url, "X-User").permit(DOCUMENT, "me")


@pytest.mark.parametrize("call", ["permit", "register"])
def test_a_document_that_is_too_long_is_refused_for_good(call: str, tmp_path: Path) -> None:
    reply = Reply(raw=http("413 Request Entity Too Large", b"The entity is too large.", "Content-Type: text/plain"))
    with Rogue(reply) as rogue, pytest.raises(Refused, match="fewer files"):
        CALLS[call](rogue.url, tmp_path)


@pytest.mark.parametrize("ids", [1, 10_000])
def test_duplicate_ids_conflict_however_many_they_are(ids: int) -> None:
    message = f"Could not insert records [ID: {','.join(map(str, range(ids)))}] due to duplicated ID values. Remove"
    with Rogue(Reply(raw=error("400 Bad Request", message))) as rogue, pytest.raises(Conflict, match="transaction 5"):
        HttpCatalogue(f"{rogue.url}/ingest").register(5, DOCUMENT)


def test_why_metadata_failed_is_told_without_its_traceback() -> None:
    traceback = (
        'Traceback (most recent call last):\n  File "/x/cprequest.py", line 638, in respond\n    self._do_respond()\n'
        "ValueError: Invalid metadata for file 34\n\nDuring handling\n\nRuntimeError: at //me:secret@db/x\nHINT: y\n"
    )
    reply = Reply(raw=error("500 Internal Server Error", "unexpected condition", traceback))
    with Rogue(reply) as rogue, pytest.raises(NeighbourDown) as fault:
        HttpCatalogue(f"{rogue.url}/ingest").register(5, DOCUMENT)
    assert fault.value.reason == f"PUT {rogue.url}/ingest answered 500: RuntimeError: at //***@db/x"


def test_ids_are_asked_for_again_while_the_service_is_locked() -> None:
    locked = Reply(raw=error("500 Internal Server Error", "", "peewee.OperationalError: database is locked"))
    given = Reply(raw=http("200 OK", b'{"startIndex": 7, "endIndex": 9}'))
    with Rogue(locked, locked, given) as rogue:
        assert HttpIds(rogue.url).reserve(IdMode.JOB, 3) == range(7, 10)
        assert [head.split(b"\r\n")[0] for head, _ in rogue.requests] == [
            b"GET /getid?range=3&mode=upload_job HTTP/1.1"
        ] * 3


def test_ids_are_not_asked_for_for_ever() -> None:
    locked = Reply(raw=error("500 Internal Server Error", "", "peewee.OperationalError: database is locked"))
    with Rogue(locked) as rogue:
        with pytest.raises(NeighbourDown, match="database is locked"):
            HttpIds(rogue.url).reserve(IdMode.JOB, 3)
        assert len(rogue.requests) == 5


@pytest.mark.parametrize(
    ("start", "end"),
    [(-1, 0), (0, 1), (5, 7), (5, 5), (6, 5), (True, 2), (5.0, 6.0), ("5", "6"), (None, None), (5, None), ([5], [6])],
)
def test_a_range_that_is_not_what_was_asked_for_is_not_used(start: object, end: object) -> None:
    answer = json.dumps({"startIndex": start, "endIndex": end}).encode()
    with Rogue(Reply(raw=http("200 OK", answer))) as rogue, pytest.raises(NeighbourDown):
        HttpIds(rogue.url).reserve(IdMode.FILE, 2)


@pytest.mark.parametrize(
    ("traceback", "is_absent"),
    [
        ("ArchiveInterfaceError: Can't open posix file with error: [Errno 2] No such file or directory: '/a/5'", True),
        ("ArchiveInterfaceError: Can't open posix file with error: [Errno 5] Input/output error: '/a/5'", False),
        ("ArchiveInterfaceError: Can't open posix file with error: [Errno 24] Too many open files: '/a/5'", False),
        ("ArchiveInterfaceError: Can't open posix file with error: [Errno 13] Permission denied: '/a/5'", False),
        ("", True),
    ],
)
def test_trouble_of_the_archive_is_not_taken_for_absence(traceback: str, is_absent: bool) -> None:  # noqa: FBT001 (a table of cases)
    head = Reply(raw=b"HTTP/1.1 500 Error\r\nContent-Length: 900\r\n\r\n")
    get = Reply(raw=error("500 Internal Server Error", "", traceback))
    with Rogue(head, get) as rogue:
        if is_absent:
            assert HttpArchive(rogue.url).size(5) is None
        else:
            with pytest.raises(NeighbourDown, match="Errno"):
                HttpArchive(rogue.url).size(5)


def test_an_object_that_a_head_fails_on_but_is_there_is_not_absent() -> None:
    with (
        Rogue(Reply(raw=http("500 Error")), Reply(raw=http("200 OK"))) as rogue,
        pytest.raises(NeighbourDown, match=r"GET \S+ answered 200"),
    ):
        HttpArchive(rogue.url).size(5)


@pytest.mark.parametrize(
    ("status", "traceback", "was_there"),
    [
        ("200 OK", "", True),
        ("404 Not Found", "", False),
        ("500 Error", "ArchiveInterfaceError: Can't open posix file with error: [Errno 2] No such file: '/a/5'", False),
        ("500 Error", "ArchiveInterfaceError: Can't open posix file with error: [Errno 13] Permission denied", None),
        ("500 Error", "", None),
        ("503 Service Unavailable", "OSError: [Errno 2] No such file or directory: '/run/backend.sock'", None),
    ],
)
def test_what_is_removed_is_gone_only_when_the_archive_says_so(
    status: str, traceback: str, *, was_there: bool | None
) -> None:
    with Rogue(Reply(raw=error(status, "", traceback))) as rogue:
        if was_there is None:
            with pytest.raises(NeighbourDown, match=status[:3]):
                HttpArchive(rogue.url).remove(5)
        else:
            assert HttpArchive(rogue.url).remove(5) is was_there
        assert [head.split()[:2] for head, _ in rogue.requests] == [[b"DELETE", b"/5"]]


def _head(size: int) -> Reply:
    return Reply(raw=http("204 No Content", b"", f"X-Content-Length: {size}"))


@pytest.mark.parametrize(
    ("looks", "is_taken"),
    [
        ([_head(11)], True),
        ([_head(10), Reply(raw=http("200 OK", b"9876543210"))], True),
        ([_head(10), Reply(raw=http("200 OK", BODY))], False),
        ([_head(10), Reply(raw=b"", then="close")], False),
        ([_head(9)], False),
        ([Reply(raw=http("404 Not Found"))], False),
        ([Reply(raw=http("503 Service Unavailable"))], False),
    ],
    ids=["longer", "of other bytes", "ours", "not to be read", "perhaps a part of ours", "nothing", "away"],
)
def test_an_id_counts_as_taken_when_what_lies_there_cannot_be_ours(
    looks: list[Reply], tmp_path: Path, *, is_taken: bool
) -> None:
    refused = Reply(raw=error("500 Error", "", "ArchiveInterfaceError: [Errno 13] Permission denied: '/a/5'"))
    sent = _parcel(tmp_path)._replace(digest=Digest(algorithm="md5", value=hashlib.md5(BODY).hexdigest()))
    with Rogue(refused, *looks) as rogue, pytest.raises(IdTaken if is_taken else NeighbourDown):
        HttpArchive(rogue.url, timeouts=HASTY).store(sent, _ignore)


@pytest.mark.parametrize("then", ["close", "reset", "hang"])
def test_a_put_without_an_answer_never_tells_that_an_id_is_taken(then: str, tmp_path: Path) -> None:
    with Rogue(Reply(raw=b"", then=then), _head(11)) as rogue, pytest.raises(NeighbourDown):
        HttpArchive(rogue.url, timeouts=HASTY).store(_parcel(tmp_path), _ignore)


@pytest.mark.parametrize("total", [9, 11, None, "10", True])
def test_an_archive_that_counted_other_bytes_did_not_store(total: object, tmp_path: Path) -> None:
    answer = json.dumps({"message": "File added to archive", "total_bytes": total}).encode()
    with Rogue(Reply(raw=http("201 Created", answer))) as rogue, pytest.raises(NeighbourDown):
        HttpArchive(rogue.url).store(_parcel(tmp_path), _ignore)


FILE = {"_id": 9, "name": "f", "subdir": "a", "size": 3, "hashtype": "md5", "hashsum": "0" * 32}


@pytest.mark.parametrize(
    "wrong",
    [{"_id": "9"}, {"_id": None}, {"size": 3.5}, {"size": None}, {"_id": True}, *({key: ...} for key in FILE)],
    ids=repr,
)
def test_a_file_of_odd_shape_is_no_answer(wrong: dict[str, Any]) -> None:
    item = {key: value for key, value in (FILE | wrong).items() if value is not ...}
    transaction = Reply(raw=http("200 OK", b'[{"_id": 5}]'))
    files = Reply(raw=http("200 OK", json.dumps([item]).encode()))
    with Rogue(transaction, files) as rogue, pytest.raises(NeighbourDown):
        HttpCatalogue(f"{rogue.url}/ingest").lookup(5)


def test_another_transaction_than_asked_for_is_no_answer() -> None:
    other, files = Reply(raw=http("200 OK", b'[{"_id": 6}]')), Reply(raw=http("200 OK", b"[]"))
    with Rogue(other, files) as rogue, pytest.raises(NeighbourDown):
        HttpCatalogue(f"{rogue.url}/ingest").lookup(5)


@pytest.mark.parametrize(
    "people",
    [
        [{"_id": 5, "network_id": "me"}, {"_id": 6, "network_id": "you"}],
        [{"_id": 5}],
        [{"_id": "5", "network_id": "me"}],
        [{"_id": True, "network_id": "me"}],
        [{"_id": 5, "network_id": None}],
    ],
)
def test_persons_of_another_login_are_no_answer(people: list[dict[str, Any]]) -> None:
    with Rogue(Reply(raw=http("200 OK", json.dumps(people).encode()))) as rogue, pytest.raises(NeighbourDown):
        HttpCatalogue(f"{rogue.url}/ingest").people_of("me")


def test_a_catalogue_without_pages_is_not_asked_for_ever() -> None:
    transaction = Reply(raw=http("200 OK", b'[{"_id": 5}]'))
    files = Reply(raw=http("200 OK", json.dumps([FILE, FILE | {"_id": 10}]).encode()))
    with Rogue(transaction, files) as rogue:
        with pytest.raises(NeighbourDown):
            HttpCatalogue(f"{rogue.url}/ingest", page_files=2).lookup(5)
        assert len(rogue.requests) == 3


@pytest.mark.parametrize(
    ("wrong", "path", "digest"),
    [
        ({"subdir": "../up"}, "../up/f", f"md5:{'0' * 32}"),
        ({"hashtype": "crc32", "hashsum": "AB"}, "a/f", "crc32:AB"),
    ],
)
def test_what_others_registered_is_told_as_it_is(wrong: dict[str, Any], path: str, digest: str) -> None:
    transaction = Reply(raw=http("200 OK", b'[{"_id": 5}]'))
    files = Reply(raw=http("200 OK", json.dumps([FILE | wrong]).encode()))
    with Rogue(transaction, files) as rogue:
        (found,) = HttpCatalogue(f"{rogue.url}/ingest").lookup(5) or ()
    assert (found.path, found.digest) == (path, digest)
