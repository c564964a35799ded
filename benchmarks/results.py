"""What was measured, and what it says: samples, ratios of the same round, verdicts.

Values only; nothing here runs or draws.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["Options", "Range", "RowResult", "Sample", "Verdict", "load", "save"]

#: Of a verdict.
MET, MISSED, NOT_SHOWN = "met", "missed", "not shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says to the rows.

    Attributes:
        rounds: of every case that is not said to run once.
        scale: factor for numbers of files and bytes.
        original: whether the original is measured, too.
    """

    rounds: int = 3
    scale: float = 1.0
    original: bool = True

    def say(self, text: str) -> None:
        """Tell a person how far it is."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement.

    Attributes:
        case: what was done, as in the table.
        who: `ours`, `original`, or the name of a yardstick.
        round: counts from 1; samples of one case and round may be compared.
        values: name → figure; `seconds`, `cpu_s`, `memory NAME` in MiB, and what else the row has.
    """

    case: str
    who: str
    round: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Median and spread of the rounds."""

    middle: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Range | None":
        """Of any number of figures; None of none."""
        found = sorted(values)
        if not found:
            return None
        return cls(middle=statistics.median(found), low=found[0], high=found[-1], count=len(found))

    def text(self, unit: str = "") -> str:
        """The median, with the spread behind it when there are several."""
        spread = f" ({_short(self.low)}–{_short(self.high)})" if self.count > 1 else ""
        return f"{_short(self.middle)}{unit}{spread}"


def _short(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One part of a row's target.

    Attributes:
        claim: the target in words, with its unit.
        target: the number in it.
        at_least: whether the figure must be as large, else as small.
        figure: what was measured, as text.
        outcome: `MET`, `MISSED`, or `NOT_SHOWN` when something to compare with is missing.
    """

    claim: str
    target: float
    at_least: bool
    figure: str
    outcome: str


@dataclass(kw_only=True)
class RowResult:
    """All that a row found out.

    Attributes:
        number: in the table of targets.
        work: what was done.
        verify: what was read back.
        samples: all measurements, in order.
        verdicts: on each part of the target.
        notes: what a reader must know, such as what ran only once.
        run: when, where and of which commit; see `report.surroundings`.
    """

    number: int
    work: str
    verify: str
    samples: list[Sample] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)

    def add(self, case: str, who: str, number: int, **values: float) -> None:
        """Record a measurement, given as keywords."""
        self.put(case, who, number, values)

    def put(self, case: str, who: str, number: int, values: dict[str, float]) -> None:
        """Record a measurement."""
        self.samples.append(Sample(case=case, who=who, round=number, values=values))
        shown = ", ".join(f"{name} {_short(value)}" for name, value in values.items())
        Options().say(f"    {case}, {who}, round {number}: {shown}")

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)

    def values(self, case: str, who: str, name: str) -> dict[int, float]:
        """Round → figure."""
        return {
            sample.round: sample.values[name]
            for sample in self.samples
            if (sample.case, sample.who) == (case, who) and name in sample.values
        }

    def range(self, case: str, who: str, name: str) -> Range | None:
        """Median and spread of a figure."""
        return Range.of(self.values(case, who, name).values())

    def ratio(self, above: tuple[str, str, str], below: tuple[str, str, str]) -> list[float]:
        """One figure (case, who, name) by another, round by round; a figure that was taken once counts for all rounds."""
        over, under = self.values(*above), self.values(*below)
        if len(over) == 1 or len(under) == 1:
            pairs = [(one, other) for one in over.values() for other in under.values()]
        else:
            pairs = [(over[number], under[number]) for number in over if number in under]
        return [one / other for one, other in pairs if other]

    def expect(
        self,
        claim: str,
        figures: Iterable[float],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        unit: str = "",
    ) -> None:
        """Compare the median of figures with one part of the target."""
        target = at_least if at_least is not None else at_most
        if target is None:
            raise AssertionError(claim)
        found = Range.of(figures)
        if found is None:
            outcome = NOT_SHOWN
        else:
            fulfilled = found.middle >= target if at_least is not None else found.middle <= target
            outcome = MET if fulfilled else MISSED
        text = found.text(unit) if found else "–"
        self.verdicts.append(
            Verdict(claim=claim, target=target, at_least=at_least is not None, figure=text, outcome=outcome)
        )

    @property
    def cases(self) -> Sequence[str]:
        """The cases in the order of their first sample."""
        return list(dict.fromkeys(sample.case for sample in self.samples))


_VERSION: Final = 1


def save(path: Path, results: Sequence[RowResult]) -> None:
    """Write results as JSON; rows that the file has and that did not run now stay."""
    kept = {result.number: result for result in load(path)} | {result.number: result for result in results}
    document = {"version": _VERSION, "rows": [asdict(kept[number]) for number in sorted(kept)]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> list[RowResult]:
    """Read what `save` wrote; nothing when there is no file."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [
        RowResult(
            **row
            | {
                "samples": [Sample(**sample) for sample in row["samples"]],
                "verdicts": [Verdict(**verdict) for verdict in row["verdicts"]],
            }
        )
        for row in rows
    ]


def percentile(values: Iterable[float], share: float) -> float:
    """The figure that a share of all do not exceed; infinite when there is none, since nothing was shown then."""
    found = sorted(values)
    if not found:
        return math.inf
    return found[min(len(found) - 1, int(share * len(found)))]


#: What a row's module gives: its number, what it says in the list, and how it is done.
Run = Callable[[Any, RowResult], None]
