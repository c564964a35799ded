"""An archive in a folder is known by its marker: the folder in its place, when it is not mounted, is never taken for it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pacifica.ingest import database, orm, tables
from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import NeighbourDown
from pacifica.ingest.local.archive import FolderArchive
from pacifica.ingest.local.root import MARKER, DatabaseMemory
from pacifica.ingest.ports import Parcel

pytestmark = pytest.mark.usefixtures("local_database")


def ignore(_count: int) -> None:
    pass


def store(archive: FolderArchive, file_id: int, holder: Path) -> None:
    digest = Digest(algorithm="sha256", value="0" * 64)
    archive.store(Parcel(file_id=file_id, path="a", holder=holder, offset=0, size_bytes=4, digest=digest), ignore)
    archive.flush()


def markers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(f"{MARKER}*"))


def note_object(state: str = tables.ArchiveId.ARCHIVED) -> None:
    tables.ArchiveId.insert(file_id=7, job_id=1, seq=0, state=state, mark=1).execute()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def holder(tmp_path: Path) -> Path:
    path = tmp_path / "holder"
    path.write_bytes(b"here")
    return path


@pytest.fixture
def used(root: Path, holder: Path) -> str:
    """An archive with the object 7; the name of its marker."""
    store(FolderArchive(root, DatabaseMemory()), 7, holder)
    (marker,) = markers(root)
    return marker


def calls(archive: FolderArchive, holder: Path) -> dict[str, Callable[[], object]]:
    return {
        "size": lambda: archive.size(7),
        "store": lambda: store(archive, 8, holder),
        "adopt": lambda: archive.adopt(8, holder),
        "digest": lambda: archive.digest(7, "sha256", ignore),
        "remove": lambda: archive.remove(7),
        "flush": archive.flush,
        "inspect": archive.inspect,
    }


@pytest.mark.parametrize("call", ["size", "store", "adopt", "digest", "remove", "flush", "inspect"])
@pytest.mark.parametrize("place", ["missing", "empty", "another"])
@pytest.mark.parametrize("is_known", [True, False])
def test_nothing_is_done_where_the_archive_is_not_mounted(
    root: Path, holder: Path, used: str, call: str, place: str, *, is_known: bool
) -> None:
    """`is_known`: whether the process used the archive before, or only the database knows it."""
    archive = FolderArchive(root, DatabaseMemory())
    if is_known:
        assert archive.size(7) == 4
    root.rename(root.with_name("volume"))
    if place != "missing":
        root.mkdir()
    if place == "another":
        (root / f"{MARKER}{'0' * 32}").touch()
    before = sorted(root.rglob("*")) if root.exists() else None
    with pytest.raises(NeighbourDown, match=rf"{used} is missing.*touch {re.escape(str(root / used))}") as told:
        calls(archive, holder)[call]()
    assert told.value.retryable
    assert (sorted(root.rglob("*")) if root.exists() else None) == before
    assert holder.read_bytes() == b"here"
    if root.exists():
        shutil.rmtree(root)
    root.with_name("volume").rename(root)
    assert archive.size(7) == 4


def test_what_was_stored_where_the_archive_went_away_is_not_taken_for_stored(
    root: Path, holder: Path, used: str
) -> None:
    archive = FolderArchive(root, DatabaseMemory())
    archive.size(7)
    (root / used).unlink()
    with pytest.raises(NeighbourDown, match="not mounted"):
        archive.flush()
    # As the reason says.
    (root / used).touch()
    store(archive, 8, holder)


def test_a_marker_is_durable_before_it_is_remembered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable: list[str] = []
    monkeypatch.setattr("pacifica.ingest.local.root.fsync_folder", lambda folder: durable.extend(markers(folder)))

    class Watching(DatabaseMemory):
        def remember(self, folder: Path, number: str) -> str:
            assert durable == [f"{MARKER}{number}"]
            return super().remember(folder, number)

    assert FolderArchive(root, Watching()).size(7) is None
    assert durable == markers(root)


def test_an_archive_of_an_earlier_version_gets_its_marker(root: Path, holder: Path, used: str) -> None:
    (root / used).unlink()
    tables.ArchiveRoot.delete().execute()
    note_object()
    archive = FolderArchive(root, DatabaseMemory())
    assert archive.inspect() == ""
    assert archive.size(7) == 4
    assert [archive.inspect()] == markers(root) != [used]
    store(archive, 8, holder)


@pytest.mark.parametrize("state", [tables.ArchiveId.INTENT, tables.ArchiveId.GARBAGE, tables.ArchiveId.VOID])
def test_an_archive_whose_first_object_never_came_is_a_new_one(root: Path, holder: Path, state: str) -> None:
    """A crash between the first intent and its bytes must not make every later job wait."""
    note_object(state)
    store(FolderArchive(root, DatabaseMemory()), 8, holder)
    assert len(markers(root)) == 1


@pytest.mark.parametrize("is_there", [True, False])
def test_an_empty_folder_is_no_archive_of_an_earlier_version(root: Path, holder: Path, *, is_there: bool) -> None:
    note_object()
    if is_there:
        root.mkdir()
    archive = FolderArchive(root, DatabaseMemory())
    with pytest.raises(NeighbourDown, match="may not be mounted") as told:
        store(archive, 8, holder)
    with pytest.raises(NeighbourDown, match="may not be mounted"):
        archive.inspect()
    assert root.exists() == is_there
    # It may be a new archive all the same; then the reason says how to go on.
    advice = Path(told.value.reason.rpartition("touch ")[2])
    root.mkdir(exist_ok=True)
    advice.touch()
    store(archive, 8, holder)
    assert archive.inspect() == advice.name


def test_two_databases_and_a_copy_of_the_folder_share_its_marker(
    root: Path, holder: Path, tmp_path: Path, used: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    archive = FolderArchive(copy, DatabaseMemory())
    assert archive.size(7) == 4
    database.DB.close_all()
    database.use_database(f"sqlite:///{tmp_path / 'another.sqlite3'}")
    orm.OrmSync.update_tables()
    store(FolderArchive(root, DatabaseMemory()), 8, holder)
    assert markers(root) == markers(copy) == [used]


def test_of_two_that_begin_an_archive_at_once_both_use_the_marker_of_the_first(root: Path, holder: Path) -> None:
    class Slow(DatabaseMemory):
        def remember(self, folder: Path, number: str) -> str:
            store(FolderArchive(folder, DatabaseMemory()), 8, holder)
            return super().remember(folder, number)

    # The first to remember, not the first to begin; here both found the same one, or each made one.
    archive = FolderArchive(root, Slow())
    store(archive, 9, holder)
    row = tables.ArchiveRoot.get()
    assert row.folder == str(root)
    assert archive.inspect() == f"{MARKER}{row.number}" in markers(root)
    # A number that another process remembered, and a marker here that is not its own: true is what is remembered.
    elsewhere = root.with_name("elsewhere")
    DatabaseMemory().remember(elsewhere, "1" * 32)
    assert DatabaseMemory().remember(elsewhere, "2" * 32) == "1" * 32


def test_only_a_file_with_a_number_in_its_name_is_a_marker(root: Path) -> None:
    root.mkdir()
    (root / f"{MARKER}of-the-lab").touch()
    (root / f"{MARKER}{'3' * 32}").mkdir()
    archive = FolderArchive(root, DatabaseMemory())
    assert archive.inspect() == ""
    assert archive.size(7) is None
    assert archive.inspect() not in {"", f"{MARKER}{'3' * 32}"}
