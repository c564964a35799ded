"""What is special to the archive in a folder; what it shares with others is in `test_archive`."""

import errno
import hashlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import ArchiveMismatch, NeighbourDown, NoSpace, Stopping, Unavailable
from pacifica.ingest.local.archive import SMALL, SYNC_EVERY, FolderArchive
from pacifica.ingest.ports import Parcel


def ignore(_count: int) -> None:
    pass


def parcel(file_id: int, holder: Path, size: int | None = None, offset: int = 0) -> Parcel:
    length = holder.stat().st_size - offset if size is None else size
    digest = Digest(algorithm="sha256", value="0" * 64)
    return Parcel(file_id=file_id, path="a/b", holder=holder, offset=offset, size_bytes=length, digest=digest)


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


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
        with pytest.raises(ArchiveMismatch):
            again.store(parcel(7, other), ignore)
        with pytest.raises(ArchiveMismatch):
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
        except ArchiveMismatch:
            return None
        return number

    with ThreadPoolExecutor(6) as pool:
        winners = [number for number in pool.map(compete, range(6)) if number is not None]
    assert len(winners) == 1
    assert Path(FolderArchive(root).location(7)).read_bytes() == b"%d" % winners[0] * 5000
    assert everything(root) == {"000/000/000/7"}


def test_a_store_that_is_stopped_leaves_nothing(archive: FolderArchive, root: Path, holder: Path) -> None:
    def stop(_count: int) -> None:
        raise Stopping

    with pytest.raises(Stopping):
        archive.store(parcel(7, holder), stop)
    archive.flush()
    assert archive.size(7) is None
    assert everything(root) == set()


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

    root.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        archive.store(parcel(7, holder), ignore)
        with pytest.raises(NoSpace):
            archive.flush()
    assert everything(root) == set()


def test_nothing_gets_its_name_before_it_is_durable(
    archive: FolderArchive, root: Path, holder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable, named = set(), []
    fsync, link = os.fsync, os.link

    def note_fsync(handle: int) -> None:
        durable.add(os.fstat(handle).st_ino)
        fsync(handle)

    def note_link(source: Path, target: Path) -> None:
        named.append((source.stat().st_ino in durable, Path(target)))
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
    def refuse(_source: Path, target: Path) -> None:
        if not target.parent.exists():
            raise FileNotFoundError(target)
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    first, second = FolderArchive(root), FolderArchive(root)
    first.store(parcel(7, holder), ignore)
    first.flush()
    with pytest.raises(ArchiveMismatch):
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


def test_there_is_nothing_to_clean_up_in_an_archive_that_was_never_used(archive: FolderArchive) -> None:
    assert archive.clean_up() == 0


def test_a_move_within_the_file_system_copies_nothing(archive: FolderArchive, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"moved")
    inode = source.stat().st_ino
    archive.adopt(7, source)
    assert not source.exists()
    assert Path(archive.location(7)).stat().st_ino == inode
    assert stat.S_IMODE(Path(archive.location(7)).stat().st_mode) & 0o222 == 0


def test_a_file_with_another_name_is_copied_so_that_the_other_name_cannot_change_the_object(
    archive: FolderArchive, tmp_path: Path
) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    source.write_bytes(b"moved")
    other.hardlink_to(source)
    archive.adopt(7, source)
    other.write_bytes(b"changed")
    assert not source.exists()
    assert Path(archive.location(7)).read_bytes() == b"moved"


def test_a_move_from_another_file_system_copies(
    archive: FolderArchive, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"moved")
    link = os.link

    def across(origin: Path, target: Path) -> None:
        if origin == source:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        link(origin, target)

    monkeypatch.setattr(os, "link", across)
    archive.adopt(7, source)
    assert not source.exists()
    assert Path(archive.location(7)).read_bytes() == b"moved"
    assert everything(root) == {"000/000/000/7"}


@pytest.mark.parametrize("linked", [True, False])
def test_a_move_that_a_crash_cut_before_the_source_was_removed_is_ended(
    archive: FolderArchive, tmp_path: Path, *, linked: bool
) -> None:
    source, final = tmp_path / "source", Path(archive.location(7))
    final.parent.mkdir(parents=True)
    final.write_bytes(b"moved")
    if linked:
        source.hardlink_to(final)
    else:
        source.write_bytes(b"moved")
    archive.adopt(7, source)
    assert not source.exists()
    assert final.read_bytes() == b"moved"


@pytest.mark.parametrize("what", ["link", "folder", "nothing"])
def test_only_a_plain_file_is_moved(archive: FolderArchive, tmp_path: Path, holder: Path, what: str) -> None:
    source = tmp_path / "source"
    if what == "link":
        source.symlink_to(holder)
    elif what == "folder":
        source.mkdir()
    with pytest.raises(NeighbourDown, match="source"):
        archive.adopt(7, source)
    assert archive.size(7) is None
    assert holder.read_bytes() == b"some bytes"


def test_an_archive_that_cannot_be_reached_is_told_as_down(tmp_path: Path, holder: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    archive = FolderArchive(blocked / "archive")
    with pytest.raises(NeighbourDown, match="file"):
        archive.store(parcel(7, holder), ignore)


def test_many_files_of_several_threads_all_land(archive: FolderArchive, holder: Path) -> None:
    def store(file_id: int) -> None:
        archive.store(parcel(file_id, holder), ignore)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store, range(1, 301)))
    archive.flush()
    assert all(Path(archive.location(file_id)).read_bytes() == b"some bytes" for file_id in range(1, 301))
