"""What is special to the archive in a folder; what it shares with others is in `../test_archive`."""

import errno
import hashlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacifica.ingest.core.errors import IdTaken, NeighbourDown, NoSpace, Stopping, Unavailable
from pacifica.ingest.local.archive import FolderArchive
from pacifica.ingest.local.objects import SMALL, SYNC_EVERY
from pacifica.ingest.local.root import ProcessMemory
from pacifica.ingest.ports import Shipment
from tests.conformance.local.parcels import everything, ignore, parcel, stop


@pytest.mark.parametrize(
    ("file_id", "place"),
    [
        (1, "000/000/000/1"),
        (999, "000/000/000/999"),
        (1000, "000/000/001/1000"),
        (1_234_567, "000/001/234/1234567"),
        (999_999_999_999, "999/999/999/999999999999"),
        (2**63 - 1, "9223372036/854/775/9223372036854775807"),
    ],
)
def test_an_object_lies_where_the_layout_says(
    archive: FolderArchive, root: Path, holder: Path, file_id: int, place: str
) -> None:
    archive.store(parcel(file_id, holder), ignore)
    archive.flush()
    assert archive.location(file_id) == str(root / place)
    assert everything(root) == {place}


def test_no_folder_has_more_than_a_thousand_entries(archive: FolderArchive) -> None:
    folders = [Path(archive.location(file_id)).parent for file_id in range(0, 3_000_000, 7)]
    files = {folder: folders.count(folder) for folder in set(folders[:2000])}
    assert max(files.values()) <= 1000
    assert len({folder.parent for folder in folders}) == 3


def test_an_object_is_whole_and_read_only(archive: FolderArchive, holder: Path) -> None:
    archive.store(parcel(7, holder), ignore)
    archive.flush()
    final = Path(archive.location(7))
    assert final.read_bytes() == holder.read_bytes()
    assert stat.S_IMODE(final.stat().st_mode) & 0o222 == 0
    assert final.stat().st_nlink == 1


def test_an_id_that_is_in_use_is_never_overwritten(archive: FolderArchive, root: Path, holder: Path) -> None:
    archive.store(parcel(7, holder), ignore)
    archive.flush()
    other = holder.with_name("other")
    other.write_bytes(b"other bytes")
    for again in (archive, FolderArchive(root)):
        with pytest.raises(IdTaken):
            again.store(parcel(7, other), ignore)
        with pytest.raises(IdTaken):
            again.adopt(7, other)
    assert Path(archive.location(7)).read_bytes() == b"some bytes"
    assert other.read_bytes() == b"other bytes"
    assert everything(root) == {"000/000/000/7"}


def test_of_many_that_store_the_same_id_at_once_one_wins_and_the_others_are_told(root: Path, tmp_path: Path) -> None:
    barrier = threading.Barrier(6)

    def compete(number: int) -> int | None:
        holder = tmp_path / f"holder-{number}"
        holder.write_bytes(b"%d" % number * 5000)
        archive = FolderArchive(root)
        barrier.wait()
        try:
            archive.store(parcel(7, holder), ignore)
            archive.flush()
        except IdTaken:
            return None
        return number

    with ThreadPoolExecutor(6) as pool:
        winners = [number for number in pool.map(compete, range(6)) if number is not None]
    assert len(winners) == 1
    assert Path(FolderArchive(root).location(7)).read_bytes() == b"%d" % winners[0] * 5000
    assert everything(root) == {"000/000/000/7"}


def test_a_long_file_whose_store_is_stopped_leaves_nothing(archive: FolderArchive, root: Path, holder: Path) -> None:
    holder.write_bytes(bytes(SMALL))
    shipment = Shipment()
    with pytest.raises(Stopping):
        archive.ship([parcel(7, holder)], stop, shipment)
    archive.flush()
    assert archive.size(7) is None
    assert everything(root) == set()
    assert (len(shipment.begun), shipment.stored) == (1, [])


def test_a_holder_that_is_too_short_leaves_nothing(archive: FolderArchive, root: Path, holder: Path) -> None:
    with pytest.raises(Unavailable, match="2 bytes early"):
        archive.store(parcel(7, holder, size=12), ignore)
    archive.flush()
    assert everything(root) == set()


def test_a_full_disk_is_told_as_no_space_and_leaves_nothing(
    archive: FolderArchive, root: Path, holder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    archive.size(7)  # begins the archive
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(NoSpace):
            archive.store(parcel(7, holder), ignore)
    assert everything(root) == set()


def test_nothing_gets_its_name_before_it_is_durable(
    archive: FolderArchive, root: Path, holder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable, named = set(), []
    fsync, link = os.fsync, os.link

    def note_fsync(handle: int) -> None:
        durable.add(os.fstat(handle).st_ino)
        fsync(handle)

    def note_link(source: str, target: Path) -> None:
        named.append((Path(source).stat().st_ino in durable, Path(target)))
        link(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    for file_id in (7, 8, 2007):
        archive.store(parcel(file_id, holder), ignore)
    archive.flush()
    succeeded = [target for was_durable, target in named if was_durable and target.exists()]
    assert {was_durable for was_durable, _ in named} == {True}
    assert set(succeeded) == {Path(archive.location(file_id)) for file_id in (7, 8, 2007)}
    # The names too, in each folder up to the archive's own.
    folders = {above for target in succeeded for above in target.parents if above.is_relative_to(root)}
    assert {folder.stat().st_ino for folder in folders} <= durable


def test_on_a_file_system_without_links_objects_land_and_are_not_overwritten(
    root: Path, holder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: str, target: str) -> None:
        if not Path(target).parent.exists():
            raise FileNotFoundError(target)
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    first, second = FolderArchive(root), FolderArchive(root)
    first.store(parcel(7, holder), ignore)
    first.flush()
    with pytest.raises(IdTaken):
        second.store(parcel(7, holder), ignore)
    source = holder.with_name("source")
    source.write_bytes(b"moved")
    first.adopt(8, source)
    assert not source.exists()
    assert {Path(first.location(file_id)).read_bytes() for file_id in (7, 8)} == {b"some bytes", b"moved"}
    assert everything(root) == {"000/000/000/7", "000/000/000/8"}


@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_long_file_is_whole_and_told_in_pieces(
    archive: FolderArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_kernel: bool
) -> None:
    if not in_kernel:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    size, offset = SYNC_EVERY + SMALL + 17, 513
    long = tmp_path / "long"
    with long.open("wb") as file:
        file.truncate(offset + size)
        file.seek(offset + SYNC_EVERY)
        file.write(b"not zero")
    told: list[int] = []
    archive.store(parcel(7, long, size=size, offset=offset), told.append)
    archive.flush()
    assert sum(told) == size
    assert len(told) > 10
    hasher = hashlib.sha256(bytes(SYNC_EVERY) + b"not zero" + bytes(SMALL + 17 - 8))
    assert archive.digest(7, "sha256", ignore) == (hasher.hexdigest(), size)


def test_what_a_crash_left_is_removed_once_it_is_old(archive: FolderArchive, root: Path, holder: Path) -> None:
    archive.store(parcel(7, holder), ignore)
    archive.flush()
    left = root / "000/000/000/8.0123456789abcdef.part"
    left.write_bytes(b"half")
    left.chmod(0o444)
    assert archive.clean_up() == 0
    os.utime(left, (0, 0))
    assert archive.clean_up() == 1
    left.write_bytes(b"half")
    assert archive.clean_up(older_than_s=0) == 1
    assert everything(root) == {"000/000/000/7"}


def test_what_a_crash_left_under_an_id_is_removed_with_it_and_nothing_else(
    archive: FolderArchive, root: Path, holder: Path
) -> None:
    archive.store(parcel(8, holder), ignore)
    archive.flush()
    mine = [root / f"000/000/000/{name}" for name in ("7.0123456789abcdef.part", "7.fedcba9876543210.part")]
    other = root / "000/000/000/77.0123456789abcdef.part"
    for left in (*mine, other):
        left.write_bytes(b"half")
        left.chmod(0o444)
        os.utime(left, (0, 0))
    assert archive.remove(7) is True
    assert everything(root) == {"000/000/000/8", "000/000/000/77.0123456789abcdef.part"}
    assert archive.remove(7) is False


def test_what_somebody_may_be_writing_is_not_removed(archive: FolderArchive, root: Path, holder: Path) -> None:
    archive.store(parcel(8, holder), ignore)
    archive.flush()
    left = root / "000/000/000/7.0123456789abcdef.part"
    left.write_bytes(b"half")
    with pytest.raises(NeighbourDown, match="less than a day ago"):
        archive.remove(7)
    assert left.exists()


@pytest.mark.parametrize("is_there", [True, False])
def test_an_archive_that_may_not_be_mounted_is_not_taken_for_one_without_the_object(
    root: Path, *, is_there: bool
) -> None:
    archive = FolderArchive(root, ProcessMemory(has_objects=True))
    if is_there:
        root.mkdir()
    with pytest.raises(NeighbourDown, match=str(root)):
        archive.remove(7)


def test_a_link_that_a_file_server_made_before_it_complained_counts(
    archive: FolderArchive, root: Path, holder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    root.mkdir()
    (root / "000/000/000").mkdir(parents=True)
    monkeypatch.setattr(os, "link", twice)
    archive.store(parcel(7, holder), ignore)
    archive.flush()
    source = tmp_path / "source"
    source.write_bytes(b"moved")
    archive.adopt(8, source)
    assert not source.exists()
    assert everything(root) == {"000/000/000/7", "000/000/000/8"}


def test_there_is_nothing_to_clean_up_in_an_archive_that_was_never_used(archive: FolderArchive) -> None:
    assert archive.clean_up() == 0


def test_an_archive_that_cannot_be_reached_is_told_as_down(tmp_path: Path, holder: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    archive = FolderArchive(blocked / "archive")
    with pytest.raises(NeighbourDown, match="file"):
        archive.store(parcel(7, holder), ignore)
