"""The long round of faults: `make faults`, or `python -m tests.faults` in an environment with the test requirements.

Runs the rounds of `ROUNDS` one after the other, says once a minute how far they are, stops by itself, and prints the
table of `docs/reliability.md`; `--write` keeps it after every round.  Its exit code is 1 when a fault was found.

A new kind of round is one more line in `ROUNDS`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

from pacifica.ingest.core.states import Kind
from tests.faults.kills import kills
from tests.faults.longer import calls, schedules, suite
from tests.faults.rounds import Budget, Round, Row, table
from tests.faults.servers import hangs, neighbours, outages
from tests.faults.site import Setting, new_vhost
from tests.harness import MariaDB, PacificaCore, PostgreSQL, RabbitMQ, Redis

__all__ = ["ROUNDS", "main"]

ROOT = Path(__file__).parents[2]
SAY_EVERY_S = 60.0
#: Celery replaces dead children only every five seconds, so there have to be some to kill.
CHILDREN = 8
#: Sites with local neighbours wait a lot, for leases and for processes that start: so many run at once.
AT_ONCE = 2

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the long round.

    Attributes:
        play: makes the faults.
        option: says how many, for all parts of that option together; None: as many as there are.
    """

    play: Round
    option: str | None = None


def _kills(setting: Callable[[], Setting], at_once: int = AT_ONCE) -> Part:
    return Part(play=partial(kills, setting=setting, at_once=at_once), option="kills")


def _suite(name: str, file: str) -> Part:
    return Part(play=partial(suite, name=name, file=file))


#: Name on the command line → what is played.
ROUNDS: Mapping[str, Part] = {
    "calls": Part(play=lambda seed, budget: calls(seed, budget, core())),
    "disk": _suite("disk", "test_disk.py"),
    "concurrency": _suite("several at once", "test_concurrency.py"),
    "stops": _suite("stops", "test_stop.py"),
    "hangs": Part(play=lambda seed, budget: hangs(seed, budget, _redis_postgresql, core())),
    "kills-standalone": _kills(_standalone),
    "kills-redis-sqlite": _kills(_redis_sqlite),
    "kills-redis": _kills(_redis_postgresql),
    "kills-rabbitmq": _kills(_rabbitmq_mariadb),
    # There is one Core, and what is new in it must be of one site.
    "kills-core": _kills(_rabbitmq_core, at_once=1),
    "neighbours": Part(
        play=lambda seed, budget: neighbours(seed, budget, _redis_postgresql, core(), (None, *Kind)), option="requests"
    ),
    "outages-redis": Part(
        play=lambda seed, budget: outages(seed, budget, _redis_postgresql, [postgresql(), redis()]), option="outages"
    ),
    "outages-rabbitmq": Part(
        play=lambda seed, budget: outages(seed, budget, _rabbitmq_mariadb, [mariadb(), rabbitmq()]), option="outages"
    ),
    "model": Part(play=partial(schedules, on_service=False), option="schedules"),
    "service": Part(play=partial(schedules, on_service=True), option="on_service"),
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
        budget = Budget(tries=_tries(name, names, asked), ends=ends, say=Slowly())
        _say(f"{datetime.now(UTC):%H:%M:%S} {name}, for {left_s / (len(names) - place) / 60:.0f} minutes at most")
        rows.append(_played(name, asked.seed, budget))
        for words in rows[-1].words:
            _say(f"FOUND {name}, {words}")
        for file in asked.write:
            _write(file, rows, asked.seed, time.monotonic() - began)
    print(_report(rows, asked.seed, time.monotonic() - began))  # noqa: T201 (a command)
    return 1 if any(row.words for row in rows) else 0


def _played(name: str, seed: int, budget: Budget) -> Row:
    """The row of a round; one that broke, or that was cut before it had tried everything, says so."""
    try:
        row = ROUNDS[name].play(seed, budget)
    except Exception:  # noqa: BLE001 (hours of other rounds are not to be lost)
        return Row(round=name, mix="broken off", words=[f"seed {seed}: {traceback.format_exc()}"])
    if ROUNDS[name].option is not None and row.tried < budget.tries:
        row.mix = f"{row.mix}{', ' if row.mix else ''}cut at {row.tried:,} of {budget.tries:,}"
    return row


def _tries(name: str, names: Sequence[str], asked: argparse.Namespace) -> int:
    """The share of a round in what its option asks for."""
    option = ROUNDS[name].option
    if option is None:
        return sys.maxsize
    sharing = [other for other in names if ROUNDS[other].option == option]
    return int(-(-getattr(asked, option) // len(sharing)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    counted = {
        "kills": (10_000, "processes to kill, in all rounds of kills together; freezes come on top"),
        "schedules": (1_000_000, "schedules on the model"),
        "on-service": (100_000, "schedules on the service and the model beside it"),
        "requests": (1_500, "requests to neighbours that go wrong"),
        "outages": (200, "outages of brokers and databases, in both rounds together"),
    }
    for option, (count, text) in counted.items():
        parser.add_argument(f"--{option}", type=int, default=count, help=f"{text} (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides what is random (default: %(default)s)")
    parser.add_argument("--hours", type=float, default=6.0, help="stop after that time (default: %(default)s)")
    parser.add_argument("--round", action="append", choices=list(ROUNDS), help="only this round; may be repeated")
    write = (
        "keep the table in this file after every round, as JSON if it is called so, else in Markdown; may be repeated"
    )
    parser.add_argument("--write", type=Path, action="append", default=[], metavar="FILE", help=write)
    return parser.parse_args()


def _write(file: Path, rows: list[Row], seed: int, seconds: float) -> None:
    if file.suffix == ".json":
        text = json.dumps({"about": _about(seed, seconds), "rounds": [asdict(row) for row in rows]}, indent=1)
    else:
        text = _report(rows, seed, seconds)
    beside = file.with_name(f"{file.name}.new")
    beside.write_text(f"{text}\n", encoding="utf-8")
    beside.replace(file)


def _report(rows: list[Row], seed: int, seconds: float) -> str:
    return f"{_about(seed, seconds)}\n\n{table(rows)}"


def _about(seed: int, seconds: float) -> str:
    machine = (
        f"{os.cpu_count()} processors, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )
    return f"{datetime.now(UTC):%Y-%m-%d}, commit {_commit()}, {machine}, seed {seed}, {seconds / 60:.0f} minutes"


def _commit() -> str:
    """What the rounds are of, marked when the checkout has changes."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
