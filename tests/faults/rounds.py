"""What all rounds of faults have in common: what they may spend, and the row of the table that they give.

Who may call it: the fault rounds and `python -m tests.faults`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

from tests.faults.oracle import Fault

__all__ = ["Budget", "Round", "Row", "said", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a round may spend.

    Attributes:
        tries: how many times it is to try: kills, requests that go wrong, schedules.
        ends: when it is to stop all the same, by `time.monotonic`.
        say: told how far it is.
    """

    tries: int
    ends: float = float("inf")
    say: Callable[[str], None] = print

    def is_spent(self, tried: int) -> bool:
        """Whether to stop after so many."""
        return tried >= self.tries or self.is_over()

    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.ends


@dataclass(slots=True, kw_only=True)
class Row:
    """What a round did, and what it found.

    Attributes:
        round: name of the round.
        mix: which faults it made, in words.
        tried: how many: kills, requests that went wrong, schedules, tests.
        frozen: how often a process was frozen beside the kills.
        uploads: requests that were sent.
        taken_over: how often a job or an upload was taken from an owner that stood still.
        accepted: those that were answered with 200.
        done: jobs that are done.
        failed: jobs that failed; if nothing is lost, as they had to: bad bundles, and uploads that were cut off.
        lost: see `Fault`; so the next three.
        words: what the oracle said of each, with the seed that shows it.
    """

    round: str
    mix: str = ""
    tried: int = 0
    frozen: int = 0
    uploads: int = 0
    accepted: int = 0
    taken_over: int = 0
    done: int = 0
    failed: int = 0
    lost: int = 0
    stuck: int = 0
    doubled: int = 0
    unlisted: int = 0
    words: list[str] = field(default_factory=list)

    def judged(self, found: Sequence[tuple[Fault, str]], seed: int) -> None:
        """Count what the oracle found."""
        for fault, text in found:
            setattr(self, fault.value, getattr(self, fault.value) + 1)
            self.words.append(f"seed {seed}: {fault}: {text}")

    def add(self, other: "Row") -> None:
        """Add what another part of the same round did."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.words += other.words

    def cells(self) -> list[str]:
        """The row as text; of the words, how many there are."""
        return [self.round, self.mix, *(f"{getattr(self, name):,}" for name in COUNTED), f"{len(self.words):,}"]


#: What can be added up.
COUNTED = [column.name for column in fields(Row) if column.type is int]


def said(do: Callable[[], None]) -> list[str]:
    """Do it; says what was waited for in vain."""
    try:
        do()
    except AssertionError as fault:
        return [str(fault)]
    return []


#: Makes faults of a seed until the budget is spent.
Round = Callable[[int, Budget], Row]


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    head = ["round", "mix", *(name.replace("_", " ") for name in COUNTED), "found"]
    lines = [head, ["---", "---", *("---:" for _ in head[2:])], *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
