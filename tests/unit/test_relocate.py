"""Moves: what became of a file is found out from what is left on both sides."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pacifica.ingest.core.errors import NeighbourDown
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Phase, Step
from pacifica.ingest.ports import IdMode
from pacifica.ingest.tables import ArchiveId
from pacifica.ingest.testing import MemoryIds
from tests.unit.floor import FILES, Floor


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    return Floor(tmp_path, retry_for_s=10_000)


def interrupted(floor: Floor, *, after: bool) -> Job:
    """A move whose first file got no clear answer: the archive moved it (`after`), or it did not."""
    job = floor.move()
    floor.faults.fail("archive.adopt", error=NeighbourDown("archive", "cut"), after=after)
    floor.run(job)
    assert 0 in floor.store.intents(job.job_id)
    return job


@pytest.mark.parametrize("after", [False, True])
def test_a_move_without_a_clear_answer_goes_on_under_the_same_id(floor: Floor, *, after: bool) -> None:
    job = interrupted(floor, after=after)
    chosen = floor.store.intents(job.job_id)[0]
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.store.file_ids(job.job_id)[0] == chosen


def test_a_move_that_was_cut_between_copying_and_removing_goes_on_under_the_same_id(floor: Floor) -> None:
    job = interrupted(floor, after=False)
    floor.archive.objects[floor.store.intents(job.job_id)[0]] = FILES["a.txt"]
    floor.run_when_due(job)
    floor.assert_done(job)


@dataclass(frozen=True)
class Doubt:
    name: str
    source_is_there: bool
    archived: bytes | None
    reason: str


DOUBTS = [
    Doubt("a part is there, the source is gone", False, b"fir", "it has 3 bytes there, and"),
    Doubt("other bytes are there, the source is gone", False, b"FIRST", "there instead of"),
    Doubt("the source is there, other bytes are, too", True, b"FIRST", "there instead of"),
    Doubt("neither side has it", False, None, "neither the archive nor"),
]


@pytest.mark.parametrize("doubt", DOUBTS, ids=lambda doubt: doubt.name)
def test_a_move_in_doubt_waits_with_a_reason_and_touches_nothing(floor: Floor, doubt: Doubt) -> None:
    job = interrupted(floor, after=False)
    file_id = floor.store.intents(job.job_id)[0]
    source = floor.incoming / "source0"
    aside = source.rename(floor.folder / "aside")
    if doubt.source_is_there:
        aside.rename(source)
    if doubt.archived is not None:
        floor.archive.objects[file_id] = doubt.archived
    calls = len(floor.faults.calls)
    waiting = floor.run_when_due(job)
    assert doubt.reason in waiting.waiting_for
    assert not {"archive.adopt", "archive.store", "catalogue.register"} & set(floor.faults.calls[calls:])
    # When it stands still as it should, the job goes on.
    floor.archive.objects[file_id] = FILES["a.txt"]
    source.unlink(missing_ok=True)
    floor.run_when_due(job)
    floor.assert_done(job)


def test_a_source_that_became_another_file_is_not_taken_for_the_checked_one(floor: Floor) -> None:
    job = interrupted(floor, after=False)
    source = floor.incoming / "source0"
    source.rename(floor.folder / "aside")
    source.write_bytes(b"FIRST")
    assert "neither the archive nor" in floor.run_when_due(job).waiting_for
    assert source.read_bytes() == b"FIRST"


def test_every_source_is_checked_before_the_first_is_consumed(floor: Floor) -> None:
    document = floor.document()
    (floor.incoming / "source4").write_bytes(b"LAST")
    job = floor.move(document)
    floor.run(job)
    floor.assert_failed(job, Step.MOVE_FILES, "source4' has sha256")
    assert len(list(floor.incoming.iterdir())) == len(FILES)
    assert floor.archive.objects == {}


Change = Callable[[dict[str, Any], Path], object]


def link(entry: dict[str, Any], folder: Path) -> None:
    source = Path(entry["source"])
    source.rename(folder / "target")
    source.symlink_to(folder / "target")


def linked_folder(entry: dict[str, Any], folder: Path) -> None:
    real = folder / "real"
    real.mkdir()
    Path(entry["source"]).rename(real / "source")
    (folder / "incoming" / "linked").symlink_to(real)
    entry["source"] = str(folder / "incoming" / "linked" / "source")


def fifo(entry: dict[str, Any], _: Path) -> None:
    Path(entry["source"]).unlink()
    os.mkfifo(entry["source"])


def folder_of_that_name(entry: dict[str, Any], _: Path) -> None:
    Path(entry["source"]).unlink()
    Path(entry["source"]).mkdir()


def roundabout(entry: dict[str, Any], folder: Path) -> None:
    entry["source"] = str(folder / "incoming" / ".." / "incoming" / "source0")


#: What is wrong with a source → what the job tells.
WRONG: list[tuple[Change, str]] = [
    (lambda entry, _: Path(entry["source"]).unlink(), "does not exist"),
    (lambda entry, _: entry.update(source=""), "must be an absolute path"),
    (lambda entry, _: entry.update(source="incoming/source0"), "must be an absolute path"),
    (lambda entry, _: entry.update(source=7), "must be an absolute path"),
    (roundabout, "must be an absolute path without '..'"),
    (lambda entry, folder: entry.update(source=str(folder / "elsewhere")), "does not lie under"),
    (lambda entry, folder: entry.update(source=f"{folder}/incoming2/x"), "does not lie under"),
    (link, "is reached through a symbolic link"),
    (linked_folder, "is reached through a symbolic link"),
    (fifo, "is not a regular file"),
    (folder_of_that_name, "cannot be read: Is a directory"),
    (lambda entry, _: entry.update(size=6), "has 5 bytes, the metadata says 6"),
    (lambda entry, _: entry.update(hashsum="0" * 64), "has sha256"),
]


@pytest.mark.parametrize(("change", "reason"), WRONG, ids=lambda part: part if isinstance(part, str) else "")
def test_a_source_that_must_not_be_taken_fails_the_job_and_nothing_is_touched(
    floor: Floor, change: Change, reason: str
) -> None:
    document = floor.document()
    change(next(entry for entry in document if entry["destinationTable"] == "Files"), floor.folder)
    job = floor.move(document)
    floor.run(job)
    floor.assert_failed(job, Step.MOVE_FILES, reason)
    assert floor.archive.sent.total() == 0
    assert all((floor.incoming / f"source{number}").exists() for number in range(1, len(FILES)))


def test_all_faults_of_the_sources_are_told_at_once(floor: Floor) -> None:
    document = floor.document()
    for number in (1, 3):
        (floor.incoming / f"source{number}").unlink()
    job = floor.move(document)
    floor.run(job)
    for number in (1, 3):
        floor.assert_failed(job, Step.MOVE_FILES, f"source{number}' does not exist")


def test_what_the_catalogue_would_refuse_is_found_before_a_source_is_consumed(floor: Floor) -> None:
    document = floor.document()
    document[-1]["mimetype"] = "x"
    job = floor.move(document)
    floor.run(job)
    floor.assert_failed(job, Step.INGEST_METADATA, "mimetype 'x'")
    assert floor.archive.sent.total() == 0


# --- the order that makes an unclear answer harmless


def test_sources_and_intents_are_recorded_before_the_archive_is_asked(floor: Floor) -> None:
    floor.run(floor.move())
    calls = floor.faults.calls
    assert calls.index("jobs.note_sources") < calls.index("jobs.intend") < calls.index("archive.adopt")
    one = ["archive.size", "archive.adopt", "archive.flush", "archive.digest", "jobs.archived"]
    begin = calls.index("jobs.intend") + 1
    assert calls[begin : begin + len(one) * len(FILES)] == one * len(FILES)


def test_a_move_counts_each_file_as_soon_as_it_is_safe(floor: Floor) -> None:
    job = floor.move()
    floor.faults.fail("archive.adopt", error=NeighbourDown("archive", "away"), at=3)
    floor.run(job)
    assert sorted(floor.store.file_ids(job.job_id)) == [0, 1]
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.archive.sent.total() == len(FILES)


def test_an_id_that_somebody_else_uses_is_given_up_before_the_source_is_touched(floor: Floor) -> None:
    floor.archive.objects[1002] = b"of somebody else"
    job = floor.move()
    assert "the id holds something else already" in floor.run(job).waiting_for
    assert (floor.incoming / "source2").exists()
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.archive.objects[1002] == b"of somebody else"
    assert floor.store.ids[1002] == ArchiveId.GARBAGE


def test_a_source_that_changes_after_the_check_is_not_moved(floor: Floor) -> None:
    document = floor.document()
    source = floor.incoming / "source0"

    class Meddling(MemoryIds):
        """Somebody replaces a source just when ids are asked for."""

        role = "ids"

        def reserve(self, mode: IdMode, count: int) -> range:
            if mode is IdMode.FILE:
                # The first one stays, so that the other cannot get its inode.
                source.rename(floor.folder / "aside")
                source.write_bytes(b"FIRST")
            return super().reserve(mode, count)

    floor.ids = Meddling(floor.faults)
    floor.restart()
    job = floor.move(document)
    assert "the source was changed meanwhile" in floor.run(job).waiting_for
    floor.run_when_due(job)
    floor.assert_failed(job, Step.MOVE_FILES, "has sha256")
    assert source.read_bytes() == b"FIRST"
    assert floor.archive.objects == {}


@pytest.mark.parametrize("verify", ["size", "none"])
def test_a_part_without_its_source_counts_never_however_little_is_read_back(tmp_path: Path, verify: str) -> None:
    floor = Floor(tmp_path, verify=verify)
    job = interrupted(floor, after=True)
    file_id = floor.store.intents(job.job_id)[0]
    floor.archive.objects[file_id] = b"fir"
    for _ in range(500):
        if floor.run_when_due(job).phase is not Phase.READY:
            break
    floor.assert_failed(job, Step.MOVE_FILES, "it has 3 bytes there")


def test_a_source_that_was_replaced_before_anything_was_begun_is_what_is_moved(floor: Floor) -> None:
    job = floor.move()
    floor.faults.fail("ids.reserve", error=NeighbourDown("uniqueid", "away"))
    floor.run(job)
    source = floor.incoming / "source0"
    source.rename(floor.folder / "aside")
    source.write_bytes(FILES["a.txt"])
    floor.faults.fail("archive.adopt", error=NeighbourDown("archive", "cut"))
    floor.run_when_due(job)
    floor.run_when_due(job)
    floor.assert_done(job)
