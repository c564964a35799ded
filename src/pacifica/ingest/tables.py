"""The tables of our own protocol, as peewee models: they stand beside the documented ones of `orm`.

Not the rules by which rows change: those are in `store` and `local`.  Importing opens nothing.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar

import peewee

from pacifica.ingest.core.jobs import Job, Series
from pacifica.ingest.core.states import Kind, Phase, Step
from pacifica.ingest.database import DB

__all__ = [
    "COLUMNS_2_2",
    "MAX_ID",
    "TABLES",
    "TABLES_2_2",
    "ArchiveId",
    "ArchiveRoot",
    "BaseModel",
    "CatalogueFile",
    "CatalogueTransaction",
    "JobEvent",
    "JobRow",
    "LocalId",
    "MoveSource",
    "RequestKey",
    "aware",
    "is_in",
    "is_needed",
    "naive",
    "naive_utc",
]

#: No column holds a larger id.
MAX_ID = 2**63 - 1


def naive_utc() -> datetime:
    """Now, in the naive UTC that the tables hold."""
    return datetime.now(UTC).replace(tzinfo=None)


def naive(aware: datetime) -> datetime:
    """A time as the tables hold it."""
    return aware.astimezone(UTC).replace(tzinfo=None)


def aware(naive: datetime) -> datetime:
    """A time of the tables as everybody else has it."""
    return naive.replace(tzinfo=UTC)


class Moment(peewee.DateTimeField):
    """A time with microseconds, also in MySQL: it would round to seconds, and a job that is due now would be due later."""

    def get_modifiers(self) -> list[int]:
        """Digits after the point; six is what the other databases keep anyway."""
        return [6]


class BaseModel(peewee.Model):
    """A table of the configured database."""

    class Meta:
        """Bind to the database of this process."""

        database = DB


class JobRow(BaseModel):
    """A job as our protocol sees it; see `core.jobs.Job`."""

    job_id = peewee.BigIntegerField(primary_key=True)
    kind = peewee.CharField(max_length=16)
    phase = peewee.CharField(max_length=16)
    epoch = peewee.IntegerField(default=0)
    worker = peewee.CharField(default="")
    heartbeat = peewee.BigIntegerField(default=0)
    attempt = peewee.IntegerField(default=0)
    not_before = Moment(default=naive_utc)
    hinted = Moment(default=naive_utc)
    lost_owners = peewee.IntegerField(default=0)
    failing_since = Moment(null=True)
    failing_step = peewee.CharField(max_length=32, default="")
    waiting_for = peewee.TextField(default="")
    frozen = peewee.BooleanField(default=False)
    user = peewee.TextField(default="", column_name="submitted_by")
    path = peewee.TextField(default="")
    size_bytes = peewee.BigIntegerField(default=0)
    #: Set when the staged file is not needed any more, until it is removed.
    unclean = peewee.BooleanField(default=False, index=True)
    #: Which landing zone `path` lies in; NULL when it is not known.
    landing_zone = peewee.CharField(max_length=64, null=True)

    class Meta:
        """Prefixed, as facilities put several services into one database.  One index: what is due."""

        table_name = "ingest_job"
        indexes = ((("phase", "not_before"), False),)

    def as_job(self) -> Job:
        """The job as a value."""
        return Job(
            job_id=self.job_id,
            kind=Kind(self.kind),
            phase=Phase(self.phase),
            epoch=self.epoch,
            worker=self.worker,
            heartbeat=self.heartbeat,
            attempt=self.attempt,
            not_before=aware(self.not_before),
            lost_owners=self.lost_owners,
            failing=Series(since=aware(self.failing_since), step=Step(self.failing_step))
            if self.failing_since
            else None,
            waiting_for=self.waiting_for,
            frozen=bool(self.frozen),
            user=self.user,
            path=self.path,
            landing_zone=self.landing_zone or "",
            size_bytes=self.size_bytes,
        )


class ArchiveId(BaseModel):
    """Every archive id that was ever ours.  It is used once.

    An intent becomes an archived file; garbage, when something of ours may lie under it, until that is removed; or void, when
    surely nothing of ours does: what lies there belongs to somebody else, and is never touched.
    """

    INTENT: ClassVar[str] = "intent"
    ARCHIVED: ClassVar[str] = "archived"
    GARBAGE: ClassVar[str] = "garbage"
    REMOVED: ClassVar[str] = "removed"
    VOID: ClassVar[str] = "void"

    file_id = peewee.BigIntegerField(primary_key=True)
    job_id = peewee.BigIntegerField()
    seq = peewee.IntegerField()
    state = peewee.CharField(max_length=16)
    #: A random number for each call that recorded intents: tells whose an id is.
    mark = peewee.BigIntegerField()
    noted = Moment(default=naive_utc)

    class Meta:
        """One index: what a job has."""

        table_name = "ingest_archive_id"
        indexes = ((("job_id", "state"), False),)


class MoveSource(BaseModel):
    """What a move consumes, as it was before."""

    job_id = peewee.BigIntegerField()
    seq = peewee.IntegerField()
    # Text: both are unsigned and can exceed a signed 64-bit column.
    device = peewee.CharField(max_length=24)
    inode = peewee.CharField(max_length=24)
    #: How many bytes lay under the id when an attempt found only a part of the file there; NULL when none did.
    partial_bytes = peewee.BigIntegerField(null=True)
    #: When that was first seen; NULL when it is not known.
    partial_since = Moment(null=True)

    class Meta:
        """One row for each file of a job."""

        table_name = "ingest_move_source"
        primary_key = peewee.CompositeKey("job_id", "seq")


class RequestKey(BaseModel):
    """Which job a request with an `Idempotency-Key` became."""

    #: A digest of user and key.
    key = peewee.CharField(max_length=64, primary_key=True)
    #: A digest of what was sent.
    fingerprint = peewee.CharField(max_length=80)
    job_id = peewee.BigIntegerField()

    class Meta:
        """Name."""

        table_name = "ingest_request_key"


class JobEvent(BaseModel):
    """The history of jobs; append-only."""

    id = peewee.BigAutoField()
    job_id = peewee.BigIntegerField(index=True)
    at = Moment(default=naive_utc)
    name = peewee.CharField(max_length=32)
    text = peewee.TextField(default="")

    class Meta:
        """Name."""

        table_name = "ingest_event"


class LocalId(BaseModel):
    """The next number of a series, for `local:` ids."""

    mode = peewee.CharField(max_length=32, primary_key=True)
    next_id = peewee.BigIntegerField()

    class Meta:
        """Name."""

        table_name = "ingest_local_id"


class ArchiveRoot(BaseModel):
    """Which archive lies in a folder, for a `file:` archive; the folder has a marker with the same number."""

    #: A digest of the path.
    key = peewee.CharField(max_length=64, primary_key=True)
    #: The path, for people.
    folder = peewee.TextField()
    number = peewee.CharField(max_length=64)

    class Meta:
        """Name."""

        table_name = "ingest_archive_root"


class CatalogueTransaction(BaseModel):
    """A registered transaction of a `local:` catalogue."""

    job_id = peewee.BigIntegerField(primary_key=True)
    submitter = peewee.CharField()
    project = peewee.CharField()
    instrument = peewee.CharField()
    registered = Moment(default=naive_utc)
    #: Every entry that is no file, as JSON.
    entries = peewee.TextField()

    class Meta:
        """Name."""

        table_name = "ingest_catalogue_transaction"


class CatalogueFile(BaseModel):
    """A registered file of a `local:` catalogue."""

    file_id = peewee.BigIntegerField(primary_key=True)
    job_id = peewee.BigIntegerField(index=True)
    name = peewee.CharField()
    subdir = peewee.CharField()
    size_bytes = peewee.BigIntegerField()
    hashtype = peewee.CharField(max_length=32)
    hashsum = peewee.CharField()
    mimetype = peewee.CharField()
    mtime = peewee.CharField()
    ctime = peewee.CharField()

    class Meta:
        """Name."""

        table_name = "ingest_catalogue_file"


#: All of them, in the order in which they are made.
TABLES = (
    JobRow,
    ArchiveId,
    MoveSource,
    RequestKey,
    JobEvent,
    LocalId,
    ArchiveRoot,
    CatalogueTransaction,
    CatalogueFile,
)
#: Those that schema 2.1 did not have.
TABLES_2_2 = (ArchiveRoot,)
#: The columns that it did not have; each may be NULL, as code of 2.1 that still runs does not know it.
COLUMNS_2_2 = (JobRow.landing_zone, MoveSource.partial_bytes, MoveSource.partial_since)


def is_in(*phases: Phase) -> Any:  # noqa: ANN401 (a peewee expression)
    """A condition for an update of one job.

    The function keeps MySQL from finding the job by its phase: that would lock every job of the phase.
    """
    return peewee.fn.LOWER(JobRow.phase).in_(phases)


def is_needed() -> Any:  # noqa: ANN401 (a peewee expression)
    """A condition for an update of one job: its staged file is not being removed.  A function as in `is_in`."""
    return peewee.fn.COALESCE(JobRow.unclean, False) == False  # noqa: E712 (SQL)
