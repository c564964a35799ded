"""The doubles fail on command, and only then; the builder builds what it is told."""

from datetime import timedelta
from pathlib import Path

import pytest

from pacifica.ingest.bundle import Bundle
from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import NeighbourDown, NoSpace
from pacifica.ingest.core.metadata import Document
from pacifica.ingest.core.states import Kind
from pacifica.ingest.ports import IdMode, Parcel
from pacifica.ingest.testing import BundleBuilder, Faults, ManualClock, MemoryArchive, MemoryIds, MemoryStaging

DOWN = NeighbourDown("uniqueid", "told to")


def outcome(ids: MemoryIds) -> int | None:
    try:
        return ids.reserve(IdMode.JOB, 1).start
    except NeighbourDown:
        return None


@pytest.mark.parametrize(
    ("after", "expected"), [(False, [1, None, None, 2, 3]), (True, [1, None, None, 4, 5])], ids=["before", "after"]
)
def test_calls_fail_before_or_after_their_work_as_told(*, after: bool, expected: list[int | None]) -> None:
    faults = Faults()
    ids = MemoryIds(faults)
    faults.fail("ids.reserve", at=2, times=2, error=DOWN, after=after)
    assert [outcome(ids) for _ in range(5)] == expected
    assert faults.calls == ["ids.reserve"] * 5


def test_calls_are_counted_from_the_order_to_fail_and_by_pattern() -> None:
    faults = Faults()
    ids, archive = MemoryIds(faults), MemoryArchive(faults)
    outcome(ids)
    faults.fail("*", at=2, error=DOWN)
    assert archive.size(7) is None
    assert outcome(ids) is None
    assert outcome(ids) == 2


def test_an_archive_that_loses_power_forgets_what_was_not_flushed(tmp_path: Path) -> None:
    holder = tmp_path / "holder"
    holder.write_bytes(b"abc")
    archive = MemoryArchive()
    digest = Digest(algorithm="sha1", value="0" * 40)
    for file_id in (1, 2):
        archive.store(
            Parcel(file_id=file_id, path="a", holder=holder, offset=1, size_bytes=2, digest=digest), [].append
        )
        if file_id == 1:
            archive.flush()
    archive.lose_power()
    assert archive.objects == {1: b"bc"}


def test_a_landing_zone_fills_up() -> None:
    staging = MemoryStaging()
    staging.free_bytes = 4
    with pytest.raises(NoSpace):
        staging.admit(5)
    upload = staging.begin(7, Kind.INGEST, "")
    upload.write(b"abc")
    with pytest.raises(NoSpace):
        upload.write(b"de")
    staging.discard(7, Kind.INGEST, "")
    assert staging.files == {}


def test_a_clock_moves_only_when_told_and_may_jump() -> None:
    clock = ManualClock()
    start = clock.now()
    clock.advance(5)
    clock.jump(-60)
    assert clock.now() - start == timedelta(seconds=-55)
    assert clock.monotonic() == 5


def test_a_built_bundle_is_whole_unless_told_otherwise(tmp_path: Path) -> None:
    path = BundleBuilder(metadata_first=True).add("a/b", b"x").add("c").write(tmp_path / "bundle.tar")
    with Bundle.open(path) as bundle:
        document = Document.read(bundle.metadata, bundle.members)
        assert set(bundle.members) == {file.path for file in document.files} == {"a/b", "c"}
    assert document.faults == ()


def test_a_built_bundle_is_broken_as_told(tmp_path: Path) -> None:
    builder = BundleBuilder(project=...).add("a", b"x", size=9, mtime=...).member("data/b").entry("c")
    path = builder.write(tmp_path / "bundle.tar")
    with Bundle.open(path) as bundle:
        document = Document.read(bundle.metadata, bundle.members)
        assert set(bundle.members) == {"a", "b"}
        assert not any(entry["destinationTable"] == "Transactions.project" for entry in document.entries)
    assert [file.path for file in document.files] == ["a", "c"]
    assert document.files[0].size_bytes == 9
    assert any("mtime" in fault for fault in document.faults)
