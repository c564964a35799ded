"""What clients are told when something behind the interface fails: the application in this process, on doubles."""

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pacifica.ingest import app, rest
from pacifica.ingest.bundle import Limits
from pacifica.ingest.config import Settings
from pacifica.ingest.core.errors import ClaimLost, DatabaseDown, IngestError, NeighbourDown, NoSpace, UnsafeSchema
from pacifica.ingest.core.wire import status_body
from pacifica.ingest.intake import Intake
from pacifica.ingest.pipeline import Neighbours, Pipeline, Rules
from pacifica.ingest.recovery import Recovery
from pacifica.ingest.retention import Retention
from pacifica.ingest.testing import (
    Faults,
    ManualClock,
    MemoryArchive,
    MemoryCatalogue,
    MemoryIds,
    MemoryJobStore,
    MemoryPolicy,
    MemoryQueue,
    MemoryStaging,
)


class Slow(io.BytesIO):
    """A body of which each block takes ten seconds."""

    def __init__(self, body: bytes, clock: ManualClock) -> None:
        super().__init__(body)
        self._clock = clock

    def read(self, size: int | None = -1, /) -> bytes:
        self._clock.advance(10)
        return super().read(size)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The application, and what is behind it."""

    application: Any
    faults: Faults
    store: MemoryJobStore
    staging: MemoryStaging
    queue: MemoryQueue
    clock: ManualClock

    def post(self, body: bytes = b"[]") -> tuple[int, dict[str, Any], dict[str, str]]:
        """Send a body; returns status, answer and headers."""
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/upload",
            "QUERY_STRING": "",
            "SERVER_NAME": "ingest",
            "SERVER_PORT": "8066",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "ingest",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": Slow(body, self.clock),
            "wsgi.errors": io.StringIO(),
            "wsgi.url_scheme": "http",
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.version": (1, 0),
        }
        told: list[Any] = []
        answer = self.application(environ, lambda *said: told.extend(said))
        content = b"".join(answer)
        assert not self.queue.sent, "a hint was sent before the answer"
        answer.close()
        return int(told[0][:3]), json.loads(content), dict(told[1])


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    monkeypatch.setenv("INGEST_CPCONFIG", str(tmp_path_factory.mktemp("none") / "cpconfig.ini"))
    faults, clock = Faults(), ManualClock()
    store, staging, queue = MemoryJobStore(clock, faults), MemoryStaging(faults), MemoryQueue(faults)
    settings, ids = Settings(), MemoryIds(faults)
    neighbours = Neighbours(ids=ids, policy=MemoryPolicy(), archive=MemoryArchive(), catalogue=MemoryCatalogue())
    rules = Rules(
        verify="full", move_roots=(), chunk_bytes=4096, retry_for_s=0, lease_s=30, limits=Limits(), min_hash=""
    )
    app.use(
        app.Service(
            settings=settings,
            store=store,
            staging=staging,
            neighbours=neighbours,
            intake=Intake(
                store=store, staging=staging, ids=ids, queue=queue, clock=clock, pause=clock.advance, max_bytes=0
            ),
            pipeline=Pipeline(store=store, staging=staging, neighbours=neighbours, clock=clock, rules=rules),
            recovery=Recovery(store=store, staging=staging, queue=queue, clock=clock, lease_s=30, upload_lease_s=600),
            retention=Retention(
                store=store, staging=staging, archive=neighbours.archive, catalogue=neighbours.catalogue, keep_s=1
            ),
            stopping=threading.Event(),
        )
    )
    yield Stage(
        application=rest.configure(settings), faults=faults, store=store, staging=staging, queue=queue, clock=clock
    )
    app.forget()


def test_the_hint_follows_the_answer(stage: Stage) -> None:
    status, job, _ = stage.post()
    assert status == 200
    assert [hint.job_id for hint in stage.queue.sent] == [job["job_id"]]


def test_a_hint_that_is_lost_changes_no_answer(stage: Stage) -> None:
    stage.faults.fail("queue.send", error=NeighbourDown("broker", "away"))
    assert stage.post()[0] == 200


def test_a_bundle_that_is_safe_is_told_so_even_if_the_database_goes_away(stage: Stage) -> None:
    """Else the client would send it again."""
    stage.faults.fail("jobs.status", error=DatabaseDown("away"))
    status, job, _ = stage.post()
    assert (status, job["state"], job["task"], job["complete"]) == (200, "OK", "UPLOADING", False)
    times = {"created": job["created"], "updated": job["updated"]}
    assert job == status_body(stage.store.status(job["job_id"])) | times
    assert stage.queue.sent


def test_a_database_that_is_away_for_a_moment_ends_no_upload(stage: Stage) -> None:
    stage.faults.fail("jobs.receiving", error=DatabaseDown("away"))
    assert stage.post(bytes(300_000))[0] == 200
    assert stage.faults.calls.count("jobs.receiving") > 1


def test_a_commit_that_cannot_be_confirmed_is_told_as_a_job_whose_state_can_be_asked_for(stage: Stage) -> None:
    """Clients look for the number of the job, and at nothing else."""
    stage.faults.fail("jobs.accept", error=DatabaseDown("away"), times=100)
    status, job, headers = stage.post()
    assert (status, headers["Content-Type"]) == (202, "application/json")
    expected = {"state": "OK", "task": "UPLOADING", "complete": False, "exception": ""}
    assert {key: job[key] for key in expected} == expected
    asked = status_body(stage.store.status(job["job_id"]))
    assert (asked.keys(), asked["state"], asked["complete"]) == (job.keys(), "OK", False)
    assert not stage.queue.sent


@pytest.mark.parametrize(
    ("call", "error", "status", "code"),
    [
        ("ids.reserve", NeighbourDown("uniqueid", "away"), 503, "neighbour_down"),
        ("jobs.open", DatabaseDown("away"), 503, "database_down"),
        ("jobs.accept", ClaimLost("gone"), 503, "unavailable"),
        ("staging.admit", NoSpace("full"), 507, "no_space"),
        ("upload.write", NoSpace("full"), 507, "no_space"),
        ("upload.commit", NoSpace("full"), 507, "no_space"),
    ],
)
def test_what_may_pass_says_when_to_come_again(
    stage: Stage, call: str, error: IngestError, status: int, code: str
) -> None:
    stage.faults.fail(call, error=error)
    found, answer, headers = stage.post()
    assert (found, answer["code"], answer["traceback"]) == (status, code, "")
    assert int(headers["Retry-After"]) > 0
    assert not stage.queue.sent


@pytest.mark.parametrize("error", [RuntimeError("secret"), UnsafeSchema("secret"), KeyError("secret")])
def test_a_fault_of_ours_is_logged_and_not_told(
    stage: Stage, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    stage.faults.fail("jobs.open", error=error)
    status, answer, headers = stage.post()
    assert status == 500
    assert "secret" not in json.dumps(answer)
    assert "Retry-After" not in headers
    assert "secret" in caplog.text
