"""The documented tables, as peewee models, and the migrations between schema versions.

`ingeststate` and `ingeststatesystem` are those of pacifica-ingest 0.4.1, which can still read a database of ours; what our
own protocol needs stands beside them, in `tables`.  Not the rules by which rows change: those are in `store`.  The
documented `update_state` and `read_state` live here.  Importing opens nothing; the first use opens the configured database.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import peewee
from playhouse.migrate import SchemaMigrator, migrate

from pacifica.ingest import config
from pacifica.ingest.core.errors import UnsafeSchema
from pacifica.ingest.core.jobs import forced
from pacifica.ingest.core.states import Phase, State, Step
from pacifica.ingest.database import DB, alone, change, connected, insert_once
from pacifica.ingest.tables import COLUMNS_2_2, MAX_ID, TABLES, TABLES_2_2, BaseModel, JobRow, naive_utc

__all__ = [
    "DB",
    "SCHEMA_MAJOR",
    "SCHEMA_MINOR",
    "BaseModel",
    "IngestState",
    "IngestStateSystem",
    "OrmSync",
    "begin_state",
    "ensure_there",
    "force_phase",
    "is_complete",
    "prepare_schema",
    "read_state",
    "update_state",
    "write_state",
]

logger = logging.getLogger(__name__)

SCHEMA_MAJOR = 2
SCHEMA_MINOR = 2

#: Table options of MySQL: every character, compared exactly, in transactions.
MYSQL_TABLE = "ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


#: What to do when there are no tables: maybe it is another service that is meant.
_MAKE_OR_NAME = (
    "make its tables with `pacifica-ingest-cmd dbsync`, or name the service that is meant (-c FILE, --standalone DIR)."
)


def _database(table: type[BaseModel]) -> Any:  # noqa: ANN401 (peewee has no types)
    """What a table is bound to; opened if it is the configured database."""
    database = table._meta.database
    if database is DB:
        DB.is_closed()  # any attribute opens it
        return DB.obj
    return database


class IngestStateSystem(BaseModel):
    """The schema version: rows `major` and `minor`."""

    part = peewee.CharField(primary_key=True)
    value = peewee.IntegerField(default=-1)

    class Meta:
        """Name of 0.4.1."""

        table_name = "ingeststatesystem"

    @classmethod
    def get_or_create_version(cls) -> tuple[Any, Any]:
        """Write this code's version where there is none; returns the rows, or (0, 0) without the table."""
        if not cls.table_exists():
            return (0, 0)
        major, _ = cls.get_or_create(part="major", defaults={"value": SCHEMA_MAJOR})
        minor, _ = cls.get_or_create(part="minor", defaults={"value": SCHEMA_MINOR})
        return (major, minor)

    @classmethod
    def get_version(cls) -> tuple[int, int]:
        """The version of the database; (0, 0) without the table, or when a migration was cut off before it wrote them."""
        if not cls.table_exists():
            return (0, 0)
        parts: dict[str, int] = {row.part: row.value for row in cls.select()}
        return (parts["major"], parts["minor"]) if parts.keys() >= {"major", "minor"} else (0, 0)

    @classmethod
    def is_equal(cls) -> bool:
        """Whether the database has exactly this code's version."""
        return cls.get_version() == (SCHEMA_MAJOR, SCHEMA_MINOR)

    @classmethod
    def is_safe(cls) -> bool:
        """Whether the database can be read by this code: the same major version."""
        return cls.get_version()[0] == SCHEMA_MAJOR


class IngestState(BaseModel):
    """What clients are told of a job; exactly the table of schema 2.0."""

    job_id = peewee.BigIntegerField(primary_key=True, column_name="id")
    state = peewee.CharField()
    task = peewee.CharField()
    task_percent = peewee.DecimalField()
    exception = peewee.TextField(default="")
    created = peewee.DateTimeField(default=naive_utc)
    updated = peewee.DateTimeField(default=naive_utc)
    complete = peewee.BooleanField(default=False)

    class Meta:
        """Name of 0.4.1."""

        table_name = "ingeststate"

    @classmethod
    def atomic(cls) -> AbstractContextManager[object]:
        """A transaction, as context manager or decorator."""
        transaction: AbstractContextManager[object] = cls._meta.database.atomic()
        return transaction

    @classmethod
    def database_connect(cls) -> None:
        """Connect anew, closing what this thread had open."""
        cls.database_close()
        cls._meta.database.connect()

    @classmethod
    def database_close(cls) -> None:
        """Close this thread's connection, if it has one."""
        if not cls._meta.database.is_closed():
            cls._meta.database.close()


class OrmSync:
    """Creates the schema, and brings an older one up to date step by step.

    `versions` lists what can be migrated; a step from (a, b) to (c, d) is the method `update_a_b_to_c_d`.  Each step
    leaves a database alone that has its changes already, so that an interrupted migration can be run again.
    """

    versions: ClassVar[list[tuple[int, int]]] = [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]

    @staticmethod
    def dbconn_blocking() -> None:
        """Wait for the database: `connect_attempts` tries, `connect_wait` seconds apart.

        Raises:
            peewee.OperationalError: it did not come; retryable.

        """
        section = config.load_settings().database
        for attempt in range(section.connect_attempts):
            try:
                IngestState.database_connect()
            except peewee.OperationalError as fault:
                if attempt + 1 == section.connect_attempts:
                    msg = f"The database did not answer {section.connect_attempts} times: {fault}"
                    raise peewee.OperationalError(msg) from fault
                logger.warning("the database does not answer yet", extra={"attempt": attempt + 1, "reason": str(fault)})
                time.sleep(section.connect_wait)
            else:
                return

    @classmethod
    def update_0_0_to_1_0(cls) -> None:
        """Create the table where there is none; a new one needs no further step."""
        IngestState.create_table(safe=True)

    @classmethod
    def update_1_0_to_2_0(cls) -> None:
        """Add `complete`."""
        migrator = SchemaMigrator.from_database(_database(IngestState))
        if cls._complete() is None:
            migrate(migrator.add_column("ingeststate", "complete", peewee.BooleanField(null=True)))
        IngestState.update(complete=False).where(IngestState.complete.is_null()).execute()
        if cls._complete().null:
            migrate(migrator.add_not_null("ingeststate", "complete"))

    @staticmethod
    def _complete() -> Any:  # noqa: ANN401 (peewee has no types)
        columns = {column.name: column for column in _database(IngestState).get_columns("ingeststate")}
        return columns.get("complete")

    @classmethod
    def update_2_0_to_2_1(cls) -> None:
        """Add the tables of our own protocol; call jobs complete that ended before there was a word for it."""
        done = (IngestState.task == Step.INGEST_METADATA) & (IngestState.task_percent == 100)  # noqa: PLR2004 (percent)
        ended = (IngestState.state == State.FAILED) | done
        IngestState.update(complete=True).where(ended & ~IngestState.complete).execute()
        database = _database(IngestState)
        cls._create_all(TABLES)
        if isinstance(database, peewee.MySQLDatabase):
            # A reason may hold any character; in a database of another character set it could not be written.
            database.execute_sql("ALTER TABLE ingeststate MODIFY exception TEXT CHARACTER SET utf8mb4 NOT NULL")
            # TEXT ends at 64 KiB.
            database.execute_sql("ALTER TABLE ingest_catalogue_transaction MODIFY entries LONGTEXT NOT NULL")

    @classmethod
    def update_2_1_to_2_2(cls) -> None:
        """Add the tables and columns that our own lacked."""
        database = _database(IngestState)
        cls._create_all(TABLES_2_2)
        migrator = SchemaMigrator.from_database(database)
        for column in COLUMNS_2_2:
            table = column.model._meta.table_name
            if column.column_name not in {there.name for there in database.get_columns(table)}:
                migrate(migrator.add_column(table, column.column_name, column))

    @classmethod
    def _create_all(cls, tables: Sequence[type[BaseModel]]) -> None:
        database = _database(IngestState)
        with database.bind_ctx(tables, bind_refs=False, bind_backrefs=False):
            for table in tables:
                table._meta.table_settings = MYSQL_TABLE if isinstance(database, peewee.MySQLDatabase) else None
                cls._create(table)

    @staticmethod
    def _create(table: Any) -> None:  # noqa: ANN401 (peewee has no types)
        """Create a table and those of its indexes that are missing: peewee looks for no index of a table that is there."""
        schema, meta = table._schema, table._meta
        schema.create_table(safe=True)
        there = {index.name for index in meta.database.get_indexes(meta.table_name)}
        for index in meta.fields_to_index():
            if index._name not in there:
                meta.database.execute(schema._create_index(index, safe=False))

    @classmethod
    def update_tables(cls) -> None:
        """Bring the database to the newest version.  Two processes at once: the second finds it done.

        Raises:
            UnsafeSchema: the database is newer than this code; not retryable.

        """
        database = _database(IngestState)
        with connected(database), alone(database):
            found = IngestStateSystem.get_version()
            if found not in cls.versions:
                known = f"{SCHEMA_MAJOR}.{SCHEMA_MINOR}"
                msg = f"The database has schema {found[0]}.{found[1]}, this version knows up to {known}."
                raise UnsafeSchema(msg)
            for before, after in pairwise(cls.versions[cls.versions.index(found) :]):
                getattr(cls, f"update_{before[0]}_{before[1]}_to_{after[0]}_{after[1]}")()
            cls._write_version()

    @staticmethod
    def _write_version() -> None:
        IngestStateSystem.create_table(safe=True)
        with IngestState.atomic():
            for row, value in zip(IngestStateSystem.get_or_create_version(), (SCHEMA_MAJOR, SCHEMA_MINOR), strict=True):
                row.value = value
                row.save()


def ensure_there() -> None:
    """Return when the database may be connected to: SQLite would make a file that is not there.

    Raises:
        UnsafeSchema: there is no such file; not retryable.

    """
    database = _database(IngestState)
    if isinstance(database, peewee.SqliteDatabase) and not _is_elsewhere(database.database):
        file = Path(database.database).absolute()
        if not file.exists():
            msg = f"There is no database {file}: {_MAKE_OR_NAME}"
            raise UnsafeSchema(msg)


def _is_elsewhere(name: str) -> bool:
    """Whether this is no file name but what SQLite makes something else of."""
    return name in {"", ":memory:"} or name.startswith("file:")


def prepare_schema(*, create: bool = False) -> None:
    """Return when this code can work on the database.

    A lower minor version lacks only tables and columns beside the old ones: they are added here, so that swapping the
    package is enough, and code of that version may still run meanwhile.  A higher one has more of both, and is left as it
    is.

    Args:
        create: whether to make the tables where there are none, and to migrate those of an older major version.

    Raises:
        UnsafeSchema: another major version; the message says what to run.  Not retryable.

    """
    if not create:
        ensure_there()
    with connected(_database(IngestState)):
        major, minor = IngestStateSystem.get_version()
    if major != SCHEMA_MAJOR and not (create and major < SCHEMA_MAJOR):
        what = "run `pacifica-ingest-cmd dbsync`." if major else _MAKE_OR_NAME
        msg = f"The database has schema {major}.{minor}, this version needs {SCHEMA_MAJOR}.{SCHEMA_MINOR}: {what}"
        raise UnsafeSchema(msg)
    if (major, minor) < (SCHEMA_MAJOR, SCHEMA_MINOR):
        OrmSync.update_tables()


def is_complete(state: str, task: str | None, percent: float) -> bool:
    """Whether a client may stop polling.  Source: 0.4.1."""
    return state == State.FAILED or (task == Step.INGEST_METADATA and float(percent) == 100)  # noqa: PLR2004 (percent)


def update_state(job_id: int | str | None, state: str, task: str, task_percent: float, exception: str = "") -> None:
    """Overwrite what clients are told of a job; makes the record when there is none.

    Documented, and the only forced move: an end stops the owner of the job, a live state wakes a job that had failed.
    An id that is None, 0 or negative is ignored, as in 0.4.1; so is a live state of a job that is over, with a warning.
    """
    if not job_id or int(job_id) < 0:
        return
    database = _database(IngestState)
    now = naive_utc()
    with connected(database), database.atomic():
        # A caller may have bound only the documented models to a database of its own.
        is_ours = _database(JobRow) is database
        complete = is_complete(state, task, task_percent)
        if is_ours and not force_phase(int(job_id), state, complete=complete, now=now):
            logger.warning("a live state of a job that is over is ignored", extra={"job_id": job_id, "step": task})
            return
        write_state(int(job_id), state, task, task_percent, exception, now=now)


def write_state(job_id: int, state: str, task: str, percent: float, exception: str, *, now: datetime) -> None:
    """Write the record that clients see; part of the caller's transaction."""
    values = _shown(state, task, percent, exception, now)
    if change(IngestState, job_id, **values):
        return
    if not insert_once(IngestState, job_id=job_id, created=now, **values):
        change(IngestState, job_id, **values)


def begin_state(job_id: int, state: str, task: str, percent: float, *, now: datetime) -> bool:
    """Whether a job has no record yet, and one was made as by `write_state`."""
    return insert_once(IngestState, job_id=job_id, created=now, **_shown(state, task, percent, "", now))


def _shown(state: str, task: str, percent: float, exception: str, now: datetime) -> dict[str, object]:
    return {
        "state": state,
        "task": task,
        "task_percent": percent,
        "exception": exception,
        "complete": is_complete(state, task, percent),
        "updated": now,
    }


def force_phase(job_id: int, state: str, *, complete: bool, now: datetime) -> bool:
    """Let our own record of a job follow a forced state; part of the caller's transaction.

    Returns:
        whether the state fits the job, see `core.jobs.forced`; if not, nothing was changed.

    """
    mine = JobRow.job_id == job_id
    # Changes nothing, but locks the row: an owner that ends the job at this moment comes before or after all of this.
    JobRow.update(worker=JobRow.worker).where(mine).execute()
    row = JobRow.get_or_none(mine)
    if row is None:
        return True
    job = row.as_job()
    phase = forced(job, state, complete=complete, is_needed=not row.unclean)
    if phase is None:
        return False
    is_over = complete and job.phase is not Phase.DONE
    if is_over or phase is not job.phase:
        afresh = {"failing_since": None, "waiting_for": "", "lost_owners": 0, "not_before": now, "hinted": now}
        # What there is of an upload is of no use to anybody.
        unclean = bool(row.unclean) or job.phase is Phase.RECEIVING
        JobRow.update(phase=phase, epoch=job.epoch + 1, worker="", unclean=unclean, **afresh).where(mine).execute()
    return True


def read_state(job_id: int | None) -> IngestState:
    """The record of a job; one that says `DATA_ACCESS_ERROR` for an id that cannot be one, as in 0.4.1.

    Raises:
        peewee.DoesNotExist: an unknown id.

    """
    if not job_id or int(job_id) < 0:
        return IngestState(state="DATA_ACCESS_ERROR", task="read_state", task_percent=0)
    if int(job_id) > MAX_ID:
        raise peewee.DoesNotExist
    with connected(_database(IngestState)):
        record: IngestState = IngestState.get(job_id=int(job_id))
    return record
