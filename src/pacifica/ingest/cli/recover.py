"""`recover`: what the sweep of every server does, at once and with a report, and the leftovers of version 0.4.1."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import click

from pacifica.ingest.app import Service
from pacifica.ingest.cli import screen
from pacifica.ingest.cli.exits import EPILOG
from pacifica.ingest.cli.jobs import UNFINISHED, known
from pacifica.ingest.cli.target import Target
from pacifica.ingest.cli.text import counted
from pacifica.ingest.core.errors import NoSuchJob
from pacifica.ingest.core.states import Kind, Phase
from pacifica.ingest.local.archive import FolderArchive
from pacifica.ingest.recovery import Swept
from pacifica.ingest.staging import STAGED

__all__ = ["recover"]

#: A file that was not written for that long, in seconds, and that no job names, belongs to nobody.
FORGOTTEN_S = 86_400.0
#: The pause between two sweeps, in seconds.
SWEEP_EVERY_S = 1.0
#: A job is watched for that much longer than its lease, in seconds.
SPARE_S = 3.0


@click.command(epilog=EPILOG)
@click.pass_obj
def recover(target: Target) -> None:
    """Pick up at once what a crash or version 0.4.1 left behind.

    Takes over jobs that show no progress for a lease (uploads have longer, and are left to the servers), tells the workers of
    jobs that nobody took up, takes up staged files of unfinished jobs of version 0.4.1, and removes partial files and bundles
    that no job needs any more.  Safe at any time, and in several processes.
    """
    service = target.service()
    found = [*_sweep(service), *_strays(service), *_parts(service), *_risen(service), *_pieces(service)]
    screen.say("\n".join(found) or "Nothing was left behind.")
    if service.store.statuses(limit=1, phases=UNFINISHED):
        screen.say("Some jobs have not ended: `jobs --unfinished` says why.")


def _sweep(service: Service) -> list[str]:
    swept = list(_watch(service))
    told = {
        "taken over from a worker that stood still": [job for sweep in swept for job in sweep.taken_over],
        "told to the workers again": [job for sweep in swept for job in sweep.hinted],
        "staged file removed, as the job is done": [job for sweep in swept for job in sweep.cleaned],
    }
    return [f"job {job_id}: {what}" for what, jobs in told.items() for job_id in sorted(set(jobs))]


def _watch(service: Service) -> Iterator[Swept]:
    """Sweep until every job that has an owner showed progress, or had a lease of time for it."""
    running = _signs(service)
    yield service.recovery.sweep(unclaimed_s=0)
    until = time.monotonic() + service.settings.ingest.lease + SPARE_S
    if running:
        screen.say(
            f"Watching {counted(len(running), 'running job')} for a sign of progress, {until - time.monotonic():.0f} s at most."
        )
    pause = threading.Event()
    while running.items() & _signs(service).items() and time.monotonic() < until:
        pause.wait(SWEEP_EVERY_S)
        yield service.recovery.sweep(unclaimed_s=0)


def _signs(service: Service) -> dict[int, tuple[int, int]]:
    """Running jobs, each with what changes while it makes progress."""
    return {job.job_id: (job.epoch, job.heartbeat) for job in service.store.held() if job.phase is Phase.RUNNING}


def _staged(service: Service, *, part: bool) -> Iterator[tuple[int, Kind, Path]]:
    folder = service.settings.ingest.volume_path
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = STAGED.fullmatch(path.name)
        if match and bool(match["part"]) == part and path.is_file():
            kind = Kind.INGEST if match["suffix"] == Kind.INGEST.suffix else Kind.MOVE
            yield int(match["job_id"]), kind, path


def _strays(service: Service) -> Iterator[str]:
    """Take up complete files of jobs that only 0.4.1 knew, unless they ended or still move."""
    for job_id, kind, path in _staged(service, part=False):
        try:
            status = service.store.status(job_id)
        except NoSuchJob:
            continue
        if known(service, job_id) or status.complete:
            continue
        quiet_s = min(_age_s(path), (datetime.now(UTC) - status.updated).total_seconds())
        if quiet_s < service.settings.ingest.lease:
            yield f"job {job_id}: {path} still changes; it is left alone for now"
            continue
        service.intake.hint(service.store.adopt(job_id, kind, service.settings.ingest.default_user, path))
        yield f"job {job_id}: {path} taken up from version 0.4.1"


def _parts(service: Service) -> Iterator[str]:
    """Remove partial files that no upload writes; those of jobs that nobody knows may be a stranger's."""
    for job_id, _, path in _staged(service, part=True):
        with suppress(NoSuchJob):
            service.store.status(job_id)
            found = known(service, job_id)
            if _age_s(path) > FORGOTTEN_S and not (found and found.phase is Phase.RECEIVING):
                path.unlink(missing_ok=True)
                yield f"{path}: removed, a part of an upload that ended long ago"


def _risen(service: Service) -> Iterator[str]:
    """Remove whole files of jobs that are over and name none any more, as a server that slept too long leaves them."""
    for job_id, kind, path in _staged(service, part=False):
        job = known(service, job_id)
        is_over = job and (job.path, job.kind) == ("", kind) and job.phase in {Phase.DONE, Phase.FAILED}
        # Another landing zone's number is another system's.
        if job and is_over and service.staging.is_here(path, job.landing_zone) and _age_s(path) > FORGOTTEN_S:
            service.staging.remove(path, job.landing_zone)
            yield f"{path}: removed, job {job_id} was over long ago"


def _pieces(service: Service) -> Iterator[str]:
    """Remove what a crash left half written in an archive that is a folder of ours."""
    archive = service.neighbours.archive
    if isinstance(archive, FolderArchive) and (removed := archive.clean_up()):
        yield f"{removed} half written files removed from the archive"


def _age_s(path: Path) -> float:
    """How long ago a file was written; one that is gone by now, as its upload ended, is as new as can be."""
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0
