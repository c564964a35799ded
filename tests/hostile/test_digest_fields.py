"""`Repr-Digest` and `Content-Digest`: what is announced is what arrived, or nothing is kept."""

import base64
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacifica.ingest.core.digests import Announcement, Digest
from pacifica.ingest.core.errors import BadRequest
from pacifica.ingest.rest.field import announced
from tests.acceptance.raw_http import Answer, Wire, chunks, head
from tests.acceptance.stage import Standalone, bundle
from tests.harness.landing import landed

BODY = bytes(range(256)) * 3000
OTHER = BODY[:-1]
CHUNKED = "Transfer-Encoding: chunked"
LENGTH = f"Content-Length: {len(BODY)}"


def field(algorithm: str, body: bytes = BODY) -> str:
    """One member of a digest field; `sha-256`."""
    value = hashlib.new(algorithm.replace("-", ""), body).digest()
    return f"{algorithm}=:{base64.b64encode(value).decode()}:"


# --- the fields as values


def test_each_algorithm_of_each_field_is_announced() -> None:
    environ = {
        "HTTP_REPR_DIGEST": f"{field('sha-512')}, md5=:AAAA:;q=1, unixsum=30637, odd=(1 2), id",
        "HTTP_CONTENT_DIGEST": field("sha-256"),
    }
    assert announced(environ) == (
        Announcement(field="Repr-Digest", digest=Digest(algorithm="sha512", value=hashlib.sha512(BODY).hexdigest())),
        Announcement(field="Content-Digest", digest=Digest(algorithm="sha256", value=hashlib.sha256(BODY).hexdigest())),
    )


@pytest.mark.parametrize("value", [None, "", " ", "md5=:AAAA:", "sha=:AAAA:", "sha-256-x"])
def test_where_no_known_algorithm_is_named_nothing_is_announced(value: str | None) -> None:
    assert announced({} if value is None else {"HTTP_REPR_DIGEST": value}) == ()


MALFORMED = [
    "sha-256",
    "sha-256=",
    "sha-256=abc",
    'sha-256="abc"',
    "sha-256=::",
    "sha-256=:AAAA:",
    "sha-256=:%%%%:",
    "sha-256=1",
    "sha-256=(:AAAA:)",
    field("sha-256").rstrip(":"),
    field("sha-256").replace("sha-256", "sha-512"),
    field("sha-256").upper(),
    f"{field('sha-256')},",
    f"{field('sha-256')} {field('sha-512')}",
    f"{field('sha-256')}, {field('sha-256', OTHER)}",
    "SHA-256=:AAAA:",
    "md5=:A:",
    "a=" + "(" * 5000,
    "=",
    ",",
    "é=1",
    "\x00",
]


@pytest.mark.parametrize("value", MALFORMED, ids=lambda value: ascii(value[:20]))
@pytest.mark.parametrize("name", ["Repr-Digest", "Content-Digest"])
def test_a_field_that_is_no_dictionary_of_digests_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match=f"^{name}: ") as caught:
        announced({f"HTTP_{name.upper().replace('-', '_')}": value})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


# --- on a running service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with Standalone(tmp_path_factory.mktemp("digests"), INGEST_WORKERS="1") as running:
        yield running


@pytest.fixture
def nothing_left(service: Standalone) -> Iterator[None]:
    before = _jobs(service), landed(service.home / "staging")
    yield
    assert (_jobs(service), landed(service.home / "staging")) == before


def _jobs(service: Standalone) -> list[tuple[int]]:
    database = sqlite3.connect(service.home / "ingest.sqlite3")
    rows = "SELECT job_id FROM ingest_job UNION SELECT id FROM ingeststate"
    found: list[tuple[int]] = database.execute(rows).fetchall()
    database.close()
    return found


def _send(service: Standalone, *headers: str, body: bytes = BODY, address: str = "/upload") -> Answer:
    with Wire(service.url) as wire:
        sent = chunks(body, 99_991) if CHUNKED in headers else body
        return wire.send(head("POST", address, *headers), sent).answer()


@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
@pytest.mark.parametrize("address", ["/upload", "/ingest", "/move"])
@pytest.mark.parametrize(
    "digests",
    [
        (f"Repr-Digest: {field('sha-256')}",),
        (f"content-digest: {field('sha-512')}, {field('sha-256')}",),
        (f"Repr-Digest: {field('sha-512')}", f"Content-Digest: {field('sha-512')}", "Idempotency-Key: {0}"),
        ("Repr-Digest: md5=:AAAA:",),
    ],
    ids=["one", "two", "both fields", "unknown"],
)
def test_a_body_with_its_digests_is_taken(
    service: Standalone, framing: str, address: str, digests: tuple[str, ...]
) -> None:
    key = f"{framing[:7]}{address}"
    answer = _send(service, framing, *(header.format(key) for header in digests), address=address)
    assert answer.status == 200, answer


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
@pytest.mark.parametrize("address", ["/upload", "/move"])
@pytest.mark.parametrize(
    ("digests", "named"),
    [
        ((f"Repr-Digest: {field('sha-256', OTHER)}",), ("Repr-Digest", "sha256")),
        ((f"Content-Digest: {field('sha-512', OTHER)}",), ("Content-Digest", "sha512")),
        ((f"Repr-Digest: {field('sha-256')}, {field('sha-512', OTHER)}",), ("Repr-Digest", "sha512")),
        (
            (f"Repr-Digest: {field('sha-256')}", f"Content-Digest: {field('sha-256', OTHER)}"),
            ("Content-Digest", "sha256"),
        ),
        # Lines of one field are one list.
        (
            (f"Repr-Digest: {field('sha-512', OTHER)}", f"Repr-Digest: {field('sha-256')}"),
            ("Repr-Digest", "sha512"),
        ),
        ((f"Repr-Digest: {field('sha-256', OTHER)}", "Idempotency-Key: changed"), ("Repr-Digest", "sha256")),
    ],
    ids=["sha-256", "sha-512", "the second", "the other field", "two lines", "with a key"],
)
def test_of_a_body_that_is_another_nothing_is_kept(
    service: Standalone, framing: str, address: str, digests: tuple[str, ...], named: tuple[str, str]
) -> None:
    answer = _send(service, framing, *digests, address=address)
    error = answer.json()
    assert (answer.status, error["code"]) == (400, "digest_mismatch"), answer
    name, algorithm = named
    found = hashlib.new(algorithm, BODY).hexdigest()
    expected = hashlib.new(algorithm, OTHER).hexdigest()
    assert all(word in error["message"] for word in (name, algorithm, found, expected))


@pytest.mark.usefixtures("nothing_left")
def test_a_malformed_field_is_refused_before_the_body_is_asked_for(service: Standalone) -> None:
    answer = _send(service, LENGTH, "Repr-Digest: sha-256=abc", "Expect: 100-continue", body=b"")
    assert (answer.status, answer.json()["code"]) == (400, "bad_request")
    assert "Repr-Digest" in answer.json()["message"]


@pytest.mark.usefixtures("nothing_left")
def test_a_cut_body_is_told_as_cut(service: Standalone) -> None:
    with Wire(service.url) as wire:
        wire.send(head("POST", "/upload", LENGTH, f"Repr-Digest: {field('sha-256')}"), OTHER).finish()
        assert wire.answer().json()["code"] == "length_mismatch"


def test_a_connection_goes_on_after_a_mismatch(service: Standalone) -> None:
    with Wire(service.url) as wire:
        wire.send(head("POST", "/upload", LENGTH, f"Repr-Digest: {field('sha-256', OTHER)}"), BODY)
        assert wire.answer().status == 400
        assert wire.send(head("GET", "/")).answer().status == 200


def test_a_bundle_that_is_sent_again_with_its_digest_and_its_key_is_the_same_job(service: Standalone) -> None:
    body = bundle({"a.txt": b"alpha"})
    sent = (f"Content-Length: {len(body)}", f"Repr-Digest: {field('sha-256', body)}", "Idempotency-Key: twice")
    first = _send(service, *sent, body=body).json()["job_id"]
    assert service.end(first)["state"] == "OK"
    spoilt = bytes([body[0] ^ 1]) + body[1:]
    assert _send(service, *sent, body=spoilt).json()["code"] == "digest_mismatch"
    assert _send(service, *sent, body=body).json()["job_id"] == first


def test_the_log_has_no_trace(service: Standalone) -> None:
    assert "Traceback" not in Path(service.log).read_text(encoding="utf-8")
