"""The roles that the work depends on, as Protocols with their duties.

Adapters (`store`, `staging`, `queue`, `neighbours`, `local`, `testing`) fulfil them; `intake`, `pipeline` and `recovery`
know nothing else; `app` joins the two.  Every method may raise `Unavailable` (retryable) when its service is away, and
each network call behind a port has a timeout.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.jobs import Claim, Job, Series, Status
from pacifica.ingest.core.metadata import Registration
from pacifica.ingest.core.states import Kind, Phase, State, Step

__all__ = [
    "Archive",
    "Catalogue",
    "Clock",
    "Event",
    "IdMode",
    "Ids",
    "JobStore",
    "Parcel",
    "Policy",
    "Progress",
    "Queue",
    "Receipt",
    "RegisteredFile",
    "RequestMark",
    "Shipment",
    "SourceFile",
    "Staging",
    "Upload",
]

#: Told the number of bytes handled since the last call; may raise `ClaimLost` or `Stopping` to end the work.
Progress = Callable[[int], None]


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """The time of day, aware UTC; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never jumps."""
        ...


class IdMode(StrEnum):
    """Which series a number is taken from.  Source: modes that 0.4.1 uses with the UniqueID service."""

    JOB = "upload_job"
    FILE = "file"


class Ids(Protocol):
    """Gives out number ranges.  A range is a candidate only: two callers may get the same one."""

    def reserve(self, mode: IdMode, count: int) -> range:
        """Take `count` > 0 consecutive numbers, all > 0.  Called twice: another range; gaps are harmless."""
        ...


class Policy(Protocol):
    """Decides whether a submitter may put data for a project and an instrument.  Idempotent."""

    def permit(self, document: Registration, user: str) -> None:
        """Return when it is allowed.

        Args:
            document: the metadata as it would be registered, without file ids.
            user: the authenticated user.

        Raises:
            PolicyRefused: it is not; not retryable.

        """
        ...


class Parcel(NamedTuple):
    """A file on its way to the archive.

    Attributes:
        file_id: the id that it gets there; used for this parcel only, ever.
        path: its name, for messages.
        holder: the local file that holds its bytes.
        offset: where they begin in it.
        size_bytes: how many they are.
        digest: what they hash to; already checked against `holder`.

    """

    file_id: int
    path: str
    holder: Path
    offset: int
    size_bytes: int
    digest: Digest


@dataclass(slots=True)
class Shipment:
    """How far parcels got that are sent together; filled in meanwhile, so it tells the truth also after an error.

    Attributes:
        begun: some of its bytes may have been sent; the others were not touched.
        stored: the archive said that it has it.
        taken: nothing of it was stored, as its id surely holds something else.

    """

    begun: list[Parcel] = field(default_factory=list)
    stored: list[Parcel] = field(default_factory=list)
    taken: list[Parcel] = field(default_factory=list)


class Archive(Protocol):
    """Keeps bytes under a file id for ever."""

    def size(self, file_id: int) -> int | None:
        """Length in bytes of what lies under an id, None when nothing does."""
        ...

    def sizes(self, file_ids: Sequence[int]) -> Generator[int | None, None, None]:
        """Ask for several, in their order; each as `size` does."""
        ...

    def store(self, parcel: Parcel, progress: Progress) -> None:
        """Store one parcel.

        Before: nothing was ever sent under this id.  After: the archive said that it has it.  On error: unknown; the id
        must not be used again.

        Raises:
            IdTaken: nothing was stored, as the id surely holds something else; retryable under another id.

        """
        ...

    def ship(self, parcels: Sequence[Parcel], progress: Progress, shipment: Shipment) -> None:
        """Store several parcels, each as `store` does.

        After an error no more are begun, and it is raised when all others came to their end.

        Args:
            parcels: what is sent.
            progress: told what was sent.
            shipment: empty; told what became of each.

        """
        ...

    def adopt(self, file_id: int, source: Path) -> None:
        """Move a file that the archive can reach to an id.

        After: the source is gone and the id holds its bytes.  On error: unknown, see `size`.  Called twice: an error,
        as the source is gone.

        Raises:
            IdTaken: nothing was moved, as the id surely holds something else; retryable under another id.

        """
        ...

    def adopt_all(
        self, parcels: Sequence[Parcel], ready: Callable[[], object], progress: Progress, shipment: Shipment
    ) -> None:
        """Take several sources, each as `adopt` does.

        After an error no more are begun, and it is raised when all others came to their end.

        Args:
            parcels: their holders are the sources.
            ready: called just before some are begun; its errors end it.
            progress: told what was taken.
            shipment: empty; told what became of each.

        """
        ...

    def digest(
        self, file_id: int, algorithm: str, progress: Progress, *, most_bytes: int | None = None
    ) -> tuple[str, int]:
        """Read an object back: its hex digest and its length in bytes.

        Args:
            file_id: of the object.
            algorithm: of the digest.
            progress: told what was read.
            most_bytes: an object that turns out to be longer is not read on, as one may never end; the length is then
                some number above this, and the digest that of no more than was read.

        """
        ...

    def digests(self, parcels: Sequence[Parcel], progress: Progress) -> Generator[tuple[str, int], None, None]:
        """Read several objects back, in their order, each as `digest` does with algorithm and length of its parcel.

        The next one is read when it is asked for, or earlier.  Close it when you stop before its end.
        """
        ...

    def remove(self, file_id: int) -> bool:
        """Remove what lies under an id, and what is left of attempts to store it; the caller knows that nobody needs it.

        Returns:
            whether there was something; False only when surely nothing lies there now.

        Raises:
            NeighbourDown: it is not clear whether something lies there; retryable.

        """
        ...

    def flush(self) -> None:
        """Make durable what this thread stored since its last call; called before it counts as archived."""
        ...

    def location(self, file_id: int) -> str:
        """Where a person finds the object: a URL or a path.  Never fails."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredFile:
    """A file as the catalogue has it.

    Attributes:
        file_id: its id in the archive.
        path: canonical path below `data/`.
        size_bytes: length.
        digest: `algorithm:hex`.

    """

    file_id: int
    path: str
    size_bytes: int
    digest: str


class Catalogue(Protocol):
    """Keeps what is known of a transaction and its files."""

    def register(self, job_id: int, document: Registration) -> None:
        """Insert a transaction with its files, all or nothing; there must be none of that id.

        Raises:
            Conflict: something of that id exists, or a file id is taken: look it up; not retryable.
            Refused: the catalogue refuses the document; not retryable.

        """
        ...

    def lookup(self, job_id: int) -> list[RegisteredFile] | None:
        """The files of a transaction, sorted by id; None when there is no such transaction."""
        ...

    def registered(self, file_ids: Collection[int]) -> set[int]:
        """Those of some archive ids that any transaction has."""
        ...

    def people_of(self, login: str) -> set[str] | None:
        """The ids, as text, of the persons who have this login; None when no persons are kept here."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A body that is complete and durable on disk.

    Attributes:
        path: the staged file.
        size_bytes: its length.

    """

    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMark:
    """How a request that is sent again is known.

    Attributes:
        key: of the client, for this user; at most 64 characters.
        fingerprint: of what was sent; at most 80 characters.

    Source: the Internet draft "The Idempotency-Key HTTP Header Field" (draft-ietf-httpapi-idempotency-key-header).

    """

    key: str
    fingerprint: str


class Upload(Protocol):
    """A file in the landing zone that is still being written."""

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append.  Raises `NoSpace`."""
        ...

    def commit(self) -> Receipt:
        """Make the file durable under its final name; an error leaves nothing behind.

        Raises:
            ClaimLost: the partial file is gone, as recovery gave the upload up.

        """
        ...

    def close(self) -> None:
        """Let go of the file without keeping it; nothing happens after `commit`."""
        ...


class Staging(Protocol):
    """The landing zone: where bodies lie until they are archived."""

    def admit(self, size_bytes: int | None) -> str:
        """Return when a body of that length (None: unknown) has room.  Raises `NoSpace`.

        Returns:
            which landing zone this is, at most 64 characters; durable, and known to everybody who sees it.

        """
        ...

    def begin(self, job_id: int, kind: Kind, landing_zone: str) -> Upload:
        """Open a new file for a job in that landing zone; only one party ever writes it.

        Raises:
            Conflict: a file of that name is there already, and not ours; take another number.

        """
        ...

    def is_here(self, path: Path, landing_zone: str) -> bool:
        """Whether the landing zone that a staged file lies in is to be seen; one that is not known ("") counts as such."""
        ...

    def discard(self, job_id: int, kind: Kind, landing_zone: str) -> None:
        """Remove every trace of an upload, durably.  Called twice: nothing happens.

        Raises:
            Unavailable: that landing zone is not here, so nothing can be said of the file; retryable.
            OSError: the disk does not do it; retryable.

        """
        ...

    def remove(self, path: Path, landing_zone: str) -> None:
        """Remove a staged file that is ours, durably; nothing happens when it is not there.  Raises as `discard`."""
        ...

    def is_ours(self, path: Path, landing_zone: str) -> bool:
        """Whether a staged file is the service's to remove; one that somebody named to it, and that lies elsewhere, is not."""
        ...

    def owns(self, path: Path) -> bool:
        """Whether a path, however it is spelled, is the place of a file of this landing zone, finished or not."""
        ...


class Queue(Protocol):
    """Carries hints to workers.  Losing or doubling one costs time, never a job."""

    def send(self, job: Job) -> None:
        """Hint that a job can be claimed.  Never blocks for long; raises `NeighbourDown` when the hint is lost."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """What a move consumes, as it was before.

    Attributes:
        seq: place of the file in the document.
        device: of the file system.
        inode: of the file.
        partial_bytes: how much of it an attempt found under its id; None when none found a part.
        partial_since: when an attempt first found that much, aware UTC.

    """

    seq: int
    device: int
    inode: int
    partial_bytes: int | None = None
    partial_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a job's history.

    Attributes:
        at: when, aware UTC.
        name: a stable word.
        text: for people.

    """

    at: datetime
    name: str
    text: str


class JobStore(Protocol):
    """The truth about jobs.  Each method is one transaction; it is durable when it returns.

    Methods that take a claim raise `ClaimLost` when the job has another owner by now, and change nothing then.
    """

    def open(self, job_id: int, kind: Kind, user: str, worker: str, landing_zone: str = "") -> bool:
        """Take a job id for an upload into a landing zone.  False when it is taken: ask for another."""
        ...

    def receiving(self, job_id: int, worker: str) -> None:
        """A sign of life of an upload.  Raises `ClaimLost` when recovery gave it up."""
        ...

    def accept(self, job_id: int, worker: str, receipt: Receipt, mark: RequestMark | None = None) -> Job:
        """The upload is complete: the job is READY.

        When the mark's key is another job's already, that is returned, and this one stays RECEIVING.  Called again after a
        commit whose answer was lost: the job as it is by then, which may be done.

        Raises:
            ClaimLost: recovery gave the upload up.
            KeyReused: the key belongs to something else that was sent; not retryable.

        """
        ...

    def refuse(self, job_id: int, worker: str) -> None:
        """The upload was refused: forget the job."""
        ...

    def adopt(self, job_id: int, kind: Kind, user: str, path: Path) -> Job:
        """Make a READY job of a file that no upload brought; returns the job as it stands when there is one already."""
        ...

    def job(self, job_id: int) -> Job:
        """One job.  Raises `NoSuchJob`."""
        ...

    def status(self, job_id: int) -> Status:
        """What a client may know; also of jobs that only an older version knew.  Raises `NoSuchJob`."""
        ...

    def statuses(
        self, *, limit: int, state: State | None = None, phases: Collection[Phase] = (), user: str | None = None
    ) -> list[Status]:
        """The jobs that changed last, newest first; only those with that state, user and one of the phases, where given."""
        ...

    def events(self, job_id: int) -> list[Event]:
        """The history of a job, oldest first."""
        ...

    def claim(self, job_id: int, worker: str) -> Claim | None:
        """Take a READY job that is due.  None: not ready, not due, or somebody else was faster."""
        ...

    def claim_any(self, worker: str) -> Claim | None:
        """Take the READY job that is due longest; None when there is none."""
        ...

    def beat(self, claim: Claim) -> None:
        """Show that the owner makes progress."""
        ...

    def report(self, claim: Claim, step: Step, percent: float) -> None:
        """Tell clients where the job is."""
        ...

    def wait(self, claim: Claim, *, not_before: datetime, series: Series, reason: str) -> None:
        """Give the job back until later, because of a series of transient faults."""
        ...

    def release(self, claim: Claim) -> None:
        """Give the job back at once, because this process stops."""
        ...

    def fail(self, claim: Claim, step: Step, reason: str) -> None:
        """End the job without success."""
        ...

    def finish(self, claim: Claim) -> None:
        """End the job with success."""
        ...

    def cleaned(self, job_id: int) -> None:
        """The staged file of a job that is done is gone."""
        ...

    def retry(self, job_id: int) -> Job:
        """Bring a FAILED job, or one that waits, back: READY and due now.  Raises `JobBusy` when it runs or is done."""
        ...

    def force(self, job_id: int, state: State, step: Step, percent: float, reason: str) -> None:
        """Overwrite what clients are told, as the documented admin command does; a running owner loses its claim.

        A job that failed wakes by any state that is no end.  An end of an upload that still arrives makes what there is of
        it a leftover; otherwise the staged file stays, also of a job that is called done.  One that was called done can be
        called FAILED, and be tried again; one that is done stays done.

        Raises:
            JobBusy: a state that is no end, of a job that is done or whose staged file is being removed; not retryable.

        """
        ...

    def intend(self, claim: Claim, file_ids: Mapping[int, int]) -> set[int]:
        """Record place → id before anything is sent.  Returns the places whose id was free; others need another id."""
        ...

    def archived(self, claim: Claim, file_ids: Iterable[int]) -> None:
        """These intents are fulfilled; the claim's series of transient faults is over, and that of lost owners."""
        ...

    def abandon(self, claim: Claim, file_ids: Collection[int] | None = None) -> None:
        """Put unfulfilled intents of the job on the garbage list, from now on: these, or all."""
        ...

    def void(self, claim: Claim, file_ids: Collection[int]) -> None:
        """Nothing of ours lies under these unfulfilled intents, and nothing ever will: they are no garbage."""
        ...

    def take_back(self, claim: Claim, file_id: int) -> None:
        """What lies under a garbage id of the job is whole after all: it is archived, and what was intended instead garbage.

        Ends the same series as `archived`.
        """
        ...

    def file_ids(self, job_id: int) -> Mapping[int, int]:
        """Place → id of the files that are archived."""
        ...

    def intents(self, job_id: int) -> Mapping[int, int]:
        """Place → id of unfulfilled intents."""
        ...

    def given_up(self, job_id: int) -> dict[int, list[int]]:
        """Place → garbage ids, the highest first."""
        ...

    def note_sources(self, claim: Claim, sources: Sequence[SourceFile]) -> None:
        """Record what a move is about to consume; what is recorded of a place whose intent is unfulfilled stays."""
        ...

    def note_part(self, claim: Claim, seq: int, size_bytes: int) -> None:
        """Record how much of a recorded source lies under its id, and since when when it is not what was recorded.

        More than before is progress, which ends the series of faults; but not when an id of that place was given up
        already: an archive that cuts every copy short would be waited for for ever.
        """
        ...

    def sources(self, job_id: int) -> dict[int, SourceFile]:
        """Place → what was recorded of a move's sources."""
        ...

    def freeze(self, claim: Claim, files: int) -> None:
        """The map place → id is final and has `files` rows; registration may begin.  Raises `Conflict` if it has not."""
        ...

    def unclaimed(self, *, older_than_s: float) -> list[Job]:
        """READY jobs that are due and were not hinted for that long."""
        ...

    def hinted(self, job: Job) -> bool:
        """Note that a hint is being sent; False when somebody else does it."""
        ...

    def unhinted(self, job: Job) -> None:
        """Note that the hint could not be sent: anybody may send another at once."""
        ...

    def held(self) -> list[Job]:
        """Jobs that have an owner: RUNNING and RECEIVING."""
        ...

    def take_over(self, job: Job) -> bool:
        """Take a job from an owner that stood still: RUNNING becomes READY, RECEIVING becomes FAILED and a leftover.

        RUNNING becomes FAILED when it cost `core.jobs.LOST_OWNERS` owners in a row.  False when (epoch, heartbeat) moved
        since `job` was read.
        """
        ...

    def leftovers(self, *, after: int = 0, limit: int = 100) -> list[Job]:
        """Jobs whose staged file is not needed any more, and may still be there; uploads that were given up have no path.

        The first `limit` of those with a larger number than `after`, in the order of their numbers.
        """
        ...

    # --- retention

    def expired(self, *, older_than_s: float) -> list[Job]:
        """Jobs that ended so long ago and still have a staged file."""
        ...

    def expire(self, job: Job) -> bool:
        """Give up the staged file of a job that ended; what a failed one archived becomes garbage.

        False when the job changed since it was read.
        """
        ...

    def garbage(self, *, older_than_s: float) -> list[int]:
        """Archive ids that are on the garbage list for so long; of a move only when it is done and its document goes."""
        ...

    def removed(self, file_ids: Collection[int]) -> None:
        """Nothing lies under these garbage ids any more."""
        ...
