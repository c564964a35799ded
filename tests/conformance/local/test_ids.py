"""What the local ids promise beyond the port: no number is given twice, to however many processes."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacifica.ingest import database, orm
from pacifica.ingest.local.ids import LocalIds
from pacifica.ingest.ports import IdMode

PROCESSES = 4
TURNS = 40


def take(url: str, queue: "multiprocessing.Queue[list[int]]") -> None:
    database.use_database(url)
    ids = LocalIds()
    queue.put([number for turn in range(TURNS) for number in ids.reserve(IdMode.FILE, turn % 3 + 1)])


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database that several processes use."""
    name = request.param
    url = f"sqlite:///{tmp_path / 'ids.sqlite3'}" if name == "sqlite" else request.getfixturevalue(name).new_database()
    before = database.DB.obj
    database.use_database(url)
    orm.OrmSync.update_tables()
    yield url
    database.DB.close_all()
    database.DB.initialize(before)


def test_several_processes_get_different_numbers_without_gaps(shared: str) -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[list[int]] = context.Queue()
    started = [context.Process(target=take, args=(shared, queue)) for _ in range(PROCESSES)]
    for process in started:
        process.start()
    taken = [number for _ in started for number in queue.get(timeout=60)]
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(taken) == list(range(1, len(taken) + 1))


@pytest.mark.usefixtures("shared")
def test_each_series_begins_at_one_and_counts_for_itself() -> None:
    ids = LocalIds()
    assert ids.reserve(IdMode.JOB, 1) == range(1, 2)
    assert ids.reserve(IdMode.FILE, 10) == range(1, 11)
    assert ids.reserve(IdMode.JOB, 2) == range(2, 4)
