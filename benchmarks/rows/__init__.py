"""The rows of the table, one module for a family of rows.

A row is a function that takes the `Bench` and a `RowResult`, measures, and says what it expects.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.results import RowResult
from benchmarks.rows import accept, burst, growth, large, move, receive, small, standalone, states, workers
from benchmarks.services import Bench

__all__ = ["ROWS", "Row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row.

    Attributes:
        work: what is done.
        target: of issue 4, in its words.
        verify: what ours reads back meanwhile.
        run: does it.
    """

    work: str
    target: str
    verify: str
    run: Callable[[Bench, RowResult], None]


#: Number → row.
ROWS: Mapping[int, Row] = {
    1: Row(
        work="receive 1 × 2 GiB, server only",
        target="≥ 3 × the original's throughput and ≥ 0.9 × nginx body to file; ≤ 1.0 CPU s/GiB; flat memory",
        verify="nothing is archived",
        run=receive.receive,
    ),
    2: Row(
        work="64 uploads of 16 MiB at once; 16 while 200 slow clients trickle",
        target="every one succeeds; ≥ 3 × the original in; `get_state` p99 < 50 ms meanwhile",
        verify="full",
        run=burst.burst,
    ),
    3: Row(
        work="end to end 1 × 1 GiB, instant neighbours",
        target="≥ 2.5 × the original with `size`; ≥ 1.6 × with `full`",
        verify="size, full",
        run=large.large,
    ),
    4: Row(
        work="end to end 10,000 / 100,000 × 1 KiB, instant neighbours, one archive connection",
        target="≥ 20 × / ≥ 60 × the original",
        verify="full",
        run=small.small,
    ),
    5: Row(
        work="growth: 10,000 → 1,000,000 × 1 KiB, instant neighbours and standalone",
        target="time per file within 1.3 ×; worker memory ≤ 120 MiB + 500 bytes a file",
        verify="full",
        run=growth.growth,
    ),
    6: Row(
        work="end to end 10,000 × 1 KiB, real neighbours",
        target="everything but Metadata's own time ≤ 0.5 × the original's",
        verify="full",
        run=small.real,
    ),
    7: Row(
        work="memory, 1 × 20 GiB",
        target="server and worker within 20 MiB of their 1 MiB figure",
        verify="full",
        run=large.memory,
    ),
    8: Row(
        work="`get_state`, 16 connections, PostgreSQL and SQLite",
        target="≥ 5 × the original on the built-in server, aim for 10 ×",
        verify="nothing is archived",
        run=states.states,
    ),
    9: Row(
        work="200 → first step starts",
        target="p95 ≤ 50 ms standalone, ≤ 100 ms Celery on Redis and RabbitMQ",
        verify="full",
        run=states.starts,
    ),
    10: Row(
        work="accept of a 10 KiB bundle, fsync included",
        target="≤ 5 ms over the same without fsync; ≥ 150 accepts/s with 16 clients",
        verify="nothing is archived",
        run=accept.accept,
    ),
    11: Row(
        work="standalone archive: 1 × 4 GiB; 100,000 × 1 KiB",
        target="≥ 0.6 × of cp + sha1sum + sync; ≥ 0.7 × of a bare write-fsync-rename loop of the same parallelism",
        verify="full",
        run=standalone.standalone,
    ),
    12: Row(
        work="move of 10,000 files, instant neighbours",
        target="≥ 5 × the original, with the digests that the original never checked",
        verify="full (a move is always read back)",
        run=move.move,
    ),
    13: Row(
        work="1, 2, 4 Celery workers on 64 bundles",
        target="grows with cores until both are full; no job slower than alone × 1.5 by database contention",
        verify="full",
        run=workers.workers,
    ),
}
