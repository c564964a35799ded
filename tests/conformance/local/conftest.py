"""An archive in a folder, and a file to store there."""

from pathlib import Path

import pytest

from pacifica.ingest.local.archive import FolderArchive


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def archive(root: Path) -> FolderArchive:
    return FolderArchive(root)


@pytest.fixture
def holder(tmp_path: Path) -> Path:
    path = tmp_path / "holder"
    path.write_bytes(b"some bytes")
    return path
