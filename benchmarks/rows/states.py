"""Rows 8 and 9: how many states are told in a second, and how soon a job is taken up."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from benchmarks import clients
from benchmarks.bundles import Shape
from benchmarks.measure import Watch
from benchmarks.results import RowResult, percentile
from benchmarks.rounds import turns
from benchmarks.services import ORIGINAL, OURS, Bench, Service
from tests.faults.site import new_vhost

__all__ = ["starts", "states"]

CONNECTIONS = 16
SECONDS = 10.0
JOBS = 100


def states(bench: Bench, result: RowResult) -> None:
    """Ask both for the state of a job, on PostgreSQL; ours also on SQLite."""
    small = bench.bundle(Shape(files=3, size_bytes=100))
    for number, who in turns(bench):
        with bench.instant() as sink, bench.service(who, sink, works=False) as service:
            result.put("PostgreSQL", who, number, _asked(bench, service, clients.upload(service.url, small)))
        if who == OURS:
            with bench.standalone() as service:
                result.put("SQLite", who, number, _asked(bench, service, clients.upload(service.url, small)))
    for case in ("PostgreSQL", "SQLite"):
        ratio = result.ratio((case, OURS, "answers/s"), ("PostgreSQL", ORIGINAL, "answers/s"))
        result.expect(f"× the original's answers/s on PostgreSQL, ours on {case}", ratio, at_least=5.0)
    result.note("The original does not start on the SQLite of its own quick start, so it is asked on PostgreSQL only.")


def _asked(bench: Bench, service: Service, job_id: int) -> dict[str, float]:
    with Watch(*service.servers) as watch:
        rate, took = clients.ask_all(
            service.url, job_id, CONNECTIONS, max(1.0, SECONDS * min(1.0, bench.options.scale))
        )
    return watch.figures() | {
        "answers/s": rate,
        "p50 ms": percentile(took, 0.5) * 1000,
        "p99 ms": percentile(took, 0.99) * 1000,
        "CPU ms/answer": watch.cpu_s / max(1, len(took)) * 1000,
    }


def starts(bench: Bench, result: RowResult) -> None:
    """Upload small bundles one after the other, and see how soon each is out of `UPLOADING`."""
    places: dict[str, tuple[float, Callable[[str], AbstractContextManager[Service]]]] = {
        "standalone": (50.0, lambda _who: bench.standalone()),
        "Celery on Redis": (100.0, functools.partial(_celery, bench, bench.redis.new_database)),
        "Celery on RabbitMQ": (100.0, functools.partial(_celery, bench, lambda: new_vhost(bench.rabbitmq))),
    }
    small = bench.bundle(Shape(files=3, size_bytes=100))
    jobs = bench.scaled(JOBS, 5)
    for place, (limit_ms, start) in places.items():
        for number, who in turns(bench, original=place != "standalone"):
            with start(who) as service:
                took = [clients.until_started(service.url, small) for _ in range(jobs)]
            p50, p95 = percentile(took, 0.5), percentile(took, 0.95)
            result.add(place, who, number, **{"p50 ms": p50 * 1000, "p95 ms": p95 * 1000, "max ms": max(took) * 1000})
        result.expect(f"ms p95, {place}", result.values(place, OURS, "p95 ms").values(), at_most=limit_ms)
    result.note("Seen from outside, by asking every millisecond: the time of one `get_state` is in each figure.")


@contextmanager
def _celery(bench: Bench, broker: Callable[[], str], who: str) -> Iterator[Service]:
    with bench.instant() as sink, bench.service(who, sink, broker_url=broker()) as service:
        yield service
