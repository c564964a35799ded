"""The proxy harms nothing that it was not told to, and each fault is what it says."""

import http.client
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.faults.proxy import Asked, Fault, Proxy
from tests.harness import PacificaCore
from tests.harness.ports import LOOPBACK
from tests.harness.waiting import until

BODY = bytes(range(256)) * 4096
HOLD_S = 0.5
#: Longer than anything here takes on a busy machine.
WAIT_S = 30.0
#: Archive ids that nobody else uses; UniqueID counts from 1.
IDS = itertools.count(1 << 40)

Connect = Callable[[], http.client.HTTPConnection]


@pytest.fixture
def proxy(core: PacificaCore) -> Iterator[Proxy]:
    with Proxy(core.archive.port, hold_s=HOLD_S) as before:
        yield before


@pytest.fixture
def file_id() -> str:
    return f"/{next(IDS)}"


def _connection(proxy: Proxy) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(LOOPBACK, proxy.port, timeout=WAIT_S)


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    headers = {} if body is None else {"Content-Type": "application/octet-stream"}
    connection.request(method, path, body, headers)
    with connection.getresponse() as answer:
        return answer.status, answer.read()


def _put(proxy: Proxy, path: str, body: bytes = BODY) -> tuple[int, bytes]:
    with closing(_connection(proxy)) as connection:
        return _ask(connection, "PUT", path, body)


def _raw(proxy: Proxy, sent: bytes) -> bytes:
    """All that comes back until the connection ends."""
    with socket.create_connection((LOOPBACK, proxy.port), WAIT_S) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def _last(method: str, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def _stored(core: PacificaCore, path: str) -> bytes | None:
    file = core.archive_path(int(path[1:]))
    return file.read_bytes() if file.exists() else None


def _once(fault: Fault, method: str = "PUT") -> Callable[[Asked], Fault | None]:
    """The first request of that method goes wrong."""
    first = iter([fault])
    return lambda asked: next(first, None) if asked.method == method else None


# --- nothing goes wrong


def test_a_connection_carries_requests_of_every_kind(proxy: Proxy, core: PacificaCore, file_id: str) -> None:
    with closing(_connection(proxy)) as connection:
        status, told = _ask(connection, "PUT", file_id, BODY)
        assert (status, int(json.loads(told)["total_bytes"])) == (201, len(BODY))
        assert _ask(connection, "HEAD", file_id) == (204, b"")
        assert _ask(connection, "GET", file_id) == (200, BODY)
        assert _ask(connection, "GET", "/unknown")[0] == 500
        assert _ask(connection, "HEAD", "/unknown") == (500, b"")
        assert _ask(connection, "PUT", f"/{next(IDS)}", b"")[0] == 201
    assert _stored(core, file_id) == BODY
    assert [asked.method for asked, _ in proxy.asked] == ["PUT", "HEAD", "GET", "GET", "HEAD", "PUT"]
    assert [asked.length for asked, _ in proxy.asked] == [len(BODY), 0, 0, 0, 0, 0]


def test_requests_that_were_sent_ahead_are_answered_in_order(proxy: Proxy, core: PacificaCore) -> None:
    paths = [f"/{next(IDS)}" for _ in range(20)]
    bodies = [BODY[:place] for place in range(len(paths))]
    sent = b"".join(
        b"PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
        for path, body in zip(paths, bodies, strict=True)
    )
    answers = _raw(proxy, sent + _last("GET", paths[7]))
    assert answers.count(b"HTTP/1.1 201") == len(paths)
    assert bodies[7] in answers.rpartition(b"HTTP/1.1 200")[2]
    assert [_stored(core, path) for path in paths] == bodies
    assert [asked.target for asked, _ in proxy.asked] == [*paths, paths[7]]


def test_a_request_in_chunks_keeps_its_frame(core: PacificaCore) -> None:
    head = b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    body = b"3;a=b\r\n[1,\r\nB\r\n" + b"2" * 10 + b"]\r\n0\r\nTrailer: x\r\n\r\n"
    with Proxy(core.policy.port, _once(Fault.ERROR, "POST")) as proxy:
        ill, _, well = _raw(proxy, head + b"\r\n" + body + _last("GET", "/status")).rpartition(b"HTTP/1.1 ")
        assert b"It is ill." in ill
        assert well.startswith(b"404 ")
        through = _raw(proxy, head + b"Connection: close\r\n\r\n" + body)
    # Policy takes no chunks; it has to say so itself.
    assert through.startswith(b"HTTP/1.1 411 ")
    assert [asked.method for asked, _ in proxy.asked] == ["POST", "GET", "POST"]


def test_an_answer_without_a_length_ends_with_its_connection_or_its_last_chunk(core: PacificaCore) -> None:
    direct = http.client.HTTPConnection(LOOPBACK, core.metadata.port, timeout=WAIT_S)
    for protocol in (10, 11):
        with Proxy(core.metadata.port) as proxy, closing(_connection(proxy)) as connection, closing(direct):
            for one in (direct, connection):
                one._http_vsn, one._http_vsn_str = protocol, f"HTTP/1.{protocol - 10}"  # type: ignore[attr-defined]  # of http.client, unpublished
            assert _ask(connection, "GET", "/users?recursion_depth=0") == _ask(
                direct, "GET", "/users?recursion_depth=0"
            )


def test_a_client_sees_that_the_service_hung_up(proxy: Proxy, core: PacificaCore, file_id: str) -> None:
    with closing(_connection(proxy)) as connection:
        _ask(connection, "PUT", file_id, b"1")
        core.archive.kill()
        assert connection.sock.recv(1) == b""
    with pytest.raises((OSError, http.client.HTTPException)):
        _put(proxy, file_id)
    core.archive.start()
    assert _put(proxy, f"/{next(IDS)}")[0] == 201


def test_the_end_of_the_proxy_ends_every_connection(core: PacificaCore, file_id: str) -> None:
    core.archive.pause()
    threads = threading.active_count()
    with (
        Proxy(core.archive.port, lambda asked: Fault.HANG if asked.method == "GET" else None, hold_s=1000) as proxy,
        closing(_connection(proxy)) as idle,
        closing(_connection(proxy)) as waiting,
        closing(_connection(proxy)) as hanging,
    ):
        idle.connect()
        waiting.request("PUT", file_id, b"1")
        hanging.request("GET", file_id)
        until(lambda: len(proxy.asked) == 2, "both requests")
    core.archive.resume()
    until(lambda: threading.active_count() <= threads, "all threads to end")


# --- faults


def test_refuse_resets_and_nobody_listens_until_it_is_over(proxy: Proxy, core: PacificaCore, file_id: str) -> None:
    proxy.plan = _once(Fault.REFUSE)
    with pytest.raises(OSError, match=r"(?i)reset|broken pipe"):
        _put(proxy, file_id)

    def refused() -> bool:
        with socket.socket() as connection:
            return connection.connect_ex((LOOPBACK, proxy.port)) != 0

    until(refused, "a refusal")
    assert _stored(core, file_id) is None
    until(lambda: not refused(), "the proxy to listen again")
    assert _put(proxy, file_id)[0] == 201


@pytest.mark.parametrize(
    ("fault", "stored"),
    [
        (Fault.HANG, None),
        (Fault.CUT_REQUEST, BODY[: len(BODY) // 2]),
        (Fault.CUT_ANSWER, BODY),
        (Fault.NO_ANSWER, BODY),
    ],
)
def test_without_a_whole_answer_the_service_did_as_much_as_it_got(
    proxy: Proxy, core: PacificaCore, file_id: str, fault: Fault, stored: bytes | None
) -> None:
    proxy.plan = _once(fault)
    with pytest.raises((OSError, http.client.HTTPException)):
        _put(proxy, file_id)
    until(lambda: _stored(core, file_id) == stored, "what the service got")
    assert proxy.asked[0][1] is fault
    assert _put(proxy, f"/{next(IDS)}")[0] == 201


def test_a_cut_answer_comes_to_its_half(proxy: Proxy, file_id: str) -> None:
    _put(proxy, file_id)
    for method, share in (("GET", len(BODY)), ("HEAD", 0)):
        whole = _raw(proxy, _last(method, file_id))
        proxy.plan = _once(Fault.CUT_ANSWER, method)
        half = _raw(proxy, _last(method, file_id))
        assert whole[:16] == half[:16]
        assert share // 2 < len(half) < share // 2 + 1024
        assert len(half) < len(whole)


def test_a_cut_request_without_a_body_never_arrives(proxy: Proxy, file_id: str) -> None:
    proxy.plan = _once(Fault.CUT_REQUEST, "GET")
    with closing(_connection(proxy)) as connection, pytest.raises((OSError, http.client.HTTPException)):
        _ask(connection, "GET", file_id)


ANSWERS = {
    Fault.ERROR: (500, b'"It is ill."'),
    Fault.BUSY: (503, b"Too busy."),
    Fault.HTML: (200, b"<!DOCTYPE html>"),
    Fault.JSON: (200, b'{"answer": 42}'),
}


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
@pytest.mark.parametrize("fault", ANSWERS)
def test_an_answer_of_the_proxy_keeps_the_service_out_and_the_connection_open(
    proxy: Proxy, core: PacificaCore, file_id: str, method: str, fault: Fault
) -> None:
    status, body = ANSWERS[fault]
    proxy.plan = _once(fault, method)
    with closing(_connection(proxy)) as connection:
        found, told = _ask(connection, method, file_id, BODY if method == "PUT" else None)
        assert (found, body in told) == (status, method != "HEAD")
        assert _stored(core, file_id) is None
        assert _ask(connection, "PUT", file_id, BODY)[0] == 201


def test_busy_says_when_to_come_again(proxy: Proxy, file_id: str) -> None:
    proxy.plan = _once(Fault.BUSY)
    with closing(_connection(proxy)) as connection:
        connection.request("PUT", file_id, BODY)
        with connection.getresponse() as answer:
            assert answer.headers["Retry-After"] == "1"


def test_slow_is_whole_in_the_end(proxy: Proxy, core: PacificaCore, file_id: str) -> None:
    proxy.plan = _once(Fault.SLOW)
    with closing(_connection(proxy)) as connection:
        assert _ask(connection, "PUT", file_id, BODY)[0] == 201
        proxy.plan = _once(Fault.SLOW, "GET")
        assert _ask(connection, "GET", file_id) == (200, BODY)
    assert _stored(core, file_id) == BODY


def test_half_is_a_201_for_half_of_the_bytes(proxy: Proxy, core: PacificaCore, file_id: str) -> None:
    proxy.plan = _once(Fault.HALF)
    with closing(_connection(proxy)) as connection:
        status, told = _ask(connection, "PUT", file_id, BODY)
        assert (status, json.loads(told)["total_bytes"]) == (201, len(BODY))
        assert _ask(connection, "GET", file_id) == (200, BODY[: len(BODY) // 2])
    assert _stored(core, file_id) == BODY[: len(BODY) // 2]
