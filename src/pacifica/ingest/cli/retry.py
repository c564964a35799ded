"""`retry`: bring a job back and carry it to its end in the foreground."""

import getpass
import logging
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click

from pacifica.ingest import app
from pacifica.ingest.cli import screen
from pacifica.ingest.cli.exits import EPILOG, Exit
from pacifica.ingest.cli.jobs import JOB_ID, contradicted, known, waiting
from pacifica.ingest.cli.target import Target
from pacifica.ingest.core.errors import JobBusy, NoSuchJob, Unavailable
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Kind, Phase, Step
from pacifica.ingest.core.wire import status_body

__all__ = ["retry"]

logger = logging.getLogger(__name__)

#: The pause, in seconds, before a job that cannot be claimed now is asked for again.
CLAIM_EVERY_S = 0.5
#: How long, in seconds, the work may take to put the job down.
STOP_S = 10.0


@click.command(epilog=EPILOG)
@click.option("--job_id", "--job-id", "job_id", type=JOB_ID, required=True, help="The job.")
@click.option("--move", is_flag=True, help="A job that we do not know yet is a move, not a bundle.")
@click.option(
    "--path",
    type=click.Path(path_type=Path),
    help="Staged file of a job that we do not know yet, as one of version 0.4.1; by default where that put it.  A file "
    "outside of the landing zone is never removed.",
)
@click.option("--username", help="Who sent a job that we do not know yet; by default who runs this.")
@click.pass_obj
def retry(target: Target, job_id: int, path: Path | None, username: str | None, *, move: bool) -> int:
    """Try a failed or waiting job again, from where it stands.

    Shows the progress until the job ended, and waits with it for a neighbour that is away.  A job that another worker has
    is only watched.
    """
    service = target.service()
    kind = Kind.MOVE if move else Kind.INGEST
    _bring_back(service, job_id, kind, path, username)
    with app.sweeping(service):
        ended = _carry(service, job_id)
    screen.say(f"job {job_id}: {ended.state}, {ended.step}", style="green" if ended.state == "OK" else "red")
    for line in (ended.reason, contradicted(known(service, job_id), service.store.status(job_id))):
        if line:
            screen.say(line)
    return Exit.OK if ended.state == "OK" else Exit.NO


def _bring_back(service: app.Service, job_id: int, kind: Kind, path: Path | None, username: str | None) -> None:
    """Make the job READY, if it is not on its way or done already."""
    found = known(service, job_id)
    if found is None:
        _adopt(service, job_id, kind, path, username)
        return
    _ensure_same(found, kind, path, username)
    if found.phase in {Phase.FAILED, Phase.READY}:
        # Somebody may take it up at this very moment, which is as good.
        with suppress(JobBusy):
            service.store.retry(job_id)


def _ensure_same(found: Job, kind: Kind, path: Path | None, username: str | None) -> None:
    """Let nobody believe that something else is tried than what is known of the job.

    Raises:
        BadParameter: another file, or a bundle that is called a move.

    """
    if path is not None and found.phase is not Phase.DONE and not _is_same(path, found.path):
        has = f"has {found.path}" if found.path else "has none any more"
        msg = (
            f"the staged file of job {found.job_id} cannot be changed: it {has}. Send the bundle again, for a new job."
        )
        raise click.BadParameter(msg, param_hint="--path")
    if kind is Kind.MOVE and found.kind is Kind.INGEST:
        msg = f"job {found.job_id} is a bundle, not a move."
        raise click.BadParameter(msg, param_hint="--move")
    if username is not None and username != found.user:
        click.echo(f"job {found.job_id} was sent by {found.user!r}, and stays theirs.", err=True)


def _is_same(path: Path, staged: str) -> bool:
    try:
        return path.samefile(staged)
    except OSError:
        return str(path.absolute()) == staged


def _adopt(service: app.Service, job_id: int, kind: Kind, path: Path | None, username: str | None) -> None:
    """Take up a job of 0.4.1, unless that had brought it to its end.

    Raises:
        NoSuchJob: no file of it is there; not retryable.

    """
    with suppress(NoSuchJob):
        before = service.store.status(job_id)
        if before.complete and before.state == "OK":
            return
    staged = (path or service.settings.ingest.volume_path / f"{job_id}{kind.suffix}").absolute()
    if not staged.is_file():
        if path is None:
            raise NoSuchJob(job_id)
        msg = f"{staged} is no file."
        raise click.BadParameter(msg, param_hint="--path")
    if service.staging.owns(staged) and staged.name != f"{job_id}{kind.suffix}":
        msg = f"{staged.name} belongs to another job, or to the service itself."
        raise click.BadParameter(msg, param_hint="--path")
    service.store.adopt(job_id, kind, username or getpass.getuser(), staged)


def _carry(service: app.Service, job_id: int) -> screen.JobView:
    """Work on the job, or watch who does, until it ended."""
    stop = threading.Event()
    worker = threading.Thread(target=_work, args=(service, job_id, stop), name="retry", daemon=True)
    worker.start()
    try:
        return screen.follow(lambda: _look(service, job_id))
    finally:
        stop.set()
        # One that hangs in a call is left behind: the job is taken over when it stands still.
        worker.join(STOP_S)


def _work(service: app.Service, job_id: int, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            claim = service.claim(job_id)
        except Unavailable as fault:
            logger.warning("the job cannot be claimed now", extra={"job_id": job_id, "reason": str(fault)})
            claim = None
        if claim is not None:
            service.pipeline.run(claim, stop.is_set)
        else:
            stop.wait(CLAIM_EVERY_S)


def _look(service: app.Service, job_id: int) -> screen.JobView:
    found = known(service, job_id)
    shown = screen.view(status_body(service.store.status(job_id)), _note(service, found))
    if found is not None and found.phase in {Phase.READY, Phase.RUNNING} and shown.step == Step.UPLOADING:
        # Clients see that step until the first one of the work; here nothing is uploaded any more.
        return replace(shown, step="taken up")
    return shown


def _note(service: app.Service, found: Job | None) -> str:
    """What a job waits for, or who else has it."""
    if found is None:
        return ""
    if found.phase is Phase.RUNNING and found.worker != app.worker_name():
        lease_s = service.settings.ingest.lease
        return f"(watching: {found.worker} has it, and loses it after {lease_s} s without a sign of life)"
    return waiting(found) if found.waiting_for else ""
