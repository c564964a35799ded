"""Figures for people: the tables and pictures of `docs/performance.md`.

The page is written by hand but for what stands between two marks; that part is made anew of the results.
"""

import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.results import MET, NOT_SHOWN, RowResult
from benchmarks.rows import ROWS
from benchmarks.services import ORIGINAL, OURS, ROOT

__all__ = ["fill_page", "pictures", "surroundings", "tables"]

BEGIN: Final = "<!-- results: begin (made by `make bench`) -->"
END: Final = "<!-- results: end -->"
#: Figures that serve the pictures, or that others contain.
_HIDDEN: Final = ("files", "bytes", "to ")
_INK: Final = {OURS: "#0b6e8f", ORIGINAL: "#b5651d"}


def surroundings(command: str) -> dict[str, Any]:
    """When, where, of which commit and how the figures were made."""
    changed = bool(_git("status", "--porcelain", "--", "src"))
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{os.cpu_count()} cores ({_processor()}), {_memory_gib():.0f} GiB, {_system()}",
        "python": platform.python_version(),
        "commit": _git("rev-parse", "--short", "HEAD") + (" with changes" if changed else ""),
        "command": command,
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, Linux {platform.release()}"


def tables(results: Sequence[RowResult]) -> str:
    """All tables as Markdown."""
    lines = ["| # | work | `verify` | target | measured | verdict |", "| --- | --- | --- | --- | --- | --- |"]
    done = {result.number: result for result in results}
    if not done:
        lines = ["**Not run yet.**", "", *lines]
    for number, row in ROWS.items():
        result = done.get(number)
        if result is None:
            lines.append(f"| {number} | {row.work} | {row.verify} | {row.target} | not run yet | – |")
            continue
        measured = "<br>".join(f"{one.claim}: **{one.figure}**" for one in result.verdicts)
        lines.append(f"| {number} | {row.work} | {row.verify} | {row.target} | {measured} | {_outcome(result)} |")
    for number, result in done.items():
        lines += ["", f"### Row {number}: {ROWS[number].work}", "", *_details(result)]
    return "\n".join(lines)


def _outcome(result: RowResult) -> str:
    """One word when all parts agree, else a count and what missed."""
    outcomes = [verdict.outcome for verdict in result.verdicts]
    if outcomes and all(outcome == MET for outcome in outcomes):
        return "met"
    missed = [verdict.claim for verdict in result.verdicts if verdict.outcome not in {MET, NOT_SHOWN}]
    unknown = [verdict.claim for verdict in result.verdicts if verdict.outcome == NOT_SHOWN]
    words = [f"**missed**: {'; '.join(missed)}"] if missed else []
    words += [f"not shown: {'; '.join(unknown)}"] if unknown else []
    return "<br>".join(words) or "not shown"


def _details(result: RowResult) -> Iterator[str]:
    run = result.run
    if run:
        yield f"{run['date']}, {run['machine']}, Python {run['python']}, commit {run['commit']}: `{run['command']}`."
        yield ""
    yield "| part of the target | measured | wanted | |"
    yield "| --- | --- | --- | --- |"
    for verdict in result.verdicts:
        sign = "≥" if verdict.at_least else "≤"
        yield f"| {verdict.claim} | {verdict.figure} | {sign} {verdict.target:,.4g} | {verdict.outcome} |"
    yield ""
    yield "| case | who | rounds | figures: median (least–most) |"
    yield "| --- | --- | --- | --- |"
    for case in result.cases:
        mine = [sample for sample in result.samples if sample.case == case]
        for who in dict.fromkeys(sample.who for sample in mine):
            names = dict.fromkeys(name for sample in mine if sample.who == who for name in sample.values)
            shown = [name for name in names if not name.startswith(_HIDDEN)]
            figures = "; ".join(f"{name} {found.text()}" for name in shown if (found := result.range(case, who, name)))
            yield f"| {case} | {who} | {len({sample.round for sample in mine if sample.who == who})} | {figures} |"
    if result.notes:
        yield ""
        yield from (f"- {note}" for note in result.notes)


def fill_page(page: Path, results: Sequence[RowResult], drawn: Mapping[str, str]) -> None:
    """Put tables and pictures between the marks of the page.

    Raises:
        ValueError: the page has no marks.

    """
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        msg = f"{page} has no place for results: {BEGIN} … {END}"
        raise ValueError(msg)
    shown = "\n\n".join(f"![{words}](pictures/{name})" for name, words in drawn.items())
    body = f"{tables(results)}\n\n{shown}".rstrip()
    page.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")


# --- pictures


def pictures(results: Sequence[RowResult], folder: Path) -> dict[str, str]:
    """Draw what the results have; returns file name → what it shows."""
    samples = [(result.number, sample) for result in results for sample in result.samples]
    found: dict[str, str] = {}
    times = _lines(samples, rows={4, 5}, across="files", up="seconds")
    if times:
        words = "Time over the number of files of 1 KiB, end to end"
        _draw(folder / "time-over-files.svg", words, times, "files", "seconds")
        found["time-over-files.svg"] = words
    for across, rows, name, words in (
        ("bytes", {3, 7}, "memory-over-bytes.svg", "Peak memory of the largest process over the size of one file"),
        (
            "files",
            {4, 5},
            "memory-over-files.svg",
            "Peak memory of the largest process over the number of files of 1 KiB",
        ),
    ):
        memory = _lines(samples, rows=rows, across=across, up="memory")
        if memory:
            _draw(folder / name, words, memory, {"bytes": "bytes of the file", "files": "files"}[across], "MiB")
            found[name] = words
    return found


Line = dict[float, list[float]]


def _lines(samples: Sequence[tuple[int, Any]], *, rows: set[int], across: str, up: str) -> dict[str, Line]:
    """Who → place → figures; a standalone service is a line of its own."""
    found: dict[str, Line] = {}
    for number, sample in samples:
        if number not in rows or across not in sample.values:
            continue
        if up == "memory":
            value = max((figure for name, figure in sample.values.items() if name.startswith("memory ")), default=0.0)
        else:
            value = sample.values[up]
        where = "standalone" if "standalone" in sample.case else "instant neighbours"
        who = f"{sample.who}, {where}"
        found.setdefault(who, {}).setdefault(sample.values[across], []).append(value)
    return found


def _draw(path: Path, title: str, lines: Mapping[str, Line], across: str, up: str) -> None:
    """A plot with both axes logarithmic: what is linear has the slope 1, what is flat has none."""
    import matplotlib as mpl  # noqa: PLC0415 (only those who draw have it)

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "pacifica", "svg.fonttype": "none", "font.size": 10})
    from matplotlib import pyplot as plt  # noqa: PLC0415 (after the choice of what draws)

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for who, line in lines.items():
        places = sorted(line)
        middle = [statistics.median(line[place]) for place in places]
        style = "--" if "standalone" in who else "-"
        colour = _INK[who.partition(",")[0]]
        axes.plot(places, middle, style, marker="o", color=colour, label=who)
        axes.fill_between(
            places,
            [min(line[place]) for place in places],
            [max(line[place]) for place in places],
            color=colour,
            alpha=0.15,
        )
    axes.set(xscale="log", yscale="log", xlabel=across, ylabel=up, title=title)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
