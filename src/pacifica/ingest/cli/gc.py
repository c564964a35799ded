"""`gc`: remove bundles of failed jobs and garbage in the archive, when they are old enough."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from pacifica.ingest.cli import screen
from pacifica.ingest.cli.exits import EPILOG
from pacifica.ingest.cli.target import Target
from pacifica.ingest.cli.text import size
from pacifica.ingest.retention import Retention

__all__ = ["gc"]

DAY_S = 86_400.0


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
    done = [*_bundles(retention, dry_run=dry_run), *_garbage(retention, dry_run=dry_run)]
    screen.say("\n".join(done) or f"Nothing is older than {retention.keep_s / DAY_S:.0f} days.")


def _bundles(retention: Retention, *, dry_run: bool) -> Iterator[str]:
    verb = "would be removed" if dry_run else "removed"
    for job in retention.bundles():
        if dry_run or retention.drop(job):
            yield f"job {job.job_id}: bundle {Path(job.path).name} ({size(job.size_bytes)}) {verb}"


def _garbage(retention: Retention, *, dry_run: bool) -> Iterator[str]:
    if dry_run:
        for file_id in retention.garbage():
            yield f"archive id {file_id}: garbage would be removed"
        return
    for file_id in retention.garbage():
        if retention.remove(file_id):
            yield f"archive id {file_id}: garbage removed"
