"""How a row goes about it: rounds in which ours and the original take turns, and the way of one bundle from end to end."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final

from benchmarks import clients
from benchmarks.bundles import Shape
from benchmarks.measure import Watch, touch_memory
from benchmarks.results import RowResult
from benchmarks.services import ORIGINAL, OURS, Bench, Neighbours, Service

__all__ = ["NO_NGINX", "ONCE", "carry", "end_to_end", "turns"]

ONCE: Final = "The original took {case} once only: it needs minutes for it."
NO_NGINX: Final = "There is no nginx on this machine, so nothing was compared with it."


def turns(bench: Bench, *, original: bool = True) -> Iterator[tuple[int, str]]:
    """Round and who: in every other round the original begins, so that neither always finds the warmer machine."""
    for number in range(1, bench.options.rounds + 1):
        both = [OURS, ORIGINAL] if original and bench.options.original else [OURS]
        for who in both if number % 2 else reversed(both):
            yield number, who


def carry(service: Service, bench: Bench, shape: Shape) -> dict[str, float]:
    """Send one bundle and wait until its job is done.

    Returns:
        the figures of the watch, `upload s`, `work s` from the answer to the end, `us/file`, `MiB/s`, `files` and `bytes` for the
        pictures, and `to STEP s`: from the answer until a step was seen first.

    """
    path = bench.bundle(shape)
    # In the landing zone, and in an archive.
    touch_memory(2 * path.stat().st_size)
    with Watch(*service.servers) as watch:
        job_id = clients.upload(service.url, path)
        uploaded_s = watch.lap()
        seen = clients.until_done(service.url, job_id)
    return watch.figures() | {
        "files": float(shape.files),
        "bytes": float(shape.files * shape.size_bytes),
        "upload s": uploaded_s,
        "work s": watch.seconds - uploaded_s,
        "us/file": watch.seconds / shape.files * 1e6,
        "MiB/s": shape.files * shape.size_bytes / 2**20 / watch.seconds,
        **{f"to {step} s": at for step, at in seen.items()},
    }


def end_to_end(
    bench: Bench,
    result: RowResult,
    case: str,
    shape: Shape,
    *,
    verify: str,
    once: bool = False,
    core: bool = False,
    original: bool = True,
) -> None:
    """Carry one bundle through each service, in turns, on fresh neighbours.

    Args:
        bench: with all that is needed.
        result: gets the samples.
        case: their name.
        shape: of the bundle.
        verify: what ours reads back.
        once: the original takes it in the first round only.
        core: the real neighbours, not the instant ones.
        original: whether the original takes part.

    """
    bench.bundle(shape)
    for number, who in turns(bench, original=original):
        if once and who == ORIGINAL and number > 1:
            result.note(ONCE.format(case=case))
            continue
        neighbours: AbstractContextManager[Neighbours] = _lent(bench) if core else bench.instant()
        with (
            neighbours as found,
            bench.service(who, found, changes={"archiveinterface": {"verify": verify}}) as service,
        ):
            result.put(case, who, number, carry(service, bench, shape))


class _lent(AbstractContextManager[Neighbours]):  # noqa: N801 (reads as a function)
    """The real neighbours, which go on after the round."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def __enter__(self) -> Neighbours:
        return self._bench.core

    def __exit__(self, *_: object) -> None:
        """Leave them."""
