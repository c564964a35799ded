"""Registration: exactly one transaction, whatever becomes of the answer."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pacifica.ingest.bundle import Limits
from pacifica.ingest.core.errors import Conflict, IngestError, NeighbourDown
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.metadata import Registration
from pacifica.ingest.core.states import Kind, Phase, Step
from pacifica.ingest.testing import MemoryCatalogue
from tests.unit.floor import Floor, bundle

DOWN = NeighbourDown("metadata", "away")
CONFLICT = Conflict("Something of that id is there.")


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    return Floor(tmp_path)


def send(floor: Floor, kind: Kind) -> Job:
    return floor.upload() if kind is Kind.INGEST else floor.move()


def registrations(floor: Floor) -> int:
    return floor.faults.calls.count("catalogue.register")


@pytest.mark.parametrize("kind", Kind)
def test_the_map_is_frozen_before_the_catalogue_is_asked(floor: Floor, kind: Kind) -> None:
    job = floor.run(send(floor, kind))
    calls = floor.faults.calls
    assert calls.index("jobs.freeze") == calls.index("catalogue.register") - 1
    assert "catalogue.lookup" not in calls
    assert job.frozen


@pytest.mark.parametrize("error", [DOWN, CONFLICT])
def test_a_lost_answer_is_settled_by_looking_the_transaction_up(floor: Floor, error: IngestError) -> None:
    job = floor.upload()
    floor.faults.fail("catalogue.register", error=error, after=True)
    floor.run(job)
    floor.assert_done(job)
    assert registrations(floor) == 1


@pytest.mark.parametrize("kind", Kind)
def test_a_lost_answer_is_settled_later_when_nothing_can_be_looked_up_now(floor: Floor, kind: Kind) -> None:
    job = send(floor, kind)
    floor.faults.fail("catalogue.register", error=DOWN, after=True)
    floor.faults.fail("catalogue.lookup", error=DOWN, times=2)
    assert floor.run(job).frozen
    assert floor.run_when_due(job).phase is Phase.READY
    floor.run_when_due(job)
    floor.assert_done(job)
    assert registrations(floor) == 1


def test_a_registration_that_did_not_arrive_is_sent_again(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("catalogue.register", error=DOWN)
    floor.run(job)
    assert floor.catalogue.transactions == {}
    floor.run_when_due(job)
    floor.assert_done(job)
    assert registrations(floor) == 2


def test_a_frozen_job_is_neither_checked_nor_archived_again(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("catalogue.register", error=DOWN)
    floor.run(job)
    floor.faults.calls.clear()
    floor.run_when_due(job)
    assert not [call for call in floor.faults.calls if call.startswith(("archive", "ids", "policy"))]
    assert "jobs.abandon" not in floor.faults.calls


def other_transaction(floor: Floor, job: Job, files: dict[str, bytes]) -> None:
    """Let the catalogue have a transaction of this job's number with other files."""
    other = Floor(floor.folder / "other")
    other.ids.next_id = dict.fromkeys(other.ids.next_id, job.job_id)
    other.run(other.upload(bundle(files).build()))
    floor.catalogue.transactions |= other.catalogue.transactions


@pytest.mark.parametrize("files", [{}, {"a.txt": b"first"}], ids=["no files", "other ids"])
def test_another_transaction_of_the_same_number_fails_the_job_and_everything_is_kept(
    floor: Floor, files: dict[str, bytes]
) -> None:
    job = floor.upload()
    (floor.folder / "other").mkdir()
    other_transaction(floor, job, files)
    before = floor.catalogue.transactions[job.job_id]
    floor.run(job)
    floor.assert_failed(job, Step.INGEST_METADATA, f"Transaction {job.job_id} is registered with other files")
    assert floor.catalogue.transactions[job.job_id] == before
    assert len(floor.archive.objects) == 5


def test_another_transaction_is_found_out_after_a_lost_answer_too(floor: Floor) -> None:
    job = floor.upload()
    floor.faults.fail("catalogue.register", error=DOWN)
    floor.run(job)
    (floor.folder / "other").mkdir()
    other_transaction(floor, job, {"a.txt": b"first"})
    floor.run_when_due(job)
    floor.assert_failed(job, Step.INGEST_METADATA, "ids that differ: 7, 1000, 1001")


def test_a_file_id_that_another_transaction_has_fails_the_job(floor: Floor) -> None:
    floor.faults.fail("catalogue.register", error=CONFLICT)
    job = floor.upload()
    floor.run(job)
    floor.assert_failed(job, Step.INGEST_METADATA, "Something of that id is there.")
    assert floor.catalogue.transactions == {}


@pytest.fixture
def unread(tmp_path: Path) -> Callable[..., tuple[Floor, Job]]:
    """A move whose registration got no answer, and whose document is longer than what is read by now."""

    def make(kind: Kind, *, arrived: bool) -> tuple[Floor, Job]:
        floor = Floor(tmp_path)
        job = send(floor, kind)
        floor.faults.fail("catalogue.register", error=DOWN, after=arrived)
        floor.faults.fail("catalogue.lookup", error=DOWN)
        assert floor.run(job).frozen
        floor.limits = Limits(metadata_bytes=10)
        floor.restart()
        return floor, job

    return make


@pytest.mark.parametrize("kind", Kind)
def test_a_job_that_may_be_registered_is_looked_up_when_its_document_cannot_be_read_any_more(
    unread: Callable[..., tuple[Floor, Job]], kind: Kind
) -> None:
    floor, job = unread(kind, arrived=True)
    floor.run_when_due(job)
    floor.assert_done(job)
    assert not registrations(floor)


@pytest.mark.parametrize("kind", Kind)
def test_a_job_that_is_not_registered_fails_when_its_document_cannot_be_read_any_more(
    unread: Callable[..., tuple[Floor, Job]], kind: Kind
) -> None:
    floor, job = unread(kind, arrived=False)
    found = floor.run_when_due(job)
    assert found.phase is Phase.FAILED
    assert "at most 10 are read" in floor.store.statuses_now[job.job_id].reason


def test_a_job_waits_when_it_cannot_be_looked_up_and_its_document_cannot_be_read(
    unread: Callable[..., tuple[Floor, Job]],
) -> None:
    floor, job = unread(Kind.MOVE, arrived=True)
    floor.faults.fail("catalogue.lookup", error=DOWN)
    assert floor.run_when_due(job).phase is Phase.READY
    floor.run_when_due(job)
    floor.assert_done(job)


def test_another_transaction_of_the_number_of_a_job_that_cannot_be_read_is_told(
    unread: Callable[..., tuple[Floor, Job]],
) -> None:
    floor, job = unread(Kind.INGEST, arrived=False)
    (floor.folder / "other").mkdir()
    other_transaction(floor, job, {"a.txt": b"first"})
    assert floor.run_when_due(job).phase is Phase.FAILED
    assert "is registered with other files" in floor.store.statuses_now[job.job_id].reason


class SlowCatalogue(MemoryCatalogue):
    """Does what it was asked for only when it is looked up for the second time, as one does that is still busy."""

    role = "catalogue"
    waiting: tuple[int, Registration] | None = None

    def register(self, job_id: int, document: Registration) -> None:
        if self.waiting is None and job_id not in self.transactions:
            self.waiting = (job_id, list(document))
            raise DOWN
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            super().register(*waiting)
        super().register(job_id, document)


def test_a_registration_that_arrives_late_is_not_doubled(floor: Floor) -> None:
    floor.catalogue = SlowCatalogue(floor.faults)
    floor.restart()
    job = floor.upload()
    assert floor.run(job).phase is Phase.READY
    floor.run_when_due(job)
    floor.assert_done(job)
    assert list(floor.catalogue.transactions) == [job.job_id]
