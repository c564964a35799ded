"""No more uploads at once than the operator allows: who comes too many is told when to come again."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.raw_http import Answer, Wire, head
from tests.acceptance.stage import Standalone
from tests.harness.landing import landed
from tests.harness.waiting import until

MIB = 1024 * 1024
#: Of a shorter beginning nobody takes notice yet.
BEGINNING = b"a" * 100_000
LENGTH = f"Content-Length: {len(BEGINNING) + 1}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    limits = {"INGEST_MAX_UPLOADS": "3", "INGEST_MAX_UPLOADS_PER_USER": "1"}
    with Standalone(tmp_path_factory.mktemp("admission"), **limits) as running:
        yield running


def user(name: str) -> list[str]:
    return [f"X-Http-Authed-User: {name}"] if name else []


@contextmanager
def uploading(service: Standalone, *names: str) -> Iterator[list[Wire]]:
    """Uploads that are under way, of these users."""
    folder = service.home / "staging"
    with ExitStack() as stack:
        before = len(landed(folder))
        wires = [stack.enter_context(Wire(service.url)) for _ in names]
        for wire, name in zip(wires, names, strict=True):
            wire.send(head("POST", "/upload", LENGTH, *user(name)), BEGINNING)
        until(lambda: len(landed(folder)) == before + len(names), "the uploads to begin")
        yield wires
        for wire in wires:
            answer = wire.send(b"b").answer()
            assert answer.status == 200
            service.end(answer.json()["job_id"])


def upload(service: Standalone, name: str, body: bytes = b"ab", *, expect: bool = False) -> Answer:
    headers = [f"Content-Length: {len(body)}", *user(name), *(["Expect: 100-continue"] if expect else [])]
    with Wire(service.url) as wire:
        return wire.send(head("POST", "/upload", *headers), b"" if expect else body).answer()


def refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json()["code"]) == (status, code), answer
    assert int(answer.headers["retry-after"]) > 0


def test_more_uploads_than_max_uploads_are_told_to_come_again(service: Standalone) -> None:
    with uploading(service, "ada", "", ""):
        refused(upload(service, "grace"), 503, "busy")
    assert upload(service, "grace").status == 200


def test_more_uploads_of_one_user_than_allowed_are_told_to_come_again(service: Standalone) -> None:
    with uploading(service, "ada"):
        refused(upload(service, "ada"), 429, "too_many_uploads")
        assert upload(service, "grace").status == 200
    assert upload(service, "ada").status == 200


def test_requests_without_a_user_are_not_counted_as_one(service: Standalone) -> None:
    with uploading(service, "", ""):
        assert upload(service, "").status == 200


def test_who_waits_for_a_sign_sends_nothing(service: Standalone) -> None:
    with uploading(service, "ada"):
        refused(upload(service, "ada", bytes(MIB), expect=True), 429, "too_many_uploads")


def test_who_sends_all_at_once_reads_the_answer(service: Standalone) -> None:
    """As the unmodified clients do."""
    with uploading(service, "ada"):
        refused(upload(service, "ada", bytes(64 * MIB)), 429, "too_many_uploads")


def test_refused_uploads_hold_no_thread(service: Standalone) -> None:
    """More of them than there are threads, whose clients go on sending."""
    with uploading(service, "ada"), ExitStack() as stack:
        wires = [stack.enter_context(Wire(service.url)) for _ in range(60)]
        began = time.monotonic()
        for wire in wires:
            wire.send(head("POST", "/upload", f"Content-Length: {MIB}", *user("ada")), BEGINNING)
        for wire in wires:
            refused(wire.answer(), 429, "too_many_uploads")
        assert time.monotonic() - began < 15.0


def test_a_cut_upload_makes_room(service: Standalone) -> None:
    with Wire(service.url) as wire:
        wire.send(head("POST", "/upload", LENGTH, *user("ada")), BEGINNING)
        until(lambda: any((service.home / "staging").glob("*.part")), "the upload to begin")
        wire.reset()
    until(lambda: upload(service, "ada").status == 200, "the user to be free again")


def test_a_service_without_limits_takes_what_it_can(tmp_path: Path) -> None:
    limits = {"INGEST_MAX_UPLOADS": "0", "INGEST_MAX_UPLOADS_PER_USER": "0"}
    with Standalone(tmp_path, **limits) as service, uploading(service, *["ada"] * 40):
        pass
