"""The long round of faults: `make faults`, or `python -m tests.faults` in an environment with the test requirements.

Runs the rounds of `ROUNDS` one after the other, says once a minute how far they are, stops by itself, and prints the
table of `docs/reliability.md`.  Its exit code is 1 when a fault was found.

A new kind of round is one more line in `ROUNDS`.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, partial

from pacifica.ingest.core.states import Kind
from tests.faults.kills import kills
from tests.faults.rounds import Budget, Round, Row, table
from tests.faults.servers import hangs, neighbours, outages
from tests.faults.site import Setting, new_vhost
from tests.harness import MariaDB, PacificaCore, PostgreSQL, RabbitMQ, Redis

__all__ = ["ROUNDS", "main"]

SAY_EVERY_S = 60.0
#: Celery replaces dead children only every five seconds, so there have to be some to kill.
CHILDREN = 10

#: Servers for all rounds, each started when it is first asked for; they end with this process.
redis = cache(lambda: Redis().start())
rabbitmq = cache(lambda: RabbitMQ().start())
postgresql = cache(lambda: PostgreSQL().start())
mariadb = cache(lambda: MariaDB().start())
core = cache(lambda: PacificaCore().start())


def _standalone() -> Setting:
    return Setting(name="standalone, SQLite")


def _redis_sqlite() -> Setting:
    return Setting(name="Celery on Redis, SQLite", broker_url=redis().new_database())


def _redis_postgresql() -> Setting:
    return Setting(
        name="Celery on Redis, PostgreSQL",
        broker_url=redis().new_database(),
        database_url=postgresql().new_database(),
        workers=CHILDREN,
    )


def _rabbitmq_mariadb() -> Setting:
    return Setting(
        name="Celery on RabbitMQ, MariaDB",
        broker_url=new_vhost(rabbitmq()),
        database_url=mariadb().new_database(),
        workers=CHILDREN,
    )


def _rabbitmq_core() -> Setting:
    return Setting(
        name="Celery on RabbitMQ, PostgreSQL, Pacifica Core",
        broker_url=new_vhost(rabbitmq()),
        database_url=postgresql().new_database(),
        core=core(),
        workers=CHILDREN,
    )


#: Name on the command line → round.
ROUNDS: Mapping[str, Round] = {
    "kills-standalone": partial(kills, setting=_standalone),
    "kills-redis-sqlite": partial(kills, setting=_redis_sqlite),
    "kills-redis": partial(kills, setting=_redis_postgresql),
    "kills-rabbitmq": partial(kills, setting=_rabbitmq_mariadb),
    "kills-core": partial(kills, setting=_rabbitmq_core),
    "neighbours": lambda seed, budget: neighbours(seed, budget, _redis_postgresql, core(), (None, *Kind)),
    "hangs": lambda seed, budget: hangs(seed, budget, _redis_postgresql, core()),
    "outages-redis": lambda seed, budget: outages(seed, budget, _redis_postgresql, [postgresql(), redis()]),
    "outages-rabbitmq": lambda seed, budget: outages(seed, budget, _rabbitmq_mariadb, [mariadb(), rabbitmq()]),
}


class Slowly:
    """Says what it is told, but not more often than once a minute."""

    def __init__(self) -> None:
        self._next = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SAY_EVERY_S
            _say(f"{datetime.now(UTC):%H:%M:%S} {text}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> int:
    """Run what was asked for; returns the exit code."""
    asked = _arguments()
    began = time.monotonic()
    names = asked.round or list(ROUNDS)
    rows: list[Row] = []
    for place, name in enumerate(names):
        # What a round left of its share of the time, the next ones have.
        left_s = began + asked.hours * 3600 - time.monotonic()
        ends = time.monotonic() + left_s / (len(names) - place)
        budget = Budget(faults=-(-asked.kills // len(names)), ends=ends, say=Slowly())
        rows.append(ROUNDS[name](asked.seed, budget))
        for words in rows[-1].words:
            _say(f"FOUND {name}, {words}")
    print(_report(rows, asked.seed, time.monotonic() - began))  # noqa: T201 (a command)
    return 1 if any(row.words for row in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=16_000, help="faults of all rounds together (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="decides what is random (default: %(default)s)")
    parser.add_argument("--hours", type=float, default=6.0, help="stop after that time (default: %(default)s)")
    parser.add_argument("--round", action="append", choices=list(ROUNDS), help="only this round; may be repeated")
    return parser.parse_args()


def _report(rows: list[Row], seed: int, seconds: float) -> str:
    machine = (
        f"{os.cpu_count()} processors, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )
    head = f"{datetime.now(UTC):%Y-%m-%d}, {machine}, seed {seed}, {seconds / 60:.0f} minutes"
    return f"{head}\n\n{table(rows)}"


if __name__ == "__main__":
    sys.exit(main())
