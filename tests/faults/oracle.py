"""The one oracle: whether anything was lost, is stuck, happened twice, or lies somewhere without being listed.

What it is: a judgement over plain values.  Each kind of round collects its own `Evidence`, from the doubles or from real
databases, folders and services, when nothing moves any more; `judge` says what is wrong with it.

What it is not: a collector.  It reads no disk and asks no service.

Who may call it: the fault rounds.

Source: the three promises and the job protocol in `docs/architecture.md`.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Evidence", "Fault", "Found", "JobSeen", "Sent", "judge", "verdict"]


class Fault(StrEnum):
    """What may be wrong; the columns of the table in `docs/reliability.md`."""

    #: An accepted bundle is not complete, or not what was sent, or failed without its bundle or a reason.
    LOST = "lost"
    #: A job neither ended nor has a time at which it goes on.
    STUCK = "stuck"
    #: Registered or archived more than once.
    DOUBLED = "doubled"
    #: An object, a file or a transaction that no list knows of, or that was refused.
    UNLISTED = "unlisted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request of a client, and the last that the client knows of it.  No two requests send equal files.

    Attributes:
        files: path → `algorithm:hex` of the bytes that were sent; empty for a body that is no bundle.
        body: `sha256:hex` of the whole body.
        status: the HTTP status of the answer; None when none came.
        job_id: of the answer 200 or 202; else None.
        fails: why the job must end FAILED, as a part of its reason; empty when it must be done.  None when both may be.

    """

    files: Mapping[str, str]
    body: str
    status: int | None
    job_id: int | None
    fails: str | None = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeen:
    """A job as the database has it.

    Attributes:
        phase: `core.states.Phase`.
        complete: what a client is told.
        state: likewise; OK or FAILED.
        reason: likewise.
        staged: the name of its staged file, or empty.
        ids: archive id → `intent`, `archived`, `garbage`, `removed` or `void`.
        expired: whether an operator gave its bundle up after it had failed.

    """

    phase: str
    complete: bool
    state: str
    reason: str
    staged: str
    ids: Mapping[int, str]
    expired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A registered file: its path, its archive id and the `algorithm:hex` that the catalogue has."""

    path: str
    file_id: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything there is when nothing moves any more.

    Attributes:
        sent: all requests.
        jobs: job id → what the database has.
        transactions: one item for each registered transaction: its id and its files.
        objects: archive id → `algorithm:hex` of the bytes there, in the algorithm of the metadata.
        staged: file name → `sha256:hex` of everything in the landing zone.
        pieces: archive ids under which something lies that was not finished, and is no object.

    """

    sent: Sequence[Sent]
    jobs: Mapping[int, JobSeen]
    transactions: Sequence[tuple[int, Sequence[Found]]]
    objects: Mapping[int, str]
    staged: Mapping[str, str]
    pieces: Collection[int] = ()


def judge(evidence: Evidence) -> list[tuple[Fault, str]]:
    """All that is wrong, in words; empty when nothing is."""
    return [
        *_accepted(evidence),
        *_stuck(evidence),
        *_doubled(evidence),
        *_unlisted(evidence),
    ]


def verdict(evidence: Evidence) -> None:
    """Raise `AssertionError` with all that is wrong."""
    faults = judge(evidence)
    assert not faults, "\n".join(f"{fault}: {text}" for fault, text in faults)


def _accepted(evidence: Evidence) -> Iterator[tuple[Fault, str]]:
    for sent in evidence.sent:
        if sent.status == 200:
            if sent.job_id is None or sent.job_id not in evidence.jobs:
                yield Fault.LOST, f"job {sent.job_id} was accepted, and the database does not know it"
                continue
            for text in _kept(sent, sent.job_id, evidence):
                yield Fault.LOST, f"job {sent.job_id}: {text}"
        elif sent.status == 202:
            for text in _unconfirmed(sent, evidence):
                yield Fault.LOST, f"job {sent.job_id}: {text}"


def _unconfirmed(sent: Sent, evidence: Evidence) -> Iterator[str]:
    """What is wrong with a job whose commit was unclear: it ends like any other, or fails without its bundle, and says so."""
    job = evidence.jobs.get(sent.job_id or 0)
    if job is None:
        yield "its state was to be asked for, and the database does not know it"
    elif job.phase == "done" or job.staged:
        yield from _kept(sent, sent.job_id or 0, evidence)
    elif job.phase == "failed" and ((job.state, job.complete) != ("FAILED", True) or not job.reason):
        yield f"failed, and clients are told {job.state}, complete {job.complete}, {job.reason!r}"


def _kept(sent: Sent, job_id: int, evidence: Evidence) -> Iterator[str]:
    """What is wrong with an accepted job that ended; one that did not end is stuck."""
    job = evidence.jobs[job_id]
    if job.phase == "done":
        yield from _done(sent, job, [files for number, files in evidence.transactions if number == job_id], evidence)
    elif job.phase == "failed":
        yield from _failed(sent, job, evidence)


def _done(sent: Sent, job: JobSeen, transactions: Sequence[Sequence[Found]], evidence: Evidence) -> Iterator[str]:
    if sent.fails:
        yield f"is done, and had to fail: {sent.fails}"
    if (job.state, job.complete, job.reason) != ("OK", True, ""):
        yield f"is done, and clients are told {job.state}, complete {job.complete}, {job.reason!r}"
    if not transactions:
        yield "is done, and not registered"
    for files in transactions:
        registered = {file.path: file.digest for file in files}
        if registered != dict(sent.files):
            yield f"is registered with {registered} instead of {dict(sent.files)}"
        for file in files:
            there = evidence.objects.get(file.file_id)
            if there != sent.files.get(file.path):
                yield f"{file.path!r}, id {file.file_id}, is {there} in the archive"


def _failed(sent: Sent, job: JobSeen, evidence: Evidence) -> Iterator[str]:
    if job.expired and not job.staged:
        return
    if sent.fails is not None and (not sent.fails or sent.fails not in job.reason):
        yield f"failed: {job.reason!r}" + (f" instead of {sent.fails!r}" if sent.fails else "")
    if (job.state, job.complete) != ("FAILED", True) or not job.reason:
        yield f"failed, and clients are told {job.state}, complete {job.complete}, {job.reason!r}"
    if evidence.staged.get(job.staged) != sent.body:
        yield f"failed, and its bundle {job.staged!r} is {evidence.staged.get(job.staged)} instead of {sent.body}"


def _stuck(evidence: Evidence) -> Iterator[tuple[Fault, str]]:
    for job_id, job in evidence.jobs.items():
        if job.phase not in {"done", "failed"}:
            yield Fault.STUCK, f"job {job_id} is {job.phase}: {job.reason!r}"
        elif not job.complete:
            yield Fault.STUCK, f"job {job_id} is {job.phase}, and clients are told that it goes on"


def _doubled(evidence: Evidence) -> Iterator[tuple[Fault, str]]:
    for job_id in _twice(number for number, _ in evidence.transactions):
        yield Fault.DOUBLED, f"transaction {job_id} is registered more than once"
    registered = (file.file_id for _, files in evidence.transactions for file in files)
    for file_id in _twice(registered):
        yield Fault.DOUBLED, f"archive id {file_id} is registered more than once"
    for job_id, files in evidence.transactions:
        for path in _twice(file.path for file in files):
            yield Fault.DOUBLED, f"transaction {job_id} has {path!r} more than once"
    for file_id in _twice(file_id for job in evidence.jobs.values() for file_id in job.ids):
        yield Fault.DOUBLED, f"archive id {file_id} belongs to more than one job"
    for job_id in _twice(sent.job_id for sent in evidence.sent if sent.job_id is not None):
        yield Fault.DOUBLED, f"two requests were answered with job {job_id}"


def _unlisted(evidence: Evidence) -> Iterator[tuple[Fault, str]]:
    registered = {file.file_id for _, files in evidence.transactions for file in files}
    states = {file_id: (job, state) for job in evidence.jobs.values() for file_id, state in job.ids.items()}
    for file_id in evidence.objects.keys() - registered:
        job, state = states.get(file_id, (None, ""))
        if job is None or not _is_listed(job, state):
            yield Fault.UNLISTED, f"archive id {file_id} is not registered, and {state or 'on no list'}"
    for file_id in evidence.pieces:
        job, state = states.get(file_id, (None, ""))
        if job is None or not _is_listed(job, state) or file_id in registered:
            yield (
                Fault.UNLISTED,
                f"something half written lies under archive id {file_id}, which is {state or 'on no list'}",
            )
    for file_id in registered:
        if file_id in states and states[file_id][1] == "garbage":
            yield Fault.UNLISTED, f"archive id {file_id} is registered, and on the garbage list"
    for job_id, _ in evidence.transactions:
        if job_id not in evidence.jobs or evidence.jobs[job_id].phase not in {"done", "failed"}:
            yield Fault.UNLISTED, f"transaction {job_id} is registered, and its job is not done"
    kept = {job.staged for job in evidence.jobs.values() if job.phase == "failed" and job.staged}
    for name in evidence.staged.keys() - kept:
        yield Fault.UNLISTED, f"{name!r} lies in the landing zone, and no failed job has it"
    yield from _refused(evidence)


def _is_listed(job: JobSeen, state: str) -> bool:
    """Whether `gc` or `retry` finds what lies under an id: what a failed job archived or began is gone on with."""
    goes_on = job.phase == "failed" and not job.expired
    return state == "garbage" or (goes_on and state in {"intent", "archived"})


def _refused(evidence: Evidence) -> Iterator[tuple[Fault, str]]:
    there = {frozenset(file.digest for file in files) for _, files in evidence.transactions}
    for sent in evidence.sent:
        if sent.status not in {None, 200, 202}:
            if sent.files and frozenset(sent.files.values()) in there:
                yield Fault.UNLISTED, f"a bundle that was refused with {sent.status} is registered"
            if sent.body in evidence.staged.values():
                yield Fault.UNLISTED, f"a body that was refused with {sent.status} lies in the landing zone"


def _twice(items: Iterable[object]) -> list[object]:
    listed = list(items)
    if len(set(listed)) == len(listed):
        return []
    return [item for item, count in Counter(listed).items() if count > 1]
