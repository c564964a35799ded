"""Moves: what became of a file is found out from what is left on both sides."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pacifica.ingest.core.errors import DatabaseDown, IdTaken, NeighbourDown
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Phase, Step
from pacifica.ingest.ports import IdMode, SourceFile
from pacifica.ingest.tables import ArchiveId
from pacifica.ingest.testing import MemoryArchive, MemoryIds
from tests.unit.floor import FILES, Floor, Store


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    return Floor(tmp_path, retry_for_s=10_000)


def interrupted(floor: Floor, files: Mapping[str, bytes] = FILES, *, after: bool) -> Job:
    """A move whose first file got no clear answer: the archive moved it (`after`), or it did not."""
    job = floor.move(floor.document(files))
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


@pytest.mark.parametrize("after", [False, True])
def test_an_archive_that_wrongly_says_that_it_has_nothing_loses_nothing(floor: Floor, *, after: bool) -> None:
    class Blind(MemoryArchive):
        """Something in front of it answers every question with a 500."""

        is_blind = True

        def size(self, file_id: int) -> int | None:
            found = super().size(file_id)
            return None if self.is_blind else found

    archive = Blind(floor.faults)
    floor.archive = archive
    floor.restart()
    job = interrupted(floor, after=after)
    if not after:
        # It ended between copying and removing.
        archive.objects[floor.store.intents(job.job_id)[0]] = FILES["a.txt"]
    waiting = floor.run_when_due(job)
    if after:
        assert "the archive does not have it, and its source" in waiting.waiting_for
        archive.is_blind = False
        floor.run_when_due(job)
    floor.assert_done(job)


@dataclass(frozen=True)
class Doubt:
    name: str
    source_is_there: bool
    archived: bytes | None
    reason: str


DOUBTS = [
    Doubt("a part is there, the source is gone", False, b"fir", "it has 3 bytes there instead of 5, and"),
    Doubt("other bytes are there, the source is gone", False, b"FIRST", "there instead of"),
    Doubt("the source is there, other bytes are, too", True, b"FIRST", "there instead of"),
    Doubt("neither side has it", False, None, "the archive does not have it, and its source"),
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
    reason = floor.run_when_due(job).waiting_for
    assert "the archive does not have it, and its source" in reason
    assert "source0' has sha256" in reason
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
    floor.assert_failed(job, Step.INGEST_METADATA, ".mimetype: expected")
    assert floor.archive.sent.total() == 0


# --- the order that makes an unclear answer harmless


def test_sources_and_intents_are_recorded_before_the_archive_is_asked(floor: Floor) -> None:
    floor.run(floor.move())
    calls = floor.faults.calls
    assert calls.index("jobs.note_sources") < calls.index("jobs.intend") < calls.index("archive.adopt")
    count = len(FILES)
    asked = ["archive.size"] * count + ["jobs.beat", "archive.adopt"] * count
    counted = ["archive.flush", *["archive.digest"] * count, "jobs.archived"]
    begin = calls.index("jobs.intend") + 1
    assert calls[begin : begin + 4 * count + 2] == asked + counted


def test_a_move_counts_each_file_as_soon_as_it_is_safe(floor: Floor) -> None:
    job = floor.move()
    floor.faults.fail("archive.adopt", error=NeighbourDown("archive", "away"), at=3)
    floor.run(job)
    assert sorted(floor.store.file_ids(job.job_id)) == [0, 1]
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.archive.sent.total() == len(FILES)
    assert [state for _, state in sorted(floor.store.ids.items())] == [
        *[ArchiveId.ARCHIVED] * 3, *[ArchiveId.VOID] * 2, *[ArchiveId.ARCHIVED] * 2
    ]  # fmt: skip


def test_an_id_that_somebody_else_uses_is_given_up_before_the_source_is_touched(floor: Floor) -> None:
    floor.archive.objects[1002] = b"of somebody else"
    job = floor.move()
    assert "the id holds something else already" in floor.run(job).waiting_for
    assert (floor.incoming / "source2").exists()
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.archive.objects[1002] == b"of somebody else"
    # The others of its window were not begun with either.
    assert {file_id for file_id, state in floor.store.ids.items() if state == ArchiveId.VOID} == set(range(1000, 1005))
    assert ArchiveId.GARBAGE not in floor.store.ids.values()


def test_an_id_that_is_taken_just_when_the_archive_is_asked_is_given_up_and_the_source_stays(floor: Floor) -> None:
    class Rival(MemoryArchive):
        """Somebody else stores something between the look and the move."""

        def adopt(self, file_id: int, source: Path) -> None:
            if file_id == 1001:
                self.objects[file_id] = b"of somebody else"
            super().adopt(file_id, source)

    floor.archive = Rival(floor.faults)
    floor.restart()
    job = floor.move()
    assert "the id holds something else already" in floor.run(job).waiting_for
    assert floor.store.ids[1001] == ArchiveId.VOID
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.archive.objects[1001] == b"of somebody else"


def test_an_id_that_an_older_request_took_just_then_holds_the_file(floor: Floor) -> None:
    class Overtaken(MemoryArchive):
        """An older request under the same id is faster, so that the archive refuses the second one."""

        def adopt(self, file_id: int, source: Path) -> None:
            super().adopt(file_id, source)
            if file_id == 1001:
                raise IdTaken(file_id, str(source))

    floor.archive = Overtaken(floor.faults)
    floor.restart()
    job = floor.move()
    floor.run(job)
    assert floor.store.ids[1001] == ArchiveId.INTENT
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.store.file_ids(job.job_id)[1] == 1001


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
    assert "the source has sha256" in floor.run(job).waiting_for
    floor.run_when_due(job)
    floor.assert_failed(job, Step.MOVE_FILES, "has sha256")
    assert source.read_bytes() == b"FIRST"
    assert floor.archive.objects == {}


# --- on another machine, the same file is known by other numbers


class OnAnotherClient(Store):
    """The job store of a worker that knows the same files by other numbers: of the device, of the inode, or of both."""

    other: ClassVar[dict[str, int]] = {}

    def sources(self, job_id: int) -> dict[int, SourceFile]:
        return {seq: replace(source, **self.other) for seq, source in super().sources(job_id).items()}


@pytest.mark.parametrize("other", [{"device": 7}, {"inode": 7}, {"device": 7, "inode": 7}], ids=str)
def test_a_move_goes_on_where_its_source_has_other_numbers(floor: Floor, other: dict[str, int]) -> None:
    job = interrupted(floor, after=False)
    elsewhere(floor, other)
    floor.run_when_due(job)
    floor.assert_done(job)


def test_other_bytes_under_other_numbers_are_not_the_checked_file(floor: Floor) -> None:
    job = interrupted(floor, after=False)
    elsewhere(floor, {"device": 7})
    (floor.incoming / "source0").write_bytes(b"FIRST")
    assert "source0' has sha256" in floor.run_when_due(job).waiting_for
    assert (floor.incoming / "source0").read_bytes() == b"FIRST"


def test_a_link_to_the_checked_bytes_is_not_the_checked_file(floor: Floor) -> None:
    job = interrupted(floor, after=False)
    elsewhere(floor, {"device": 7})
    source = floor.incoming / "source0"
    source.rename(floor.folder / "aside")
    source.symlink_to(floor.folder / "aside")
    assert "is reached through a symbolic link" in floor.run_when_due(job).waiting_for
    assert (floor.folder / "aside").read_bytes() == FILES["a.txt"]


def elsewhere(floor: Floor, other: dict[str, int]) -> None:
    """Let another machine go on."""
    floor.store.__class__ = type("Elsewhere", (OnAnotherClient,), {"other": other})


def test_a_job_waits_on_a_worker_that_cannot_see_its_sources(floor: Floor) -> None:
    job = interrupted(floor, after=False)
    floor.incoming.rename(floor.folder / "not mounted")
    assert "does not exist" in floor.run_when_due(job).waiting_for
    (floor.folder / "not mounted").rename(floor.incoming)
    floor.run_when_due(job)
    floor.assert_done(job)


def test_a_source_that_was_checked_and_not_begun_with_is_waited_for_where_it_is_not_seen(floor: Floor) -> None:
    job = floor.move()
    floor.faults.fail("ids.reserve", error=NeighbourDown("uniqueid", "away"))
    floor.run(job)
    floor.incoming.rename(floor.folder / "not mounted")
    assert "source0' does not exist, and was there before. Is its file system mounted" in (
        floor.run_when_due(job).waiting_for
    )
    (floor.folder / "not mounted").rename(floor.incoming)
    floor.run_when_due(job)
    floor.assert_done(job)


@pytest.mark.parametrize("verify", ["full", "size", "none"])
def test_a_source_that_is_not_seen_counts_as_moved_only_with_its_bytes(tmp_path: Path, verify: str) -> None:
    floor = Floor(tmp_path, verify=verify, retry_for_s=10_000)
    job = interrupted(floor, after=True)
    file_id = floor.store.intents(job.job_id)[0]
    # As long as it should be, and not what it should be.
    floor.archive.objects[file_id] = b"FIRST"
    assert "its sha256 is" in floor.run_when_due(job).waiting_for
    assert floor.store.file_ids(job.job_id) == {}
    floor.archive.objects[file_id] = FILES["a.txt"]
    floor.run_when_due(job)
    floor.assert_done(job)


@pytest.mark.parametrize("verify", ["full", "size", "none"])
def test_a_file_that_the_archive_cut_without_a_word_is_noticed(tmp_path: Path, verify: str) -> None:
    floor = Floor(tmp_path, verify=verify, retry_for_s=10_000)
    floor.archive.spoil = lambda content: content[:3]
    job = floor.move()
    assert "it has 3 bytes there instead of 5" in floor.run(job).waiting_for
    assert floor.store.file_ids(job.job_id) == {}


# --- a copy that was cut half-way


def cut(floor: Floor, part: bytes = b"fir", files: Mapping[str, bytes] = FILES) -> tuple[Job, int]:
    """A move whose first file was copied in part, as the archive ended; returns its id, too."""
    job = interrupted(floor, files, after=False)
    file_id = floor.store.intents(job.job_id)[0]
    floor.archive.objects[file_id] = part
    return job, file_id


def end_late(floor: Floor, file_id: int) -> None:
    """The archive had not ended: it copies the rest, and removes the source."""
    floor.archive.objects[file_id] = FILES["a.txt"]
    (floor.incoming / "source0").unlink(missing_ok=True)


@pytest.mark.parametrize("part", [b"", b"fir", b"FIRST", b"longer than it"])
def test_a_part_that_stands_still_is_given_up_and_its_file_gets_another_id(floor: Floor, part: bytes) -> None:
    job, old = cut(floor, part)
    assert "is still there" in floor.run_when_due(job).waiting_for
    assert floor.store.intents(job.job_id)[0] == old
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.store.file_ids(job.job_id)[0] != old
    assert floor.store.given_up(job.job_id) == {0: [old]}
    assert floor.archive.objects[old] == part


def test_a_copy_that_pauses_does_not_stand_still_before_a_minute_is_over(tmp_path: Path) -> None:
    floor = Floor(tmp_path, retry_for_s=10_000, still_s=60)
    job, old = cut(floor, b"f")
    for part in (b"f", b"fi"):
        floor.archive.objects[old] = part
        floor.run_when_due(job)
        grown = floor.clock.now()
        while floor.clock.now() - grown < timedelta(seconds=40):
            floor.store._change(job.job_id, not_before=floor.clock.now() + timedelta(seconds=8))
            assert "is still there" in floor.run_when_due(job).waiting_for
    assert floor.store.intents(job.job_id)[0] == old
    floor.store._change(job.job_id, not_before=grown + timedelta(seconds=60))
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.store.ids[old] == ArchiveId.GARBAGE


def test_a_clock_that_jumped_back_holds_no_part(tmp_path: Path) -> None:
    floor = Floor(tmp_path, retry_for_s=10_000, still_s=60)
    job, old = cut(floor, b"f")
    floor.run_when_due(job)
    floor.clock.jump(-100_000)
    floor.store._change(job.job_id, not_before=floor.clock.now())
    floor.run_when_due(job)
    assert floor.store.ids[old] == ArchiveId.GARBAGE


def test_a_part_that_grows_is_left_to_grow(floor: Floor) -> None:
    job, old = cut(floor, b"f")
    floor.run_when_due(job)
    for part in (b"fi", b"fir", b"firs"):
        floor.archive.objects[old] = part
        assert "is still there" in floor.run_when_due(job).waiting_for
    floor.archive.objects[old] = FILES["a.txt"]
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.store.file_ids(job.job_id)[0] == old


def test_a_copy_that_takes_longer_than_a_job_may_wait_goes_on_for_as_long_as_it_grows(tmp_path: Path) -> None:
    floor = Floor(tmp_path, retry_for_s=100)
    job, old = cut(floor, b"")
    for size in range(1, 5):
        floor.archive.objects[old] = b"first"[:size]
        assert "there instead of 5" in floor.run_when_due(job).waiting_for
        floor.store._change(job.job_id, not_before=floor.clock.now() + timedelta(seconds=60))
    floor.archive.objects[old] = b"first"
    floor.run_when_due(job)
    floor.assert_done(job)


def test_a_part_that_shrank_is_given_up_so_that_it_cannot_grow_for_ever(floor: Floor) -> None:
    job, old = cut(floor, b"firs")
    floor.run_when_due(job)
    floor.archive.objects[old] = b"fir"
    floor.run_when_due(job)
    assert floor.store.ids[old] == ArchiveId.GARBAGE


def test_a_part_under_the_next_id_is_looked_at_twice_as_well(floor: Floor) -> None:
    one = {"a.txt": FILES["a.txt"]}
    job, first = cut(floor, files=one)
    floor.run_when_due(job)
    floor.faults.fail("archive.adopt", error=NeighbourDown("archive", "cut"))
    floor.run_when_due(job)
    second = floor.store.intents(job.job_id)[0]
    floor.archive.objects[second] = floor.archive.objects[first]
    assert "is still there" in floor.run_when_due(job).waiting_for
    floor.run_when_due(job)
    floor.assert_done(job, one)
    assert floor.store.given_up(job.job_id) == {0: [second, first]}


class Late(MemoryArchive):
    """An archive that ends an old request at a moment of the next one.

    Attributes:
        end: what it ends.
        moment: before the next `size` of that id, or before or in the middle of the next `adopt`.

    """

    role = "archive"
    end: Callable[[], None] = staticmethod(lambda: None)
    moment = ""

    def _now(self, moment: str) -> None:
        if self.moment == moment:
            self.moment = ""
            self.end()

    def flush(self) -> None:
        self._now("before the flush")
        super().flush()

    def size(self, file_id: int) -> int | None:
        self._now("before it looks")
        there = super().size(file_id)
        self._now("after it looked")
        return there

    def adopt(self, file_id: int, source: Path) -> None:
        self._now("before it moves")
        if self.moment == "while it copies":
            self.objects[file_id] = source.read_bytes()
            self._now("while it copies")
            raise NeighbourDown("archive", "the source is gone")
        if self.moment == "while it copies, which is cut":
            self.objects[file_id] = source.read_bytes()[:2]
            self._now("while it copies, which is cut")
            raise NeighbourDown("archive", "cut again")
        super().adopt(file_id, source)


MOMENTS = [
    "before it looks",
    "after it looked",
    "before it moves",
    "while it copies",
    "while it copies, which is cut",
    "before the flush",
]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fails_at", range(25))
def test_an_archive_that_ends_late_what_was_given_up_loses_nothing(tmp_path: Path, moment: str, fails_at: int) -> None:
    one = {"a.txt": FILES["a.txt"]}
    floor = Floor(tmp_path, retry_for_s=10_000)
    floor.archive = late = Late(floor.faults)
    floor.restart()
    job, old = cut(floor, files=one)
    waiting = floor.run_when_due(job)
    late.end, late.moment = lambda: end_late(floor, old), moment
    floor.clock.advance((waiting.not_before - floor.clock.now()).total_seconds())
    claim = floor.claim(job)
    if fails_at:
        # The attempt that gives up is cut short, too.
        floor.faults.fail("*", error=DatabaseDown("away"), at=fails_at)
    floor.pipeline.run(claim)
    floor.restart()
    while (found := floor.store.job(job.job_id)).phase is not Phase.DONE:
        if found.phase is Phase.RUNNING:
            floor.store.take_over(found)
        floor.run_when_due(job)
        assert floor.store.job(job.job_id).attempt < 10
    floor.recovery.sweep()
    floor.assert_done(job, one)
    assert Counter(floor.store.ids.values())[ArchiveId.ARCHIVED] == 1


def test_a_source_that_is_gone_with_its_given_up_copy_is_waited_for(floor: Floor) -> None:
    job, old = cut(floor)
    floor.run_when_due(job)
    floor.faults.fail("ids.reserve", error=NeighbourDown("uniqueid", "away"))
    floor.run_when_due(job)
    assert (floor.store.intents(job.job_id), floor.store.given_up(job.job_id)) == ({}, {0: [old]})
    (floor.incoming / "source0").unlink()
    assert "was there before" in floor.run_when_due(job).waiting_for
    end_late(floor, old)
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.store.file_ids(job.job_id)[0] == old


# --- a worker that stood still


class Frozen(MemoryArchive):
    """An archive whose answer to the first look finds a worker that slept meanwhile."""

    role = "archive"
    meanwhile: Callable[[], None] | None = None

    def size(self, file_id: int) -> int | None:
        there = super().size(file_id)
        if self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return there


def test_a_worker_that_wakes_up_late_moves_nothing_that_lies_there_by_then(floor: Floor) -> None:
    floor.archive = archive = Frozen(floor.faults)
    floor.restart()
    job = interrupted(floor, after=False)
    source = floor.incoming / "source0"

    def meanwhile() -> None:
        assert floor.store.take_over(floor.store.job(job.job_id))
        floor.run(job)
        floor.assert_done(job)
        # Somebody puts the same there again.
        source.write_bytes(FILES["a.txt"])

    archive.meanwhile = meanwhile
    floor.run_when_due(job)
    assert archive.meanwhile is None
    assert source.read_bytes() == FILES["a.txt"]
    assert floor.store.job(job.job_id).phase is Phase.DONE
    assert set(floor.archive.sent.values()) == {1}


# --- what is no source


@pytest.mark.parametrize("name", ["7.tar", "7.json", "123.tar.part", "{job_id}.json"])
@pytest.mark.parametrize("is_respelled", [False, True])
def test_a_file_of_the_landing_zone_is_no_source(tmp_path: Path, name: str, *, is_respelled: bool) -> None:
    floor = Floor(tmp_path)
    floor.incoming = floor.folder / "staging"
    if is_respelled:
        (floor.folder / "mounted").symlink_to(floor.folder / "staging")
        floor.incoming = floor.folder / "mounted"
    floor.restart()
    floor.staging.admit(None)
    document = floor.document({"a.txt": b"first"})
    source = floor.incoming / name.format(job_id=floor.ids.next_id[IdMode.JOB])
    (floor.incoming / "source0").unlink()
    if "job_id" not in name:
        source.write_bytes(b"first")
    next(entry for entry in document if entry["destinationTable"] == "Files")["source"] = str(source)
    job = floor.move(document)
    floor.run(job)
    floor.assert_failed(job, Step.MOVE_FILES, "is a file of the landing zone itself")
    assert source.exists()


def twice(floor: Floor, spelling: str) -> Job:
    """A move of two files whose second source is another spelling of the first."""
    document = floor.document({"a.txt": b"same", "b.txt": b"same"})
    files = [entry for entry in document if entry["destinationTable"] == "Files"]
    (floor.incoming / "source1").unlink()
    files[1]["source"] = spelling.format(floor=floor)
    return floor.move(document)


@pytest.mark.parametrize(
    "spelling", ["{floor.incoming}/source0", "{floor.incoming}//./source0", "{floor.folder}/mounted/source0"]
)
@pytest.mark.parametrize("names", [1, 2])
def test_a_source_of_two_files_is_refused_and_both_are_named(floor: Floor, spelling: str, names: int) -> None:
    (floor.folder / "mounted").symlink_to(floor.incoming)
    floor.roots = (floor.incoming, floor.folder / "mounted")
    floor.restart()
    job = twice(floor, spelling)
    if names > 1:
        os.link(floor.incoming / "source0", floor.incoming / "another name")
    floor.run(job)
    floor.assert_failed(job, Step.MOVE_FILES, "'b.txt': source")
    floor.assert_failed(job, Step.MOVE_FILES, f"is that of 'a.txt', too: '{floor.incoming}/source0'")
    assert (floor.incoming / "source0").read_bytes() == b"same"
    assert floor.archive.sent.total() == 0


def test_two_names_of_one_file_are_two_sources(floor: Floor) -> None:
    job = twice(floor, "{floor.incoming}/source1")
    os.link(floor.incoming / "source0", floor.incoming / "source1")
    floor.run(job)
    floor.assert_done(job, {"a.txt": b"same", "b.txt": b"same"})


# --- however little is read back


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
