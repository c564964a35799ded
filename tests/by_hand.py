"""A process that uses the documented Python names, as a program of its own would: configured by its environment."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from pacifica.ingest import app, orm
from pacifica.ingest.database import DB

__all__ = ["configured"]


@contextmanager
def configured(folder: Path, settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process meanwhile, with an empty SQLite database and its landing zone in a folder, which is returned."""
    ours = {"INGEST_CONFIG": str(folder / "none.ini"), "VOLUME_PATH": str(folder)}
    database = {"PEEWEE_URL": f"sqliteext:///{folder / 'db.sqlite3'}"}
    for name, value in {**ours, **database, **settings}.items():
        monkeypatch.setenv(name, value)
    app.forget()
    app.current()
    orm.OrmSync.update_tables()
    try:
        yield folder
    finally:
        app.forget()
        DB.close_all()
        DB.initialize(None)
