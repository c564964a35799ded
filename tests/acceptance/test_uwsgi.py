"""The service under real uWSGI, with the command that is documented and the options for large uploads."""

import base64
import hashlib
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.facility import Facility
from tests.acceptance.raw_http import Answer, Wire, chunks, head
from tests.acceptance.stage import ROOT, bundle, until
from tests.harness import Environment, Program, Redis, request, uwsgi_env
from tests.harness.ports import LOOPBACK
from tests.hostile.malformed_http import REFUSED

MIB = 1024 * 1024
BODY = bytes(range(256)) * 3000
CHUNKED = "Transfer-Encoding: chunked"
#: What `docs/installation.md` says.
DOCUMENTED = ("--http-socket", f"{LOOPBACK}:{{port}}", "--master", "--module", "pacifica.ingest.wsgi")
LARGE = (
    "--processes",
    "2",
    "--threads",
    "4",
    "--enable-threads",
    "--socket-timeout",
    "300",
    "--chunked-input-limit",
    "67108864",
    "--die-on-term",
    "--worker-reload-mercy",
    "5",
)


class Uwsgi(Facility):
    """Stopped at once: SIGTERM makes uWSGI start anew unless it is told otherwise."""

    stop_signal = signal.SIGINT


@pytest.fixture(scope="module")
def installed() -> Environment:
    return uwsgi_env(ROOT, "redis")


@pytest.fixture(scope="module")
def service(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uwsgi]:
    with Uwsgi(tmp_path_factory.mktemp("uwsgi"), line=line(installed, LARGE)) as running:
        yield running


@pytest.fixture
def wire(service: Uwsgi) -> Iterator[Wire]:
    with Wire(service.url) as connection:
        yield connection


def line(installed: Environment, options: Sequence[str] = ()) -> list[str | Path]:
    return [installed.bin("uwsgi"), *DOCUMENTED, *options]


def staged(service: Uwsgi, answer: Answer) -> bytes:
    assert answer.status == 200, answer
    return (service.staging / f"{answer.json()['job_id']}.tar").read_bytes()


def jobs(service: Uwsgi) -> int:
    database = sqlite3.connect(service.folder / "db.sqlite3")
    (found,) = database.execute("SELECT count(*) FROM ingest_job").fetchone()
    database.close()
    return int(found)


def test_the_documented_command_serves(installed: Environment, tmp_path: Path) -> None:
    with Uwsgi(tmp_path, line=line(installed)) as plain, Wire(plain.url) as wire, Wire(plain.url) as other:
        assert request("GET", plain.url).json() == {"message": "Pacifica Ingest Up and Running"}
        wire.send(head("POST", "/upload", f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
        assert wire.answer().status == 100
        assert staged(plain, wire.send(BODY).answer()) == BODY
        assert staged(plain, other.send(head("POST", "/upload", CHUNKED), chunks(BODY, 9999)).answer()) == BODY


def test_a_bundle_is_ingested(installed: Environment, redis_server: Redis, tmp_path: Path) -> None:
    broker = {"celery": {"broker_url": redis_server.new_database()}}
    with Uwsgi(tmp_path, broker, line=line(installed, LARGE)) as service:
        celery = [installed.bin("celery"), "-A", "pacifica.ingest.tasks", "worker", "--concurrency", "1"]
        with Program("worker", [*celery, "--loglevel", "info"], env=service.environment(), says="ready."):
            job_id = request("POST", f"{service.url}/upload", bundle({"a.txt": b"alpha"})).json()["job_id"]
            asked = f"{service.url}/get_state?job_id={job_id}"
            until(lambda: bool(request("GET", asked).json()["complete"]), "the job to end")
            state = request("GET", asked).json()
            assert (state["state"], state["task"]) == ("OK", "ingest metadata")


def test_a_large_body_is_kept_whole(service: Uwsgi, wire: Wire) -> None:
    wire.send(head("POST", "/upload", f"Content-Length: {150 * MIB}"))
    block = bytes(range(256)) * 4096
    for _ in range(150):
        wire.send(block)
    answer = wire.answer()
    assert answer.status == 200
    path = service.staging / f"{answer.json()['job_id']}.tar"
    assert path.stat().st_size == 150 * MIB
    with path.open("rb") as file:
        assert all(part == block for part in iter(lambda: file.read(MIB), b""))


def test_a_pause_of_a_sender_is_borne(service: Uwsgi, wire: Wire) -> None:
    """Longer than the four seconds that uWSGI waits of itself."""
    wire.send(head("POST", "/upload", f"Content-Length: {len(BODY)}"), BODY[:1000])
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 5, "a while")
    assert staged(service, wire.send(BODY[1000:]).answer()) == BODY


@pytest.mark.parametrize("size", [100, 8192, 4 * MIB])
def test_a_chunked_body_is_kept_whole(service: Uwsgi, wire: Wire, size: int) -> None:
    body = BODY * (10 if size > MIB else 1)
    wire.send(head("POST", "/upload", CHUNKED, "Expect: 100-continue"))
    assert wire.answer().status == 100
    assert staged(service, wire.send(chunks(body, size)).answer()) == body


@pytest.mark.parametrize(
    ("header", "arrived"),
    [(f"Content-Length: {len(BODY)}", BODY[:-1]), (CHUNKED, b"5\r\nabc"), (CHUNKED, b"5\r\nabcde\r\n")],
)
def test_of_a_cut_body_nothing_is_left(service: Uwsgi, wire: Wire, header: str, arrived: bytes) -> None:
    before = jobs(service)
    answer = wire.send(head("POST", "/upload", header), arrived).finish().answer()
    assert (answer.status, answer.json()["code"]) == (400, "length_mismatch")
    until(lambda: jobs(service) == before, "the upload to be forgotten")
    assert not list(service.staging.glob("*.part"))


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (head("GET", "/get_state?job_id=99999"), 404),
        (head("GET", "/get_state?job_id=abc"), 400),
        (head("GET", "/upload"), 405),
        (head("POST", "/upload"), 411),
        (head("POST", "/upload", "Content-Length: +1"), 400),
        (head("POST", "/move", "Content-Length: 600000000", "Expect: 100-continue"), 413),
    ],
)
def test_refusals_are_the_same_as_of_the_built_in_server(wire: Wire, request_bytes: bytes, status: int) -> None:
    answer = wire.send(request_bytes).answer()
    assert answer.status == status
    assert set(answer.json()) == {"status", "message", "code", "traceback", "version"}


@pytest.mark.parametrize(("digest", "status"), [(hashlib.sha256(BODY), 200), (hashlib.sha256(BODY[1:]), 400)])
@pytest.mark.parametrize("header", [f"Content-Length: {len(BODY)}", CHUNKED])
def test_a_digest_is_verified(service: Uwsgi, wire: Wire, header: str, digest: Any, status: int) -> None:
    before = jobs(service)
    announced = f"Repr-Digest: sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    body = chunks(BODY, 9999) if header == CHUNKED else BODY
    # Lines of one field are one list.
    wire.send(head("POST", "/upload", header, announced, "Repr-Digest: md5=:AAAA:"), body)
    assert wire.answer().status == status
    until(lambda: jobs(service) == before + (status == 200), "nothing else to be kept")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("X-Http-Authed-User: a",), 200),
        (("X-Http-Authed-User: a", "X-Http-Authed-User: b"), 400),
        (("X-Http-Authed-User: a", "X_Http_Authed_User: b"), 400),
    ],
)
def test_a_request_names_one_user(wire: Wire, headers: tuple[str, ...], status: int) -> None:
    assert wire.send(head("POST", "/upload", "Content-Length: 2", *headers), b"[]").answer().status == status


#: What uWSGI reads as something, and the built-in server refuses; a job may come of it. Of some of these one does
#: only if the bytes come in one piece.
LENIENT = {
    "a chunk size with 0x",
    "chunk data that end with LF",
    "a trailer without a colon",
    "a trailer whose name is not ASCII",
    "a trailer whose name is not UTF-8",
    "a trailer with an underscore",
    "a trailer that ends with LF",
    "an empty trailer that ends with LF",
    "too many trailers",
    "cut before the end",
}


def test_malformed_http_is_answered_without_a_fault_of_ours(service: Uwsgi) -> None:
    """uWSGI reads the head, by rules of its own; what it makes of it is in `docs/security.md`."""
    kept = set()
    for what, (sent, _) in REFUSED.items():
        before = jobs(service)
        with Wire(service.url) as wire, suppress(OSError):
            assert b" 500 " not in wire.send(sent).finish().rest().partition(b"\r\n")[0], what
        if jobs(service) > before:
            kept.add(what)
    assert kept <= LENIENT
    assert kept, "uWSGI has become strict: docs/security.md says otherwise"
    assert request("GET", service.url).status == 200
    assert "Traceback" not in service.log.read_text(errors="replace")


def test_more_uploads_than_max_uploads_are_told_to_come_again(installed: Environment, tmp_path: Path) -> None:
    """In one process: each counts its own."""
    command = [*line(installed), "--threads", "4", "--enable-threads"]
    with (
        Uwsgi(tmp_path, {"ingest": {"max_uploads": 1}}, line=command) as service,
        Wire(service.url) as slow,
        Wire(service.url) as other,
    ):
        slow.send(head("POST", "/upload", f"Content-Length: {len(BODY)}"), BODY[:-1])
        until(lambda: any(service.staging.glob("*.part")), "the upload to be under way")
        answer = other.send(head("POST", "/upload", "Content-Length: 1"), b"a").answer()
        assert (answer.status, answer.json()["code"]) == (503, "busy")
        assert int(answer.headers["retry-after"]) > 0
        assert staged(service, slow.send(BODY[-1:]).answer()) == BODY


def test_who_sends_too_slowly_is_cut_off_at_the_next_piece(installed: Environment, tmp_path: Path) -> None:
    """The rate is looked at once in 128 KiB."""
    sections = {"ingest": {"min_rate": "100 MB", "min_rate_after": 1}}
    with Uwsgi(tmp_path, sections, line=line(installed, LARGE)) as service, Wire(service.url) as wire:
        wire.send(head("POST", "/upload", f"Content-Length: {len(BODY)}"), BODY[: 128 * 1024])
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 2, "a while")
        answer = wire.send(BODY[128 * 1024 :]).answer()
        assert (answer.status, answer.json()["code"]) == (408, "too_slow")
        until(lambda: jobs(service) == 0, "nothing to be kept")


@pytest.mark.parametrize(("trusted", "status"), [("unix", 200), ("127.0.0.1", 403)])
def test_a_peer_on_a_unix_socket_is_told_from_others(
    installed: Environment, tmp_path: Path, trusted: str, status: int
) -> None:
    place = tmp_path / "http"
    sockets = ["--http-socket", str(place), "--http-socket", f"{LOOPBACK}:{{port}}"]
    sections = {"ingest": {"trusted_proxies": trusted}}
    command = [installed.bin("uwsgi"), *sockets, *DOCUMENTED[2:]]
    with Uwsgi(tmp_path, sections, line=command), socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(20)
        peer.connect(str(place))
        peer.sendall(head("POST", "/upload", "Content-Length: 2", "X-Http-Authed-User: a") + b"[]")
        assert peer.recv(100).split()[1] == b"%d" % status


def test_a_stop_does_not_wait_for_slow_uploads(installed: Environment, tmp_path: Path) -> None:
    with Uwsgi(tmp_path, line=line(installed, LARGE)) as service, Wire(service.url) as slow:
        slow.send(head("POST", "/upload", f"Content-Length: {len(BODY)}"), b"a")
        until(lambda: any(service.staging.glob("*.part")), "the upload to be under way")
        began = time.monotonic()
        service.signal(signal.SIGTERM)
        until(lambda: not service.running, "the service to stop")
        assert time.monotonic() - began < 10


def test_without_a_schema_requests_are_refused_and_the_log_says_what_to_do(
    installed: Environment, tmp_path: Path
) -> None:
    service = Uwsgi(tmp_path, line=line(installed), schema=False)
    service.launch()
    try:
        until(lambda: "spawned uWSGI worker" in service.log.read_text(), "uWSGI to be up")
        answer = request("GET", service.url)
        assert (answer.status, answer.json()["code"]) == (500, "unsafe_schema")
        assert "pacifica-ingest-cmd dbsync" in service.log.read_text()
    finally:
        service.close()
