"""The documented module of three helpers, each under its old name.

A façade: it holds no rule of its own, and nothing in this package uses it.  For programs that were written for 0.4.1.
"""

from typing import Any

from pacifica.ingest.app import current
from pacifica.ingest.core.jobs import Status
from pacifica.ingest.core.sizes import parse_size
from pacifica.ingest.core.wire import Body, status_body
from pacifica.ingest.ports import IdMode

__all__ = ["create_state_response", "get_unique_id", "parse_size"]


def create_state_response(record: Any) -> Body:  # noqa: ANN401 (peewee's columns have no types)
    """The documented response body of a job.

    Args:
        record: an `orm.IngestState`, as `orm.read_state` returns it.

    """
    return status_body(
        Status(
            job_id=record.job_id,
            state=record.state,
            step=record.task,
            percent=record.task_percent,
            reason=record.exception,
            complete=bool(record.complete),
            created=record.created,
            updated=record.updated,
        )
    )


def get_unique_id(id_range: int, mode: str) -> int:
    """The first of `id_range` consecutive numbers.

    Args:
        id_range: how many, > 0.
        mode: `upload_job` or `file`.

    Raises:
        ValueError: another mode or range; not retryable.
        NeighbourDown: UniqueID is away; retryable.

    """
    return current().neighbours.ids.reserve(IdMode(mode), id_range).start
