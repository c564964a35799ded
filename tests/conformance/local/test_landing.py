"""Many objects at once in the archive in a folder: what is told of each, and in which steps they land."""

import errno
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacifica.ingest.core.errors import IdTaken, NeighbourDown, NoSpace, Stopping
from pacifica.ingest.local.archive import FolderArchive
from pacifica.ingest.local.landing import BACKLOG, SHARE
from pacifica.ingest.ports import Shipment
from tests.conformance.local.parcels import everything, ids, ignore, parcel, stop


def test_small_files_that_were_on_their_way_when_it_stopped_are_told(archive: FolderArchive, holder: Path) -> None:
    shipment = Shipment()
    with pytest.raises(Stopping):
        archive.ship([parcel(7, holder), parcel(8, holder)], stop, shipment)
    archive.flush()
    assert shipment.stored == shipment.begun == [parcel(7, holder)]
    assert (archive.size(7), archive.size(8)) == (10, None)


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
    assert open_files() <= before


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
