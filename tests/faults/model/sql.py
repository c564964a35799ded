"""The service's side of a schedule once more, with the real `SqlJobStore` on SQLite in place of the double.

It is twenty times as slow, so it plays fewer schedules; model, double and real store must make the same calls and end alike.

Who may call it: `rounds`.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pacifica.ingest import database, orm
from pacifica.ingest import store as real
from pacifica.ingest.core.errors import ClaimLost
from pacifica.ingest.core.jobs import Claim, Job
from pacifica.ingest.core.states import Phase
from pacifica.ingest.orm import IngestState
from pacifica.ingest.ports import Receipt, RequestMark
from pacifica.ingest.store import SqlJobStore
from pacifica.ingest.tables import ArchiveId, JobEvent, JobRow, MoveSource, RequestKey
from pacifica.ingest.testing import Faults, ManualClock
from tests.faults.model.doubles import Service, as_processes
from tests.faults.model.rule import Rule
from tests.faults.oracle import JobSeen

__all__ = ["MUTANTS", "SqlService", "on_sqlite"]

TABLES = (ArchiveId, JobEvent, JobRow, MoveSource, RequestKey, IngestState)


class SqlStore:
    """`doubles.Store` on a database: gives up control before each call, and is open to the judge."""

    kind = SqlJobStore

    def __init__(self, clock: ManualClock, faults: Faults) -> None:
        self._store = self.kind(clock)
        self._faults = faults
        with database.DB.atomic():
            for table in TABLES:
                table.delete().execute()

    def __getattr__(self, call: str) -> Any:
        method = getattr(self._store, call)

        def run(*args: object, **kwargs: object) -> Any:
            with self._faults.around(f"jobs.{call}"):
                return method(*args, **kwargs)

        return run

    @property
    def jobs(self) -> dict[int, Job]:
        return {row.job_id: row.as_job() for row in JobRow.select().order_by(JobRow.job_id)}

    @property
    def unclean(self) -> set[int]:
        return {row.job_id for row in JobRow.select().where(JobRow.unclean == True)}  # noqa: E712 (SQL)

    @property
    def ids(self) -> dict[int, Any]:
        return {row.file_id: row for row in ArchiveId.select()}

    def seen(self) -> dict[int, JobSeen]:
        """As the oracle wants it."""
        ids: dict[int, dict[int, str]] = {}
        for row in ArchiveId.select():
            ids.setdefault(row.job_id, {})[row.file_id] = row.state
        expired = {row.job_id for row in JobEvent.select().where(JobEvent.name == "expired")}
        told = {record.job_id: record for record in IngestState.select()}
        return {
            job_id: JobSeen(
                phase=job.phase,
                complete=bool(told[job_id].complete),
                state=told[job_id].state,
                reason=told[job_id].exception,
                staged=job.path.rpartition("/")[2],
                ids=ids.get(job_id, {}),
                expired=job_id in expired,
            )
            for job_id, job in self.jobs.items()
        }


class SqlService(Service):
    """The service with its real store."""

    store = SqlStore  # type: ignore[assignment]  # it can do the same
    # Its marks are no draws of the schedule.
    patches = ((real, "random", random.Random(0)),)


@contextmanager
def on_sqlite(service: type[Service] = SqlService) -> Iterator[Path]:
    """As `as_processes`, with an empty database."""
    before = database.DB.obj
    with as_processes(service) as folder:
        database.use_database(f"sqlite:///{folder / 'jobs.sqlite3'}")
        orm.OrmSync.update_tables()
        try:
            with database.DB.connection_context():
                yield folder
        finally:
            database.DB.close_all()
            database.DB.initialize(before)


# --- without a rule


class _TrustsOwners(SqlJobStore):
    def _own(self, claim: Claim, /, **changes: object) -> None:
        mine = JobRow.job_id == claim.job_id
        if not JobRow.update(heartbeat=JobRow.heartbeat + 1, **changes).where(mine).execute():
            raise ClaimLost(claim.job_id)


class _AcceptsFromAnybody(SqlJobStore):
    def _complete(self, job_id: int, worker: str, receipt: Receipt) -> bool:
        del worker
        complete = {"path": str(receipt.path), "size_bytes": receipt.size_bytes}
        due = {"not_before": self._now(), "hinted": self._now()}
        changes = {"phase": Phase.READY, "worker": "", **complete, **due}
        return bool(JobRow.update(**changes).where(JobRow.job_id == job_id).execute())


class _ForgetsKeys(SqlJobStore):
    def accept(self, job_id: int, worker: str, receipt: Receipt, mark: RequestMark | None = None) -> Job:
        del mark
        return super().accept(job_id, worker, receipt)


class _KeepsIntents(SqlJobStore):
    def abandon(self, claim: Claim) -> None:
        pass


class _SharesIds(SqlJobStore):
    def intend(self, claim: Claim, file_ids: Mapping[int, int]) -> set[int]:
        ArchiveId.delete().where(ArchiveId.file_id.in_(list(file_ids.values()))).execute()
        return super().intend(claim, file_ids)


def _service(kind: type[SqlJobStore]) -> type[Service]:
    return type("Mutant", (SqlService,), {"store": type("Store", (SqlStore,), {"kind": kind})})


#: Rules that the store keeps alone.
MUTANTS: dict[Rule, type[Service]] = {
    Rule.EPOCH: _service(_TrustsOwners),
    Rule.UPLOAD_OWNER: _service(_AcceptsFromAnybody),
    Rule.KEY_ONCE: _service(_ForgetsKeys),
    Rule.ABANDON: _service(_KeepsIntents),
    Rule.ID_ONCE: _service(_SharesIds),
}
