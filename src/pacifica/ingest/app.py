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
from pacifica.ingest.neighbours.archive import HttpArchive
from pacifica.ingest.neighbours.metadata import HttpCatalogue
from pacifica.ingest.neighbours.policy import HttpPolicy
from pacifica.ingest.neighbours.uniqueid import HttpIds
from pacifica.ingest.pipeline import Neighbours, Pipeline, Rules
from pacifica.ingest.ports import Archive, Catalogue, Ids, JobStore, Policy, Queue, Staging
from pacifica.ingest.queue import CeleryQueue
from pacifica.ingest.recovery import Recovery
from pacifica.ingest.retention import Retention
from pacifica.ingest.staging import FolderStaging
from pacifica.ingest.store import SqlJobStore

__all__ = ["Service", "archive_folder", "compose", "current", "forget", "standalone", "sweeping", "use", "worker_name"]

logger = logging.getLogger(__name__)


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

    """

    settings: Settings
    store: JobStore
    staging: Staging
    neighbours: Neighbours
    intake: Intake
    pipeline: Pipeline
    recovery: Recovery
    retention: Retention

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
    neighbours = Neighbours(
        ids=_ids(settings), policy=_policy(settings), archive=_archive(settings), catalogue=_catalogue(settings)
    )
    queue = queue or (_NoQueue() if settings.standalone else CeleryQueue(clock))
    rules = Rules(
        verify=settings.archiveinterface.verify,
        move_roots=settings.move_roots,
        chunk_bytes=settings.ingest.transfer_size,
        retry_for_s=settings.ingest.retry_for,
        lease_s=settings.ingest.lease,
    )
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
            max_bytes=settings.ingest.max_upload_size,
        ),
        pipeline=Pipeline(store=store, staging=staging, neighbours=neighbours, clock=clock, rules=rules),
        recovery=Recovery(
            store=store,
            staging=staging,
            queue=queue,
            clock=clock,
            lease_s=settings.ingest.lease,
            upload_lease_s=2.0 * settings.ingest.upload_timeout,
        ),
        retention=Retention(
            store=store,
            staging=staging,
            archive=neighbours.archive,
            catalogue=neighbours.catalogue,
            keep_s=settings.ingest.keep_failed * 86_400.0,
        ),
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
        BadConfiguration: another process serves the folder; not retryable.

    """
    with FolderLock(folder):
        pool = Pool(partial(_work, settings, prepare), settings.ingest.workers)
        service = compose(settings, PoolQueue(pool))
        use(service)
        orm.OrmSync.update_tables()
        # The lock is ours, so whoever owned a job is dead.
        service.recovery.seize_all()
        pool.start()
        try:
            with sweeping(service):
                yield service
        finally:
            pool.stop()


def _work(settings: Settings, prepare: Callable[[], None], wakeup: Wakeup) -> None:
    prepare()
    service = compose(settings)
    use(service)
    service.work(wakeup)


class _NoQueue:
    """Workers of a pool look for work by themselves."""

    def send(self, job: object) -> None:
        """See `ports.Queue.send`."""


def _ids(settings: Settings) -> Ids:
    url = settings.uniqueid.url
    return LocalIds() if _is_local(url) else HttpIds(url)


def _policy(settings: Settings) -> Policy:
    url = settings.policy.ingest_url
    if not _is_local(url):
        return HttpPolicy(url, settings.ingest.auth_header)
    rules = url.partition(":")[2]
    return LocalPolicy(Path(rules) if rules else None)


def _archive(settings: Settings) -> Archive:
    section = settings.archiveinterface
    if section.url.startswith("file:"):
        return FolderArchive(archive_folder(section.url))
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
