"""`job`, `jobs`, `show` and `files`: look at jobs, and force what clients see of one."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import click

from pacifica.ingest.app import Service
from pacifica.ingest.cli import screen
from pacifica.ingest.cli.exits import EPILOG, Exit
from pacifica.ingest.cli.history import history
from pacifica.ingest.cli.target import Target
from pacifica.ingest.cli.text import clock, local_time, summary
from pacifica.ingest.core.errors import NoSuchJob
from pacifica.ingest.core.jobs import Job, Status
from pacifica.ingest.core.states import Phase, State, Step

__all__ = ["JOB_ID", "UNFINISHED", "contradicted", "files", "job", "jobs", "known", "show", "waiting"]

#: Where a job stands that has not ended.
UNFINISHED = (Phase.RECEIVING, Phase.READY, Phase.RUNNING)


class _JobNumber(click.IntRange):
    name = "job number"


#: The type of a job's number on the command line.
JOB_ID = _JobNumber(min=1, max=2**63 - 1)


def known(service: Service, job_id: int) -> Job | None:
    """The job in our own protocol; None for one that only version 0.4.1 knew."""
    try:
        return service.store.job(job_id)
    except NoSuchJob:
        return None


def waiting(found: Job | None) -> str:
    """What a job waits for, and until when; empty when it does not."""
    if found is not None and found.phase is Phase.RECEIVING:
        return "for the rest of its upload; one that was cut is given up"
    if found is None or found.phase is not Phase.READY:
        return ""
    if found.waiting_for:
        again = f"again at {local_time(found.not_before)}" if found.not_before > datetime.now(UTC) else "again now"
        return f"{again}: {found.waiting_for}"
    return "for a worker"


def contradicted(found: Job | None, status: Status) -> str:
    """What to know of a job that is done and that somebody called failed; empty for all others."""
    if found is None or found.phase is not Phase.DONE or status.state != State.FAILED:
        return ""
    back = f"--state {State.OK} --task '{Step.INGEST_METADATA}' --task-percent 100"
    return f"The job is done all the same, and stays so: `job --job-id {found.job_id} {back}` takes it back."


@click.command(epilog=EPILOG)
@click.option("--job-id", type=JOB_ID, required=True, help="The job.")
@click.option("--state", type=click.Choice([str(state) for state in State]), required=True, help="What clients see.")
@click.option("--task", type=click.Choice([str(step) for step in Step]), required=True, help="The step.")
@click.option("--task-percent", type=click.FloatRange(0, 100), default=0.0, show_default=True, help="How far it is.")
@click.option("--exception", default="", help="The reason of a failure; by default that an operator ended it.")
@click.pass_obj
def job(target: Target, *, job_id: int, state: str, task: str, task_percent: float, exception: str) -> None:
    """Force what clients see of a job.

    FAILED, or 100 percent of 'ingest metadata', ends the job; anything else wakes one that had failed, and is refused when
    the job is over.  A job that is called done by this keeps its bundle: FAILED takes it back, and retry continues it.
    """
    service = target.service()
    store = service.store
    is_new = not _is_known(service, job_id)
    # A failure has a reason, always.
    reason = exception or ("Ended by an operator." if state == State.FAILED else "")
    store.force(job_id, State(state), Step(task), task_percent, reason)
    told = store.status(job_id)
    screen.say(_line(told))
    for note in (
        f"Nobody knew a job {job_id} before; clients are told of it now." * is_new,
        contradicted(known(service, job_id), told),
    ):
        if note:
            click.echo(note, err=True)


def _is_known(service: Service, job_id: int) -> bool:
    try:
        service.store.status(job_id)
    except NoSuchJob:
        return False
    return True


@click.command(epilog=EPILOG)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, at most.")
@click.option("--state", type=click.Choice([str(state) for state in State]), help="Only those that clients see so.")
@click.option("--phase", type=click.Choice([str(phase) for phase in Phase]), help="Only those that stand so.")
@click.option("--unfinished", is_flag=True, help="Only those that have not ended.")
@click.option("--user", help="Only those of this user.")
@click.pass_obj
def jobs(
    target: Target, *, limit: int, state: str | None, phase: str | None, unfinished: bool, user: str | None
) -> None:
    """List the jobs that changed last, and why each of them is not done."""
    if phase and unfinished:
        msg = "--phase and --unfinished exclude each other."
        raise click.UsageError(msg)
    service = target.service()
    phases = UNFINISHED if unfinished else [Phase(phase)] if phase else ()
    found = service.store.statuses(limit=limit, state=State(state) if state else None, phases=phases, user=user)
    columns = ("job", "state", "task", "percent", "complete", f"updated ({clock()})", "phase", "why")
    screen.show_table(columns, _rows(service, found), right=("job", "percent"))


def _rows(service: Service, statuses: Iterable[Status]) -> Iterator[tuple[object, ...]]:
    for status in statuses:
        found = known(service, status.job_id)
        yield (
            status.job_id,
            status.state,
            status.step,
            f"{status.percent:.1f}",
            "yes" if status.complete else "no",
            local_time(status.updated),
            found.phase if found else "(0.4.1)",
            summary(waiting(found) or status.reason),
        )


@click.command(epilog=EPILOG)
@click.argument("job_id", metavar="JOB", type=JOB_ID)
@click.pass_obj
def show(target: Target, job_id: int) -> None:
    """Show a job with its whole history, and why it is not done."""
    service = target.service()
    status = service.store.status(job_id)
    found = known(service, job_id)
    screen.say(_line(status))
    facts = [(name, str(value)) for name, value in _facts(service, status, found)]
    screen.show_table((), [(f"{name}:", screen.paragraph(value)) for name, value in facts if value])
    events = service.store.events(job_id)
    if events:
        screen.say("")
        told = [(when, what, screen.paragraph(about)) for when, what, about in history(events, status.reason)]
        screen.show_table((f"when ({clock()})", "what", ""), told)


def _line(status: Status) -> str:
    ended = ", ended" if status.complete else ""
    return f"job {status.job_id}: {status.state}, {status.step}, {status.percent:.1f} %{ended}"


def _facts(service: Service, status: Status, found: Job | None) -> Iterator[tuple[str, object]]:
    yield "begun", local_time(status.created)
    yield "changed", local_time(status.updated)
    if found is not None:
        yield "phase", f"{found.phase}{', forced by hand' if _is_forced(service, found) else ''}"
        yield "waits", waiting(found)
        yield "gives up", _gives_up(service, found)
        yield "worker", found.worker
        yield "attempts", found.attempt
        yield "workers lost in a row", found.lost_owners or ""
        yield "user", found.user
        yield "staged", _staged(found)
        yield "files archived", len(service.store.file_ids(status.job_id))
        yield "files under way", len(service.store.intents(status.job_id)) or ""
    yield "reason", status.reason
    yield "but", contradicted(found, status)


def _staged(found: Job) -> str:
    """Where the bundle is, or why there is none."""
    if found.path:
        return f"{found.path} ({found.size_bytes} bytes)"
    match found.phase:
        case Phase.RECEIVING:
            return "still arriving"
        case Phase.DONE:
            return "removed, not needed any more"
    return "none any more; send the bundle again"


def _gives_up(service: Service, found: Job) -> str:
    """When a job that waits for a neighbour fails; empty when it does not wait."""
    if found.phase is not Phase.READY or found.failing is None:
        return ""
    patience_s = service.settings.ingest.retry_for
    return f"at {local_time(found.failing.since + timedelta(seconds=patience_s))} ([ingest] retry_for)"


def _is_forced(service: Service, found: Job) -> bool:
    """Whether somebody called the job done: nothing of it is known to be registered."""
    return found.phase is Phase.DONE and all(event.name != "done" for event in service.store.events(found.job_id))


@click.command(epilog=EPILOG)
@click.argument("job_id", metavar="JOB", type=JOB_ID)
@click.option("--json", "as_json", is_flag=True, help="As a JSON list of objects.")
@click.pass_obj
def files(target: Target, job_id: int, *, as_json: bool) -> int:
    """List the files of a job as the catalogue has them, and where each lies in the archive."""
    neighbours = target.service().neighbours
    found = neighbours.catalogue.lookup(job_id)
    if found is None:
        click.echo(f"The catalogue has no transaction {job_id}; `show {job_id}` may tell why.", err=True)
        return Exit.NO
    listed = [
        {
            "path": file.path,
            "size": file.size_bytes,
            "digest": file.digest,
            "archive_id": file.file_id,
            "archive_path": neighbours.archive.location(file.file_id),
        }
        for file in found
    ]
    if as_json:
        click.echo(json.dumps(listed, indent=1))
    else:
        columns = ("path", "size", "digest", "archive_id", "archive_path")
        screen.show_table(columns, [list(row.values()) for row in listed], right=("size", "archive_id"))
    return Exit.OK
