"""The unmodified clients upload a folder to us."""

from pathlib import Path

import pytest

from tests.harness import ALLOWED, ALLOWED_TOO, REFUSED, PacificaCore, upload_with_cli, upload_with_uploader
from tests.integration.facility import Facility

FILES = {"one.txt": b"1", "sub/two.bin": bytes(100_000), "sub/sub/three.txt": b"333"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "upload" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "upload"


def _archived(core: PacificaCore, job_id: int) -> dict[str, bytes]:
    return {row["name"]: core.archived(row["_id"]) for row in core.files(job_id)}


EXPECTED = {Path(name).name: content for name, content in FILES.items()}


def test_pacifica_uploader_uploads_a_folder(facility: Facility, core: PacificaCore, folder: Path) -> None:
    upload = upload_with_uploader(folder, facility.url, ALLOWED, key_values={"Tag": "x"})
    assert (upload.state["state"], upload.state["task"]) == ("OK", "ingest metadata")
    assert _archived(core, upload.job_id) == EXPECTED
    assert core.key_values(upload.job_id) == {"Tag": "x"}


def test_pacifica_cli_uploads_a_folder(facility: Facility, core: PacificaCore, folder: Path) -> None:
    upload = upload_with_cli(folder, facility.url, core.policy.url, ALLOWED_TOO)
    facility.end(upload.job_id)
    assert _archived(core, upload.job_id) == EXPECTED


def test_a_client_is_told_that_it_was_refused(facility: Facility, core: PacificaCore, folder: Path) -> None:
    upload = upload_with_uploader(folder, facility.url, REFUSED)
    assert (upload.state["state"], upload.state["task"]) == ("FAILED", "Policy Validation")
    assert core.transaction(upload.job_id) is None
