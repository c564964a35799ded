"""Row 5: whether a file among a million costs what one among ten thousand costs."""

from benchmarks.bundles import Shape
from benchmarks.results import RowResult
from benchmarks.rounds import carry, turns
from benchmarks.services import OURS, Bench

__all__ = ["growth"]

KIB = 1024
#: A bundle has a million members at most, and one of them is metadata.txt.
COUNTS = (10_000, 100_000, 999_999)
INSTANT, ALONE = "instant neighbours", "standalone"
#: 120 MiB, and so much a file.
BASE_MIB, FILE_BYTES = 120.0, 500.0


def growth(bench: Bench, result: RowResult) -> None:
    """Carry three sizes of bundle, ours only."""
    shapes = [Shape(files=bench.scaled(count, 10), size_bytes=KIB) for count in COUNTS]
    for place in (INSTANT, ALONE):
        for shape in shapes:
            for number, who in turns(bench, original=False):
                if shape is shapes[-1] and number > 1:
                    result.note(f"{shape} ran once in each place.")
                    continue
                result.put(_case(place, shape), who, number, _carried(bench, place, shape))
    for place in (INSTANT, ALONE):
        first, *_, last = (result.range(_case(place, shape), OURS, "us/file") for shape in shapes)
        ratio = [last.middle / first.middle] if first and last else []
        result.expect(f"× the time per file of {shapes[0]}, {place}", ratio, at_most=1.3)
        process = "worker child" if place == INSTANT else "server child"
        for shape in shapes:
            limit = BASE_MIB + shape.files * FILE_BYTES / 2**20
            found = result.values(_case(place, shape), OURS, f"memory {process}").values()
            result.expect(f"MiB in a worker, {shape}, {place}", found, at_most=limit)


def _case(place: str, shape: Shape) -> str:
    return f"{shape}, {place}"


def _carried(bench: Bench, place: str, shape: Shape) -> dict[str, float]:
    if place == ALONE:
        with bench.standalone() as service:
            return carry(service, bench, shape)
    with bench.instant() as sink, bench.service(OURS, sink) as service:
        return carry(service, bench, shape)
