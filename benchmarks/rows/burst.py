"""Row 2: many uploads at once, while others trickle."""

from benchmarks import clients
from benchmarks.bundles import Shape
from benchmarks.clients import Polls, Trickle
from benchmarks.measure import Watch, touch_memory
from benchmarks.results import RowResult, percentile
from benchmarks.rounds import turns
from benchmarks.services import ORIGINAL, OURS, Bench, Service

__all__ = ["burst"]

UPLOADS = 64
BESIDE = 16
SLOW = 200
#: An upload that does not get on for so many seconds has failed.
STALLED_S = 60.0


def burst(bench: Bench, result: RowResult) -> None:
    """Send 64 bodies at once to both; then, to ours, 16 beside 200 clients that do not get on."""
    shape = Shape(files=1, size_bytes=bench.scaled(16 << 20, 1 << 16))
    many, beside = f"{UPLOADS} × {shape} at once", f"{BESIDE} × {shape} beside {SLOW} slow clients"
    for number, who in turns(bench):
        with bench.instant() as sink, bench.service(who, sink) as service:
            result.put(many, who, number, _send(bench, service, shape, UPLOADS))
            if who == OURS:
                result.put(beside, who, number, _send(bench, service, shape, BESIDE, slow=SLOW))
    for case in (many, beside):
        result.expect(f"uploads that failed, {case}", result.values(case, OURS, "failed").values(), at_most=0.0)
        result.expect(f"ms `get_state` p99, {case}", result.values(case, OURS, "p99 ms").values(), at_most=50.0)
    speed = result.ratio((many, OURS, "MiB/s in"), (many, ORIGINAL, "MiB/s in"))
    result.expect("× the original's throughput in", speed, at_least=3.0)
    result.note(f"The original is not asked to serve {SLOW} slow clients: ten of them hold all its threads.")


def _send(bench: Bench, service: Service, shape: Shape, count: int, slow: int = 0) -> dict[str, float]:
    path = bench.bundle(shape)
    known = clients.upload(service.url, path)
    touch_memory(count * path.stat().st_size)
    with Watch(*service.servers) as watch:
        with Trickle(service.url, slow), Polls(service.url, known) as polls:
            jobs, faults = clients.send_many(service.url, path, count, at_once=count, wait_s=STALLED_S)
            arrived_s = watch.lap()
        ended, broken = _until_done(service, jobs)
        done_s = watch.lap()
    for fault in [*faults, *broken]:
        bench.options.say(f"    {service.name}: {fault}")
    mib = path.stat().st_size / 2**20
    return watch.figures() | {
        "MiB/s in": len(jobs) * mib / arrived_s,
        "MiB/s end to end": ended * mib / done_s,
        "failed": float(count - ended),
        "p50 ms": percentile(polls.took, 0.5) * 1000,
        "p99 ms": percentile(polls.took, 0.99) * 1000,
        "polls": float(len(polls.took)),
    }


def _until_done(service: Service, jobs: list[int]) -> tuple[int, list[str]]:
    """How many ended well, and what became of the others."""
    faults = []
    for job_id in jobs:
        try:
            clients.until_done(service.url, job_id)
        except clients.Refused as fault:
            faults.append(str(fault))
    return len(jobs) - len(faults), faults
