"""Malformed HTTP on a running service: refused in JSON, the connection closed, nothing kept."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.acceptance.raw_http import Wire, head
from tests.acceptance.stage import Standalone
from tests.harness.landing import landed
from tests.harness.waiting import until
from tests.hostile.malformed_http import REFUSED

GARBAGE = {"bytes of a body": b"\x00\x01garbage\r\n\r\n", "a folded header": b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with Standalone(tmp_path_factory.mktemp("malformed")) as running:
        yield running
        assert "Traceback" not in running.log.read_text(errors="replace")


def kept(service: Standalone) -> tuple[object, ...]:
    """What the service knows of jobs and bundles."""
    with closing(sqlite3.connect(service.home / "ingest.sqlite3")) as database:
        (count,) = database.execute("SELECT count(*) FROM ingeststate").fetchone()
    return count, landed(service.home / "staging")


@pytest.mark.parametrize("what", REFUSED)
def test_malformed_http_is_refused(service: Standalone, what: str) -> None:
    sent, status = REFUSED[what]
    before = kept(service)
    with Wire(service.url) as wire:
        answer = wire.send(sent).finish().answer()
        assert (answer.status, set(answer.json())) == (
            status,
            {"status", "message", "code", "traceback", "version"},
        ), answer
        assert answer.json()["traceback"] == ""
        assert wire.ended()
    until(lambda: kept(service) == before, "nothing to be kept")


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_behind_a_request_ends_the_connection(service: Standalone, what: str) -> None:
    with Wire(service.url) as wire:
        wire.send(head("GET", "/") + GARBAGE[what] + head("GET", "/"))
        assert wire.answer().status == 200
        assert wire.answer().status == 400
        assert wire.ended()


def test_an_address_is_told_without_its_control_characters(service: Standalone) -> None:
    """Found by fuzzing."""
    with Wire(service.url) as wire:
        answer = wire.send(head("GET", "/%0d%0aupload%00%1b")).answer()
        assert (answer.status, answer.json()["code"]) == (404, "not_found")
        assert answer.json()["message"] == r"The path '/\r\nupload\x00\x1b' was not found."


@pytest.mark.parametrize("method", ["FOO", "PROPFIND", "M-SEARCH", "TRACE", "PATCH"])
def test_an_unknown_method_is_refused(service: Standalone, method: str) -> None:
    with Wire(service.url) as wire:
        answer = wire.send(head(method, "/upload", "Content-Length: 1"), b"a").answer()
        assert (answer.status, answer.json()["code"]) == (405, "method_not_allowed")
        assert wire.ended()
