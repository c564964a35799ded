"""`pacifica-ingest-cmd`: the administrator's command, a group of sub-commands."""

import logging
from pathlib import Path

import click

from pacifica.ingest import __version__
from pacifica.ingest.cli import logs
from pacifica.ingest.cli.demo import demo
from pacifica.ingest.cli.doctor import doctor
from pacifica.ingest.cli.exits import EPILOG
from pacifica.ingest.cli.gc import gc
from pacifica.ingest.cli.jobs import files, job, jobs, show
from pacifica.ingest.cli.recover import recover
from pacifica.ingest.cli.retry import retry
from pacifica.ingest.cli.schema import dbchk, dbsync
from pacifica.ingest.cli.target import Target, config_option

__all__ = ["admin"]


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pacifica-ingest-cmd")
@config_option
@click.option(
    "--standalone",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Work on the standalone service in this folder, whether it runs or not.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.pass_context
def admin(context: click.Context, standalone: Path | None, *, verbose: bool) -> None:
    """Look after an ingest service."""
    logs.configure(logging.DEBUG if verbose else logging.WARNING)
    context.obj = Target(folder=standalone)


for command in (job, jobs, show, files, retry, recover, gc, doctor, dbsync, dbchk, demo):
    admin.add_command(command)
