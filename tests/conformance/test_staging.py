"""What `ports.Staging` promises, on the double and on a real folder; then what only a folder can do."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from pacifica.ingest.core.errors import ClaimLost, Conflict, NoSpace, Unavailable
from pacifica.ingest.core.states import Kind
from pacifica.ingest.ports import Staging
from pacifica.ingest.staging import MARKER, FolderStaging
from pacifica.ingest.testing import MemoryStaging
from tests.harness.landing import landed


class Zone:
    """A landing zone and a look into it."""

    def __init__(self, staging: Staging, folder: Path) -> None:
        self.staging = staging
        self.folder = folder

    def names(self) -> dict[str, bytes]:
        if isinstance(self.staging, MemoryStaging):
            return {path.name: content for path, content in self.staging.files.items()}
        return {path.name: path.read_bytes() for path in landed(self.folder)}

    def place(self, name: str) -> Path:
        """Where a file of that name lies."""
        zone = MemoryStaging.path(5, Kind.INGEST).parent if isinstance(self.staging, MemoryStaging) else self.folder
        return zone / name

    def put(self, name: str, content: bytes) -> None:
        """Let somebody else put a file there."""
        if isinstance(self.staging, MemoryStaging):
            self.staging.files[self.place(name)] = content
        else:
            self.folder.mkdir(exist_ok=True)
            self.place(name).write_bytes(content)


@pytest.fixture(params=["memory", "folder"])
def zone(request: pytest.FixtureRequest, tmp_path: Path) -> Zone:
    folder = tmp_path / "staging"
    return Zone(MemoryStaging() if request.param == "memory" else FolderStaging(folder, 0), folder)


@pytest.mark.parametrize("kind", Kind)
def test_a_body_lands_under_its_documented_name(zone: Zone, kind: Kind) -> None:
    zone.staging.admit(None)
    upload = zone.staging.begin(5, kind, "")
    upload.write(b"ab")
    upload.write(memoryview(b"cd"))
    assert list(zone.names()) == [f"5{kind.suffix}.part"]
    receipt = upload.commit()
    upload.close()
    assert (receipt.path.name, receipt.size_bytes) == (f"5{kind.suffix}", 4)
    assert zone.names() == {f"5{kind.suffix}": b"abcd"}
    zone.staging.remove(receipt.path, "")
    zone.staging.remove(receipt.path, "")
    assert zone.names() == {}


def test_an_upload_that_was_given_up_cannot_be_kept(zone: Zone) -> None:
    zone.staging.admit(None)
    upload = zone.staging.begin(5, Kind.INGEST, "")
    upload.write(b"ab")
    zone.staging.discard(5, Kind.INGEST, "")
    upload.write(b"cd")
    with pytest.raises(ClaimLost):
        upload.commit()
    upload.close()
    assert zone.names() == {}


def test_what_is_discarded_leaves_nothing(zone: Zone) -> None:
    zone.staging.admit(3)
    upload = zone.staging.begin(5, Kind.INGEST, "")
    upload.write(b"abc")
    upload.close()
    zone.staging.discard(5, Kind.INGEST, "")
    zone.staging.discard(5, Kind.INGEST, "")
    assert zone.names() == {}


def test_a_place_that_somebody_else_has_is_refused(zone: Zone) -> None:
    zone.staging.admit(None)
    zone.put("5.tar", b"theirs")
    with pytest.raises(Conflict):
        zone.staging.begin(5, Kind.INGEST, "")
    assert zone.names() == {"5.tar": b"theirs"}


def test_a_place_that_somebody_else_takes_meanwhile_stays_theirs(zone: Zone) -> None:
    zone.staging.admit(None)
    upload = zone.staging.begin(5, Kind.INGEST, "")
    upload.write(b"ours")
    zone.put("5.tar", b"theirs")
    with pytest.raises(Conflict):
        upload.commit()
    assert zone.names() == {"5.tar": b"theirs"}


def test_a_landing_zone_is_known_by_what_it_said_it_is(zone: Zone) -> None:
    landing_zone = zone.staging.admit(None)
    assert 0 < len(landing_zone) <= 64
    assert zone.staging.admit(1) == landing_zone
    upload = zone.staging.begin(5, Kind.INGEST, landing_zone)
    upload.write(b"abc")
    path = upload.commit().path
    assert zone.staging.is_here(path, landing_zone)
    assert zone.staging.is_here(path, ""), "it is not known which it was"
    zone.staging.remove(path, landing_zone)
    zone.staging.remove(path, landing_zone)
    assert zone.names() == {}


def test_nothing_is_said_of_a_file_whose_landing_zone_is_not_here(zone: Zone) -> None:
    landing_zone = zone.staging.admit(None)
    zone.put("5.tar", b"in another")
    path = zone.place("5.tar")
    assert not zone.staging.is_here(path, "another")
    for attempt in (
        lambda: zone.staging.begin(6, Kind.INGEST, "another"),
        lambda: zone.staging.discard(5, Kind.INGEST, "another"),
        lambda: zone.staging.remove(path, "another"),
    ):
        with pytest.raises(Unavailable, match="not mounted here"):
            attempt()
    assert zone.names() == {"5.tar": b"in another"}
    zone.staging.discard(5, Kind.INGEST, landing_zone)
    assert zone.names() == {}


def test_a_zone_knows_its_files_by_their_places_whether_they_are_there_or_not(zone: Zone) -> None:
    assert not zone.staging.owns(Path("/somewhere/else/5.tar"))
    zone.staging.admit(None)
    for kind in Kind:
        for name in (f"5{kind.suffix}", f"5{kind.suffix}.part", f"{2**63 - 1}{kind.suffix}"):
            assert zone.staging.owns(zone.place(name)), name
            assert not zone.staging.owns(zone.place("sub") / name)
            assert not zone.staging.owns(zone.place(name).parent.parent / name)
    for name in ("5", "0.tar", "05.tar", "5.tar.gz", "5.tar.part.part", "x5.tar", "5.csv", "٥.tar", "5.tar\n"):
        assert not zone.staging.owns(zone.place(name)), name


# --- a folder alone


def test_an_upload_that_is_cut_leaves_the_file_that_another_system_put_there_meanwhile(tmp_path: Path) -> None:
    staging = FolderStaging(tmp_path, 0)
    upload = staging.begin(5, Kind.INGEST, "")
    upload.write(b"ours")
    (tmp_path / "5.tar").write_bytes(b"theirs")
    upload.close()
    staging.discard(5, Kind.INGEST, "")
    assert {path.name: path.read_bytes() for path in landed(tmp_path)} == {"5.tar": b"theirs"}


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_another_system_puts_there_at_the_last_moment_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_links: bool
) -> None:
    """After any look that could have been taken; where there are no links, the look comes last."""
    link = os.link

    def put_first(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"theirs")
        if not has_links:
            raise OSError(errno.EOPNOTSUPP, "no links here")
        link(source, target)

    upload = FolderStaging(tmp_path, 0).begin(5, Kind.INGEST, "")
    upload.write(b"ours")
    monkeypatch.setattr(os, "link", put_first)
    with pytest.raises(Conflict):
        upload.commit()
    assert {path.name: path.read_bytes() for path in landed(tmp_path)} == {"5.tar": b"theirs"}


def test_where_there_are_no_links_an_upload_lands_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    upload = FolderStaging(tmp_path, 0).begin(5, Kind.INGEST, "")
    upload.write(b"ours")
    upload.commit()
    assert {path.name: path.read_bytes() for path in landed(tmp_path)} == {"5.tar": b"ours"}


def test_the_partial_file_of_another_system_never_becomes_a_bundle_of_ours(tmp_path: Path) -> None:
    first, second = FolderStaging(tmp_path, 0), FolderStaging(tmp_path, 0)
    ours = first.begin(5, Kind.INGEST, "")
    ours.write(b"ours")
    theirs = second.begin(5, Kind.INGEST, "")
    theirs.write(b"th")
    with pytest.raises(ClaimLost):
        ours.commit()
    theirs.write(b"eirs")
    theirs.commit()
    assert {path.name: path.read_bytes() for path in landed(tmp_path)} == {"5.tar": b"theirs"}


def test_what_a_crash_left_under_both_names_is_discarded(tmp_path: Path) -> None:
    staging = FolderStaging(tmp_path, 0)
    upload = staging.begin(5, Kind.INGEST, "")
    upload.write(b"ours")
    upload.close()
    os.link(tmp_path / "5.tar.part", tmp_path / "5.tar")
    staging.discard(5, Kind.INGEST, "")
    assert landed(tmp_path) == []


def test_an_unmounted_landing_zone_is_another_one(tmp_path: Path) -> None:
    folder = tmp_path / "staging"
    staging = FolderStaging(folder, 0)
    landing_zone = staging.admit(None)
    folder.rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        staging.remove(folder / "5.tar", landing_zone)
    assert staging.admit(None) != landing_zone
    with pytest.raises(Unavailable):
        staging.remove(folder / "5.tar", landing_zone)
    shutil.rmtree(folder)
    (tmp_path / "away").rename(folder)
    assert staging.admit(None) == landing_zone
    staging.remove(folder / "5.tar", landing_zone)


def test_what_lies_elsewhere_is_not_removed(zone: Zone, tmp_path: Path) -> None:
    """An operator named it."""
    zone.put("5.tar", b"ours")
    zone.put("notes.txt", b"somebody's")
    (tmp_path / "5.tar").write_bytes(b"a copy")
    for path, is_ours in ((zone.place("5.tar"), True), (zone.place("notes.txt"), False), (tmp_path / "5.tar", False)):
        assert zone.staging.is_ours(path, "") == is_ours
        zone.staging.remove(path, "")
    assert zone.names() == {"notes.txt": b"somebody's"}
    assert (tmp_path / "5.tar").exists()


def test_processes_that_begin_a_landing_zone_at_once_agree(tmp_path: Path) -> None:
    first, second = FolderStaging(tmp_path, 0), FolderStaging(tmp_path, 0)
    path = tmp_path / "5.tar"
    # What each of them would make if it saw no other.
    mine = first.admit(None)
    (tmp_path / f"{MARKER}{'0' * 32}").touch()
    theirs = second.admit(None)
    assert (mine == first.admit(None), theirs) == (True, "0" * 32)
    for staging in (first, second):
        assert staging.is_here(path, mine)
        assert staging.is_here(path, theirs)


def test_a_marker_is_never_old(tmp_path: Path) -> None:
    """Folders such as /tmp are rid of old files."""
    staging = FolderStaging(tmp_path, 0)
    marker = tmp_path / f"{MARKER}{staging.admit(None)}"
    os.utime(marker, (0, 0))
    staging.admit(None)
    assert marker.stat().st_mtime > 0


@pytest.mark.parametrize("name", ["", "x" * 65, "0123", "A" * 32, "0" * 32 + " "])
def test_a_name_that_is_no_marker_of_ours_is_not_believed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "staging"
    folder.mkdir()
    (folder / f"{MARKER}{name}").touch()
    (folder / f"{MARKER}{'0' * 32}").symlink_to("nowhere")
    landing_zone = FolderStaging(folder, 0).admit(None)
    assert landing_zone not in {name, "0" * 32}
    assert (folder / f"{MARKER}{landing_zone}").is_file()


def test_jobs_whose_landing_zone_is_not_known_need_no_folder(tmp_path: Path) -> None:
    staging = FolderStaging(tmp_path / "never", 0)
    staging.remove(tmp_path / "never" / "5.tar", "")
    staging.discard(5, Kind.INGEST, "")


def test_a_folder_knows_its_files_however_their_path_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zone").mkdir()
    (tmp_path / "mounted").symlink_to("zone")
    staging = FolderStaging(tmp_path / "zone", 0)
    monkeypatch.chdir(tmp_path / "zone")
    for path in (Path("5.tar"), tmp_path / "mounted" / "5.tar", tmp_path / "mounted" / ".." / "zone" / "5.json.part"):
        assert staging.owns(path), path
    assert staging.owns(tmp_path / "zone" / f"{MARKER}{staging.admit(None)}")
    assert FolderStaging(tmp_path / "mounted", 0).owns(tmp_path / "zone" / "5.tar")


def test_a_part_that_a_dead_process_left_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "5.tar.part").write_bytes(b"half of it")
    upload = FolderStaging(tmp_path, 0).begin(5, Kind.INGEST, "")
    upload.write(b"all")
    assert upload.commit().path.read_bytes() == b"all"


def test_room_that_is_to_be_kept_free_is_refused_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(NoSpace, match="room for 0 bytes, not for 1, as some space is kept free") as fault:
        FolderStaging(tmp_path, 2 * free).admit(1)
    assert str(tmp_path) not in str(fault.value)
    with pytest.raises(NoSpace, match=r"room for \d+ bytes, not for \d+\. Try"):
        FolderStaging(tmp_path, 0).admit(2 * free)
    told = [record for record in caplog.records if record.message == "no space for an upload"]
    assert [(record.levelname, vars(record)["folder"]) for record in told] == [("WARNING", str(tmp_path))] * 2


def test_a_body_without_a_length_does_not_use_up_what_is_to_be_kept_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = FolderStaging(tmp_path, 100)
    upload = staging.begin(5, Kind.INGEST, "")
    upload.write(b"some")
    # Somebody else fills the disk; nobody can do so really without harm to other tests.
    full = shutil.disk_usage(tmp_path)._replace(free=99)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(NoSpace):
        upload.write(b"more")
    upload.close()


def test_a_folder_that_cannot_be_made_is_no_fault_of_the_sender(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="operator") as fault:
        FolderStaging(tmp_path / "file" / "staging", 0).admit(1)
    assert str(tmp_path) not in str(fault.value)


def test_a_disk_that_fails_is_no_fault_of_the_sender(tmp_path: Path) -> None:
    upload = FolderStaging(tmp_path, 0).begin(5, Kind.INGEST, "")
    upload.write(b"abc")
    shutil.rmtree(tmp_path)
    with pytest.raises(Unavailable, match=os.strerror(errno.ENOENT)):
        upload.commit()
