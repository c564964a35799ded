"""The one place that knows both ports and adapters: it wires a service from the settings.

Nothing is opened by wiring; the first use opens.  The edges (`rest`, `tasks`, the façades, `cli`) ask for `current()`;
a program that chose its settings calls `use` first.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pacifica.ingest import orm
from pacifica.ingest.admission import Admission
from pacifica.ingest.bundle import Limits
from pacifica.ingest.config import Settings, load_settings
from pacifica.ingest.core.errors import Unavailable
from pacifica.ingest.core.jobs import Claim
from pacifica.ingest.database import use_database
from pacifica.ingest.intake import Intake
from pacifica.ingest.local.archive import FolderArchive
from pacifica.ingest.local.catalogue import LocalCatalogue
from pacifica.ingest.local.clock import SystemClock
from pacifica.ingest.local.ids import LocalIds
from pacifica.ingest.local.lock import FolderLock
from pacifica.ingest.local.policy import LocalPolicy
from pacifica.ingest.local.pool import Pool, PoolQueue, Wakeup
from pacifica.ingest.local.root import DatabaseMemory
from pacifica.ingest.neighbours.archive import HttpArchive
from pacifica.ingest.neighbours.metadata import HttpCatalogue
from pacifica.ingest.neighbours.policy import HttpPolicy
from pacifica.ingest.neighbours.uniqueid import HttpIds
from pacifica.ingest.pipeline import Neighbours, Pipeline, Rules
from pacifica.ingest.ports import Archive, Catalogue, Clock, Ids, JobStore, Policy, Queue, Staging
from pacifica.ingest.recovery import Recovery
from pacifica.ingest.retention import Retention
from pacifica.ingest.staging import FolderStaging
from pacifica.ingest.store import SqlJobStore
from pacifica.ingest.submitter import SubmitterPolicy

__all__ = [
    "Service",
    "archive_folder",
    "compose",
    "current",
    "forget",
    "limits",
    "standalone",
    "sweeping",
    "use",
    "worker_name",
]

logger = logging.getLogger(__name__)

#: An upload is not given up sooner, in seconds, however short `upload_timeout` is: it shows life every five.
SHORTEST_UPLOAD_LEASE_S = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A wired service.

    Attributes:
        settings: what it was wired from.
        store: the truth about jobs.
        staging: where bodies lie.
        neighbours: ids, policy, archive, catalogue.
        intake: makes jobs of request bodies.
        pipeline: carries claimed jobs.
        recovery: picks up what a crash left.
        retention: removes what is too old.
        stopping: set when this process is to end, so that nobody waits any longer.

    """

    settings: Settings
    store: JobStore
    staging: Staging
    neighbours: Neighbours
    intake: Intake
    pipeline: Pipeline
    recovery: Recovery
    retention: Retention
    stopping: threading.Event

    def claim(self, job_id: int) -> Claim | None:
        """Claim a job for this process; None when it is not due, or another was faster."""
        return self.store.claim(job_id, worker_name())

    def work(self, wakeup: Wakeup) -> None:
        """Work on whatever job is due, until told to stop; the life of a worker process."""
        while not wakeup.stopping():
            try:
                claim = self.store.claim_any(worker_name())
            except Unavailable as fault:
                logger.warning("the worker waits for the database", extra={"reason": str(fault)})
                claim = None
            if claim is None:
                wakeup.wait()
            else:
                self.pipeline.run(claim, wakeup.stopping)


def worker_name() -> str:
    """Who this process is, for people: host and process id."""
    return f"{socket.gethostname()[:100]}:{os.getpid()}"


def compose(settings: Settings, queue: Queue | None = None) -> Service:
    """Wire a service; its database becomes the one of this process.

    Args:
        settings: what to wire.
        queue: who is told of new jobs; when it is not given Celery, and nobody of a standalone service.

    Raises:
        BadConfiguration: the database URL cannot be read; not retryable.

    """
    use_database(settings.database.peewee_url)
    clock = SystemClock()
    store = SqlJobStore(clock)
    staging = FolderStaging(settings.ingest.volume_path, settings.ingest.keep_free)
    catalogue = _catalogue(settings)
    neighbours = Neighbours(
        ids=_ids(settings), policy=_policy(settings, catalogue), archive=_archive(settings), catalogue=catalogue
    )
    queue = queue or _queue(settings, clock)
    rules = Rules(
        verify=settings.archiveinterface.verify,
        move_roots=settings.move_roots,
        chunk_bytes=settings.ingest.transfer_size,
        retry_for_s=settings.ingest.retry_for,
        lease_s=settings.ingest.lease,
        limits=limits(settings),
        min_hash=settings.ingest.min_hash,
    )
    stopping = threading.Event()
    return Service(
        settings=settings,
        store=store,
        staging=staging,
        neighbours=neighbours,
        intake=Intake(
            store=store,
            staging=staging,
            ids=neighbours.ids,
            queue=queue,
            clock=clock,
            pause=stopping.wait,
            max_bytes=settings.ingest.max_upload_size,
            admission=Admission(
                most=settings.ingest.max_uploads,
                most_per_user=settings.ingest.max_uploads_per_user,
                nobody=settings.ingest.default_user,
            ),
        ),
        pipeline=Pipeline(store=store, staging=staging, neighbours=neighbours, clock=clock, rules=rules),
        recovery=Recovery(
            store=store,
            staging=staging,
            queue=queue,
            clock=clock,
            lease_s=settings.ingest.lease,
            upload_lease_s=max(2.0 * settings.ingest.upload_timeout, SHORTEST_UPLOAD_LEASE_S),
        ),
        retention=Retention(
            store=store,
            staging=staging,
            archive=neighbours.archive,
            catalogue=neighbours.catalogue,
            keep_s=settings.ingest.keep_failed * 86_400.0,
        ),
        stopping=stopping,
    )


_current: list[Service] = []
_lock = threading.RLock()


def use(service: Service) -> None:
    """Make a service the one of this process."""
    with _lock:
        _current[:] = [service]


def forget() -> None:
    """Let the next `current()` wire anew; a forked process shares no connections with its parent."""
    _current.clear()


def current() -> Service:
    """The service of this process; wired from the configuration when nobody chose one."""
    with _lock:
        if not _current:
            _current.append(compose(load_settings()))
        return _current[0]


@contextmanager
def sweeping(service: Service) -> Iterator[None]:
    """Sweep in the background meanwhile."""
    stop = threading.Event()
    sweeper = threading.Thread(target=service.recovery.run, args=(stop,), name="sweep", daemon=True)
    sweeper.start()
    try:
        yield
    finally:
        stop.set()
        sweeper.join()


@contextmanager
def standalone(settings: Settings, folder: Path, prepare: Callable[[], None]) -> Iterator[Service]:
    """A service that needs no other: with workers of its own, in a folder of its own.

    Args:
        settings: as `config.standalone_settings` makes them for `folder`.
        folder: made when it is missing.
        prepare: called first in every worker process, to set up logging; must be picklable.

    Raises:
        Unavailable: another process serves the folder; retryable.

    """
    with FolderLock(folder):
        pool = Pool(partial(_work, settings, prepare), settings.ingest.workers, imports=[__name__])
        service = compose(settings, PoolQueue(pool))
        use(service)
        orm.prepare_schema(create=True)
        # The lock is ours, so whoever owned a job is dead.
        service.recovery.seize_all()
        try:
            pool.start(service.stopping.is_set)
            with sweeping(service):
                yield service
        finally:
            pool.stop()


def _work(settings: Settings, prepare: Callable[[], None], wakeup: Wakeup) -> None:
    prepare()
    service = compose(settings)
    use(service)
    service.work(wakeup)


def limits(settings: Settings) -> Limits:
    """What a bundle, or the document of a move, may cost."""
    section = settings.ingest
    return Limits(
        members=section.max_members,
        name_length=section.max_name_length,
        extended_bytes=section.max_extended_header,
        metadata_bytes=section.max_metadata_size,
    )


def _queue(settings: Settings, clock: Clock) -> Queue:
    if settings.standalone:
        return _NoQueue()
    # Celery takes a third of the time of all imports; a standalone service does without.
    from pacifica.ingest.queue import CeleryQueue  # noqa: PLC0415

    return CeleryQueue(clock)


class _NoQueue:
    """Workers of a pool look for work by themselves."""

    def send(self, job: object) -> None:
        """See `ports.Queue.send`."""


def _ids(settings: Settings) -> Ids:
    url = settings.uniqueid.url
    return LocalIds() if _is_local(url) else HttpIds(url)


def _policy(settings: Settings, catalogue: Catalogue) -> Policy:
    judge, mode = _judge(settings), settings.ingest.enforce_submitter
    return judge if mode == "off" else SubmitterPolicy(judge, catalogue, mode)


def _judge(settings: Settings) -> Policy:
    url = settings.policy.ingest_url
    if not _is_local(url):
        return HttpPolicy(url, settings.ingest.auth_header)
    return LocalPolicy(settings.rule_file, is_optional=url == "local:")


def _archive(settings: Settings) -> Archive:
    section = settings.archiveinterface
    if section.url.startswith("file:"):
        return FolderArchive(archive_folder(section.url), DatabaseMemory())
    return HttpArchive(section.url, connections=section.connections, chunk_bytes=settings.ingest.transfer_size)


def archive_folder(url: str) -> Path:
    """The folder of a `file:` URL."""
    return Path(url2pathname(urlsplit(url).path))


def _catalogue(settings: Settings) -> Catalogue:
    url = settings.metadata.ingest_url
    return LocalCatalogue() if _is_local(url) else HttpCatalogue(url)


def _is_local(url: str) -> bool:
    return url.startswith("local:")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)
