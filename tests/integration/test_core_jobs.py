"""Whole jobs against the real neighbours: ingest, move, every refusal, and neighbours that are away."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pacifica.ingest.testing import BundleBuilder
from tests.harness import ALLOWED, REFUSED, UNKNOWN, PacificaCore, Submission, request
from tests.harness.waiting import until
from tests.integration.facility import Facility

FILES = {
    "a.txt": b"first",
    "deep/er/b.bin": bytes(range(256)) * 4000,
    "empty": b"",
    "müßig/ü.txt": "Grüße".encode(),
}


def bundle(submission: Submission = ALLOWED, files: dict[str, bytes] = FILES) -> BundleBuilder:
    builder = empty(submission)
    for path, content in files.items():
        builder.add(path, content)
    return builder


def empty(submission: Submission = ALLOWED) -> BundleBuilder:
    return BundleBuilder(submitter=submission.submitter, project=submission.project, instrument=submission.instrument)


def assert_done(facility: Facility, core: PacificaCore, job_id: int, files: dict[str, bytes]) -> None:
    state = facility.end(job_id)
    assert (state["state"], state["task"], state["task_percent"]) == ("OK", "ingest metadata", "100.0"), state
    assert state["exception"] == ""
    transaction = core.transaction(job_id)
    assert transaction is not None
    assert transaction["submitter"] == ALLOWED.submitter
    found = {"/".join(filter(None, [row["subdir"], row["name"]])): row for row in core.files(job_id)}
    assert found.keys() == files.keys()
    for path, content in files.items():
        assert core.archived(found[path]["_id"]) == content
        assert found[path]["size"] == len(content)
        assert found[path]["hashsum"] == hashlib.new(found[path]["hashtype"], content).hexdigest()
    until(lambda: not facility.staged(job_id), "the staged file to go")


def assert_failed(facility: Facility, core: PacificaCore, job_id: int, task: str, reason: str) -> None:
    state = facility.end(job_id)
    assert (state["state"], state["task"], state["task_percent"]) == ("FAILED", task, "0.0"), state
    assert reason in state["exception"]
    assert "Traceback" not in state["exception"]
    assert core.transaction(job_id) is None
    assert facility.staged(job_id), "the bundle is kept"


def test_a_bundle_is_archived_and_registered(facility: Facility, core: PacificaCore) -> None:
    job_id = facility.post(bundle().build(), "/ingest")
    assert_done(facility, core, job_id, FILES)


def test_a_bundle_of_many_files_takes_several_windows(facility: Facility, core: PacificaCore) -> None:
    files = {f"many/{number:04}.txt": b"%d" % number for number in range(600)}
    job_id = facility.post(bundle(files=files).build())
    assert_done(facility, core, job_id, files)


def test_key_values_reach_the_catalogue(facility: Facility, core: PacificaCore) -> None:
    builder = bundle()
    builder.other({"destinationTable": "TransactionKeyValue", "key": "Sample", "value": "S-17"})
    job_id = facility.post(builder.build())
    assert_done(facility, core, job_id, FILES)
    assert core.key_values(job_id) == {"Sample": "S-17"}


@dataclass(frozen=True)
class Refusal:
    name: str
    make: Callable[[], bytes]
    task: str
    reason: str


REFUSALS = [
    Refusal("a submitter who is not allied", bundle(REFUSED).build, "Policy Validation", "Invalid values"),
    Refusal("no submitter", BundleBuilder(submitter=...).build, "Policy Validation", "submitter must be given"),
    Refusal("an unknown submitter", bundle(UNKNOWN).build, "Policy Validation", "Invalid values"),
    Refusal("another digest", empty().add("a", b"1", hashsum="0" * 64).build, "ingest files", "'a': sha256 is"),
    Refusal(
        "another size", empty().add("a", b"1", size=2).build, "ingest files", "'a' has 1 bytes, the metadata says 2"
    ),
    Refusal(
        "a missing member",
        bundle().entry("a", b"1").build,
        "ingest files",
        "'a' is named by the metadata, but it is not",
    ),
    Refusal(
        "an unnamed member", bundle().member("data/a", b"1").build, "ingest metadata", "the metadata does not name it"
    ),
    Refusal("a wrong mimetype", bundle().add("a", mimetype="x").build, "ingest metadata", ".mimetype: expected"),
    Refusal("broken JSON", bundle().metadata(b'[{"destination').build, "load metadata", "not JSON"),
    Refusal("metadata that is no list", bundle().metadata(b"{}").build, "load metadata", "must be a list"),
    Refusal("no metadata", bundle().metadata(b"").build, "load metadata", "no metadata.txt"),
    Refusal("a link", bundle().member("data/l", type=b"2", linkname="a").build, "open tar", "symbolic link"),
    Refusal("no tar", lambda: b"this is no tar file " * 100, "open tar", "not a tar file"),
    Refusal("an empty body", lambda: b"", "open tar", "not a tar file"),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
def test_a_refused_bundle_fails_at_its_step_and_leaves_nothing(
    facility: Facility, core: PacificaCore, case: Refusal
) -> None:
    before = core.archived_ids()
    job_id = facility.post(case.make())
    assert_failed(facility, core, job_id, case.task, case.reason)
    assert core.archived_ids() == before


def test_all_faults_are_told_at_once(facility: Facility, core: PacificaCore) -> None:
    builder = empty().add("a", b"1", size=2).entry("b", b"2").member("data/c", b"3").add("d", mimetype="x")
    job_id = facility.post(builder.build())
    assert_failed(facility, core, job_id, "ingest files", "'a' has 1 bytes")
    reason = facility.state(job_id)["exception"]
    assert "'b' is named by the metadata" in reason
    assert "'c' is in the bundle" in reason
    assert ".mimetype: expected" in reason


# --- moves


def _document(facility: Facility, files: dict[str, bytes], submission: Submission = ALLOWED) -> list[dict[str, Any]]:
    """Write the sources; returns a document that names them."""
    document = bundle(submission, files).document()
    for entry in document:
        if entry["destinationTable"] != "Files":
            continue
        path = "/".join(filter(None, [entry["subdir"], entry["name"]]))
        source = facility.folder / "incoming" / hashlib.sha1(path.encode()).hexdigest()
        source.unlink(missing_ok=True)  # an earlier test may have left a link
        source.write_bytes(files[path])
        entry["source"] = str(source)
    return document


def _sources(document: list[dict[str, Any]]) -> list[Path]:
    return [Path(entry["source"]) for entry in document if "source" in entry]


def test_files_are_moved_and_registered(facility: Facility, core: PacificaCore) -> None:
    document = _document(facility, FILES)
    job_id = facility.post(json.dumps(document).encode(), "/move")
    assert_done(facility, core, job_id, FILES)
    assert not any(source.exists() for source in _sources(document))


@dataclass(frozen=True)
class MoveRefusal:
    name: str
    change: Callable[[dict[str, Any], Path], object]
    task: str
    reason: str
    submission: Submission = field(default=ALLOWED)


def _link(entry: dict[str, Any], folder: Path) -> None:
    target = folder / "incoming" / "target"
    target.write_bytes(b"first")
    Path(entry["source"]).unlink()
    Path(entry["source"]).symlink_to(target)


MOVE_REFUSALS = [
    MoveRefusal("a missing source", lambda e, _: Path(e["source"]).unlink(), "move files", "does not exist"),
    MoveRefusal("a source outside move_roots", lambda e, f: e.update(source=str(f / "config.ini")), "move files", "does not lie under"),
    MoveRefusal("a relative source", lambda e, _: e.update(source="incoming/x"), "move files", "absolute path"),
    MoveRefusal("a link", _link, "move files", "symbolic link"),
    MoveRefusal("another size", lambda e, _: e.update(size=6), "move files", "has 5 bytes, the metadata says 6"),
    MoveRefusal("another digest", lambda e, _: e.update(hashsum="0" * 64), "move files", "has sha256"),
    MoveRefusal("a wrong mimetype", lambda e, _: e.update(mimetype="x"), "ingest metadata", ".mimetype: expected"),
    MoveRefusal("Policy", lambda _, __: None, "Policy Validation", "Invalid values", REFUSED),
]  # fmt: skip


@pytest.mark.parametrize("case", MOVE_REFUSALS, ids=lambda case: case.name)
def test_a_refused_move_leaves_every_source_where_it_is(
    facility: Facility, core: PacificaCore, case: MoveRefusal
) -> None:
    before = core.archived_ids()
    document = _document(facility, FILES, case.submission)
    entry = next(entry for entry in document if entry.get("name") == "a.txt")
    case.change(entry, facility.folder)
    others = [source for source in _sources(document) if str(source) != entry["source"]]
    job_id = facility.post(json.dumps(document).encode(), "/move")
    assert_failed(facility, core, job_id, case.task, case.reason)
    assert core.archived_ids() == before
    assert all(source.exists() for source in others)


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"nonsense", b'[{"destinationTable": "Files"}]'])
def test_a_move_document_of_the_wrong_shape_fails_at_load_metadata(
    facility: Facility, core: PacificaCore, body: bytes
) -> None:
    job_id = facility.post(body, "/move")
    assert_failed(facility, core, job_id, "load metadata", "")


# --- neighbours that are away


def test_without_uniqueid_an_upload_is_refused_and_told_to_come_again(facility: Facility, core: PacificaCore) -> None:
    core.uniqueid.kill()
    reply = request("POST", facility.url + "/upload", bundle().build())
    assert reply.status == 503
    assert reply.json()["code"] == "neighbour_down"
    assert int(reply.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("neighbour", "task"),
    [("policy", "Policy Validation"), ("archive", "ingest files"), ("metadata", "ingest metadata")],
)
def test_a_job_fails_when_a_neighbour_stays_away_and_retry_finishes_it(
    facility: Facility, core: PacificaCore, neighbour: str, task: str
) -> None:
    service = getattr(core, neighbour)
    service.kill()
    job_id = facility.post(bundle().build())
    if neighbour == "metadata":
        # Policy asks Metadata, so the job fails there already.
        task = "Policy Validation"
    assert_failed_away(facility, job_id, task)
    archived = core.archived_ids()
    service.restart()
    facility.command("retry", "--job_id", str(job_id))
    assert_done(facility, core, job_id, FILES)
    assert len(core.archived_ids() - archived) <= len(FILES)


def assert_failed_away(facility: Facility, job_id: int, task: str) -> None:
    state = facility.end(job_id)
    assert (state["state"], state["task"]) == ("FAILED", task), state
    assert "cannot be used now" in state["exception"]
    assert facility.staged(job_id)


def test_a_job_waits_for_a_neighbour_that_comes_back(facility: Facility, core: PacificaCore) -> None:
    core.archive.kill()
    job_id = facility.post(bundle().build())
    until(lambda: facility.state(job_id)["task"] == "ingest files", "the job to reach the archive")
    core.archive.restart()
    assert_done(facility, core, job_id, FILES)
