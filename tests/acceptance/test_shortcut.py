"""What goes around CherryPy is told as CherryPy tells it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacifica.ingest.rest.shortcut import Shortcut
from tests.acceptance.raw_http import Answer, Wire, head
from tests.acceptance.stage import Standalone, bundle
from tests.harness.command import base_environment, run

PLAIN = "/get_state?job_id=1"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with Standalone(tmp_path_factory.mktemp("shortcut")) as running:
        running.end(running.post(bundle({"a.txt": b"alpha"})))
        yield running


def ask(service: Standalone, method: str, address: str, *headers: str) -> Answer:
    with Wire(service.url) as wire:
        return wire.send(head(method, address, *headers)).answer(method)


def test_the_answer_is_the_same_on_either_way(service: Standalone) -> None:
    """A cookie is looked at by CherryPy."""
    here, there = ask(service, "GET", PLAIN), ask(service, "GET", PLAIN, "Cookie: a=b")
    assert (here.status, here.body) == (there.status, there.body)
    assert list(here.headers) == list(there.headers)
    changing = {"date": ""}
    assert here.headers | changing == there.headers | changing


@pytest.mark.parametrize(
    ("method", "address", "headers", "status"),
    [
        ("HEAD", PLAIN, (), 200),
        ("DELETE", PLAIN, (), 405),
        ("GET", "/get_state/?job_id=1", (), 200),
        ("GET", "/get_state/1", (), 200),
        ("GET", "/get_state?job_id=%31", (), 200),
        ("GET", "/get_state?job_id=1&job_id=2", (), 400),
        ("GET", "/get_state?job_id=2", (), 404),
        ("GET", "/get_state?job_id=9999999999999999999", (), 404),
        ("GET", PLAIN, ("X-Name: =?nonsense?q?a?=",), 400),
        ("GET", PLAIN, ("Cookie: a[]=b; =",), 200),
    ],
)
def test_what_is_not_plain_is_answered_by_cherrypy(
    service: Standalone, method: str, address: str, headers: tuple[str, ...], status: int
) -> None:
    assert ask(service, method, address, *headers).status == status


def pipeline(folder: Path, **env: str) -> str:
    """What requests go through in a server that starts with these."""
    say = (
        "from pacifica.ingest import config, rest; "
        "print(*(name for name, _ in rest.configure(config.load_settings()).wsgiapp.pipeline))"
    )
    return run([sys.executable, "-c", say], env=base_environment(folder) | env)


def test_it_is_taken_unless_jobs_are_told_to_their_users_only(tmp_path: Path) -> None:
    assert "shortcut" in pipeline(tmp_path)
    assert "shortcut" not in pipeline(tmp_path, INGEST_OWN_JOBS_ONLY="yes")


def test_a_plain_question_gets_no_further() -> None:
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/get_state",
        "QUERY_STRING": "job_id=7",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "ingest",
    }
    asked: list[int] = []

    def told(number: int) -> bytes:
        asked.append(number)
        return b"{}"

    assert list(Shortcut(lambda *_: [b"CherryPy"], told)(environ, lambda *_: None)) == [b"{}"]
    assert list(Shortcut(lambda *_: [b"CherryPy"], told)(environ | {"HTTP_COOKIE": ""}, lambda *_: None)) == [
        b"CherryPy"
    ]
    assert asked == [7]


@pytest.mark.parametrize(
    "wish",
    [
        "[global]\ntools.response_headers.on: True\ntools.response_headers.headers: [('X-From-File', 'yes')]\n",
        "[/get_state]\ntools.response_headers.on: True\ntools.response_headers.headers: [('X-From-File', 'yes')]\n",
    ],
    ids=["for all addresses", "for one"],
)
def test_a_wish_of_the_cherrypy_file_holds_for_every_answer(tmp_path: Path, wish: str) -> None:
    file = tmp_path / "cpconfig.ini"
    file.write_text(wish)
    with Standalone(tmp_path, INGEST_CPCONFIG=str(file)) as running:
        running.post(bundle({"a.txt": b"alpha"}))
        assert ask(running, "GET", PLAIN).headers["x-from-file"] == "yes"


def test_the_access_log_has_every_answer(tmp_path: Path) -> None:
    file, log = tmp_path / "cpconfig.ini", tmp_path / "access.log"
    file.write_text(f"[global]\nlog.access_file: {str(log)!r}\n")
    with Standalone(tmp_path, INGEST_CPCONFIG=str(file)) as running:
        running.post(bundle({"a.txt": b"alpha"}))
        assert ask(running, "GET", PLAIN).status == 200
    assert f'"GET {PLAIN} HTTP/1.1" 200' in log.read_text()
