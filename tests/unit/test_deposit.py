"""Bytes into the archive: intents first, an id is used once, and only what was read back counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pacifica.ingest import deposit
from pacifica.ingest.core.errors import NeighbourDown, Stopping
from pacifica.ingest.core.files import FileEntry
from pacifica.ingest.core.metadata import Document
from pacifica.ingest.core.states import Phase, Step
from pacifica.ingest.deposit import RANGE_TRIES, WINDOW_BYTES, WINDOW_FILES, windows
from pacifica.ingest.ports import IdMode
from pacifica.ingest.tables import ArchiveId
from pacifica.ingest.work import FINISHING_S
from tests.unit.floor import FILES, Floor, TickingClock, bundle, registered

DOWN = NeighbourDown("archive", "away")
#: The first id that the doubles give to a file.
FIRST = 1000


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    return Floor(tmp_path)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few files make several windows."""
    monkeypatch.setattr(deposit, "WINDOW_FILES", 2)


def states(floor: Floor) -> list[str]:
    """What became of each id, in the order of the ids."""
    return [state for _, state in sorted(floor.store.ids.items())]


def entry(seq: int, size_bytes: int | None) -> FileEntry:
    return FileEntry(seq=seq, at=seq, path=str(seq), size_bytes=size_bytes, digest=None, source="")


# --- windows


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([1], [1]),
        ([1] * WINDOW_FILES, [WINDOW_FILES]),
        ([1] * (2 * WINDOW_FILES + 1), [WINDOW_FILES, WINDOW_FILES, 1]),
        ([WINDOW_BYTES, WINDOW_BYTES + 5, 1, None, 2], [1, 1, 3]),
        ([WINDOW_BYTES - 1, 1, 1], [2, 1]),
    ],
    ids=["none", "one", "full", "several", "large files", "by bytes"],
)
def test_windows_are_cut_by_files_and_by_bytes(sizes: list[int | None], expected: list[int]) -> None:
    entries = [entry(seq, size) for seq, size in enumerate(sizes)]
    cut = list(windows(entries))
    assert [len(window) for window in cut] == expected
    assert [file for window in cut for file in window] == entries


@pytest.mark.usefixtures("small_windows")
def test_an_intent_is_committed_before_bytes_are_sent_and_fulfilled_after_they_were_read_back(floor: Floor) -> None:
    floor.run(floor.upload())
    window = ["jobs.intend", "archive.store", "archive.store", "archive.flush"]
    window += ["archive.digest", "archive.digest", "jobs.archived"]
    last = ["jobs.intend", "archive.store", "archive.flush", "archive.digest", "jobs.archived"]
    begin, calls = floor.faults.calls.index("jobs.abandon"), floor.faults.calls
    before = ["jobs.abandon", "jobs.file_ids", "ids.reserve", "archive.size"]
    assert calls[begin : calls.index("jobs.report", begin)] == [*before, *window, *window, *last]


def test_ids_are_asked_for_in_one_range(floor: Floor) -> None:
    floor.run(floor.upload())
    assert floor.faults.calls.count("ids.reserve") == 2  # one for the job
    assert set(floor.archive.objects) == set(range(FIRST, FIRST + len(FILES)))


# --- ids that are taken


def test_an_id_that_another_job_has_is_passed_over(floor: Floor) -> None:
    first = floor.upload()
    floor.run(first)
    floor.ids.next_id[IdMode.FILE] = FIRST + 3
    floor.archive.objects.pop(FIRST + 3)  # so that the probe of the range does not tell
    second = floor.upload()
    floor.run(second)
    ids = [set(floor.store.file_ids(job.job_id).values()) for job in (first, second)]
    assert ids[0].isdisjoint(ids[1])
    assert len(ids[1]) == len(FILES)
    floor.assert_done(second)


@pytest.mark.parametrize("seed", range(5))
def test_ranges_that_overlap_give_each_file_an_id_of_its_own(floor: Floor, seed: int) -> None:
    for _ in range(4):
        job = floor.upload()
        floor.ids.next_id[IdMode.FILE] -= seed
        floor.run(job)
        floor.assert_done(job)
    assert set(floor.archive.sent.values()) == {1}


def test_a_range_whose_first_id_the_archive_has_is_not_used(floor: Floor, caplog: pytest.LogCaptureFixture) -> None:
    floor.archive.objects[FIRST] = b"of somebody else"
    job = floor.upload()
    floor.run(job)
    floor.assert_done(job)
    assert floor.archive.objects[FIRST] == b"of somebody else"
    assert set(floor.store.file_ids(job.job_id).values()).isdisjoint(range(FIRST, FIRST + len(FILES)))
    assert "ids that the archive has already" in caplog.text


def test_a_service_that_gives_only_ids_that_the_archive_has_is_not_asked_for_ever(floor: Floor) -> None:
    floor.archive.objects |= dict.fromkeys(range(FIRST, FIRST + 1000), b"")
    job = floor.run(floor.upload())
    assert "uniqueid cannot be used now" in job.waiting_for
    assert floor.faults.calls.count("ids.reserve") == 1 + RANGE_TRIES


def test_a_service_that_gives_only_ids_that_the_jobs_have_is_not_asked_for_ever(floor: Floor) -> None:
    other = floor.claim(floor.upload())
    floor.store.intend(other, {seq: FIRST + seq for seq in range(1000)})
    job = floor.run(floor.upload())
    assert "uniqueid cannot be used now" in job.waiting_for
    assert floor.archive.objects == {}


def test_an_object_of_somebody_else_is_never_touched(floor: Floor) -> None:
    floor.archive.objects[FIRST + 2] = b"of somebody else"
    job = floor.upload()
    assert "the id holds something else" in floor.run(job).waiting_for
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.archive.objects[FIRST + 2] == b"of somebody else"


def test_an_id_that_the_archive_refused_is_no_garbage_and_neither_are_those_behind_it(floor: Floor) -> None:
    floor.archive.objects[FIRST + 2] = b"of somebody else"
    job = floor.upload()
    floor.run(job)
    archived, void = [ArchiveId.ARCHIVED] * 2, [ArchiveId.VOID] * 3
    assert states(floor) == [*archived, *void]
    floor.run_when_due(job)
    assert states(floor) == [*archived, *void, *[ArchiveId.ARCHIVED] * 3]


def test_ids_that_nothing_was_sent_under_when_the_archive_went_away_are_no_garbage(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("archive.store", error=DOWN, at=3)
    floor.run(job)
    assert states(floor) == [*[ArchiveId.ARCHIVED] * 2, ArchiveId.INTENT, *[ArchiveId.VOID] * 2]
    floor.run_when_due(job)
    assert states(floor)[2:5] == [ArchiveId.GARBAGE, *[ArchiveId.VOID] * 2]


# --- stops


@pytest.mark.parametrize("sent", [1, 3])
def test_what_was_sent_before_a_stop_is_read_back_and_counts(floor: Floor, sent: int) -> None:
    job = floor.upload()
    # Told when the next file is on its way.
    floor.pipeline.run(floor.claim(job), lambda: floor.faults.calls.count("archive.store") > sent)
    assert floor.store.job(job.job_id).phase is Phase.READY
    left = len(FILES) - sent - 1
    assert states(floor) == [*[ArchiveId.ARCHIVED] * sent, ArchiveId.INTENT, *[ArchiveId.VOID] * left]
    floor.run(job)
    floor.assert_done(job)
    assert floor.archive.sent.total() == len(FILES) + 1


def test_a_stop_while_a_window_is_read_back_waits_for_it(floor: Floor) -> None:
    job = floor.upload()
    floor.pipeline.run(floor.claim(job), lambda: "archive.digest" in floor.faults.calls)
    assert states(floor) == [ArchiveId.ARCHIVED] * len(FILES)
    floor.run(job)
    floor.assert_done(job)
    assert floor.archive.sent.total() == len(FILES)


def test_a_stop_does_not_wait_for_an_archive_that_is_slow(tmp_path: Path) -> None:
    floor = Floor(tmp_path, clock=TickingClock())
    content = {f"f{number}": b"%d" % number for number in range(50)}
    job = floor.upload(bundle(content).build())
    floor.pipeline.run(floor.claim(job), lambda: "archive.digest" in floor.faults.calls)
    assert floor.store.job(job.job_id).phase is Phase.READY
    # What was read back in time counts.
    assert 0 < len(floor.store.file_ids(job.job_id)) <= FINISHING_S
    floor.run(job)
    floor.assert_done(job, content)


# --- what is not clear is sent again under another id


@pytest.mark.parametrize("after", [False, True], ids=["not sent", "answer lost"])
@pytest.mark.parametrize("at", range(1, len(FILES) + 1))
def test_an_unclear_file_gets_another_id_and_its_first_is_listed_as_garbage(
    floor: Floor, at: int, *, after: bool
) -> None:
    job = floor.upload()
    floor.faults.fail("archive.store", error=DOWN, at=at, after=after)
    floor.run(job)
    floor.run_when_due(job)
    floor.assert_done(job)
    assert set(floor.archive.sent.values()) == {1}
    garbage = {file_id for file_id, state in floor.store.ids.items() if state == ArchiveId.GARBAGE}
    assert set(floor.archive.objects) - garbage == set(floor.store.file_ids(job.job_id).values())
    assert garbage == {FIRST + at - 1}


def test_what_the_archive_took_before_it_failed_is_kept(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("archive.store", error=DOWN, at=4)
    floor.run(job)
    assert sorted(floor.store.file_ids(job.job_id)) == [0, 1, 2]
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.archive.sent.total() == len(FILES)


@pytest.mark.parametrize("error", [DOWN, Stopping("stop"), ZeroDivisionError()])
def test_what_was_read_back_before_a_fault_is_kept(floor: Floor, error: Exception) -> None:
    job = floor.upload()
    floor.faults.fail("archive.digest", error=error, at=3)
    floor.run(job)
    assert sorted(floor.store.file_ids(job.job_id)) == [0, 1]


def test_nothing_counts_as_archived_when_nothing_was_read_back(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("archive.digest", error=DOWN)
    floor.run(job)
    assert "jobs.archived" not in floor.faults.calls
    assert states(floor) == [ArchiveId.INTENT] * len(FILES)


@pytest.mark.usefixtures("small_windows")
def test_an_archive_that_refuses_now_and_then_takes_every_job_in_the_end(floor: Floor) -> None:
    job = floor.upload()
    for at in (2, 4, 5):
        floor.faults.fail("archive.store", error=DOWN, at=at)
    for _ in range(3):
        assert floor.run_when_due(job).phase is Phase.READY
    floor.run_when_due(job)
    floor.assert_done(job)


# --- reading back


def lost_byte(found: bytes) -> bytes:
    return found[:-1]


def flipped(found: bytes) -> bytes:
    return bytes([found[0] ^ 1]) + found[1:] if found else found


def grown(content: bytes) -> bytes:
    return content + b"!"


@dataclass(frozen=True)
class Spoiled:
    verify: str
    spoil: Callable[[bytes], bytes]
    reason: str


SPOILED = [
    Spoiled("full", flipped, "its sha256 is"),
    Spoiled("full", lost_byte, "it has 4 bytes there instead of 5"),
    Spoiled("size", lost_byte, "it has 4 bytes there instead of 5"),
    Spoiled("full", grown, "it has more than 5 bytes there"),
    Spoiled("size", grown, "it has more than 5 bytes there"),
]


@pytest.mark.parametrize("case", SPOILED, ids=lambda case: f"{case.verify}, {case.spoil.__name__}")
def test_an_archive_that_keeps_something_else_is_found_out_and_the_file_sent_again(
    tmp_path: Path, case: Spoiled
) -> None:
    floor = Floor(tmp_path, verify=case.verify)
    job = floor.upload()
    floor.archive.spoil = case.spoil
    assert case.reason in floor.run(job).waiting_for
    floor.archive.spoil = bytes
    floor.run_when_due(job)
    floor.assert_done(job)
    assert floor.store.ids[FIRST] == ArchiveId.GARBAGE


@pytest.mark.parametrize(
    ("verify", "calls"),
    [("full", {"archive.digest": len(FILES), "archive.size": 1}), ("size", {"archive.size": 1 + len(FILES)}), ("none", {"archive.size": 1})],
)  # fmt: skip
def test_no_more_is_read_back_than_was_asked_for(tmp_path: Path, verify: str, calls: Mapping[str, int]) -> None:
    floor = Floor(tmp_path, verify=verify)
    job = floor.upload()
    floor.run(job)
    floor.assert_done(job)
    asked = [call for call in floor.faults.calls if call in {"archive.digest", "archive.size"}]
    assert {call: asked.count(call) for call in set(asked)} == calls


def test_an_archive_that_always_keeps_something_else_fails_the_job(floor: Floor) -> None:
    job = floor.upload()
    floor.archive.spoil = flipped
    while floor.run_when_due(job).phase is Phase.READY:
        pass
    floor.assert_failed(job, Step.INGEST_FILES, "its sha256 is")
    assert set(floor.archive.sent.values()) == {1}


def test_an_archive_that_loses_power_after_its_answer_loses_nothing_that_counts(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("archive.flush", error=DOWN)
    floor.run(job)
    floor.archive.lose_power()
    assert floor.store.file_ids(job.job_id) == {}
    floor.run_when_due(job)
    floor.archive.lose_power()
    floor.assert_done(job)


def test_each_file_of_a_bundle_arrives_under_the_id_that_is_registered(floor: Floor) -> None:
    content = {f"f{number}": b"%d" % number * number for number in range(600)}
    job = floor.upload(bundle(content).build())
    floor.run(job)
    floor.assert_done(job, content)
    assert floor.faults.calls.count("jobs.intend") == 3
    assert len(registered(floor.catalogue.transactions[job.job_id])) == 600
    assert Document.of(bundle(content).document()).faults == ()
