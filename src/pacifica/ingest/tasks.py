"""The Celery worker: the documented tasks, and what a worker does when it starts and stops.

`celery -A pacifica.ingest.tasks worker` finds the application here.  A message is a hint: the task claims the job in the
database and lets `pipeline` carry it; what cannot be claimed is left alone.  Below stand the documented single steps, a
façade for programs that were written for 0.4.1; nothing in this package uses them.

At a warm shutdown (SIGTERM or Ctrl-C to the main process) running jobs are given back at their next sign of progress, and
go on elsewhere or later.  A process that is killed loses its claims after `[ingest] lease` seconds.
"""

import json
import logging
import mmap
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from celery import signals
from celery.concurrency import get_implementation
from celery.concurrency.prefork import TaskPool

from pacifica.ingest.app import Service, current, limits, sweeping
from pacifica.ingest.bundle import Bundle
from pacifica.ingest.core.errors import IngestError, NoSuchJob, Unavailable
from pacifica.ingest.core.states import Kind, State, Step
from pacifica.ingest.database import DB
from pacifica.ingest.journal import Lines
from pacifica.ingest.orm import OrmSync, prepare_schema, update_state
from pacifica.ingest.queue import TASKS, celery_app
from pacifica.ingest.tarutils import MetaParser, open_tar, patch_files

__all__ = [
    "IngestException",
    "app",
    "ingest",
    "ingest_check_tarfile",
    "ingest_files",
    "ingest_metadata",
    "ingest_metadata_parser",
    "ingest_policy_check",
    "move",
    "move_files",
    "move_metadata_parser",
    "validate_meta",
]

logger = logging.getLogger(__name__)

#: What `celery -A` looks for.
app = celery_app

#: Not 0 when this worker is to stop.  Processes that it forks share the byte, as they are not told of its signals.
_stop = mmap.mmap(-1, 1)
#: What runs beside the tasks of this process.
_beside = ExitStack()


# --- the tasks


F = TypeVar("F", bound=Callable[..., None])


def _task(kind: Kind) -> Callable[[F], F]:
    decorate: Callable[[F], F] = celery_app.task(name=TASKS[kind])
    return decorate


@_task(Kind.INGEST)
def ingest(job_id: int, filepath: str, authed_user: str | None = None) -> None:
    """Carry a bundle to its end."""
    _work(Kind.INGEST, job_id, filepath, authed_user)


@_task(Kind.MOVE)
def move(job_id: int, filepath: str, authed_user: str | None = None) -> None:
    """Carry a move to its end."""
    _work(Kind.MOVE, job_id, filepath, authed_user)


def _work(kind: Kind, job_id: int, filepath: str, authed_user: str | None) -> None:
    service = current()
    try:
        if not _is_known(service, job_id):
            user = authed_user or service.settings.ingest.default_user
            service.store.adopt(job_id, kind, user, Path(filepath))
        claim = service.claim(job_id)
    except Unavailable as fault:
        logger.warning("hint lost, the sweep will send it again", extra={"job_id": job_id, "reason": str(fault)})
        return
    if claim is not None:
        service.pipeline.run(claim, lambda: bool(_stop[0]))


def _is_known(service: Service, job_id: int) -> bool:
    """Whether the store has the job, or another version brought it to its end; else a server of 0.4.1 sent the message."""
    try:
        service.store.job(job_id)
    except NoSuchJob:
        try:
            return service.store.status(job_id).complete
        except NoSuchJob:
            return False
    return True


# --- the life of a worker


def _prepare(sender: Any, **_: object) -> None:  # noqa: ANN401 (Celery has no types)
    """Begin only on a database that fits."""
    try:
        OrmSync.dbconn_blocking()
        prepare_schema()
    except Exception as fault:  # Celery would log any and start all the same
        msg = f"The worker cannot start: {fault}"
        raise SystemExit(msg) from fault
    # SQLite must not be open across a fork.
    getattr(DB.obj, "close_all", DB.obj.close)()
    if not issubclass(get_implementation(sender.pool_cls), TaskPool):
        _sweep()


def _sweep(**_: object) -> None:
    """Sweep in every process that works; the main process of a prefork pool does not, so that it can fork safely."""
    _beside.close()
    _beside.enter_context(sweeping(current()))


def _put_down(**_: object) -> None:
    _stop[0] = 1


def _end(**_: object) -> None:
    _beside.close()


def _write_lines(logger: logging.Logger, format: str, **_: object) -> None:  # noqa: A002 (Celery's name)
    """Let a worker log as our other processes do: Celery's lines lose what belongs to a record."""
    for handler in logger.handlers:
        handler.setFormatter(Lines(format))


signals.after_setup_logger.connect(_write_lines)
signals.worker_init.connect(_prepare)
signals.worker_process_init.connect(_sweep)
signals.worker_shutting_down.connect(_put_down)
signals.worker_process_shutdown.connect(_end)
signals.worker_shutdown.connect(_end)


# --- the documented steps


class IngestException(Exception):
    """A step failed; the job's record says why."""


class _Ingestible(Protocol):
    def ingest(self) -> None: ...


@contextmanager
def _step(job_id: int, step: Step) -> Iterator[None]:
    """Tell clients of a step, and how it ended.

    Raises:
        IngestException: it failed.

    """
    update_state(job_id, State.OK, step, 0)
    try:
        yield
    except Exception as fault:
        update_state(job_id, State.FAILED, step, 0, str(fault))
        raise IngestException(str(fault)) from fault
    update_state(job_id, State.OK, step, 100)


def ingest_check_tarfile(job_id: int, filepath: str) -> tarfile.TarFile | None:
    """Open a bundle; raises `IngestException`."""
    with _step(job_id, Step.OPEN_TAR):
        # Told apart from `open_tar`, which says no more than None.
        Bundle.open(filepath, limits(current().settings)).close()
        return open_tar(filepath)


def ingest_metadata_parser(job_id: int, tar: tarfile.TarFile) -> MetaParser:
    """Load the metadata of a bundle; raises `IngestException`."""
    with _step(job_id, Step.LOAD_METADATA):
        meta = MetaParser()
        meta.load_meta(tar, job_id)
    return meta


def move_metadata_parser(job_id: int, metafile: str) -> MetaParser:
    """Load the document of a move; raises `IngestException`."""
    with _step(job_id, Step.LOAD_METADATA):
        meta = MetaParser()
        meta.read_meta(metafile, job_id)
    return meta


def ingest_policy_check(job_id: int, meta_str: str, authed_user: str | None = None) -> None:
    """Ask Policy; raises `IngestException`."""
    with _step(job_id, Step.POLICY):
        _expect(*validate_meta(meta_str, authed_user))


def ingest_files(job_id: int, ingest_obj: _Ingestible) -> None:
    """Archive the files of a bundle with a `TarIngester`; raises `IngestException`."""
    with _step(job_id, Step.INGEST_FILES):
        ingest_obj.ingest()


def move_files(job_id: int, meta_obj: MetaParser) -> None:
    """Move files into the archive; raises `IngestException`."""
    with _step(job_id, Step.MOVE_FILES):
        patch_files(meta_obj)


def ingest_metadata(job_id: int, meta: MetaParser) -> None:
    """Register the transaction, which ends the job; raises `IngestException`."""
    with _step(job_id, Step.INGEST_METADATA):
        _expect(*meta.post_metadata())


def validate_meta(meta_str: str, authed_user: str | None = None) -> tuple[bool, str]:
    """Ask Policy for a document as JSON; returns whether it is allowed, and why not."""
    service = current()
    try:
        service.neighbours.policy.permit(json.loads(meta_str), authed_user or service.settings.ingest.default_user)
    except (IngestError, ValueError) as fault:
        return False, str(fault)
    return True, ""


def _expect(success: bool, reason: str) -> None:  # noqa: FBT001 (the documented pair)
    if not success:
        raise IngestException(reason)
