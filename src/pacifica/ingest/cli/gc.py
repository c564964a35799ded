"""`gc`: remove bundles of failed jobs and garbage in the archive, when they are old enough."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import click

from pacifica.ingest.cli import screen
from pacifica.ingest.cli.exits import EPILOG
from pacifica.ingest.cli.target import Target
from pacifica.ingest.cli.text import counted, size
from pacifica.ingest.core.errors import NeighbourDown, NoSpace, Unavailable
from pacifica.ingest.retention import Retention

__all__ = ["Removal", "gc"]

DAY_S = 86_400.0
#: An archive that failed so many times in a row, for so many seconds together, counts as away.
AWAY_TIMES, AWAY_S = 3, 60.0


@click.command(epilog=EPILOG)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--older-than",
    metavar="DAYS",
    type=click.IntRange(min=1),
    help="What ended so many days ago; by default [ingest] keep_failed.",
)
@click.pass_obj
def gc(target: Target, *, dry_run: bool, older_than: int | None) -> None:
    """Remove what is kept long enough: bundles of failed jobs, and garbage in the archive.

    Garbage is what attempts to archive a file left behind under ids that no transaction has.  Safe at any time: what is
    tried again meanwhile, what some transaction has, and whatever may be the only copy is never removed.
    """
    retention = target.service().retention
    if older_than is not None:
        retention = replace(retention, keep_s=older_than * DAY_S)
    removal = Removal(retention)
    found = False
    for line in chain(_bundles(retention, dry_run=dry_run), _would_be(retention) if dry_run else removal.lines()):
        # At once, as whatever ends the command later takes nothing back.
        screen.say(line)
        found = True
    if removal.faults:
        raise Unavailable(removal.complaint())
    if not found:
        screen.say(f"Nothing is older than {counted(round(retention.keep_s / DAY_S), 'day')}.")


def _bundles(retention: Retention, *, dry_run: bool) -> Iterator[str]:
    for job, reason in retention.bundles():
        bundle = f"job {job.job_id}: bundle {Path(job.path).name} ({size(job.size_bytes)})"
        if reason:
            yield f"{bundle} is kept: {reason}"
        elif dry_run or retention.drop(job):
            yield f"{bundle} {_done(is_ours=retention.is_ours(job), dry_run=dry_run)}"


def _done(*, is_ours: bool, dry_run: bool) -> str:
    verb = "would be " * dry_run
    return f"{verb}removed" if is_ours else f"{verb}given up; its file lies outside of the landing zone, and stays"


def _would_be(retention: Retention) -> Iterator[str]:
    return (f"archive id {file_id}: garbage would be removed" for file_id in retention.garbage())


class Removal:
    """Removes garbage.  An id that cannot be removed stays on the list, and does not stop the others.

    Attributes:
        faults: id → why it could not be removed.

    """

    def __init__(self, retention: Retention, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Remove what `retention` tells of; `monotonic` is a clock in seconds."""
        self.faults: dict[int, Unavailable] = {}
        self._retention = retention
        self._monotonic = monotonic
        self._is_over = False

    def lines(self) -> Iterator[str]:
        """Remove it, and tell what."""
        in_a_row, since = 0, self._monotonic()
        for file_id in self._retention.garbage():
            try:
                was_there = self._retention.remove(file_id)
            except (NeighbourDown, NoSpace) as fault:
                self.faults[file_id] = fault
                in_a_row += 1
                # An archive that refuses costs nothing; one that is silent would be waited for once for each id.
                if in_a_row >= AWAY_TIMES and self._monotonic() - since >= AWAY_S:
                    self._is_over = True
                    return
                continue
            in_a_row, since = 0, self._monotonic()
            if was_there:
                yield f"archive id {file_id}: garbage removed"

    def complaint(self) -> str:
        """How many could not be removed, and why."""
        count = len(self.faults)
        file_id, fault = next(iter(self.faults.items()))
        which = f"archive id {file_id}" if count == 1 else f"{count} archive ids, the first of them {file_id},"
        end = " The archive seems to be away: the rest was not tried." if self._is_over else ""
        return f"{which} could not be removed and stays on the list: {str(fault).rstrip('.')}.{end}"
