"""Files that lie on the shared file system already, and become objects of the archive in a folder."""

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacifica.ingest.core.errors import IdTaken, NeighbourDown
from pacifica.ingest.local import objects
from pacifica.ingest.local.archive import THREADS, FolderArchive
from pacifica.ingest.ports import Shipment
from tests.conformance.local.parcels import everything, ignore, parcel


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
