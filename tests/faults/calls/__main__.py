"""The command `python -m tests.faults.calls`: run all rounds, and print the table."""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.faults.calls.session import Session, all_jobs, run_all, table
from tests.harness import PacificaCore


def main() -> int:
    """Exit with 1 when anything was wrong."""
    options = _options()
    began = time.monotonic()
    sessions = _run(options)
    wrong = [text for session in sessions for text in session.violations()]
    print("\n".join([*wrong, "", table(sessions)]))  # noqa: T201 (a command line)
    tried = sum(len(session.results) for session in sessions)
    print(f"\n{tried} rounds, {len(wrong)} violations, seed {options.seed}, {time.monotonic() - began:.0f} s")  # noqa: T201
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Let every call of a job fail once, in every way.")
    parser.add_argument(
        "--short",
        action="store_true",
        help="only one in four system calls of SQLite, and of all calls of jobs that were taken over",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides the order, and which rounds")
    parser.add_argument("--local", action="store_true", help="no HTTP calls, which need the Pacifica Core")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> list[Session]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        core = None if options.local else stack.enter_context(PacificaCore())
        return run_all(all_jobs(core), folder, is_short=options.short, seed=options.seed)


if __name__ == "__main__":
    sys.exit(main())
