"""Jobs in every phase, for the suites of `ports.JobStore`.

Who may call it: tests.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from pacifica.ingest.core.jobs import Claim, Job, Series
from pacifica.ingest.core.states import Kind, Step
from pacifica.ingest.ports import Clock, JobStore, Receipt

__all__ = ["JOB", "at_once", "claimed", "everything", "names", "numbers", "ready", "receipt", "wait"]

T = TypeVar("T")

JOB = 5


def at_once(count: int, action: Callable[[int], T]) -> list[T]:
    """Do something in many threads at the same moment."""
    barrier = threading.Barrier(count)

    def run(number: int) -> T:
        barrier.wait()
        return action(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def receipt(job_id: int = JOB, size_bytes: int = 10) -> Receipt:
    return Receipt(path=Path(f"/staging/{job_id}.tar"), size_bytes=size_bytes)


def ready(store: JobStore, job_id: int = JOB, kind: Kind = Kind.INGEST) -> Job:
    """Upload a bundle."""
    assert store.open(job_id, kind, "dmlb2001", "upload")
    return store.accept(job_id, "upload", receipt(job_id))


def claimed(store: JobStore, job_id: int = JOB, kind: Kind = Kind.INGEST) -> Claim:
    """Upload a bundle and claim the job."""
    ready(store, job_id, kind)
    claim = store.claim(job_id, "worker")
    assert claim is not None
    return claim


def everything(store: JobStore, job_id: int = JOB) -> tuple[Any, ...]:
    """All that a store tells of a job."""
    tells = (store.job, store.status, store.events, store.file_ids, store.intents, store.sources, store.given_up)
    return tuple(tell(job_id) for tell in tells)


def names(store: JobStore, job_id: int = JOB) -> list[str]:
    return [event.name for event in store.events(job_id)]


def numbers(jobs: Iterable[Job]) -> list[int]:
    return [job.job_id for job in jobs]


def wait(store: JobStore, claim: Claim, clock: Clock, seconds: float) -> None:
    """Give a job back for a while."""
    later = clock.now() + timedelta(seconds=seconds)
    store.wait(
        claim, not_before=later, series=Series(since=clock.now(), step=Step.INGEST_FILES), reason="the archive is down"
    )
