"""What `ports.Archive` promises, on every adapter."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import ClaimLost, Stopping, Unavailable
from pacifica.ingest.ports import Archive, Parcel, Shipment
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


@pytest.mark.parametrize("size", [1, 101, 3 * CHUNK_BYTES])
def test_an_object_that_is_longer_than_it_may_be_is_not_read_to_its_end(
    archive: Archive, holder: Path, number: Number, size: int
) -> None:
    sent = parcel(number(), holder, 0, size)
    archive.store(sent, ignore)
    archive.flush()
    read: list[int] = []
    _, length = archive.digest(sent.file_id, "sha256", read.append, most_bytes=size - 1)
    assert length >= size
    assert sum(read) < size
    assert archive.digest(sent.file_id, "sha256", ignore, most_bytes=size) == (sent.digest.value, size)


def test_reading_back_goes_on_behind_one_that_is_longer_than_it_was(
    archive: Archive, holder: Path, number: Number
) -> None:
    parcels = [parcel(number(), holder, 0, 100) for _ in range(5)]
    archive.ship(parcels, ignore, Shipment())
    archive.flush()
    asked = [*parcels[:2], parcels[2]._replace(size_bytes=99), *parcels[3:]]
    found = list(archive.digests(asked, ignore))
    good = (parcels[0].digest.value, 100)
    assert (*found[:2], *found[3:]) == (good, good, good, good)
    assert found[2][1] > 99


def test_nothing_lies_under_an_unused_id(archive: Archive, number: Number) -> None:
    assert archive.size(number()) is None


def test_an_unused_id_cannot_be_read_back(archive: Archive, number: Number) -> None:
    with pytest.raises(Unavailable):
        archive.digest(number(), "sha1", ignore)


def test_many_parcels_of_one_holder_stay_apart(archive: Archive, holder: Path, number: Number) -> None:
    parcels = [parcel(number(), holder, 100 * at, 50 + at) for at in range(40)]

    def store(sent: Parcel) -> None:
        archive.store(sent, ignore)
        archive.flush()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store, parcels))
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


def sources(folder: Path, number: Number, sizes: Sequence[int]) -> list[Parcel]:
    """Files that can be moved, each a parcel of its own."""
    found = []
    for size in sizes:
        one = parcel(number(), folder / f"source{len(found)}", 0, size)
        one.holder.write_bytes(BYTES[:size])
        found.append(one)
    return found


def test_many_files_are_adopted_together(archive: Archive, tmp_path: Path, number: Number) -> None:
    parcels = sources(tmp_path, number, [0, 1, 32_000, *range(100, 190)])
    told: list[int] = []
    asked: list[int] = []
    shipment = Shipment()
    archive.adopt_all(parcels, lambda: asked.append(len(shipment.begun)), told.append, shipment)
    archive.flush()
    assert (shipment.begun, shipment.stored, shipment.taken) == (parcels, parcels, [])
    assert asked[0] == 0
    assert len(asked) == len(set(asked))
    assert sum(told) == sum(one.size_bytes for one in parcels)
    assert not any(one.holder.exists() for one in parcels)
    assert list(archive.digests(parcels, ignore)) == [(one.digest.value, one.size_bytes) for one in parcels]


def test_one_that_cannot_be_adopted_stops_what_follows_and_no_other(
    archive: Archive, tmp_path: Path, number: Number
) -> None:
    parcels = sources(tmp_path, number, [100] * 200)
    parcels[70].holder.unlink()
    shipment = Shipment()
    with pytest.raises(Unavailable):
        archive.adopt_all(parcels, lambda: None, ignore, shipment)
    assert shipment.begun == parcels[: len(shipment.begun)]
    assert 71 <= len(shipment.begun) < 200
    assert [one for one in shipment.begun if one not in shipment.stored] == [parcels[70]]
    assert [one.holder.exists() for one in parcels] == [False] * len(shipment.begun) + [True] * (
        200 - len(shipment.begun)
    )


@pytest.mark.parametrize("error", [ClaimLost, Stopping])
def test_who_asks_before_a_move_can_end_it(
    archive: Archive, tmp_path: Path, number: Number, error: type[Exception]
) -> None:
    parcels = sources(tmp_path, number, [100] * 200)
    shipment = Shipment()

    def ready() -> None:
        if shipment.begun:
            raise error

    with pytest.raises(error):
        archive.adopt_all(parcels, ready, ignore, shipment)
    begun = len(shipment.begun)
    assert shipment.stored == shipment.begun == parcels[:begun]
    assert 0 < begun < 200
    assert all(one.holder.exists() for one in parcels[begun:])


def test_several_are_asked_for_their_size(archive: Archive, holder: Path, number: Number) -> None:
    parcels = [parcel(number(), holder, 0, size) for size in range(100)]
    archive.ship(parcels[::2], ignore, Shipment())
    archive.flush()
    sizes = archive.sizes([one.file_id for one in parcels])
    assert list(sizes) == [size if size % 2 == 0 else None for size in range(100)]
    assert list(archive.sizes([])) == []


def test_a_person_is_told_where_an_object_lies(archive: Archive, number: Number) -> None:
    file_id = number()
    assert archive.location(file_id).endswith(f"/{file_id}")


def test_what_is_removed_is_gone_and_nothing_else(archive: Archive, holder: Path, number: Number) -> None:
    first, second = parcel(number(), holder, 0, 3), parcel(number(), holder, 3, 4)
    for sent in (first, second):
        archive.store(sent, ignore)
    archive.flush()
    assert archive.remove(first.file_id) is True
    assert archive.size(first.file_id) is None
    assert archive.size(second.file_id) == 4


def test_what_is_not_there_is_told_when_it_is_removed(archive: Archive, holder: Path, number: Number) -> None:
    sent, never = parcel(number(), holder, 0, 3), number()
    for stored in (sent, parcel(number(), holder, 0, 3)):
        archive.store(stored, ignore)
    archive.flush()
    assert [archive.remove(file_id) for file_id in (sent.file_id, sent.file_id, never)] == [True, False, False]


def test_many_parcels_go_together_and_are_read_back_in_order(archive: Archive, holder: Path, number: Number) -> None:
    sizes = [0, 1, 100, 9_000, 31_900, *range(200, 290)]
    parcels = [parcel(number(), holder, at % 7, size) for at, size in enumerate(sizes)]
    told: list[int] = []
    shipment = Shipment()
    archive.ship(parcels, told.append, shipment)
    archive.flush()
    assert (shipment.begun, shipment.stored, shipment.taken) == (parcels, parcels, [])
    assert sum(told) == sum(sizes)
    read: list[int] = []
    found = list(archive.digests(parcels, read.append))
    assert found == [(sent.digest.value, sent.size_bytes) for sent in parcels]
    assert sum(read) == sum(sizes)


def test_reading_back_stops_at_the_first_that_is_missing(archive: Archive, holder: Path, number: Number) -> None:
    parcels = [parcel(number(), holder, 0, 100) for _ in range(5)]
    archive.ship([*parcels[:3], parcels[4]], ignore, Shipment())
    archive.flush()
    found = archive.digests(parcels, ignore)
    assert [next(found) for _ in range(3)] == [(sent.digest.value, 100) for sent in parcels[:3]]
    with pytest.raises(Unavailable):
        next(found)
    found.close()
    assert archive.size(parcels[4].file_id) == 100


def test_reading_back_can_end_early(archive: Archive, holder: Path, number: Number) -> None:
    parcels = [parcel(number(), holder, 0, 30_000) for _ in range(100)]
    archive.ship(parcels, ignore, Shipment())
    archive.flush()
    found = archive.digests(parcels, ignore)
    next(found)
    found.close()
    assert archive.size(parcels[99].file_id) == 30_000


@pytest.mark.parametrize("error", [ClaimLost, Stopping])
def test_progress_can_end_many(archive: Archive, holder: Path, number: Number, error: type[Exception]) -> None:
    parcels = [parcel(number(), holder, 0, 1_000) for _ in range(200)]
    sent: list[int] = []

    def stop(count: int) -> None:
        sent.append(count)
        if sum(sent) >= 50_000:
            raise error

    shipment = Shipment()
    with pytest.raises(error):
        archive.ship(parcels, stop, shipment)
    assert 50 <= len(shipment.begun) < 200
    assert set(shipment.stored) <= set(shipment.begun)
    after = parcel(number(), holder, 0, 100)
    archive.store(after, ignore)
    archive.flush()
    assert archive.size(after.file_id) == 100


def test_a_holder_that_ends_early_stops_what_follows(archive: Archive, holder: Path, number: Number) -> None:
    parcels = [parcel(number(), holder, 0, 1_000) for _ in range(30)]
    short = parcel(number(), holder, len(BYTES) - 5, 10)
    shipment = Shipment()
    with pytest.raises(Unavailable, match="early"):
        archive.ship([*parcels, short, *parcels], ignore, shipment)
    assert shipment.stored
    assert set(shipment.stored) <= set(shipment.begun) <= {*parcels, short}
