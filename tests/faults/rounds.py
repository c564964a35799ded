"""What all rounds of faults have in common: what they may spend, and the row of the table that they give.

Who may call it: the fault rounds and `python -m tests.faults`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

from tests.faults.oracle import Fault

__all__ = ["Budget", "Round", "Row", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a round may spend.

    Attributes:
        faults: how many faults it is to make.
        ends: when it is to stop all the same, by `time.monotonic`.
        say: told how far it is.
    """

    faults: int
    ends: float = float("inf")
    say: Callable[[str], None] = print

    def is_spent(self, faults: int) -> bool:
        """Whether to stop after so many faults."""
        return faults >= self.faults or time.monotonic() > self.ends


@dataclass(slots=True, kw_only=True)
class Row:
    """What a round did, and what it found.

    Attributes:
        round: name of the round.
        mix: which faults it made, in words.
        faults: how many.
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
    faults: int = 0
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

    def cells(self) -> list[str]:
        """The row as text, without the words."""
        return [str(getattr(self, name)) for name in COLUMNS]


#: One after the other.
COLUMNS = [column.name for column in fields(Row) if column.name != "words"]

#: Makes faults of a seed until the budget is spent.
Round = Callable[[int, Budget], Row]


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [COLUMNS, ["---", "---", *("---:" for _ in COLUMNS[2:])], *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
