"""Rounds of the other suites, for the long round: schedules, calls, and whole files of tests.

Who may call it: `python -m tests.faults`.
"""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.faults.calls.session import all_jobs, run_all
from tests.faults.model import rounds
from tests.faults.model.rounds import BATCH, Tally
from tests.faults.oracle import Fault
from tests.faults.rounds import Budget, Row
from tests.harness import PacificaCore

__all__ = ["calls", "schedules", "suite"]

ROOT = Path(__file__).parents[2]
#: Schedules between two looks at the clock.
PART = 100 * BATCH
#: Violations that are told with their steps.
SHOWN = 3
#: How often tests are looked at, in seconds, and how long they may take to end when the time is up.
LOOK_EVERY_S = 1.0
END_S = 60.0


def schedules(seed: int, budget: Budget, *, on_service: bool) -> Row:
    """Schedules of the executable model; on the service too, both must do the same.

    Args:
        seed: the first.
        budget: tries are schedules.
        on_service: whether the service plays them, too.
    """
    row = Row(round="service on doubles, and the model beside it" if on_service else "model")
    while not budget.is_spent(row.tried):
        count = min(PART, budget.tries - row.tried)
        first = seed + row.tried

        def told(tally: Tally, before: int = row.tried) -> None:
            budget.say(f"{row.round}: {before + tally.schedules['model']} of {budget.tries} schedules")

        tally = rounds.tour(first, count, count if on_service else 0, told)
        row.tried += count
        row.done += tally.ended["done"]
        row.failed += tally.ended["failed"]
        for violation in tally.violations:
            kinds = {fault.partition(":")[0] for fault in violation.faults} & set(Fault)
            for kind in kinds:
                setattr(row, kind, getattr(row, kind) + 1)
            shown = len(row.words) < SHOWN
            row.words.append(rounds.told(violation) if shown else f"seed {violation.seed}, {violation.side}")
    return row


def calls(seed: int, budget: Budget, core: PacificaCore) -> Row:
    """Every call of a job fails once, in every way: all of them, however long it takes.

    Args:
        seed: of their order.
        budget: is told only.
        core: for the HTTP calls.
    """
    row = Row(round="calls that fail once, all of them")
    budget.say(f"{row.round}: about five minutes")
    with tempfile.TemporaryDirectory() as folder:
        sessions = run_all(all_jobs(core), Path(folder), is_short=False, seed=seed)
    for session in sessions:
        row.tried += len(session.results)
        for fault in (fault for result in session.results for fault in result.faults):
            kind = fault.partition(":")[0]
            if kind in set(Fault):
                setattr(row, kind, getattr(row, kind) + 1)
        row.words += [f"seed {seed}: {text}" for text in session.violations()]
    return row


def suite(seed: int, budget: Budget, name: str, file: str) -> Row:
    """The tests of a file, in a process of their own; what fails is told, and counted as found.

    Args:
        seed: of their order.
        budget: when they are to stop.
        name: for the table.
        file: of `tests/faults`.
    """
    row = Row(round=f"{name}: tests of `{file}`")
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder) / "report.xml", Path(folder) / "log.txt"
        command = [sys.executable, "-m", "pytest", "-q", f"--randomly-seed={seed}", f"--junit-xml={report}"]
        command += [f"tests/faults/{file}"]
        with log.open("wb") as target:
            tests = subprocess.Popen(command, cwd=ROOT, stdout=target, stderr=subprocess.STDOUT)
        while tests.poll() is None:
            if budget.is_over():
                tests.send_signal(signal.SIGINT)
                tests.wait(END_S)
                row.mix = "cut by the time limit"
            budget.say(f"{row.round}: under way")
            time.sleep(LOOK_EVERY_S)
        if report.exists():
            _count(row, ET.parse(report).getroot())
        if tests.returncode and not row.words and not row.mix:
            row.words.append(log.read_text(encoding="utf-8", errors="replace")[-2000:])
    return row


def _count(row: Row, report: ET.Element) -> None:
    for case in report.iter("testcase"):
        row.tried += 1
        for fault in (*case.iter("failure"), *case.iter("error")):
            row.words.append(f"{case.get('name')}: {fault.get('message')}")
