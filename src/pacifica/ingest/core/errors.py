"""Everything that can go wrong, as one tree.

::

    IngestError
    ├── Refused                 the sender has to mend something; permanent
    │   ├── BadRequest          the HTTP request itself
    │   │   ├── LengthRequired  nobody can tell where the body ends
    │   │   ├── LengthMismatch  fewer bytes arrived than announced
    │   │   ├── DigestMismatch  other bytes arrived than the sender announced
    │   │   ├── TooLarge        more bytes than the configured limit
    │   │   ├── TooSlow         it came below the configured rate
    │   │   ├── UntrustedPeer   somebody names a user who may not
    │   │   └── KeyReused       an Idempotency-Key that came with something else before
    │   ├── BadBundle           not a tar bundle that we take
    │   ├── BadMetadata         metadata.txt, or the document of a move, cannot be read
    │   ├── BadPath             a path that we neither follow nor store
    │   ├── FaultyBundle        the check found faults; carries all of them
    │   └── PolicyRefused       the submitter may not do this
    ├── Conflict                the neighbours hold something else under our ids; permanent
    ├── NoSuchJob               an unknown job id
    ├── JobBusy                 the job is being worked on, or is over
    ├── Unavailable             try again later; the only retryable branch
    │   ├── NeighbourDown       no usable answer from a neighbour
    │   ├── ArchiveMismatch     the archive does not hold what was sent
    │   ├── IdTaken             the archive refused an id that holds something else
    │   ├── DatabaseDown        the state store cannot be reached
    │   │   └── Unconfirmed     it went away while it committed an upload
    │   ├── Busy                as many uploads as we take are under way
    │   ├── TooManyUploads      as many of one user as we take are under way
    │   └── NoSpace             the disk is full
    ├── ClaimLost               another worker owns the job now; the loser stops without a word
    ├── Stopping                the process was asked to stop; the job goes on later
    ├── BadConfiguration        a setting has a wrong value
    └── UnsafeSchema            the database is of another version

`code` is a stable word for programs, `status` the HTTP status, `retryable` whether waiting may help.
The message is for people: what is wrong and what to do.  It never carries a traceback or a password.
"""

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "ArchiveMismatch",
    "BadBundle",
    "BadConfiguration",
    "BadMetadata",
    "BadPath",
    "BadRequest",
    "Busy",
    "ClaimLost",
    "Conflict",
    "DatabaseDown",
    "DigestMismatch",
    "FaultyBundle",
    "IdTaken",
    "IngestError",
    "JobBusy",
    "KeyReused",
    "LengthMismatch",
    "LengthRequired",
    "NeighbourDown",
    "NoSpace",
    "NoSuchJob",
    "PolicyRefused",
    "Refused",
    "Stopping",
    "TooLarge",
    "TooManyUploads",
    "TooSlow",
    "Unavailable",
    "Unconfirmed",
    "UnsafeSchema",
    "UntrustedPeer",
]


class IngestError(Exception):
    """The root: catch it to catch everything that this package raises on purpose."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


class Refused(IngestError):
    """The sender has to mend something before it can be accepted; sending the same again is refused again."""

    code = "refused"
    status = 400


class BadRequest(Refused):
    """The HTTP request cannot be understood; the message says which part."""

    code = "bad_request"


class LengthRequired(BadRequest):
    """The request does not say where its body ends: send `Content-Length`, or send it chunked."""

    code = "length_required"
    status = 411


class LengthMismatch(BadRequest):
    """The body was cut off: send it again, nothing of it was kept.

    Attributes:
        expected: bytes announced by Content-Length, or None for a chunked body.
        found: bytes that arrived.

    """

    code = "length_mismatch"

    def __init__(self, expected: int | None, found: int) -> None:
        """Tell both lengths, in bytes."""
        said = f"{expected} bytes were announced" if expected is not None else "the chunked body has no end"
        super().__init__(f"The body was cut off: {said}, {found} arrived. Nothing was kept; send it again.")
        self.expected = expected
        self.found = found


class DigestMismatch(BadRequest):
    """The body does not have the digest that came with it: send it again, nothing of it was kept.

    Attributes:
        field: the header that announced the digest.
        algorithm: the digest's name.
        expected: hex digest that was announced.
        found: hex digest of the bytes that arrived.

    """

    code = "digest_mismatch"

    def __init__(self, field: str, algorithm: str, expected: str, found: str) -> None:
        """Tell both digests."""
        super().__init__(
            f"The body was changed on the way, or {field} is wrong: it announced the {algorithm} {expected}, what arrived "
            f"has {found}. Nothing was kept; send it again."
        )
        self.field = field
        self.algorithm = algorithm
        self.expected = expected
        self.found = found


class TooLarge(BadRequest):
    """The body is larger than `[ingest] max_upload_size` or `max_metadata_size` allows: send less, or ask the operator.

    Attributes:
        limit: allowed size in bytes.

    """

    code = "too_large"
    status = 413

    def __init__(self, limit: int) -> None:
        """Tell the limit, in bytes."""
        super().__init__(f"The body is larger than the {limit} bytes that this service takes in one request.")
        self.limit = limit


class TooSlow(BadRequest):
    """The request came more slowly than `[ingest] min_rate` allows: send it faster, or ask the operator.

    Attributes:
        limit: the least rate in bytes per second.

    """

    code = "too_slow"
    status = 408

    def __init__(self, limit: int) -> None:
        """Tell the rate, in bytes per second."""
        super().__init__(
            f"The request came more slowly than {limit} bytes per second. Nothing was kept; send it again."
        )
        self.limit = limit


class UntrustedPeer(BadRequest):
    """The user is named by somebody who is none of the operator's proxies: send the request through the proxy.

    Attributes:
        header: that names the user.
        peer: who sent it, for the log; empty when that is not known.

    """

    code = "untrusted_peer"
    status = 403

    def __init__(self, header: str, peer: str) -> None:
        """Tell which header; who sent it knows itself."""
        super().__init__(
            f"{header} is taken from the proxies of this service alone ([ingest] trusted_proxies), and this request comes "
            "from elsewhere. Nothing was kept; send it through the proxy of your facility, or without this header."
        )
        self.header = header
        self.peer = peer


class KeyReused(BadRequest):
    """The `Idempotency-Key` came with another body before: send it with that body, or send this one with another key.

    Attributes:
        job_id: the job that the first became.

    """

    code = "key_reused"
    status = 422

    def __init__(self, job_id: int) -> None:
        """Tell which job has the key."""
        super().__init__(f"This Idempotency-Key came with another body before, which is job {job_id}. Use a new key.")
        self.job_id = job_id


class BadBundle(Refused):
    """The file is no tar bundle that we take: repack it with plain files under `data/`.

    Attributes:
        reason: what is wrong.
        member: the name of the member at fault, or None when it is the file as a whole.

    """

    code = "bad_bundle"

    def __init__(self, reason: str, member: str | None = None) -> None:
        """Tell the reason and the member at fault."""
        super().__init__(reason if member is None else f"{member!r}: {reason}")
        self.reason = reason
        self.member = member


class BadMetadata(Refused):
    """The metadata document cannot be read: mend every fault that is listed.

    Attributes:
        faults: one sentence for each fault, with its place in the document.

    """

    code = "bad_metadata"

    def __init__(self, faults: Sequence[str]) -> None:
        """Tell all faults."""
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class BadPath(Refused):
    """A path that we neither follow nor store: rename the file.

    Attributes:
        path: the path as it was given.
        reason: what is wrong with it.

    """

    code = "bad_path"

    def __init__(self, path: str, reason: str) -> None:
        """Tell the path and the reason."""
        super().__init__(f"{path!r}: {reason}")
        self.path = path
        self.reason = reason


class FaultyBundle(Refused):
    """Bundle and metadata do not fit together: mend every fault that is listed.  Nothing was sent to the archive.

    Attributes:
        faults: one sentence for each fault, naming the file.

    """

    code = "faulty_bundle"
    #: More lines than a person reads; the rest is counted.
    SHOWN: ClassVar[int] = 100

    def __init__(self, faults: Sequence[str]) -> None:
        """Tell all faults."""
        more = len(faults) - self.SHOWN
        lines = [*faults[: self.SHOWN], *([f"… and {more} more"] if more > 0 else [])]
        super().__init__("\n".join(lines))
        self.faults = tuple(faults)


class PolicyRefused(Refused):
    """Policy says no: the submitter, project and instrument do not belong together.

    Attributes:
        reason: what Policy said.

    """

    code = "policy_refused"
    status = 412

    def __init__(self, reason: str) -> None:
        """Tell what Policy said."""
        super().__init__(reason)
        self.reason = reason


class Conflict(IngestError):
    """A neighbour holds something else under our id; a person has to look.  Everything is kept."""

    code = "conflict"
    status = 409


class NoSuchJob(IngestError):
    """No job has this id: check the number.

    Attributes:
        job_id: the id that was asked for.

    """

    code = "no_such_job"
    status = 404

    def __init__(self, job_id: int) -> None:
        """Tell the id."""
        super().__init__(f"job ID {job_id} does not exist.")
        self.job_id = job_id


class JobBusy(IngestError):
    """The job is being worked on, or is over; wait for it, or look at its state."""

    code = "job_busy"
    status = 409


class Unavailable(IngestError):
    """Something is away for now; the same may succeed later.  Retryable."""

    code = "unavailable"
    status = 503
    retryable = True


class NeighbourDown(Unavailable):
    """A neighbour gave no usable answer.

    Attributes:
        neighbour: its role: uniqueid, policy, archive, metadata, broker.
        reason: what happened.

    """

    code = "neighbour_down"

    def __init__(self, neighbour: str, reason: str) -> None:
        """Tell who and why."""
        super().__init__(f"{neighbour} cannot be used now: {reason}")
        self.neighbour = neighbour
        self.reason = reason


class ArchiveMismatch(Unavailable):
    """The archive does not hold what was sent; the file is sent again under another id.

    Attributes:
        file_id: the archive's id.
        path: the file in the bundle.
        reason: what differs.

    """

    code = "archive_mismatch"

    def __init__(self, file_id: int, path: str, reason: str) -> None:
        """Tell which file and what differs."""
        super().__init__(f"{path!r} read back from the archive as {file_id}: {reason}")
        self.file_id = file_id
        self.path = path
        self.reason = reason


class IdTaken(Unavailable):
    """The archive refused an id, as it holds something else; nothing was lost, the file is sent again under another id.

    Attributes:
        file_id: the archive's id; nothing of ours lies under it.
        path: the file in the bundle.

    """

    code = "id_taken"

    def __init__(self, file_id: int, path: str) -> None:
        """Tell which id and which file."""
        super().__init__(
            f"{path!r} cannot be archived as {file_id}: the id holds something else already, which was kept"
        )
        self.file_id = file_id
        self.path = path


class DatabaseDown(Unavailable):
    """The database cannot be reached or refused the statement for now."""

    code = "database_down"


class Unconfirmed(DatabaseDown):
    """The database went away while it committed an upload: ask for the state of the job when it is back.

    No refusal, so clients get the job: it is done like any other, or fails and says that it is to be sent again.

    Attributes:
        job_id: the number of the job.

    """

    code = "unconfirmed"
    status = 202

    def __init__(self, job_id: int) -> None:
        """Tell which job."""
        super().__init__(f"Whether job {job_id} was accepted is not known yet. Ask for its state.")
        self.job_id = job_id


class Busy(Unavailable):
    """As many uploads as `[ingest] max_uploads` allows are under way: send it again later.

    Attributes:
        limit: uploads at once.

    """

    code = "busy"

    def __init__(self, limit: int) -> None:
        """Tell the limit."""
        super().__init__(f"{limit} uploads are under way, which is all that this service takes at once. Come again.")
        self.limit = limit


class TooManyUploads(Unavailable):
    """As many uploads of one user as `[ingest] max_uploads_per_user` allows are under way: wait for one to end.

    Attributes:
        limit: uploads of one user at once.

    """

    code = "too_many_uploads"
    status = 429

    def __init__(self, limit: int) -> None:
        """Tell the limit."""
        super().__init__(
            f"{limit} uploads of this user are under way, which is all that are taken at once. Come again."
        )
        self.limit = limit


class NoSpace(Unavailable):
    """The disk is full: the operator has to make space; then send again."""

    code = "no_space"
    status = 507


class ClaimLost(IngestError):
    """Another worker owns the job now: stop at once and write nothing more."""

    code = "claim_lost"


class Stopping(IngestError):
    """The process was asked to stop: give the job back, it goes on where it stands."""

    code = "stopping"
    status = 503


class BadConfiguration(IngestError):
    """A setting has a wrong value; the message names file, key and what is allowed."""

    code = "bad_configuration"


class UnsafeSchema(IngestError):
    """The database is of another schema version: run `pacifica-ingest-cmd dbsync`."""

    code = "unsafe_schema"
