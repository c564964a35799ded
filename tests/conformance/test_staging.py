"""What `ports.Staging` promises, on the double and on a real folder; then what only a folder can do."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from pacifica.ingest.core.errors import Conflict, NoSpace, Unavailable
from pacifica.ingest.core.states import Kind
from pacifica.ingest.ports import Staging
from pacifica.ingest.staging import FolderStaging
from pacifica.ingest.testing import MemoryStaging


class Zone:
    """A landing zone and a look into it."""

    def __init__(self, staging: Staging, folder: Path) -> None:
        self.staging = staging
        self.folder = folder

    def names(self) -> dict[str, bytes]:
        if isinstance(self.staging, MemoryStaging):
            return {path.name: content for path, content in self.staging.files.items()}
        return {path.name: path.read_bytes() for path in self.folder.iterdir()} if self.folder.exists() else {}

    def put(self, name: str, content: bytes) -> None:
        """Let somebody else put a file there."""
        if isinstance(self.staging, MemoryStaging):
            self.staging.files[MemoryStaging.path(0, Kind.INGEST).with_name(name)] = content
        else:
            self.folder.mkdir(exist_ok=True)
            (self.folder / name).write_bytes(content)


@pytest.fixture(params=["memory", "folder"])
def zone(request: pytest.FixtureRequest, tmp_path: Path) -> Zone:
    folder = tmp_path / "staging"
    return Zone(MemoryStaging() if request.param == "memory" else FolderStaging(folder, 0), folder)


@pytest.mark.parametrize("kind", Kind)
def test_a_body_lands_under_its_documented_name(zone: Zone, kind: Kind) -> None:
    zone.staging.admit(None)
    upload = zone.staging.begin(5, kind)
    upload.write(b"ab")
    upload.write(memoryview(b"cd"))
    assert list(zone.names()) == [f"5{kind.suffix}.part"]
    receipt = upload.commit()
    upload.close()
    assert (receipt.path.name, receipt.size_bytes) == (f"5{kind.suffix}", 4)
    assert zone.names() == {f"5{kind.suffix}": b"abcd"}
    zone.staging.remove(receipt.path)
    zone.staging.remove(receipt.path)
    assert zone.names() == {}


def test_what_is_discarded_leaves_nothing(zone: Zone) -> None:
    zone.staging.admit(3)
    upload = zone.staging.begin(5, Kind.INGEST)
    upload.write(b"abc")
    upload.close()
    zone.staging.discard(5, Kind.INGEST)
    zone.staging.discard(5, Kind.INGEST)
    assert zone.names() == {}


def test_a_place_that_somebody_else_has_is_refused(zone: Zone) -> None:
    zone.staging.admit(None)
    zone.put("5.tar", b"theirs")
    with pytest.raises(Conflict):
        zone.staging.begin(5, Kind.INGEST)
    assert zone.names() == {"5.tar": b"theirs"}


def test_a_place_that_somebody_else_takes_meanwhile_stays_theirs(zone: Zone) -> None:
    zone.staging.admit(None)
    upload = zone.staging.begin(5, Kind.INGEST)
    upload.write(b"ours")
    zone.put("5.tar", b"theirs")
    with pytest.raises(Conflict):
        upload.commit()
    assert zone.names() == {"5.tar": b"theirs"}


# --- a folder alone


def test_a_part_that_a_dead_process_left_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "5.tar.part").write_bytes(b"half of it")
    upload = FolderStaging(tmp_path, 0).begin(5, Kind.INGEST)
    upload.write(b"all")
    assert upload.commit().path.read_bytes() == b"all"


def test_room_that_is_to_be_kept_free_is_refused_at_once(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(NoSpace, match="room for 0 bytes"):
        FolderStaging(tmp_path, 2 * free).admit(1)
    with pytest.raises(NoSpace, match=r"room for \d+ bytes, not for"):
        FolderStaging(tmp_path, 0).admit(2 * free)


def test_a_body_without_a_length_does_not_use_up_what_is_to_be_kept_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = FolderStaging(tmp_path, 100)
    upload = staging.begin(5, Kind.INGEST)
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
    upload = FolderStaging(tmp_path, 0).begin(5, Kind.INGEST)
    upload.write(b"abc")
    shutil.rmtree(tmp_path)
    with pytest.raises(Unavailable, match=os.strerror(errno.ENOENT)):
        upload.commit()
