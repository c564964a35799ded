"""The words that a job's state is told in; the wire strings exist only here.

Not a state machine: the legal moves between phases are in `jobs`.  Any floor may import this.
"""

from enum import StrEnum

__all__ = ["Kind", "Phase", "State", "Step"]


class State(StrEnum):
    """What a client is told of a job.  Source: documentation of pacifica-ingest 0.4.1."""

    #: Set by intake and by every step.  Also while a job waits for a neighbour: clients stop polling at any other word.
    OK = "OK"
    #: Set once, when a job ended without success.  The bundle is kept; `retry` brings the job back to OK.
    FAILED = "FAILED"


class Step(StrEnum):
    """The `task` that a client is told: where the job is, or where it failed.  In the order in which they follow."""

    #: Set by intake.  A crash here leaves a partial file that recovery removes; the sender got no answer and sends again.
    UPLOADING = "UPLOADING"
    #: Bundles only.  Reads the tar headers; a crash leaves nothing behind.
    OPEN_TAR = "open tar"
    #: Reads metadata.txt, or the document of a move; a crash leaves nothing behind.
    LOAD_METADATA = "load metadata"
    #: Asks Policy; idempotent, a crash leaves nothing behind.
    POLICY = "Policy Validation"
    #: Bundles only.  Checks everything, then archives.  A crash leaves intents, which become garbage when the job resumes.
    INGEST_FILES = "ingest files"
    #: Moves only.  A crash leaves intents, which are compared with source and archive when the job resumes.
    MOVE_FILES = "move files"
    #: Registers the transaction.  A crash is settled by looking the transaction up.  100 percent means done.
    INGEST_METADATA = "ingest metadata"


class Kind(StrEnum):
    """What was asked for."""

    #: A tar bundle was uploaded.
    INGEST = "ingest"
    #: A document names files that already lie on a file system which the archive can reach.
    MOVE = "move"

    @property
    def suffix(self) -> str:
        """The file name suffix of the staged file.  Source: 0.4.1 stages `{job_id}.tar` and `{job_id}.json`."""
        return ".tar" if self is Kind.INGEST else ".json"

    @property
    def files_step(self) -> Step:
        """The step in which files reach the archive."""
        return Step.INGEST_FILES if self is Kind.INGEST else Step.MOVE_FILES


class Phase(StrEnum):
    """Where a job stands in our own protocol; clients never see it."""

    #: Set by intake when the id is taken.  Follows: READY, or FAILED by recovery when the server died meanwhile.
    RECEIVING = "receiving"
    #: Set by intake when the bundle is durable, by a waiting or stopping owner, by recovery and by retry.  Follows: RUNNING.
    READY = "ready"
    #: Set by a claim.  Follows: READY, DONE, FAILED.  A crash leaves a heartbeat that stands still; recovery takes over.
    RUNNING = "running"
    #: Set when the transaction is registered.  Nothing follows.  A crash may leave the staged file; recovery removes it.
    DONE = "done"
    #: Set when the job cannot go on.  Follows: READY by retry.  The staged file stays.
    FAILED = "failed"
