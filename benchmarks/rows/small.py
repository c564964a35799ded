"""Rows 4 and 6: many small files from end to end, with instant and with real neighbours."""

from benchmarks import yardsticks
from benchmarks.bundles import Shape
from benchmarks.results import RowResult
from benchmarks.rounds import end_to_end
from benchmarks.services import ORIGINAL, OURS, Bench

__all__ = ["real", "small"]

KIB = 1024
SINK = "the instant archive alone"


def small(bench: Bench, result: RowResult) -> None:
    """Carry 10,000 and 100,000 files of 1 KiB; measure what the instant archive can take, too."""
    for files, times, once in ((10_000, 20.0, False), (100_000, 60.0, True)):
        shape = Shape(files=bench.scaled(files, 10), size_bytes=KIB)
        case = str(shape)
        end_to_end(bench, result, case, shape, verify="full", once=once)
        ratio = result.ratio((case, ORIGINAL, "seconds"), (case, OURS, "seconds"))
        result.expect(f"× the original's speed, {case}", ratio, at_least=times)
    with bench.instant() as sink:
        result.put(SINK, SINK, 1, yardsticks.sink_limit(sink.url, bench.scaled(10_000, 256), KIB))


def real(bench: Bench, result: RowResult) -> None:
    """Carry 10,000 files of 1 KiB to Pacifica Core."""
    shape = Shape(files=bench.scaled(10_000, 10), size_bytes=KIB)
    case = str(shape)
    end_to_end(bench, result, case, shape, verify="full", core=True)
    # Metadata is asked in the last step only; a service that prepares the document in it gets that time for nothing.
    spent = {
        who: {
            number: result.values(case, who, "upload s")[number] + before
            for number, before in result.values(case, who, "to ingest metadata s").items()
        }
        for who in (OURS, ORIGINAL)
    }
    ratio = [spent[OURS][number] / spent[ORIGINAL][number] for number in spent[OURS] if number in spent[ORIGINAL]]
    result.expect("× the original's time before the step `ingest metadata`", ratio, at_most=0.5)
