"""The documented HTTP interface, as data: request → answer, on a running service."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cherrypy
import pytest

from pacifica.ingest import rest
from tests.acceptance.raw_http import Answer, Wire, head
from tests.acceptance.stage import Standalone, bundle

JOB_KEYS = {
    "job_id": int,
    "state": str,
    "task": str,
    "task_percent": str,
    "complete": bool,
    "updated": str,
    "created": str,
    "exception": str,
}
ERROR_KEYS = {"status", "message", "code", "traceback", "version"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with Standalone(tmp_path_factory.mktemp("http"), INGEST_AUTH_HEADER="X-Remote-User") as running:
        yield running


def ask(service: Standalone, method: str, address: str, *headers: str, body: bytes = b"") -> Answer:
    with Wire(service.url) as wire:
        wire.send(head(method, address, *headers), body)
        return wire.answer(method)


def upload(service: Standalone, body: bytes, *headers: str, address: str = "/upload") -> dict[str, Any]:
    answer = ask(service, "POST", address, f"Content-Length: {len(body)}", *headers, body=body)
    assert answer.status == 200, answer
    job: dict[str, Any] = answer.json()
    return job


@pytest.fixture(scope="module")
def job_id(service: Standalone) -> int:
    return int(upload(service, bundle({"a.txt": b"alpha"}))["job_id"])


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A request that is refused."""

    method: str = "GET"
    address: str
    headers: tuple[str, ...] = ()
    body: bytes = b""
    status: str
    code: str
    also: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.address} {' '.join(self.headers)}"[:60]


NO_BODY = ("Content-Length: 0",)
REFUSED = [
    Refused(address="/get_state?job_id=99999", status="404 Not Found", code="no_such_job"),
    Refused(address="/get_state/99999", status="404 Not Found", code="no_such_job"),
    Refused(address="/get_state/0", status="404 Not Found", code="no_such_job"),
    Refused(address="/get_state?job_id=9223372036854775807", status="404 Not Found", code="no_such_job"),
    Refused(address="/get_state?job_id=9999999999999999999", status="404 Not Found", code="no_such_job"),
    *(
        Refused(
            method="POST",
            address="/upload",
            headers=(*NO_BODY, f"Idempotency-Key: {key}"),
            status="400 Bad Request",
            code="bad_request",
        )
        for key in ("", '""', "two words", "k" * 256, '"open', "café")
    ),
    Refused(address="/get_state", status="400 Bad Request", code="bad_request"),
    Refused(address="/get_state/", status="400 Bad Request", code="bad_request"),
    Refused(address="/get_state?job_id=", status="400 Bad Request", code="bad_request"),
    Refused(address="/get_state?job_id=abc", status="400 Bad Request", code="bad_request"),
    Refused(address="/get_state?job_id=-1", status="400 Bad Request", code="bad_request"),
    Refused(address="/get_state?job_id=1.5", status="400 Bad Request", code="bad_request"),
    Refused(address="/get_state?job_id=" + "9" * 5000, status="400 Bad Request", code="bad_request"),
    Refused(address="/get_state?job_id=%D9%A1", status="400 Bad Request", code="bad_request"),
    Refused(address="/get_state?job_id=1&job_id=2", status="400 Bad Request", code="bad_request"),
    Refused(address="/get_state?job_id=%ff", status="404 Not Found", code="not_found"),
    Refused(address="/get_state/1/2", status="404 Not Found", code="not_found"),
    Refused(address="/nothing", status="404 Not Found", code="not_found"),
    Refused(address="/%ff", status="404 Not Found", code="not_found"),
    Refused(address="/upload/POST", status="404 Not Found", code="not_found"),
    Refused(address="/favicon.ico", status="404 Not Found", code="not_found"),
    Refused(method="POST", address="/nothing", headers=NO_BODY, status="404 Not Found", code="not_found"),
    Refused(method="DELETE", address="/upload/1", status="404 Not Found", code="not_found"),
    Refused(method="OPTIONS", address="*", status="404 Not Found", code="not_found"),
    Refused(address="/upload", status="405 Method Not Allowed", code="method_not_allowed", also={"allow": "POST"}),
    Refused(
        method="PUT",
        address="/move",
        headers=NO_BODY,
        status="405 Method Not Allowed",
        code="method_not_allowed",
        also={"allow": "POST"},
    ),
    Refused(
        method="DELETE",
        address="/get_state?job_id=1",
        status="405 Method Not Allowed",
        code="method_not_allowed",
        also={"allow": "GET, HEAD"},
    ),
    Refused(
        method="POST",
        address="/",
        headers=NO_BODY,
        status="405 Method Not Allowed",
        code="method_not_allowed",
        also={"allow": "GET, HEAD"},
    ),
    Refused(method="POST", address="/upload", status="411 Length Required", code="length_required"),
    Refused(method="POST", address="/move", status="411 Length Required", code="length_required"),
]


def test_the_root_says_that_the_service_runs(service: Standalone) -> None:
    answer = ask(service, "GET", "/")
    assert (answer.status, answer.json()) == (200, {"message": "Pacifica Ingest Up and Running"})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("address", ["/", "/get_state?job_id={0}"])
def test_head_is_get_without_the_body(service: Standalone, job_id: int, address: str) -> None:
    asked = address.format(job_id)
    got, headed = ask(service, "GET", asked), ask(service, "HEAD", asked)
    assert (headed.status, headed.body) == (200, b"")
    assert headed.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize("address", ["/ingest", "/upload", "/move"])
def test_what_is_accepted_is_answered_with_the_job(service: Standalone, address: str) -> None:
    job = upload(service, b"[]", address=address)
    assert {key: type(value) for key, value in job.items()} == JOB_KEYS
    assert job["state"] in {"OK", "FAILED"}


def test_a_number_that_is_too_long_is_told_how_long_it_may_be(service: Standalone) -> None:
    message = ask(service, "GET", "/get_state/" + "9" * 20).json()["message"]
    assert message == f"job_id: expected one number of at most 19 digits, got {'9' * 20!r}"


@pytest.mark.parametrize(
    "address", ["/get_state?job_id={0}", "/get_state/{0}", "/get_state/{0}/", "/get_state?job_id=000{0}"]
)
def test_a_job_is_told_by_query_and_by_path(service: Standalone, job_id: int, address: str) -> None:
    answer = ask(service, "GET", address.format(job_id))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert {key: type(value) for key, value in answer.json().items()} == JOB_KEYS
    assert answer.json()["job_id"] == job_id


@pytest.mark.parametrize("refused", REFUSED, ids=str)
def test_every_refusal_has_the_documented_shape(service: Standalone, refused: Refused) -> None:
    answer = ask(service, refused.method, refused.address, *refused.headers, body=refused.body)
    error = answer.json()
    assert set(error) == ERROR_KEYS
    assert (error["status"], error["code"], error["traceback"]) == (refused.status, refused.code, "")
    assert answer.status == int(refused.status[:3])
    assert error["message"]
    assert answer.headers["content-type"] == "application/json"
    assert {name: answer.headers[name] for name in refused.also} == refused.also


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Odd: =?nothing?q?a?=\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 600_000 + b"\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ],
    ids=lambda data: repr(data[:50]),
)
def test_a_request_that_cannot_be_read_gets_json_too(service: Standalone, request_bytes: bytes) -> None:
    with Wire(service.url) as wire:
        answer = wire.send(request_bytes).answer()
    error = answer.json()
    assert answer.status in {400, 413, 501, 505}
    assert set(error) == ERROR_KEYS
    assert error["status"].startswith(str(answer.status))
    assert error["message"]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/octet-stream",
        "application/x-tar",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=frontier",
        "multipart/form-data",
        "application/json",
        "text/plain; charset=nothing",
        ";;;=",
        "",
    ],
)
@pytest.mark.parametrize(("address", "suffix"), [("/upload", "tar"), ("/move", "json")])
def test_a_body_is_kept_as_it_came_whatever_its_type(
    service: Standalone, content_type: str, address: str, suffix: str
) -> None:
    body = b"--frontier\r\nContent-Disposition: form-data; name=a\r\n\r\n%41=1&b=\xff\r\n--frontier--\r\n"
    job = upload(service, body, f"Content-Type: {content_type}", address=address)
    assert (service.home / "staging" / f"{job['job_id']}.{suffix}").read_bytes() == body


@pytest.mark.parametrize(
    "body", [b"{", b"{}", b"null", b'"text"', b"[1]", b'[{"destinationTable": 3}]', b"\xff\xfe", b""]
)
def test_a_move_that_cannot_be_read_fails_as_a_job(service: Standalone, body: bytes) -> None:
    state = service.end(int(upload(service, body, address="/move")["job_id"]))
    assert (state["state"], state["task"], state["task_percent"]) == ("FAILED", "load metadata", "0.0")
    assert state["exception"]


@pytest.mark.parametrize(
    ("headers", "user"),
    [
        (("X-Remote-User: dmlb2001",), "dmlb2001"),
        (("x-remote-user: dmlb2001",), "dmlb2001"),
        ((), "anonymous"),
        (("X-Http-Authed-User: other",), "anonymous"),
    ],
)
def test_the_user_is_what_the_configured_header_says(service: Standalone, headers: tuple[str, ...], user: str) -> None:
    job = upload(service, b"[]", *headers)
    database = sqlite3.connect(service.home / "ingest.sqlite3")
    rows = database.execute("SELECT submitted_by FROM ingest_job WHERE job_id = ?", (job["job_id"],)).fetchall()
    database.close()
    assert rows == [(user,)]


def test_the_error_page_tells_no_traceback() -> None:
    page = rest.error_page_default(
        status="404 Not Found", message="no &lt;such&gt; thing", traceback='File "secret.py"', version="1"
    )
    assert json.loads(page) == {
        "status": "404 Not Found",
        "message": "no <such> thing",
        "code": "not_found",
        "traceback": "",
        "version": cherrypy.__version__,
    }


def test_the_documented_classes_are_those_of_the_addresses() -> None:
    root = rest.Root()
    assert isinstance(root.ingest, rest.RestUpload)
    assert isinstance(root.upload, rest.RestUpload)
    assert isinstance(root.move, rest.RestMove)
    assert isinstance(root.get_state, rest.RestIngestState)


def test_a_landing_zone_that_cannot_be_used_is_told_without_internals(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "staging").touch()
    with Standalone(tmp_path) as broken:
        answer = ask(broken, "POST", "/upload", "Content-Length: 4", body=b"1234")
        error = answer.json()
        assert (answer.status, error["code"], error["traceback"]) == (503, "unavailable", "")
        assert answer.headers["retry-after"]
        assert str(tmp_path) not in answer.body.decode()
        assert "Traceback" in broken.log.read_text()


def test_a_fault_of_the_service_is_told_without_internals(service: Standalone) -> None:
    job_id = upload(service, b"no bundle")["job_id"]
    service.end(job_id)
    database = sqlite3.connect(next(service.home.glob("*.sqlite3")))
    with database:
        database.execute("UPDATE ingeststate SET task_percent = 'much' WHERE id = ?", (job_id,))
    database.close()
    answer = ask(service, "GET", f"/get_state?job_id={job_id}")
    error = answer.json()
    assert (answer.status, error["code"], error["traceback"]) == (500, "internal_error", "")
    assert "much" not in answer.body.decode()
    assert "Traceback" in service.log.read_text()


def test_a_request_with_a_key_that_is_sent_again_is_the_same_job_also_when_it_is_over(service: Standalone) -> None:
    body = bundle({"again.txt": b"again"})
    first = upload(service, body, "Idempotency-Key: lost-answer")["job_id"]
    assert upload(service, body, 'Idempotency-Key: "lost-answer"')["job_id"] == first
    assert service.end(first)["state"] == "OK"
    again = upload(service, body, "Idempotency-Key: lost-answer", address="/ingest")
    assert (again["job_id"], again["complete"]) == (first, True)
    assert upload(service, body, "Idempotency-Key: lost-answer", "X-Remote-User: you")["job_id"] != first


def test_a_key_that_came_with_another_body_is_refused(service: Standalone) -> None:
    upload(service, b"one", "Idempotency-Key: twice")
    answer = ask(service, "POST", "/upload", "Content-Length: 3", "Idempotency-Key: twice", body=b"two")
    assert (answer.status, answer.json()["code"]) == (422, "key_reused")
