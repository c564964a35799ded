"""The long round: `python -m tests.faults.model --schedules 1000000 --seed 1`.

Tells how far it is, then a table of what happened; a schedule that goes wrong is told with its seed and its fewest steps.
"""

# ruff: noqa: T201 (a command line)

import argparse
import signal
import sys
import time
from collections import Counter

from tests.faults.model.play import How
from tests.faults.model.rounds import Tally, told, tour

__all__ = ["main"]

#: More violations than that are counted only.
SHOWN = 5
#: The pause between two lines of progress, in seconds.
EVERY_S = 5.0


def main() -> int:
    """Play the schedules; 1 when one went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.model", description=__doc__)
    parser.add_argument("--schedules", type=int, default=100_000, help="on the model")
    parser.add_argument("--service", type=int, help="how many of them on the service too; default: all")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    given = parser.parse_args()
    # So that the processes of the pool end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    progress = Progress(given.schedules)
    on_service = given.schedules if given.service is None else given.service
    tally = tour(given.seed, given.schedules, on_service, progress.tell)
    show(tally, time.monotonic() - began)
    for violation in tally.violations[:SHOWN]:
        print(f"\n{told(violation)}")
    return 1 if tally.violations else 0


class Progress:
    """A line every few seconds."""

    def __init__(self, schedules: int) -> None:
        self._schedules = schedules
        self._began = self._told = time.monotonic()

    def tell(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self._told >= EVERY_S:
            self._told = now
            done = tally.schedules["model"]
            left_s = (now - self._began) * (self._schedules - done) / done
            wrong = len(tally.violations)
            print(f"{done} of {self._schedules} schedules, {wrong} wrong, {left_s:.0f} s left", file=sys.stderr)


def show(tally: Tally, seconds: float) -> None:
    """The table: calls and ways."""
    ways = list(How)
    print("".join(f"  {number}: {way}\n" for number, way in enumerate(ways)))
    print(f"{'call':22}" + "".join(f"{number:>10}" for number in range(len(ways))))
    calls = sorted({call for call, _ in tally.happened if call})
    for call in calls:
        print(f"{call:22}" + "".join(f"{tally.happened[call, way]:>10}" for way in ways))
    world = Counter({way: count for (call, way), count in tally.happened.items() if not call})
    print("\nin the world: " + ", ".join(f"{what} {count}" for what, count in world.most_common()))
    print("jobs when the faults stopped: " + ", ".join(f"{phase} {count}" for phase, count in tally.ended.items()))
    steps = sum(tally.happened.values())
    played = ", ".join(f"{count} on the {side}" for side, count in tally.schedules.items())
    print(f"{played}: {steps} steps of the model in {seconds:.0f} s, {len(tally.violations)} wrong")


if __name__ == "__main__":
    sys.exit(main())
