"""`demo`: a whole life of a bundle, from an empty folder."""

import json
import signal
from pathlib import Path

import pytest

from tests.acceptance.stage import (
    admin,
    background,
    command,
    environment,
    exit_code,
    few,
    many,
)


def test_the_demo_verifies_what_it_archived_and_leaves_nothing(tmp_path: Path) -> None:
    source, scratch = tmp_path / "source", tmp_path / "scratch"
    for path, content in few().items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    scratch.mkdir()
    found = command("demo", source, env=environment(tmp_path, TMPDIR=str(scratch)))
    assert found.returncode == 0, found.stderr
    assert all(path in found.stdout for path in few())
    assert "4 of 4 files are byte for byte as they were sent" in found.stdout
    assert list(scratch.iterdir()) == []


def test_the_demo_looks_at_the_files_before_it_starts_anything(tmp_path: Path) -> None:
    folder, kept = tmp_path / "folder", tmp_path / "kept"
    folder.mkdir()

    def refused(code: int, reason: str) -> None:
        found = command("demo", folder, "--keep", kept, env=environment(tmp_path))
        assert (found.returncode, found.stdout) == (code, "")
        assert reason in found.stderr
        assert not kept.exists()

    refused(2, "has no files to send")
    (folder / "link").symlink_to("elsewhere")
    refused(1, "only plain files and folders can be packed")


def test_the_demo_keeps_the_folder_when_asked(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert command("demo", "--keep", kept, env=environment(tmp_path)).returncode == 0
    listed = command("--standalone", kept, "files", "1", "--json", env=environment(tmp_path))
    assert all(Path(file["archive_path"]).stat().st_size == file["size"] for file in json.loads(listed.stdout))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    source, scratch = tmp_path / "source", tmp_path / "scratch"
    source.mkdir()
    scratch.mkdir()
    for name, content in many().items():
        (source / name.replace("/", "-")).write_bytes(content)
    env = environment(tmp_path, TMPDIR=str(scratch))
    with background("demo", tmp_path, admin("demo", source), env, says="ingest files") as demo:
        processes = demo.processes()
        assert len(processes) > 2
        demo.signal(number)
        assert exit_code(demo) == 130
        assert not any(process.alive() for process in processes)
    assert list(scratch.iterdir()) == []
