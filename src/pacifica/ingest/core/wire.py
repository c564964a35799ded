"""A job's status as the documented response body, and the documented error body.

Not the HTTP edge (`rest`).  Any floor may import this.
"""

from datetime import UTC, datetime

from pacifica.ingest.core.jobs import Status

__all__ = ["Body", "error_body", "status_body", "time_text"]

Body = dict[str, str | int | bool]


def time_text(moment: datetime) -> str:
    """A moment as documented: naive UTC, `2018-01-25 16:54:50`."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")


def status_body(status: Status) -> Body:
    """The body of `POST /upload`, `POST /move` and `GET /get_state`.

    Source: documentation of pacifica-ingest 0.4.1; keys and types must stay as they are.
    """
    return {
        "job_id": status.job_id,
        "state": str(status.state),
        "task": str(status.step),
        "task_percent": str(round(float(status.percent), 2)),
        "complete": status.complete,
        "updated": time_text(status.updated),
        "created": time_text(status.created),
        "exception": status.reason,
    }


def error_body(status: str, message: str, code: str, version: str) -> Body:
    """The body of every error answer.

    Args:
        status: as `404 Not Found`.
        message: for people.
        code: for programs; see `core.errors`.
        version: of the HTTP server.

    """
    return {"status": status, "message": message, "code": code, "traceback": "", "version": version}
