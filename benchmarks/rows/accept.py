"""Row 10: what a 200 to a small bundle costs."""

import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import clients, yardsticks
from benchmarks.bundles import Shape
from benchmarks.results import RowResult
from benchmarks.rounds import turns
from benchmarks.services import ORIGINAL, OURS, Bench, Service

__all__ = ["accept"]

CLIENTS = 16
UPLOADS = 400
#: The work must not stand in the way of what is measured.
IDLE = {"ingest": {"workers": "1"}}
DISK, MEMORY, SERVER = "standalone, on the disk", "standalone, in memory", "PostgreSQL and Redis, no worker"


def accept(bench: Bench, result: RowResult) -> None:
    """Send small bundles one by one and 16 at once: everything on the disk, and everything in memory."""
    path = bench.bundle(Shape(files=1, size_bytes=bench.scaled(9 << 10, 100)))
    memory = Path("/dev/shm")
    for number, who in turns(bench):
        with bench.instant() as sink, bench.service(who, sink, works=False) as service:
            result.put(SERVER, who, number, _accepted(bench, service, path, works=False))
        if who == ORIGINAL:
            continue
        with bench.standalone(changes=IDLE) as service:
            result.put(DISK, who, number, _accepted(bench, service, path))
        if memory.is_dir():
            with _folder(memory) as home, bench.standalone(home=home, changes=IDLE) as service:
                result.put(MEMORY, who, number, _accepted(bench, service, path))
        loop = yardsticks.fsync_loop(bench.work, path.stat().st_size, bench.scaled(200, 10))
        result.put("write, fsync, rename, fsync folder", "fsync loop", number, loop)
    with_fsync, without = (result.values(case, OURS, "median ms") for case in (DISK, MEMORY))
    more = [with_fsync[number] - without[number] for number in with_fsync if number in without]
    result.expect("ms more than the same in memory", more, at_most=5.0)
    for case in (SERVER, DISK):
        found = result.values(case, OURS, "accepts/s").values()
        result.expect(f"accepts/s with {CLIENTS} clients, {case}", found, at_least=150.0)
        failed = result.values(case, OURS, "failed").values()
        result.expect(f"uploads that failed, {case}", failed, at_most=0.0)
    result.note(
        "Without fsync means: the same service with landing zone and database in `/dev/shm`, where fsync is free. "
        "One by one, each upload waits until the job before is done; the 16 do not."
    )


@contextlib.contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pacifica-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _accepted(bench: Bench, service: Service, path: Path, *, works: bool = True) -> dict[str, float]:
    count = bench.scaled(UPLOADS, CLIENTS)
    took = []
    for _ in range(max(5, count // 4)):
        began = time.monotonic()
        job_id = clients.upload(service.url, path)
        took.append(time.monotonic() - began)
        if works:
            # Else it would be the work of the one before that is measured.
            clients.until_done(service.url, job_id)
    began = time.monotonic()
    jobs, faults = clients.send_many(service.url, path, count, CLIENTS)
    rate = len(jobs) / (time.monotonic() - began)
    for fault in sorted(set(faults)):
        bench.options.say(f"    {service.name}: {fault}")
    return {"median ms": statistics.median(took) * 1000, "accepts/s": rate, "failed": float(len(faults))}
