"""Response bodies, byte by byte as documented."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pacifica.ingest.core.jobs import Status
from pacifica.ingest.core.states import State, Step
from pacifica.ingest.core.wire import error_body, status_body, time_text


def status(percent: float, step: Step = Step.UPLOADING, reason: str = "") -> Status:
    """Return the state of a job."""
    return Status(
        job_id=1234,
        state=State.FAILED if reason else State.OK,
        step=step,
        percent=percent,
        reason=reason,
        complete=bool(reason) or step is Step.INGEST_METADATA,
        created=datetime(2018, 1, 25, 16, 54, 50, 999_999, UTC),
        updated=datetime(2018, 1, 25, 18, 54, 51, tzinfo=timezone(timedelta(hours=2))),
    )


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            status(0),
            (
                '{"job_id": 1234, "state": "OK", "task": "UPLOADING", "task_percent": "0.0", "complete": false, '
                '"updated": "2018-01-25 16:54:51", "created": "2018-01-25 16:54:50", "exception": ""}'
            ),
        ),
        (
            status(100, Step.INGEST_METADATA),
            (
                '{"job_id": 1234, "state": "OK", "task": "ingest metadata", "task_percent": "100.0", "complete": true, '
                '"updated": "2018-01-25 16:54:51", "created": "2018-01-25 16:54:50", "exception": ""}'
            ),
        ),
        (
            status(0, Step.OPEN_TAR, "no tar"),
            (
                '{"job_id": 1234, "state": "FAILED", "task": "open tar", "task_percent": "0.0", "complete": true, '
                '"updated": "2018-01-25 16:54:51", "created": "2018-01-25 16:54:50", "exception": "no tar"}'
            ),
        ),
    ],
)
def test_a_state_is_told_as_documented(found: Status, text: str) -> None:
    assert json.dumps(status_body(found)) == text


@pytest.mark.parametrize(("percent", "text"), [(33.333333, "33.33"), (99.994, "99.99"), (50, "50.0"), (1e-9, "0.0")])
def test_a_percentage_is_text_that_clients_read_as_a_number(percent: float, text: str) -> None:
    assert status_body(status(percent))["task_percent"] == text


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2018, 1, 25, 16, 54, 50, tzinfo=UTC),
        datetime(2018, 1, 25, 16, 54, 50, 999_999, tzinfo=UTC),
        datetime(2018, 1, 25, 8, 54, 50, tzinfo=timezone(timedelta(hours=-8))),
        datetime(2018, 1, 25, 16, 54, 50),  # noqa: DTZ001 (as a database without time zones gives it)
    ],
)
def test_a_time_is_naive_utc_to_the_second(moment: datetime) -> None:
    assert time_text(moment) == "2018-01-25 16:54:50"


def test_an_error_has_the_documented_keys_and_a_code_and_never_a_traceback() -> None:
    body = error_body("404 Not Found", "job ID 5 does not exist.", "no_such_job", "18.10.0")
    assert json.dumps(body) == (
        '{"status": "404 Not Found", "message": "job ID 5 does not exist.", "code": "no_such_job", "traceback": "", '
        '"version": "18.10.0"}'
    )
