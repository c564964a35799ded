"""`make bench`, or `python -m benchmarks` in an environment with the groups `test` and `bench`."""

import argparse
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from benchmarks import report
from benchmarks.clients import Refused
from benchmarks.results import Options, RowResult, load, save
from benchmarks.rows import ROWS
from benchmarks.services import ROOT, Bench
from tests.harness import HarnessError

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "performance.md"


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {number:2}  {row.work}" for number, row in ROWS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure ours beside the original and the machine, and write the figures into the documentation.",
        epilog=(
            f"rows:\n{rows}\n\nThe machine should have nothing else to do.  All rows together take some hours, most of it "
            "the original with 100,000\nfiles and ours with 1,000,000; a quick look at everything: --scale 0.01 --rounds 1."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", default="all", help="numbers with commas or ranges, such as 1,3,8-10; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case; default: 3")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor for files and bytes; with any but 1 the docs stay as they are"
    )
    parser.add_argument("--without-original", action="store_true", help="measure ours and the yardsticks only")
    parser.add_argument("--work", type=Path, help="folder on the disk that is to be measured; default: a temporary one")
    parser.add_argument("--results", type=Path, help=f"raw figures as JSON; default: {RESULTS.relative_to(ROOT)}")
    parser.add_argument(
        "--draw", action="store_true", help="measure nothing, write the page again from the raw figures"
    )
    return parser


def _numbers(text: str) -> list[int]:
    """Numbers of rows.

    Raises:
        ValueError: there is no such row.

    """
    if text == "all":
        return list(ROWS)
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    if unknown := set(found) - set(ROWS):
        msg = f"there is no row {min(unknown)}"
        raise ValueError(msg)
    return found


def main(arguments: list[str]) -> int:
    """Measure; returns the exit code: 1 when a row could not be measured."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    try:
        numbers = _numbers(asked.rows)
    except ValueError as fault:
        parser.error(f"--rows {asked.rows}: {fault}")
    whole = asked.scale == 1.0
    results_file: Path | None = asked.results or (RESULTS if whole else None)
    broken = 0
    if not asked.draw:
        options = Options(rounds=asked.rounds, scale=asked.scale, original=not asked.without_original)
        results, broken = _measure(
            numbers, options, asked.work, "python -m benchmarks " + shlex.join(arguments), results_file
        )
        sys.stdout.write(report.tables(results) + "\n")
    if whole and results_file is not None and not (asked.results and not asked.draw):
        _write(results_file)
    return 1 if broken else 0


def _write(results_file: Path) -> None:
    results = load(results_file)
    report.fill_page(PAGE, results, report.pictures(results, ROOT / "docs" / "pictures"))
    Options().say(f"written: {PAGE.relative_to(ROOT)}")


def _measure(
    numbers: list[int], options: Options, place: Path | None, command: str, results_file: Path | None
) -> tuple[list[RowResult], int]:
    """Run rows; what one could not do does not stop the others.  Results are kept after each row."""
    results: list[RowResult] = []
    broken = 0
    work = Path(tempfile.mkdtemp(prefix="pacifica-bench-", dir=place))
    # PostgreSQL runs under an account of its own, and the original stages below the temporary folder: all on one disk.
    work.chmod(0o755)
    tempfile.tempdir = str(work)
    bench = Bench(options=options, work=work)
    try:
        with bench.stack:
            bench.prepare()
            for number in numbers:
                row = ROWS[number]
                began = time.monotonic()
                options.say(f"row {number}: {row.work}")
                result = RowResult(number=number, work=row.work, verify=row.verify, run=report.surroundings(command))
                try:
                    row.run(bench, result)
                except (HarnessError, Refused, OSError) as fault:
                    broken += 1
                    options.say(f"row {number} broke off: {traceback.format_exc()}")
                    result.note(f"The row broke off: {type(fault).__name__}: {str(fault)[:300]}")
                if options.scale != 1.0:
                    result.note(f"Scaled by {options.scale:g}: these figures are no result.")
                results.append(result)
                if results_file is not None:
                    save(results_file, [result])
                options.say(f"row {number} took {time.monotonic() - began:.0f} s")
    finally:
        tempfile.tempdir = None
        shutil.rmtree(work, ignore_errors=True)
    return results, broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
