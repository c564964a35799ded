"""Puts the figures of long rounds into a page of the documentation, between two marks.

    python -m tests.faults.report docs/reliability.md FILE.json …

The files are those that `python -m tests.faults --write FILE.json` kept, of rounds that may have run side by side.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from tests.faults.rounds import Row, table

__all__ = ["main", "report"]

BEGIN = "<!-- figures: written by python -m tests.faults.report -->"
END = "<!-- end of figures -->"


def report(page: str, files: list[dict[str, Any]]) -> str:
    """The page with other figures.  Raises `ValueError` when it has no place for them."""
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        msg = f"The page has no {BEGIN!r} with {END!r} behind it."
        raise ValueError(msg)
    rows = [Row(**row) for file in files for row in file["rounds"]]
    abouts = [f"- {'; '.join(row['round'] for row in file['rounds'])}: {file['about']}" for file in files]
    kills = sum(row.tried for row in rows if row.round.startswith("kills"))
    totals = ", ".join(
        f"{name} {sum(getattr(row, name) for row in rows)}" for name in ("lost", "stuck", "doubled", "unlisted")
    )
    summary = f"Together {kills:,} kills, {sum(row.done for row in rows if row.uploads):,} jobs done on real processes; {totals}."
    lines = [BEGIN, "", summary, "", table(rows), "", "Run as:", "", *abouts, "", END]
    return before + "\n".join(lines) + after


def main() -> None:
    """Rewrite the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report", description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    asked = parser.parse_args()
    files = [json.loads(file.read_text(encoding="utf-8")) for file in asked.files]
    asked.page.write_text(report(asked.page.read_text(encoding="utf-8"), files), encoding="utf-8")


if __name__ == "__main__":
    main()
