"""A program that carries a bundle by hand is held to the same limits as the service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacifica.ingest import tarutils, tasks
from pacifica.ingest.core.errors import BadMetadata
from pacifica.ingest.testing import BundleBuilder
from tests.by_hand import configured

LIMIT = 4096


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    settings = {
        "INGEST_MAX_METADATA_SIZE": f"{LIMIT} B",
        "INGEST_MAX_MEMBERS": "3",
        "UNIQUEID_URL": "local:",
    }
    with configured(tmp_path, settings, monkeypatch):
        yield tmp_path


def document(length: int) -> bytes:
    return b"[" + b" " * (length - 2) + b"]"


def test_the_document_of_a_move_is_read_up_to_the_limit(folder: Path) -> None:
    path = folder / "1.json"
    path.write_bytes(document(LIMIT))
    tarutils.MetaParser().read_meta(str(path), 1)
    path.write_bytes(document(LIMIT + 1))
    with pytest.raises(BadMetadata, match="max_metadata_size"):
        tarutils.MetaParser().read_meta(str(path), 1)


def test_a_document_that_has_no_end_is_not_read_into_memory() -> None:
    """Its size is told as 0."""
    with pytest.raises(BadMetadata, match="max_metadata_size"):
        tarutils.MetaParser().read_meta("/dev/zero", 1)


def test_the_limits_of_a_bundle_are_the_configured_ones(folder: Path) -> None:
    few, many = BundleBuilder(), BundleBuilder()
    for number in range(5):
        (few if number < 2 else many).add(f"{number}.txt", b"a")
    many.add("5.txt", b"a")
    taken = tarutils.open_tar(str(few.write(folder / "few.tar")))
    assert taken is not None
    taken.close()
    path = str(many.write(folder / "many.tar"))
    assert tarutils.open_tar(path) is None
    with pytest.raises(tasks.IngestException, match="max_members"):
        tasks.ingest_check_tarfile(1, path)


def test_metadata_of_a_bundle_is_read_up_to_the_limit(folder: Path) -> None:
    for length, is_taken in ((LIMIT, True), (LIMIT + 1, False)):
        path = BundleBuilder().metadata(document(length)).write(folder / "metadata.tar")
        opened = tarutils.open_tar(str(path))
        assert (opened is not None) is is_taken
        if opened:
            with opened:
                tarutils.MetaParser().load_meta(opened, 1)
