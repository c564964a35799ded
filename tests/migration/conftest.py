"""Empty databases of each kind."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacifica.ingest import database

NewDatabase = Callable[[], str]


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    """Make an empty database; returns its peewee URL."""
    if request.param == "sqlite":
        numbers = itertools.count(1)
        return lambda: f"sqlite:///{tmp_path / f'{next(numbers)}.sqlite3'}"
    make: NewDatabase = request.getfixturevalue(request.param).new_database
    return make


@pytest.fixture
def use() -> Iterator[Callable[[str], None]]:
    """Let the models of this process work on a database until the test ends."""
    before = database.DB.obj

    def change(url: str) -> None:
        if database.DB.obj is not before:
            database.DB.close_all()
        database.use_database(url)

    yield change
    if database.DB.obj is not before:
        database.DB.close_all()
        database.DB.initialize(before)
