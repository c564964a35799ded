"""Row 13: whether more workers do more."""

import os
from concurrent.futures import ThreadPoolExecutor

from benchmarks import clients
from benchmarks.bundles import Shape
from benchmarks.measure import Watch
from benchmarks.results import RowResult, percentile
from benchmarks.rounds import turns
from benchmarks.services import OURS, Bench, Service

__all__ = ["workers"]

BUNDLES = 64
FILES = 500
WORKERS = (1, 2, 4)
#: Seconds from the last claim of each job to its end.
DURATIONS = """
    SELECT extract(epoch FROM done.at - claimed.at)
    FROM (SELECT job_id, max(at) AS at FROM ingest_event WHERE name = 'claimed' GROUP BY job_id) AS claimed
    JOIN (SELECT job_id, max(at) AS at FROM ingest_event WHERE name = 'done' GROUP BY job_id) AS done USING (job_id)
    ORDER BY claimed.job_id
"""


def workers(bench: Bench, result: RowResult) -> None:
    """Let 1, 2 and 4 processes work on 64 bundles, all sent at once."""
    shape = Shape(files=bench.scaled(FILES, 3), size_bytes=1024)
    for number, who in turns(bench, original=False):
        for count in WORKERS:
            with bench.instant() as sink, bench.service(who, sink, workers=count) as service:
                result.put(_case(count), who, number, _worked(bench, service, shape))
    cores = os.cpu_count() or 1
    pace = {count: (_case(count), OURS, "jobs/s") for count in WORKERS}
    result.expect("× the jobs/s of one worker, with two", result.ratio(pace[2], pace[1]), at_least=1.2)
    result.expect("× the jobs/s of two workers, with four", result.ratio(pace[4], pace[2]), at_least=0.9)
    alone = (_case(1), OURS, "median job s")
    slowest = result.ratio((_case(2), OURS, "p95 job s"), alone)
    result.expect("× the median job alone: the slowest 5 % with two workers", slowest, at_most=1.5)
    result.note(
        f"Each bundle is {shape}. The machine has {cores} cores, which the instant neighbours, PostgreSQL, Redis and the "
        "server share with the workers."
    )


def _case(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}, {BUNDLES} bundles"


def _worked(bench: Bench, service: Service, shape: Shape) -> dict[str, float]:
    path = bench.bundle(shape)
    database = service.database.rpartition("/")[2]
    with Watch(*service.servers) as watch:
        with ThreadPoolExecutor(4) as pool:
            jobs = list(pool.map(lambda _: clients.upload(service.url, path), range(BUNDLES)))
        clients.until_done(service.url, *jobs)
    took = [float(line) for line in bench.postgresql.query(DURATIONS, database).split()][-BUNDLES:]
    return watch.figures() | {
        "jobs/s": BUNDLES / watch.seconds,
        "median job s": percentile(took, 0.5),
        "p95 job s": percentile(took, 0.95),
    }
