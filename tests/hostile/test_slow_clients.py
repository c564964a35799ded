"""Clients that trickle: everybody else is answered at once, and they are cut off."""

import logging
import selectors
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.raw_http import Wire, head
from tests.acceptance.stage import Standalone, bundle
from tests.harness.landing import landed
from tests.harness.waiting import until

logger = logging.getLogger(__name__)

CLIENTS = 200
SAMPLES = 300
P99_S = 0.1
#: Other work on the machine can only make answers later, so one good round is enough; slow clients would spoil each of them.
ROUNDS = 5

UPLOAD = head("POST", "/upload", "Content-Length: 100000")
TRICKLES = {
    "a body": UPLOAD,
    "a chunk size": head("POST", "/upload", "Transfer-Encoding: chunked"),
    "headers": b"GET / HTTP/1.1\r\nHost: ingest\r\nA: ",
    "a request line": b"GET /",
}


def is_cut(connection: socket.socket) -> bool:
    """Send a byte; true when the server closed the connection."""
    try:
        connection.send(b"1")
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def trickling(url: str, start: bytes, clients: int = CLIENTS) -> Iterator[None]:
    """That many clients send `start` and then a byte each second; one that is cut off comes again."""
    parts = urlsplit(url)
    address = (parts.hostname, parts.port)
    stop = threading.Event()
    sockets: list[socket.socket] = []

    def connect() -> socket.socket:
        found = socket.create_connection(address, timeout=10)
        found.sendall(start)
        found.setblocking(False)
        return found

    def run() -> None:
        while not stop.wait(1.0):
            for place, connection in enumerate(sockets):
                if is_cut(connection):
                    connection.close()
                    sockets[place] = connect()

    sockets.extend(connect() for _ in range(clients))
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for connection in sockets:
            connection.close()


def _p99(ask: Callable[[], None], what: str) -> float:
    """The 99th percentile of the time to be answered, in seconds."""
    found = []
    for _ in range(SAMPLES):
        began = time.perf_counter()
        ask()
        found.append(time.perf_counter() - began)
    found.sort()
    p99 = found[SAMPLES * 99 // 100]
    logger.info("%s: p99 %.1f ms, worst %.1f ms", what, p99 * 1000, found[-1] * 1000)
    return p99


@pytest.mark.parametrize("what", TRICKLES)
def test_slow_clients_keep_nobody_waiting(tmp_path: Path, what: str) -> None:
    with Standalone(tmp_path) as service:
        job = service.post(bundle({"a": b"a"}))
        service.end(job)

        def ask(address: str) -> None:
            with Wire(service.url) as wire:
                assert wire.send(head("GET", address)).answer().status == 200

        with trickling(service.url, TRICKLES[what]):
            for address in ("/", f"/get_state?job_id={job}"):
                rounds = (_p99(partial(ask, address), f"{what}: {address}") for _ in range(ROUNDS))
                assert any(p99 < P99_S for p99 in rounds), address


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    limits = {"INGEST_MIN_RATE": "1000 B", "INGEST_MIN_RATE_AFTER": "2"}
    with Standalone(tmp_path_factory.mktemp("slow"), **limits) as running:
        yield running


def kept(service: Standalone) -> tuple[object, ...]:
    """What the service knows of jobs and bundles."""
    with closing(sqlite3.connect(service.home / "ingest.sqlite3")) as database:
        (count,) = database.execute("SELECT count(*) FROM ingeststate").fetchone()
    return count, landed(service.home / "staging")


@pytest.mark.parametrize("what", TRICKLES)
def test_who_trickles_is_cut_off(service: Standalone, what: str) -> None:
    before, began = kept(service), time.monotonic()
    with Wire(service.url) as wire, selectors.DefaultSelector() as answered, ExitStack() as stack:
        answered.register(wire._socket, selectors.EVENT_READ)
        stack.callback(answered.unregister, wire._socket)
        wire.send(TRICKLES[what])
        while not answered.select(0.2):
            wire.send(b"1")
            assert time.monotonic() - began < 15
        answer = wire.answer()
        assert answer.status == 408
        if "body" in what:
            assert answer.json()["code"] == "too_slow"
        assert wire.ended()
    until(lambda: kept(service) == before, "nothing to be kept")


def test_who_is_slow_and_fast_enough_is_heard(service: Standalone) -> None:
    """A pause, and twice the least rate on the average."""
    with Wire(service.url) as wire, selectors.DefaultSelector() as clock:
        wire.send(head("POST", "/upload", "Content-Length: 10000"))
        for _ in range(10):
            wire.send(b"a" * 1000)
            clock.select(0.4)
        answer = wire.answer()
    assert answer.status == 200
    service.end(answer.json()["job_id"])


def test_who_trickles_takes_no_place_of_an_upload(tmp_path: Path) -> None:
    with Standalone(tmp_path, INGEST_MAX_UPLOADS="1") as service, trickling(service.url, TRICKLES["a body"]):
        service.end(service.post(bundle({"a": b"a"})))


def test_a_body_that_comes_slowly_in_small_pieces_is_heard_as_it_is(service: Standalone) -> None:
    body = bundle({"a": b"a" * 100_000})
    with Wire(service.url) as wire:
        wire.send(head("POST", "/upload", f"Content-Length: {len(body)}"))
        for start in range(0, len(body), 7000):
            wire.send(body[start : start + 7000])
            time.sleep(0.02)
        answer = wire.answer()
    assert answer.status == 200
    assert service.end(int(answer.json()["job_id"]))["state"] == "OK"
