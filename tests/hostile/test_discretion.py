"""No answer tells of our disks, of the words of a database, or a password; what the client named itself is told."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacifica.ingest import globals as files
from pacifica.ingest.config import Settings
from pacifica.ingest.rest.discretion import for_clients
from pacifica.ingest.testing import BundleBuilder
from tests.acceptance.raw_http import Wire, head
from tests.acceptance.stage import Standalone, bundle, command
from tests.harness import request


def settings(**sections: dict[str, Any]) -> Settings:
    usual: dict[str, dict[str, Any]] = {
        "ingest": {"volume_path": "/srv/landing", "move_roots": "/mnt/shared"},
        "archiveinterface": {"url": "file:///srv/the%20archive"},
        "policy": {"ingest_url": "local:/etc/ingest/rules.toml"},
    }
    return Settings.model_validate(usual | sections)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("No space left: /srv/landing/7.tar", "No space left: the landing zone/7.tar"),
        ("[Errno 5] I/O error: '/srv/landing/7.tar.part'", "[Errno 5] I/O error: 'the landing zone/7.tar.part'"),
        ("/srv/the archive is not mounted here", "the archive is not mounted here"),
        ("touch /srv/the archive/.archive-1f", "touch the archive/.archive-1f"),
        (
            "[Errno 2] gone: '/srv/the archive/000/1' -> '/srv/the archive/2'",
            "[Errno 2] gone: 'the archive/000/1' -> 'the archive/2'",
        ),
        ("/etc/ingest/rules.toml: rule 1 must", "the rule file: rule 1 must"),
        # What only begins like it is another place.
        ("/srv/landing-zone/x and /srv/landing2", "/srv/landing-zone/x and /srv/landing2"),
        # What clients name themselves.
        ("'a': source '/mnt/shared/7.tar' does not exist", "'a': source '/mnt/shared/7.tar' does not exist"),
        ("must lie under /mnt/shared ([ingest] move_roots)", "must lie under /mnt/shared ([ingest] move_roots)"),
        ("'data//tmp/me@host/x': absolute", "'data//tmp/me@host/x': absolute"),
        # Passwords, whoever forgot them.
        ("GET http://me:secret@host/x: refused", "GET http://***@host/x: refused"),
        (
            'The database cannot be used now: connection to server at "db.internal" failed\n\tIs it running?',
            "The database cannot be used now.",
        ),
    ],
)
def test_our_places_are_told_by_what_they_are(text: str, told: str) -> None:
    assert for_clients(text, settings()) == told


def test_a_landing_zone_that_holds_sources_is_no_secret_but_what_else_lies_there_is() -> None:
    shared = settings(ingest={"volume_path": "/srv/landing"})
    source = "'a': source '/srv/landing/in/x' does not exist"
    assert for_clients(source, shared) == source
    assert for_clients("gone: /srv/landing/7.tar, /srv/landing/.landing-zone-1f", shared) == (
        "gone: the landing zone/7.tar, the landing zone/.landing-zone-1f"
    )


def test_the_configuration_file_is_no_business_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CONFIG_FILE", "/home/ingest/.pacifica-ingest/config.ini")
    assert for_clients(f"{files.CONFIG_FILE}: no", settings()) == "the configuration file: no"


# --- on a running service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Standalone]:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "policy.toml").write_text('[[allow]]\nsubmitter = "*"\nproject = "*"\ninstrument = "*"\n')
    with Standalone(tmp_path, INGEST_RETRY_FOR="0", INGEST_WORKERS="1") as running:
        yield running


def failed(service: Standalone, job_id: int) -> str:
    state = service.end(job_id)
    assert state["state"] == "FAILED"
    assert state["exception"]
    return str(state["exception"])


def test_an_archive_that_is_not_there_is_told_without_its_place(service: Standalone, tmp_path: Path) -> None:
    assert service.end(service.post(bundle({"a.txt": b"alpha"})))["state"] == "OK"
    shutil.rmtree(service.home / "archive")
    job_id = service.post(bundle({"b.txt": b"beta"}))
    reason = failed(service, job_id)
    assert "the archive is not mounted here" in reason
    assert str(tmp_path) not in reason
    # Whoever has to mend it is told.
    shown = command("--standalone", service.home, "show", str(job_id), env=service.environment())
    assert str(service.home / "archive") in shown.stdout.replace("\n", "")


def test_a_rule_file_that_is_broken_is_told_without_its_place(service: Standalone, tmp_path: Path) -> None:
    (service.home / "policy.toml").write_text("[[")
    reason = failed(service, service.post(bundle({"a.txt": b"alpha"})))
    assert "the rule file: " in reason
    assert str(tmp_path) not in reason


def test_a_source_is_told_as_the_client_named_it(service: Standalone) -> None:
    source = str(service.home / "staging" / "in" / "a.txt")
    document = BundleBuilder().entry("a.txt", b"alpha", source=source).document()
    assert repr(source) in failed(service, service.post(json.dumps(document).encode(), "/move"))


def test_no_refusal_tells_of_our_disks(service: Standalone, tmp_path: Path) -> None:
    (service.home / "staging").touch()
    with Wire(service.url) as wire:
        answer = wire.send(head("POST", "/upload", "Content-Length: 1"), b"a").answer()
    assert (answer.status, str(tmp_path) in answer.body.decode()) == (503, False)


#: Values that a log could take for more than one line.
EVIL = ["a\x85b", "a\x1b[2Kb", "\xe2\x80\xa8x", "x" * 300]


def test_no_request_forges_a_line_of_the_log(service: Standalone) -> None:
    for evil in EVIL:
        for headers in ([f"X-Http-Authed-User: {evil}"], [f"Idempotency-Key: {evil}"], [f"Repr-Digest: {evil}"]):
            with Wire(service.url) as wire:
                wire.send(head("POST", "/upload", "Content-Length: 1", *headers), b"a").answer()
        with Wire(service.url) as wire:
            wire.send(head("GET", f"/{evil}")).answer()
    for name in ("data/a\n2026-01-01 00:00:00,000 INFO forged", "data/\x1b[2Kforged"):
        service.end(service.post(BundleBuilder().member(name, b"a").build()))
    assert request("GET", service.url).status == 200
    # Bytes, as str.splitlines knows more ends of lines than a log has.
    lines = service.log.read_bytes().decode().split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.lstrip().startswith("2026-01-01") for line in lines)
    assert any("forged" in line for line in lines)
