"""Bundles that `packing` makes are bundles that the service takes."""

import hashlib
import io
import os
from pathlib import Path

import pytest

from pacifica.ingest.bundle import Bundle
from pacifica.ingest.core.errors import BadPath
from pacifica.ingest.core.metadata import Document, Entry
from pacifica.ingest.packing import files_below, pack

WHO = {"submitter": "10", "project": "1234a", "instrument": "54"}
#: Names that need care: a folder named like the root, several spaces, other scripts, more than a tar header holds.
FILES = {
    "plain.txt": b"hello",
    "empty": b"",
    "data/x.csv": b"1,2",
    "data/data/x.csv": b"3,4",
    "with space/ä b.bin": bytes(range(256)) * 5,
    "測定/結果.dat": b"\0" * 513,
    "deep/" + "d" * 120 + "/" + "f" * 120: b"long",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for path, data in FILES.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return root


def packed(folder: Path, tmp_path: Path, **key_values: str) -> tuple[Path, list[Entry]]:
    target = tmp_path / "bundle.tar"
    with target.open("wb") as file:
        return target, pack(files_below(folder), file, **WHO, key_values=key_values)


def test_every_file_is_in_the_bundle_and_in_the_metadata_under_the_same_path(folder: Path, tmp_path: Path) -> None:
    target, _ = packed(folder, tmp_path)
    raw = target.read_bytes()
    with Bundle.open(target) as bundle:
        document = Document.read(bundle.metadata, bundle.members)
        found = {path: raw[member.offset : member.offset + member.size] for path, member in bundle.members.items()}
    assert found == FILES
    assert document.faults == ()
    assert {file.path for file in document.files} == set(FILES)
    for file in document.files:
        assert file.size_bytes == len(FILES[file.path])
        assert str(file.digest) == f"sha256:{hashlib.sha256(FILES[file.path]).hexdigest()}"


def test_the_document_that_is_returned_is_the_one_in_the_bundle(folder: Path, tmp_path: Path) -> None:
    target, document = packed(folder, tmp_path, sample="B-12")
    with Bundle.open(target) as bundle:
        assert list(Document.read(bundle.metadata).entries) == document
    assert {"destinationTable": "TransactionKeyValue", "key": "sample", "value": "B-12"} in document
    values = {entry["destinationTable"]: entry["value"] for entry in document if "Transactions." in str(entry)}
    assert values == {f"Transactions.{key}": value for key, value in WHO.items()}


def test_a_pipe_is_written_as_well_as_a_file(folder: Path, tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.written = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.written += bytes(data)
            return len(data)

    pipe = Pipe()
    pack(files_below(folder), pipe, **WHO)  # type: ignore[arg-type]
    whole = tmp_path / "piped.tar"
    whole.write_bytes(pipe.written)
    with Bundle.open(whole) as bundle:
        assert set(bundle.members) == set(FILES)


@pytest.mark.parametrize(
    ("name", "mimetype"),
    [
        ("a.txt", "text/plain"),
        ("a.json", "application/json"),
        ("a.tar.gz", "application/octet-stream"),
        ("a.nobody-knows", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_the_mimetype_is_one_that_the_catalogue_takes(tmp_path: Path, name: str, mimetype: str) -> None:
    file = tmp_path / name
    file.write_bytes(b"")
    assert pack({name: file}, io.BytesIO(), **WHO)[-1]["mimetype"] == mimetype


def test_times_are_naive_utc(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"")
    os.utime(file, (1_500_000_000.75, 1_500_000_000.75))
    assert pack({"a": file}, io.BytesIO(), **WHO)[-1]["mtime"] == "2017-07-14T02:40:00"


def test_a_link_is_refused_and_not_left_out(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "plain.txt")
    with pytest.raises(BadPath, match="link"):
        files_below(folder)


@pytest.mark.parametrize("path", ["../a", "a\nb", ""])
def test_a_path_that_the_service_would_refuse_is_refused_here(tmp_path: Path, path: str) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"")
    with pytest.raises(BadPath):
        pack({path: file}, io.BytesIO(), **WHO)


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    class Shrinking(type(tmp_path)):  # type: ignore[misc]
        def stat(self, **options: bool) -> os.stat_result:
            found = super().stat(**options)
            return os.stat_result((*found[:6], found.st_size + 1, *found[7:]))

    file = Shrinking(tmp_path / "a")
    file.write_bytes(b"abc")
    with pytest.raises(OSError, match="unexpected end of data"):
        pack({"a": file}, io.BytesIO(), **WHO)
