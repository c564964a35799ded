"""What is special to the archive in a folder; what it shares with others is in `test_archive`."""

import errno
import hashlib
import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import IdTaken, NeighbourDown, NoSpace, Stopping, Unavailable
from pacifica.ingest.local import objects
from pacifica.ingest.local.archive import THREADS, FolderArchive
from pacifica.ingest.local.landing import BACKLOG, SHARE
from pacifica.ingest.local.objects import SMALL, SYNC_EVERY
from pacifica.ingest.local.root import MARKER, ProcessMemory
from pacifica.ingest.ports import Parcel, Shipment


def ignore(_count: int) -> None:
    pass


def stop(_count: int) -> None:
    raise Stopping


def ids(parcels: Iterable[Parcel]) -> list[int]:
    return [one.file_id for one in parcels]


def parcel(file_id: int, holder: Path, size: int | None = None, offset: int = 0) -> Parcel:
    length = holder.stat().st_size - offset if size is None else size
    digest = Digest(algorithm="sha256", value="0" * 64)
    return Parcel(file_id=file_id, path="a/b", holder=holder, offset=offset, size_bytes=length, digest=digest)


def everything(folder: Path) -> set[str]:
    """All but the marker."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(MARKER))
    return {path.relative_to(folder).as_posix() for path in files}


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


def test_small_files_that_were_on_their_way_when_it_stopped_are_told(archive: FolderArchive, holder: Path) -> None:
    shipment = Shipment()
    with pytest.raises(Stopping):
        archive.ship([parcel(7, holder), parcel(8, holder)], stop, shipment)
    archive.flush()
    assert shipment.stored == shipment.begun == [parcel(7, holder)]
    assert (archive.size(7), archive.size(8)) == (10, None)


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


def test_each_thread_is_told_of_its_own_faults_and_of_no_others(
    archive: FolderArchive, root: Path, holder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, turn = os.link, threading.Barrier(2, timeout=30)

    def full(source: Path, target: Path) -> None:
        turn.wait()  # both are under way
        if Path(target).name == "7":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        link(source, target)

    def job(file_id: int) -> type[Exception] | None:
        try:
            archive.store(parcel(file_id, holder), ignore)
            archive.flush()
        except NoSpace as fault:
            return type(fault)
        return None

    root.mkdir()
    monkeypatch.setattr(os, "link", full)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(job, (7, 8))) == [NoSpace, None]
    assert everything(root) == {"000/000/000/8"}


def test_ids_that_are_taken_while_they_are_stored_are_told_and_the_others_land(
    archive: FolderArchive, root: Path, holder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def rival(source: Path, target: Path) -> None:
        if Path(target).name in {"7", "9"}:
            Path(target).write_bytes(b"of a rival")
        link(source, target)

    monkeypatch.setattr(os, "link", rival)
    shipment = Shipment()
    with pytest.raises(IdTaken) as fault:
        archive.ship([parcel(file_id, holder) for file_id in (6, 7, 8, 9)], ignore, shipment)
    archive.flush()
    assert fault.value.file_id == 7
    assert (ids(shipment.begun), ids(shipment.stored), ids(shipment.taken)) == ([6, 7, 8, 9], [6, 8], [7, 9])
    found = {Path(name).name: (root / name).read_bytes() for name in everything(root)}
    assert found == {"6": b"some bytes", "7": b"of a rival", "8": b"some bytes", "9": b"of a rival"}


def test_what_became_of_each_is_told_when_some_fail(
    archive: FolderArchive, root: Path, holder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def rival(source: Path, target: Path) -> None:
        if Path(target).name == "6":
            raise OSError(errno.EIO, "Input/output error")
        if Path(target).name == "7":
            Path(target).write_bytes(b"of a rival")
        link(source, target)

    monkeypatch.setattr(os, "link", rival)
    shipment = Shipment()
    with pytest.raises(NeighbourDown, match="Input/output"):
        archive.ship([parcel(file_id, holder) for file_id in (6, 7, 8)], ignore, shipment)
    archive.flush()
    assert (ids(shipment.stored), ids(shipment.taken)) == ([8], [7])
    assert {Path(name).name for name in everything(root)} == {"7", "8"}


def test_nothing_more_is_begun_when_one_of_many_failed(archive: FolderArchive, root: Path, holder: Path) -> None:
    archive.store(parcel(7, holder), ignore)
    other = holder.with_name("other")
    other.write_bytes(b"other bytes")
    shipment = Shipment()
    with pytest.raises(IdTaken):
        archive.ship([parcel(file_id, other) for file_id in range(7, 7 + 2 * BACKLOG * SHARE)], ignore, shipment)
    assert len(shipment.begun) <= BACKLOG * SHARE
    assert len(everything(root)) == len(shipment.begun)


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


def test_a_move_within_the_file_system_copies_nothing(archive: FolderArchive, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"moved")
    inode = source.stat().st_ino
    archive.adopt(7, source)
    assert not source.exists()
    assert Path(archive.location(7)).stat().st_ino == inode
    assert stat.S_IMODE(Path(archive.location(7)).stat().st_mode) & 0o222 == 0


def test_a_move_that_fails_leaves_the_source_as_it_was(
    archive: FolderArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"moved")
    source.chmod(0o640)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", broken)
        with pytest.raises(NeighbourDown):
            archive.adopt(7, source)
    assert (source.read_bytes(), stat.S_IMODE(source.stat().st_mode)) == (b"moved", 0o640)
    archive.adopt(7, source)
    assert archive.size(7) == 5


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
    left = final.with_name("7.0123456789abcdef.part")
    left.write_bytes(b"mov")
    archive.adopt(7, source)
    assert not source.exists()
    assert final.read_bytes() == b"moved"
    assert not left.exists()


def test_what_it_left_behind_itself_is_not_taken_for_what_somebody_else_stored(
    archive: FolderArchive, tmp_path: Path
) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    source.write_bytes(b"moved")
    other.hardlink_to(source)  # so that it is copied
    left = Path(archive._objects._temporary(7))
    left.parent.mkdir(parents=True)
    left.write_bytes(b"mov")
    with pytest.raises(NeighbourDown, match="attempt that failed"):
        archive.adopt(7, source)
    assert source.exists()


def test_who_is_overtaken_while_writing_is_told_that_the_id_is_taken(
    archive: FolderArchive, root: Path, holder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, fsync, begun, over = tmp_path / "source", os.fsync, threading.Event(), threading.Event()
    source.write_bytes(b"moved")
    slow = threading.local()

    def wait(handle: int) -> None:
        fsync(handle)
        if stat.S_ISREG(os.fstat(handle).st_mode) and not getattr(slow, "passes", False):
            begun.set()
            assert over.wait(30)

    archive.size(7)  # begins the archive
    monkeypatch.setattr(os, "fsync", wait)
    with ThreadPoolExecutor(1) as pool:
        stored = pool.submit(archive.store, parcel(7, holder), ignore)
        assert begun.wait(30)
        slow.passes = True
        FolderArchive(root).adopt(7, source)
        over.set()
        assert isinstance(stored.exception(), IdTaken)
    assert everything(root) == {"000/000/000/7"}
    assert Path(archive.location(7)).read_bytes() == b"moved"


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
    def store(start: int) -> None:
        for file_id in range(start, start + 75):
            archive.store(parcel(file_id, holder), ignore)
        archive.flush()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store, range(1, 301, 75)))
    assert all(Path(archive.location(file_id)).read_bytes() == b"some bytes" for file_id in range(1, 301))


def test_the_files_of_a_share_are_written_before_one_is_synced_and_synced_before_one_gets_its_name(
    archive: FolderArchive, holder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def noting(name: str) -> Callable[..., object]:
        call: Callable[..., object] = getattr(os, name)

        def note(*arguments: object) -> object:
            if threading.current_thread().name.startswith("archive"):
                steps.append(name)
            return call(*arguments)

        return note

    archive.store(parcel(6, holder), ignore)  # makes the folders
    for name in ("write", "fsync", "link"):
        monkeypatch.setattr(os, name, noting(name))
    archive.ship([parcel(file_id, holder) for file_id in range(7, 7 + SHARE)], ignore, Shipment())
    assert steps == ["write"] * SHARE + ["fsync"] * SHARE + ["link"] * SHARE


@pytest.mark.parametrize("broken", ["fsync", "link"])
def test_a_file_that_the_disk_refuses_is_alone_with_it(
    archive: FolderArchive, root: Path, holder: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    call: Callable[..., None] = getattr(os, broken)
    times = itertools.count(1)

    def second_fails(*arguments: object) -> None:
        if next(times) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        call(*arguments)

    archive.store(parcel(6, holder), ignore)
    before = open_files()
    shipment = Shipment()
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, second_fails)
        with pytest.raises(NeighbourDown):
            archive.ship([parcel(file_id, holder) for file_id in (7, 8, 9)], ignore, shipment)
    assert (ids(shipment.begun), ids(shipment.stored), ids(shipment.taken)) == ([7, 8, 9], [7, 9], [])
    assert {Path(name).name for name in everything(root)} == {"6", "7", "9"}
    assert open_files() == before


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


@pytest.mark.timeout(60)
def test_sources_that_grew_and_have_to_be_copied_do_not_wait_for_each_other(
    archive: FolderArchive, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PIECE", 1024)
    monkeypatch.setattr(objects, "SYNC_EVERY", 2048)
    sources = [tmp_path / f"source-{number}" for number in range(8 * THREADS)]
    for source in sources:
        source.write_bytes(bytes(8192))
        source.with_suffix(".other").hardlink_to(source)  # so that it is copied
    shipment = Shipment()
    archive.adopt_all([parcel(at, source, 1) for at, source in enumerate(sources, 7)], lambda: None, ignore, shipment)
    assert len(shipment.stored) == len(sources) == len(everything(root))
