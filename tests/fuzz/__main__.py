"""The long round of fuzzing: `make fuzz`, or `python -m tests.fuzz`; stops by itself.

Prints a table: inputs, inputs a second, memory, findings.  Its exit code is 1 when something was found; what was found is kept
in the folder that it names.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from tests.fuzz.result import MEMORY_MIB, Result
from tests.fuzz.surface import fuzz_http
from tests.fuzz.targets import SEEDS, TARGETS, compare_with_gnu

__all__ = ["fuzz", "main"]

#: Longest input in bytes, and longest time for one in seconds.
LONGEST, SLOWEST_S = 16_384, 1

_PEAK = re.compile(r"^stat::peak_rss_mb: +(\d+)", re.MULTILINE)
_UNITS = re.compile(r"^stat::number_of_executed_units: +(\d+)", re.MULTILINE)


def fuzz(
    target: str, inputs: int, seed: int, folder: Path, *, seconds: int = 0, memory_mib: int = MEMORY_MIB
) -> Result:
    """Fuzz a target with so many inputs, or for so long; corpus and findings are kept in `folder`."""
    corpus = folder / f"{target}-{seed}"
    corpus.mkdir(parents=True)
    for number, data in enumerate(SEEDS[target]()):
        (corpus / f"seed-{number}").write_bytes(data)
    options = {
        "runs": inputs,
        "seed": seed,
        "max_len": LONGEST,
        "timeout": SLOWEST_S,
        "rss_limit_mb": memory_mib,
        "max_total_time": seconds,
        "artifact_prefix": f"{folder}/found-{target}-{seed}-",
        "print_final_stats": 1,
        "verbosity": 0,
    }
    line = [sys.executable, "-m", "tests.fuzz.child", target, *(f"-{name}={value}" for name, value in options.items())]
    began = time.monotonic()
    done = subprocess.run([*line, str(corpus)], capture_output=True, text=True, check=False, errors="replace")
    said = done.stdout + done.stderr
    peak, units = _PEAK.search(said), _UNITS.search(said)
    return Result(
        target=target,
        inputs=int(units[1]) if units else 0,
        seconds=round(time.monotonic() - began),
        memory_mib=int(peak[1]) if peak else 0,
        found=said[-3000:] if done.returncode else "",
    )


def main() -> int:
    """Fuzz what was asked for; returns the exit code."""
    asked = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="pacifica-fuzz-"))
    wanted = {"tar": asked.tar, "metadata": asked.metadata}
    jobs = [
        (target, -(-count // asked.processes), asked.seed + number)
        for target, count in wanted.items()
        if count
        for number in range(asked.processes)
    ]
    with ThreadPoolExecutor(asked.processes) as pool:
        results = list(pool.map(lambda job: fuzz(*job, folder, seconds=int(asked.hours * 3600)), jobs))
    if asked.tar:
        results.append(_against_gnu([folder / f"tar-{asked.seed + number}" for number in range(asked.processes)]))
    if asked.http:
        results.append(fuzz_http(asked.http, asked.seed, folder, seconds=int(asked.hours * 3600), tell=True))
    print(_report(results, asked.seed))  # noqa: T201 (a command)
    for result in results:
        if result.found:
            print(f"FOUND in {result.target}, kept in {folder}:\n{result.found}", file=sys.stderr)  # noqa: T201 (a command)
    return 1 if any(result.found for result in results) else 0


def _against_gnu(corpora: list[Path]) -> Result:
    """Compare with GNU tar what the rounds kept: every input that took another way through the code."""
    began, count, found = time.monotonic(), 0, ""
    for path in (path for corpus in corpora for path in sorted(corpus.iterdir())):
        try:
            count += compare_with_gnu(path.read_bytes())
        except AssertionError as fault:
            found = f"{path}: {fault}"
    seconds = round(time.monotonic() - began)
    return Result(target="tar, by GNU tar", inputs=count, seconds=seconds, memory_mib=0, found=found)


def _report(results: list[Result], seed: int) -> str:
    machine = f"{os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}"
    lines = [f"{datetime.now(UTC):%Y-%m-%d}, {machine}, seed {seed}", ""]
    lines += ["| target | inputs | a second | memory, MiB | found |", "| --- | ---: | ---: | ---: | ---: |"]
    for target in (*TARGETS, "tar, by GNU tar", "http"):
        mine = [result for result in results if result.target == target]
        if mine:
            inputs = sum(result.inputs for result in mine)
            rate = sum(result.inputs / max(1, result.seconds) for result in mine)
            memory = max(result.memory_mib for result in mine)
            lines.append(f"| {target} | {inputs:,} | {rate:,.0f} | {memory} | {sum(bool(one.found) for one in mine)} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--tar", type=int, default=10_000_000, help="inputs for the tar index (default: %(default)s)")
    parser.add_argument("--metadata", type=int, default=2_000_000, help="for the decoder (default: %(default)s)")
    parser.add_argument("--http", type=int, default=100_000, help="requests for a service (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first process (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at once (default: %(default)s)")
    parser.add_argument("--hours", type=float, default=2.0, help="for each process at most (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
