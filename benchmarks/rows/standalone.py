"""Row 11: the archive in a folder, beside what copies and durable small files cost on this disk."""

from benchmarks import yardsticks
from benchmarks.bundles import Shape
from benchmarks.results import RowResult
from benchmarks.rounds import carry, turns
from benchmarks.services import OURS, Bench
from pacifica.ingest.local.archive import THREADS
from pacifica.ingest.local.landing import SHARE

__all__ = ["standalone"]

COPY, LOOP = "cp + sha1sum + sync", f"write, fsync, rename, {THREADS} threads"
IN_STEPS = f"the same with {SHARE} files a step"


def standalone(bench: Bench, result: RowResult) -> None:
    """Carry one large file and many small ones."""
    long = Shape(files=1, size_bytes=bench.scaled(4 << 30))
    many = Shape(files=bench.scaled(100_000, 10), size_bytes=1024)
    for number, _ in turns(bench, original=False):
        for shape in (long, many):
            with bench.standalone() as service:
                result.put(str(shape), OURS, number, carry(service, bench, shape))
        result.put(str(long), COPY, number, yardsticks.copy_and_digest(bench.bundle(long), bench.work))
        for who, together in ((LOOP, 1), (IN_STEPS, SHARE)):
            loop = yardsticks.durable_files(bench.work, many.size_bytes, many.files, THREADS, together)
            result.put(str(many), who, number, loop)
    for shape, who, share in ((long, COPY, 0.6), (many, LOOP, 0.7)):
        case = str(shape)
        result.expect(f"× {who}", result.ratio((case, who, "seconds"), (case, OURS, "work s")), at_least=share)
    result.note("Ours counts from the 200 to the end of the job: check, copy, fsync, read-back, catalogue, clean-up.")
