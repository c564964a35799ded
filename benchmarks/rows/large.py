"""Rows 3 and 7: one large file from end to end, its time and its memory."""

from benchmarks import clients
from benchmarks.bundles import Shape, stream, total_bytes
from benchmarks.measure import Watch
from benchmarks.results import RowResult
from benchmarks.rounds import end_to_end, turns
from benchmarks.services import ORIGINAL, OURS, Bench

__all__ = ["large", "memory"]


def large(bench: Bench, result: RowResult) -> None:
    """Carry 1 GiB with both ways of reading back; the original reads nothing back."""
    shape = Shape(files=1, size_bytes=bench.scaled(1 << 30))
    for verify, times in (("size", 2.5), ("full", 1.6)):
        case = f"{shape}, verify {verify}"
        end_to_end(bench, result, case, shape, verify=verify)
        ratio = result.ratio((case, ORIGINAL, "seconds"), (case, OURS, "seconds"))
        result.expect(f"× the original's speed, verify {verify}", ratio, at_least=times)


def memory(bench: Bench, result: RowResult) -> None:
    """Send 20 GiB that are made meanwhile; they lie on the disk once, in the landing zone."""
    shapes = [Shape(files=1, size_bytes=1 << 20), Shape(files=1, size_bytes=bench.scaled(20 << 30, 1 << 20))]
    for number, who in turns(bench, original=False):
        for shape in shapes:
            if number > 1 and shape is shapes[1]:
                result.note(f"{shape} ran once: it is about memory, which does not vary.")
                continue
            with bench.instant() as sink, bench.service(who, sink) as service:
                with Watch(*service.servers) as watch:
                    job_id = clients.send_stream(service.url, stream(shape), total_bytes(shape))
                    clients.until_done(service.url, job_id)
                figures = watch.figures() | {"files": 1.0, "bytes": float(shape.size_bytes)}
                result.put(str(shape), who, number, figures)
    tiny, long = map(str, shapes)
    for name in ("server", "worker", "worker child"):
        before, after = result.range(tiny, OURS, f"memory {name}"), result.range(long, OURS, f"memory {name}")
        growth = [after.high - before.low] if before and after else []
        result.expect(f"MiB more in the {name} than for 1 MiB", growth, at_most=20.0)
