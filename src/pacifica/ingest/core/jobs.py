"""A job as a value, and its legal moves.

Not the row of a database (`orm`) and not the work (`pipeline`).  Any floor may import this.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pacifica.ingest.core.states import Kind, Phase, State, Step

__all__ = [
    "LONGEST_DELAY_S",
    "LOST_OWNERS",
    "MOVES",
    "Claim",
    "Job",
    "Series",
    "Status",
    "fate",
    "forced",
    "resumed",
    "retry_delay_s",
    "series_of",
]

#: The legal moves: phase → phases that may follow.  `docs/architecture.md` draws it and a test compares.
MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.RECEIVING: frozenset({Phase.READY, Phase.FAILED}),
    Phase.READY: frozenset({Phase.RUNNING, Phase.FAILED}),
    Phase.RUNNING: frozenset({Phase.READY, Phase.DONE, Phase.FAILED}),
    Phase.FAILED: frozenset({Phase.READY}),
    Phase.DONE: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a client may know of a job.

    Attributes:
        job_id: its number, > 0.
        state: OK or FAILED.
        step: where it is, or where it failed.
        percent: how far the step is, 0 to 100.
        reason: why it failed, else empty.
        complete: whether it ended, either way.
        created: when it was accepted, aware UTC.
        updated: last change, aware UTC.

    """

    job_id: int
    state: State
    step: Step
    percent: float
    reason: str
    complete: bool
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Transient faults that follow each other without the job getting any further.

    Attributes:
        since: the first of them, aware UTC.
        step: how far the job got.

    """

    since: datetime
    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as our protocol sees it.

    Attributes:
        job_id: its number; also the transaction's number in the catalogue.
        kind: bundle or move.
        phase: where it stands.
        epoch: counts owners; every write of an owner is conditional on it.
        worker: who owns it, or empty.
        heartbeat: counts the owner's signs of progress.
        attempt: how often it was claimed.
        not_before: not to be run earlier than this, aware UTC.
        lost_owners: how many in a row died, or stood still, and archived nothing.
        failing: the present series of transient faults, or None.
        waiting_for: why it waits, for people, else empty.
        frozen: the map file → archive id is final, registration may have begun.
        user: the authenticated user, as the request told it.
        path: the staged file, or empty once it is cleaned away.
        landing_zone: which one the staged file lies in; empty when that is not known.
        size_bytes: length of the staged file.

    """

    job_id: int
    kind: Kind
    phase: Phase
    epoch: int
    worker: str
    heartbeat: int
    attempt: int
    not_before: datetime
    lost_owners: int
    failing: Series | None
    waiting_for: str
    frozen: bool
    user: str
    path: str
    landing_zone: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to work on a job, until somebody else takes it.

    Attributes:
        job: the job as it was when it was claimed.
        epoch: the number that the claim gave it; a write finds no row when it is no longer the job's.

    """

    job: Job
    epoch: int

    @property
    def job_id(self) -> int:
        """The job's number."""
        return self.job.job_id


#: A job that cost so many owners in a row is not given to another: it may be the job that kills them.
LOST_OWNERS = 10

#: No wait is shorter or longer than this, in seconds.
SHORTEST_DELAY_S = 1.0
LONGEST_DELAY_S = 600.0


def retry_delay_s(failing_for_s: float, chance: float) -> float:
    """How long to wait after a transient fault: exponential in time, with full jitter.

    Args:
        failing_for_s: seconds since the first fault of the series.
        chance: a random number in [0, 1).

    Returns:
        seconds; on average as long again as it has been failing.

    Source: the "full jitter" scheme of the AWS Architecture Blog, "Exponential Backoff And Jitter" (2015).

    """
    ceiling = min(LONGEST_DELAY_S, 2.0 * max(SHORTEST_DELAY_S, failing_for_s))
    return max(SHORTEST_DELAY_S, chance * ceiling)


def fate(job: Job) -> str:
    """Why a job fails when its owner is lost; empty when another owner may take it up."""
    if job.phase is Phase.RECEIVING:
        return "The upload was cut off before it was complete. Nothing of it was kept; send it again."
    if job.lost_owners + 1 < LOST_OWNERS:
        return ""
    return (
        f"{LOST_OWNERS} workers in a row died or hung with this job, the last was {job.worker}. The bundle is kept; "
        "the logs of the workers may tell why, and `retry` tries again."
    )


def forced(job: Job, state: str, *, complete: bool, is_needed: bool) -> Phase | None:
    """The phase that a forced state brings a job to; None when the state does not fit the job.

    An end ends it, and a live state wakes one that failed.  A live state does not fit what has nothing to go on with: it
    would be shown for ever.

    Args:
        job: as it is.
        state: what clients are to be told.
        complete: whether that is an end.
        is_needed: whether the staged file is not being removed.

    """
    if not complete:
        is_over = job.phase is Phase.DONE or (job.phase is Phase.FAILED and not is_needed)
        return None if is_over else Phase.READY if job.phase is Phase.FAILED else job.phase
    # One that is done has no bundle, unless "done" was forced: that can be taken back.
    if job.phase is Phase.DONE and not (job.path and is_needed):
        return Phase.DONE
    return Phase.FAILED if state == State.FAILED else Phase.DONE


def resumed(series: Series | None, *, due: datetime, now: datetime) -> Series | None:
    """The series of a job that is claimed: the time in which it waited for a worker does not count.

    Args:
        series: as it was.
        due: from when on the job could be claimed, aware UTC.
        now: aware UTC.

    """
    if series is None:
        return None
    queued = max(now - due, timedelta())
    return replace(series, since=min(series.since + queued, now))


def series_of(job: Job, step: Step, now: datetime) -> Series:
    """The series that a transient fault belongs to: a job that got further than before begins a new one.

    Args:
        job: as it was before the fault.
        step: in which it came.
        now: aware UTC.

    """
    order = list(Step)
    if job.failing is None or order.index(step) > order.index(job.failing.step):
        return Series(since=now, step=step)
    # A clock that was set back must not make it endless.
    return replace(job.failing, since=min(job.failing.since, now))
