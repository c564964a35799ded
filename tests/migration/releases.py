"""Databases as earlier releases left them, made by those releases themselves.

What it is: the releases that wrote schema 0.0, 1.0 and 2.0, each in an environment of its own, as functions that make a
database, fill it, and read and write states in it.

Who may call it: tests.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import Environment, environment, original_env, run
from tests.harness.command import base_environment

__all__ = ["RELEASES", "ROWS", "Release", "Row"]

Row = tuple[int, str, str, float, str]

#: What update_state of each release is given.
ROWS: list[Row] = [
    (7, "OK", "ingest metadata", 100, ""),
    (8, "FAILED", "ingest files", 12.5, "Prüfsumme falsch"),
    (9, "OK", "ingest files", 50, ""),
    (10, "OK", "ingest metadata", 50, ""),
    (11, "FAILED", "ingest metadata", 0, "x" * 5000),
]
COMPLETE = {7: True, 8: True, 9: False, 10: False, 11: True}

_DRIVERS = ("peewee==3.17.9", "psycopg2-binary==2.9.13", "PyMySQL")

_OPEN = """
import configparser, datetime, json, sys, warnings
warnings.simplefilter("ignore")
configparser.SafeConfigParser = configparser.ConfigParser  # its name until Python 3.11
from pacifica.ingest import orm
"""
_BY_HAND = """
orm.DB.create_tables([orm.IngestState, orm.IngestStateSystem])
orm.IngestStateSystem.get_or_create_version()
"""
_WRITE = "[orm.update_state(*row) for row in json.load(sys.stdin)]"
_READ = """
fields = ("job_id", "state", "task", "task_percent", "exception", "complete")
rows = [orm.read_state(job_id) for job_id in json.load(sys.stdin)]
safe = orm.IngestStateSystem.is_safe()
print(json.dumps({"safe": safe, "rows": [[getattr(row, name) for name in fields] for row in rows]}, default=float))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A published release.

    Attributes:
        version: of the package.
        schema: what it makes of an empty database.
        create: the Python that makes it.
        fails_on: schemes of the databases on which that fails, as it ever did; somebody made the tables with the models
            there.

    """

    version: str
    schema: tuple[int, int]
    create: str
    fails_on: frozenset[str] = frozenset()

    def make(self, url: str, folder: Path) -> None:
        """Create the tables, with the rows of `ROWS`."""
        self.run(_BY_HAND if url.partition(":")[0] in self.fails_on else self.create, url, folder)
        self.write(url, folder, ROWS)

    def write(self, url: str, folder: Path, rows: Sequence[Row]) -> None:
        """Update states."""
        self.run(_WRITE, url, folder, json.dumps(rows))

    def read(self, url: str, folder: Path, job_ids: Sequence[int]) -> dict[str, Any]:
        """Read states: `safe`, and `rows` with `complete` at the end."""
        found: dict[str, Any] = json.loads(self.run(_READ, url, folder, json.dumps(job_ids)))
        return found

    def run(self, script: str, url: str, folder: Path, text: str | None = None) -> str:
        """Run Python with the release's `orm` at hand; returns what it prints."""
        env = base_environment(folder) | {"PEEWEE_URL": url, "INGEST_CONFIG": str(folder / "none.ini")}
        return run([self._environment().python, "-c", _OPEN + script], env=env, cwd=folder, text=text)

    def _environment(self) -> Environment:
        if self.version == "0.4.1":
            return original_env()
        return environment(f"ingest-{self.version}", *_DRIVERS, no_deps=[f"pacifica-ingest=={self.version}"])


RELEASES = {
    release.version: release
    for release in (
        Release(version="0.1.2", schema=(0, 0), create="orm.database_setup()"),
        Release(
            version="0.3.3",
            schema=(1, 0),
            create="orm.OrmSync.dbconn_blocking(); orm.OrmSync.update_tables()",
            fails_on=frozenset({"mysql"}),
        ),
        Release(
            version="0.4.1",
            schema=(2, 0),
            create="from pacifica.ingest import __main__ as main; main.cmd(['dbsync'])",
            fails_on=frozenset({"mysql", "sqlite"}),
        ),
    )
}
