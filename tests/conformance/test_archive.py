"""What `ports.Archive` promises, on every adapter."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import ClaimLost, Stopping, Unavailable
from pacifica.ingest.ports import Archive, Parcel
from tests.conformance.conftest import CHUNK_BYTES

Number = Callable[[], int]
#: No two chunks of it are alike.
BYTES = b"".join(hashlib.sha256(b"%d" % block).digest() for block in range(1000))


def ignore(_count: int) -> None:
    pass


@pytest.fixture
def holder(tmp_path: Path) -> Path:
    path = tmp_path / "holder"
    path.write_bytes(BYTES)
    return path


def parcel(file_id: int, holder: Path, offset: int, size: int) -> Parcel:
    value = hashlib.sha256(BYTES[offset : offset + size]).hexdigest()
    digest = Digest(algorithm="sha256", value=value)
    return Parcel(file_id=file_id, path="a/b", holder=holder, offset=offset, size_bytes=size, digest=digest)


@pytest.mark.parametrize("offset", [0, 513])
@pytest.mark.parametrize("size", [0, 1, 511, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 7])
def test_what_is_stored_is_read_back(archive: Archive, holder: Path, number: Number, offset: int, size: int) -> None:
    sent = parcel(number(), holder, offset, size)
    told: list[int] = []
    archive.store(sent, told.append)
    archive.flush()
    assert sum(told) == size
    assert archive.size(sent.file_id) == size
    read: list[int] = []
    assert archive.digest(sent.file_id, "sha256", read.append) == (sent.digest.value, size)
    assert sum(read) == size


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha512", "sha3_256", "blake2b"])
def test_an_object_is_digested_by_any_algorithm(archive: Archive, holder: Path, number: Number, algorithm: str) -> None:
    sent = parcel(number(), holder, 0, 5000)
    archive.store(sent, ignore)
    archive.flush()
    expected = hashlib.new(algorithm, BYTES[:5000]).hexdigest()
    assert archive.digest(sent.file_id, algorithm, ignore) == (expected, 5000)


def test_nothing_lies_under_an_unused_id(archive: Archive, number: Number) -> None:
    assert archive.size(number()) is None


def test_an_unused_id_cannot_be_read_back(archive: Archive, number: Number) -> None:
    with pytest.raises(Unavailable):
        archive.digest(number(), "sha1", ignore)


def test_many_parcels_of_one_holder_stay_apart(archive: Archive, holder: Path, number: Number) -> None:
    parcels = [parcel(number(), holder, 100 * at, 50 + at) for at in range(40)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda sent: archive.store(sent, ignore), parcels))
    archive.flush()
    for sent in parcels:
        assert archive.digest(sent.file_id, "sha256", ignore) == (sent.digest.value, sent.size_bytes)


@pytest.mark.parametrize("error", [ClaimLost, Stopping])
def test_progress_can_end_storing(archive: Archive, holder: Path, number: Number, error: type[Exception]) -> None:
    def stop(_count: int) -> None:
        raise error

    with pytest.raises(error):
        archive.store(parcel(number(), holder, 0, 5 * CHUNK_BYTES), stop)
    after = parcel(number(), holder, 0, 100)
    archive.store(after, ignore)
    archive.flush()
    assert archive.size(after.file_id) == 100


@pytest.mark.parametrize("error", [ClaimLost, Stopping])
def test_progress_can_end_reading_back(archive: Archive, holder: Path, number: Number, error: type[Exception]) -> None:
    def stop(_count: int) -> None:
        raise error

    sent = parcel(number(), holder, 0, 5 * CHUNK_BYTES)
    archive.store(sent, ignore)
    archive.flush()
    with pytest.raises(error):
        archive.digest(sent.file_id, "sha256", stop)
    assert archive.digest(sent.file_id, "sha256", ignore) == (sent.digest.value, sent.size_bytes)


def test_a_holder_that_is_too_short_is_told(archive: Archive, holder: Path, number: Number) -> None:
    with pytest.raises(Unavailable, match="holder"):
        archive.store(parcel(number(), holder, len(BYTES) - 10, 11), ignore)


def test_a_holder_that_is_gone_is_told(archive: Archive, tmp_path: Path, number: Number) -> None:
    with pytest.raises(Unavailable, match="gone"):
        archive.store(parcel(number(), tmp_path / "gone", 0, 1), ignore)


@pytest.mark.parametrize("name", ["plain", "with blank", "ünï", "日本"])
def test_an_adopted_file_moves(archive: Archive, tmp_path: Path, number: Number, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(BYTES[:5000])
    file_id = number()
    archive.adopt(file_id, source)
    archive.flush()
    assert not source.exists()
    assert archive.size(file_id) == 5000
    assert archive.digest(file_id, "sha1", ignore) == (hashlib.sha1(BYTES[:5000]).hexdigest(), 5000)


def test_a_file_is_adopted_once(archive: Archive, holder: Path, number: Number) -> None:
    file_id = number()
    archive.adopt(file_id, holder)
    with pytest.raises(Unavailable):
        archive.adopt(file_id, holder)
    assert archive.size(file_id) == len(BYTES)


def test_a_file_that_is_not_there_cannot_be_adopted(archive: Archive, tmp_path: Path, number: Number) -> None:
    file_id = number()
    with pytest.raises(Unavailable):
        archive.adopt(file_id, tmp_path / "gone")
    assert archive.size(file_id) is None


def test_a_person_is_told_where_an_object_lies(archive: Archive, number: Number) -> None:
    file_id = number()
    assert archive.location(file_id).endswith(f"/{file_id}")


def test_what_is_removed_is_gone_and_nothing_else(archive: Archive, holder: Path, number: Number) -> None:
    first, second = parcel(number(), holder, 0, 3), parcel(number(), holder, 3, 4)
    for sent in (first, second):
        archive.store(sent, ignore)
    archive.flush()
    archive.remove(first.file_id)
    assert archive.size(first.file_id) is None
    assert archive.size(second.file_id) == 4
