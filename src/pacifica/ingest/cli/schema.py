"""`dbsync` and `dbchk`: the tables, and whether they fit this version."""

import click

from pacifica.ingest import app
from pacifica.ingest.cli.exits import EPILOG, Exit
from pacifica.ingest.cli.target import Target
from pacifica.ingest.orm import SCHEMA_MAJOR, SCHEMA_MINOR, IngestStateSystem, OrmSync, ensure_there

__all__ = ["dbchk", "dbsync"]


def _version(target: Target, *, create: bool = False) -> tuple[int, int]:
    """The schema version of the database, which is waited for as the configuration says."""
    app.compose(target.settings())
    if not create:
        ensure_there()
    OrmSync.dbconn_blocking()
    return IngestStateSystem.get_version()


@click.command(epilog=EPILOG)
@click.pass_obj
def dbsync(target: Target) -> None:
    """Create the tables, or bring older ones up to date with all their rows."""
    before = _version(target, create=True)
    OrmSync.update_tables()
    after = IngestStateSystem.get_version()
    click.echo(f"schema {after[0]}.{after[1]}" + ("" if before == after else f", was {before[0]}.{before[1]}"))


@click.command(epilog=EPILOG)
@click.option("--equal", is_flag=True, help="Ask for exactly this version, not just for one that is safe to use.")
@click.pass_obj
def dbchk(target: Target, *, equal: bool) -> int:
    """Check the version of the tables: exit code 0 when it is safe to use, else 1."""
    found = _version(target)
    fits = IngestStateSystem.is_equal() if equal else IngestStateSystem.is_safe()
    wanted = f"{SCHEMA_MAJOR}.{SCHEMA_MINOR}" if equal else f"{SCHEMA_MAJOR}.x"
    verdict = "good" if fits else "run `pacifica-ingest-cmd dbsync`"
    click.echo(f"schema {found[0]}.{found[1]}, needed is {wanted}: {verdict}")
    return Exit.OK if fits else Exit.NO
