"""The built-in server: its CherryPy file, its end, and what it does when others are away."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacifica.ingest.queue import BROKER_WAIT_S
from tests.acceptance.facility import Facility
from tests.acceptance.raw_http import Wire, head
from tests.acceptance.stage import Standalone, environment, until
from tests.harness import HttpServer, free_port, request
from tests.harness.landing import landed
from tests.harness.ports import LOOPBACK

#: A service must have stopped within that time, in seconds.
STOP_S = 20.0
BODY = b"a" * 100_000
CONFIGURATION_IS_WRONG = 3
SOMETHING_IS_UNAVAILABLE = 4


@pytest.fixture
def silent_broker() -> Iterator[str]:
    """The URL of a broker that takes connections and says nothing."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        yield f"redis://{LOOPBACK}:{listening.getsockname()[1]}/0"


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a server that does not come up."""
    line = [sys.executable, "-m", "pacifica.ingest", "--standalone", folder / "service", *arguments]
    return subprocess.run(line, env=environment(folder), capture_output=True, text=True, timeout=60, check=False)


# --- its file


def test_the_cherrypy_file_is_honoured(tmp_path: Path) -> None:
    """A file as it was written for 0.4.1."""
    file = tmp_path / "cpconfig.ini"
    file.write_text(
        f"""
[global]
log.screen: True
log.access_file: {str(tmp_path / "access.log")!r}
log.error_file: {str(tmp_path / "error.log")!r}
server.max_request_body_size: 1000

[/]
request.dispatch: cherrypy.dispatch.MethodDispatcher()
tools.response_headers.on: True
tools.response_headers.headers: [('X-From-File', 'yes')]
"""
    )
    with Standalone(tmp_path, INGEST_CPCONFIG=str(file)) as service:
        answer = request("GET", f"{service.url}/")
        assert answer.headers["x-from-file"] == "yes"
        assert request("POST", f"{service.url}/nothing", b"").status == 404
        with Wire(service.url) as wire:
            refused = wire.send(head("POST", "/upload", "Content-Length: 1001"), b"a" * 1001).answer()
        assert (refused.status, refused.json()["code"]) == (413, "too_large")
    assert '"GET / HTTP/1.1" 200' in (tmp_path / "access.log").read_text()
    assert "Bus STARTED" in (tmp_path / "error.log").read_text()


@pytest.mark.parametrize(
    ("threads", "uploads", "is_told"), [(4, "4", True), (5, "4", False), (64, "0", True), (None, "200", False)]
)
def test_fewer_threads_than_uploads_are_told_at_the_start(
    tmp_path: Path, threads: int | None, uploads: str, *, is_told: bool
) -> None:
    file = tmp_path / "cpconfig.ini"
    file.write_text(f"[global]\nserver.thread_pool: {threads}\n" if threads else "[global]\n")
    with Standalone(tmp_path, INGEST_CPCONFIG=str(file), INGEST_MAX_UPLOADS=uploads) as service:
        assert request("GET", f"{service.url}/").status == 200
        assert ("uploads may take all threads" in service.log.read_text()) == is_told


def test_the_address_and_the_port_may_stand_in_the_file(tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "cpconfig.ini"
    file.write_text(f"[global]\nserver.socket_host: '127.0.0.1'\nserver.socket_port: {port}\n")
    line = [sys.executable, "-m", "pacifica.ingest", "--standalone", tmp_path / "service", "--cp-config", file]
    with HttpServer("server", line, tmp_path, port=port, env=environment(tmp_path)):
        pass


@pytest.mark.parametrize(
    "content",
    [
        "no section",
        "[global]\nserver.thread_pool: many\n",
        "[global]\nserver.thread_pool: 'many'\n",
        "[global]\nlog.error_file: '/nothing/here/error.log'\n",
        "[global]\nlog.access_format: '%(a)s'\n",
    ],
)
def test_a_wrong_cherrypy_file_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "cpconfig.ini"
    file.write_text(content)
    ended = run(tmp_path, "-p", "0", "--cp-config", file)
    assert ended.returncode == CONFIGURATION_IS_WRONG, ended.stderr
    assert "Traceback" not in ended.stderr
    told = [line for line in ended.stderr.splitlines() if line.startswith("pacifica-ingest: ")]
    assert "CherryPy file" in told[0] or str(file) in told[0]


def test_a_free_port_is_told(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pacifica.ingest", "--standalone", tmp_path / "service", "-p", "0"]
    with subprocess.Popen(line, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
            assert found
            assert request("GET", found[0]).status == 200
        finally:
            server.terminate()


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(tmp_path, "-a", LOOPBACK, "-p", str(port))
    assert ended.returncode == SOMETHING_IS_UNAVAILABLE, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert f"port {port}: Address already in use" in ended.stderr


# --- its end


def stop(service: HttpServer) -> float:
    """Stop a service in order; returns how long it took, in seconds."""
    began = time.monotonic()
    service.signal(signal.SIGTERM)
    until(lambda: not service.running, "the service to stop")
    return time.monotonic() - began


def test_a_stop_does_not_wait_for_slow_uploads(tmp_path: Path) -> None:
    with Standalone(tmp_path) as service, Wire(service.url) as slow, Wire(service.url) as idle:
        slow.send(head("POST", "/upload", f"Content-Length: {len(BODY)}"), BODY[:-1])
        assert idle.send(head("GET", "/")).answer().status == 200
        until(lambda: any((service.home / "staging").glob("*.part")), "the upload to be under way")
        assert stop(service) < STOP_S
        answer = slow.answer()
        assert (answer.status, answer.json()["code"]) == (503, "unavailable"), "it is no fault of the sender"
        assert int(answer.headers["retry-after"]) > 0
        assert slow.ended()
        assert idle.ended()
        assert landed(service.home / "staging") == []
        assert "Traceback" not in service.log.read_text()


def test_a_stop_lets_an_upload_end_that_is_about_to(tmp_path: Path) -> None:
    with Standalone(tmp_path) as service, Wire(service.url) as wire:
        wire.send(head("POST", "/upload", f"Content-Length: {len(BODY)}"), BODY[:-1])
        until(lambda: any((service.home / "staging").glob("*.part")), "the upload to be under way")
        service.signal(signal.SIGTERM)
        until(lambda: _refuses(service), "the server to take no more connections")
        answer = wire.send(BODY[-1:]).answer()
        assert answer.status == 200
        until(lambda: not service.running, "the service to stop")
        service.restart()
        assert service.end(answer.json()["job_id"])["task"] == "open tar"


def _refuses(service: HttpServer) -> bool:
    try:
        socket.create_connection((LOOPBACK, service.port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_is_no_failure(tmp_path: Path, number: signal.Signals) -> None:
    with Standalone(tmp_path) as service:
        service.signal(number)
        process = service._process
        assert process
        assert process.wait(STOP_S) == 0


# --- when others are away


def test_uniqueid_away_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with Facility(tmp_path, {"uniqueid": {"url": f"http://{LOOPBACK}:{free_port()}"}}) as service:
        with Wire(service.url) as wire:
            wire.send(head("POST", "/upload", f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
            answer = wire.answer()
        assert (answer.status, answer.json()["code"]) == (503, "neighbour_down")
        assert int(answer.headers["retry-after"]) > 0
        assert landed(tmp_path / "staging") == []


@pytest.mark.parametrize("address", ["/upload", "/move"])
def test_a_silent_broker_delays_no_answer(tmp_path: Path, silent_broker: str, address: str) -> None:
    with Facility(tmp_path, {"celery": {"broker_url": silent_broker}}) as service, Wire(service.url) as wire:
        began = time.monotonic()
        wire.send(head("POST", address, "Content-Length: 2"), b"[]")
        assert wire.answer().status == 200
        assert time.monotonic() - began < BROKER_WAIT_S


def test_a_database_of_another_version_is_told_at_the_start(tmp_path: Path) -> None:
    service = Facility(tmp_path, schema=False)
    service.launch()
    process = service._process
    assert process
    assert process.wait(60) != 0
    assert "pacifica-ingest-cmd dbsync" in service.log.read_text()
    assert "Traceback" not in service.log.read_text()
    service.kill()
