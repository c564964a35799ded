"""Databases of earlier releases, and those that a migration was cut off in, become like new ones."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import peewee
import pytest

from pacifica.ingest import database, orm, tables
from pacifica.ingest.core.errors import UnsafeSchema
from tests.harness import MariaDB
from tests.harness.command import base_environment
from tests.migration.releases import COMPLETE, RELEASES, ROWS, Release
from tests.migration.schemas import Schema, schema_of

NewDatabase = Callable[[], str]
Use = Callable[[str], None]

NEWEST = (orm.SCHEMA_MAJOR, orm.SCHEMA_MINOR)
#: Migrates; dies without a word before the n-th statement that changes anything.
CRASH = """
import logging, os, sys
left = int(sys.argv[2])
class Killer(logging.Handler):
    def emit(self, record):
        global left
        sql = record.msg[0] if isinstance(record.msg, tuple) else ""
        if sql.startswith(("CREATE", "ALTER", "UPDATE", "INSERT", "DROP")):
            left -= 1
            if left == 0:
                os._exit(9)
logging.getLogger("peewee").addHandler(Killer())
logging.getLogger("peewee").setLevel(logging.DEBUG)
from pacifica.ingest import database, orm
database.use_database(sys.argv[1])
orm.OrmSync.update_tables()
"""


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> Release:
    return RELEASES[request.param]


@pytest.fixture
def fresh(new_database: NewDatabase, use: Use) -> Schema:
    """What a new database looks like."""
    use(new_database())
    orm.OrmSync.update_tables()
    return schema_of(database.DB.obj)


@pytest.fixture
def crash(tmp_path: Path) -> Iterator[Callable[[str, int], "subprocess.Popen[bytes]"]]:
    """Start a migration that dies before its n-th statement; 0: that does not die."""
    env = base_environment(tmp_path) | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    started: list[subprocess.Popen[bytes]] = []

    def start(url: str, before: int) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen([sys.executable, "-c", CRASH, url, str(before)], env=env))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def versions() -> dict[str, int]:
    return {row.part: row.value for row in orm.IngestStateSystem.select()}


def test_a_migrated_database_equals_a_new_one(
    release: Release, new_database: NewDatabase, fresh: Schema, use: Use, tmp_path: Path
) -> None:
    url = new_database()
    release.make(url, tmp_path)
    use(url)
    assert orm.IngestStateSystem.get_version() == release.schema
    orm.OrmSync.update_tables()
    assert schema_of(database.DB.obj) == fresh
    assert orm.IngestStateSystem.get_version() == NEWEST
    assert versions() == {"major": 2, "minor": 2}


def test_rows_survive_a_migration_and_ended_jobs_are_complete(
    release: Release, new_database: NewDatabase, use: Use, tmp_path: Path
) -> None:
    url = new_database()
    release.make(url, tmp_path)
    use(url)
    columns = (orm.IngestState.job_id, orm.IngestState.created, orm.IngestState.updated)
    times = list(orm.IngestState.select(*columns).order_by(orm.IngestState.job_id).tuples())
    orm.OrmSync.update_tables()
    found = [orm.read_state(job_id) for job_id, *_ in ROWS]
    assert [(row.job_id, row.state, row.task, float(row.task_percent), row.exception) for row in found] == ROWS
    assert {row.job_id: row.complete for row in found} == COMPLETE
    assert list(orm.IngestState.select(*columns).order_by(orm.IngestState.job_id).tuples()) == times


def test_the_original_reads_and_updates_what_we_migrated(
    release: Release, new_database: NewDatabase, use: Use, tmp_path: Path
) -> None:
    original = RELEASES["0.4.1"]
    url = new_database()
    release.make(url, tmp_path)
    use(url)
    orm.OrmSync.update_tables()
    orm.update_state(12, "OK", "open tar", 25, "")
    found = original.read(url, tmp_path, [*COMPLETE, 12])
    assert found["safe"]
    assert found["rows"] == [[*row, COMPLETE[row[0]]] for row in ROWS] + [[12, "OK", "open tar", 25, "", False]]
    original.write(url, tmp_path, [(12, "FAILED", "open tar", 0, "no tar"), (13, "OK", "UPLOADING", 0, "")])
    ours = [orm.read_state(job_id) for job_id in (12, 13)]
    assert [(row.state, row.exception, row.complete) for row in ours] == [("FAILED", "no tar", True), ("OK", "", False)]


def test_the_original_works_on_a_new_database(new_database: NewDatabase, use: Use, tmp_path: Path) -> None:
    original = RELEASES["0.4.1"]
    url = new_database()
    use(url)
    orm.OrmSync.update_tables()
    original.write(url, tmp_path, ROWS)
    assert original.read(url, tmp_path, list(COMPLETE))["rows"] == [[*row, COMPLETE[row[0]]] for row in ROWS]


def test_a_migration_that_was_cut_off_anywhere_is_finished_by_the_next(
    new_database: NewDatabase,
    fresh: Schema,
    use: Use,
    crash: Callable[[str, int], "subprocess.Popen[bytes]"],
    tmp_path: Path,
) -> None:
    old = new_database()
    RELEASES["0.3.3"].make(old, tmp_path)
    use(old)
    before = schema_of(database.DB.obj)
    url, crashes = copy(old, new_database), 0
    while crash(url, crashes + 1).wait() == 9:
        crashes += 1
        use(url)
        if old.startswith("mysql"):
            # It has no transactions over tables: what is half done stays, and is finished.
            orm.OrmSync.update_tables()
            assert schema_of(database.DB.obj) == fresh
            assert {row.job_id: row.complete for row in orm.IngestState.select()} == COMPLETE
            url = copy(old, new_database)
        else:
            assert schema_of(database.DB.obj) == before
            assert orm.IngestStateSystem.get_version() == (1, 0)
    assert crashes > 15
    use(url)
    assert schema_of(database.DB.obj) == fresh
    assert orm.IngestStateSystem.get_version() == NEWEST


@pytest.mark.parametrize("version", ["0.3.3", "0.4.1"])
def test_what_a_failed_migration_of_an_old_release_left_is_finished(
    new_database: NewDatabase, fresh: Schema, use: Use, tmp_path: Path, version: str
) -> None:
    release = RELEASES[version]
    url = new_database()
    RELEASES["0.1.2"].make(url, tmp_path)
    script = f"try:\n    {release.create}\nexcept Exception as fault:\n    print('failed')"
    failed = "failed" in release.run(script, url, tmp_path)
    assert failed == (url.partition(":")[0] in release.fails_on)
    use(url)
    orm.OrmSync.update_tables()
    assert schema_of(database.DB.obj) == fresh
    assert {row.job_id: row.complete for row in orm.IngestState.select()} == COMPLETE


def test_an_empty_database_that_was_cut_off_is_no_database_of_a_version(new_database: NewDatabase, use: Use) -> None:
    use(new_database())
    orm.IngestStateSystem.create_table()
    assert orm.IngestStateSystem.get_version() == (0, 0)
    orm.IngestStateSystem.insert(part="major", value=2).execute()
    assert orm.IngestStateSystem.get_version() == (0, 0)
    orm.OrmSync.update_tables()
    assert orm.IngestStateSystem.get_version() == NEWEST


@pytest.mark.parametrize("old", [True, False])
def test_processes_that_migrate_at_once_all_succeed(
    new_database: NewDatabase,
    fresh: Schema,
    use: Use,
    crash: Callable[[str, int], "subprocess.Popen[bytes]"],
    tmp_path: Path,
    *,
    old: bool,
) -> None:
    url = new_database()
    if old:
        RELEASES["0.3.3"].make(url, tmp_path)
    started = [crash(url, 0) for _ in range(5)]
    assert [process.wait() for process in started] == [0] * 5
    use(url)
    assert schema_of(database.DB.obj) == fresh


def test_migrating_twice_changes_nothing(new_database: NewDatabase, fresh: Schema, use: Use) -> None:
    use(new_database())
    orm.OrmSync.update_tables()
    orm.update_state(5, "OK", "open tar", 1)
    orm.OrmSync.update_tables()
    assert schema_of(database.DB.obj) == fresh
    assert orm.read_state(5).task == "open tar"


@pytest.mark.parametrize("version", [(2, 3), (3, 0), (0, 1)])
def test_a_version_that_we_do_not_know_is_not_migrated(
    new_database: NewDatabase, use: Use, version: tuple[int, int]
) -> None:
    use(new_database())
    orm.OrmSync.update_tables()
    set_version(*version)
    with pytest.raises(UnsafeSchema, match=rf"schema {version[0]}\.{version[1]}"):
        orm.OrmSync.update_tables()
    assert orm.IngestStateSystem.get_version() == version


@pytest.mark.parametrize(
    ("version", "safe", "equal"),
    [
        ((0, 0), False, False),
        ((1, 0), False, False),
        ((2, 0), True, False),
        ((2, 1), True, False),
        ((2, 2), True, True),
        ((2, 3), True, False),
    ],
)
def test_what_is_safe_and_what_is_equal(
    new_database: NewDatabase, use: Use, version: tuple[int, int], *, safe: bool, equal: bool
) -> None:
    use(new_database())
    assert not orm.IngestStateSystem.is_safe()
    orm.OrmSync.update_tables()
    set_version(*version)
    assert (orm.IngestStateSystem.is_safe(), orm.IngestStateSystem.is_equal()) == (safe, equal)


@pytest.mark.parametrize("version", [(0, 0), (1, 0), (3, 0)])
def test_a_service_refuses_another_major_version_and_says_what_to_run(
    new_database: NewDatabase, use: Use, version: tuple[int, int]
) -> None:
    use(new_database())
    orm.OrmSync.update_tables()
    set_version(*version)
    with pytest.raises(UnsafeSchema, match="pacifica-ingest-cmd dbsync"):
        orm.prepare_schema()
    assert orm.IngestStateSystem.get_version() == version


def test_a_service_refuses_an_empty_database(new_database: NewDatabase, use: Use) -> None:
    use(new_database())
    with pytest.raises(UnsafeSchema, match="pacifica-ingest-cmd dbsync"):
        orm.prepare_schema()
    assert schema_of(database.DB.obj) == {}


def test_a_service_adds_by_itself_what_a_minor_version_lacks(
    new_database: NewDatabase, fresh: Schema, use: Use, tmp_path: Path
) -> None:
    url = new_database()
    RELEASES["0.4.1"].make(url, tmp_path)
    use(url)
    orm.prepare_schema()
    assert schema_of(database.DB.obj) == fresh


@pytest.mark.parametrize("create", [True, False])
def test_a_service_works_on_a_newer_minor_version(new_database: NewDatabase, use: Use, *, create: bool) -> None:
    use(new_database())
    orm.OrmSync.update_tables()
    set_version(2, 3)
    orm.prepare_schema(create=create)
    assert orm.IngestStateSystem.get_version() == (2, 3)


def test_a_standalone_service_makes_its_tables_and_refuses_a_newer_major_version(
    new_database: NewDatabase, fresh: Schema, use: Use
) -> None:
    use(new_database())
    orm.prepare_schema(create=True)
    assert schema_of(database.DB.obj) == fresh
    set_version(3, 0)
    with pytest.raises(UnsafeSchema):
        orm.prepare_schema(create=True)


def test_columns_that_2_1_lacked_are_added_and_its_code_can_still_insert_rows(
    new_database: NewDatabase, fresh: Schema, use: Use
) -> None:
    use(new_database())
    orm.OrmSync.update_tables()
    for column in tables.COLUMNS_2_2:
        database.DB.execute_sql(f"ALTER TABLE {column.model._meta.table_name} DROP COLUMN {column.column_name}")
    set_version(2, 1)
    orm.prepare_schema()
    assert schema_of(database.DB.obj) == fresh
    assert all(column.null and column.default is None for column in tables.COLUMNS_2_2)


@pytest.mark.parametrize("charset", ["latin1", "utf8mb3"])
def test_a_reason_holds_every_character_also_in_a_database_of_another_character_set(
    mariadb: MariaDB, use: Use, tmp_path: Path, charset: str
) -> None:
    url = mariadb.new_database()
    mariadb.query(f"ALTER DATABASE `{url.rpartition('/')[2]}` CHARACTER SET {charset}")
    RELEASES["0.4.1"].make(url, tmp_path)
    use(url)
    orm.OrmSync.update_tables()
    orm.update_state(5, "FAILED", "ingest files", 0, "日本語 𝔘 🧪")
    tables.JobEvent.insert(job_id=5, name="failed", text="🧪").execute()
    assert orm.read_state(5).exception == "日本語 𝔘 🧪"
    assert tables.JobEvent.get().text == "🧪"
    assert orm.read_state(8).exception == "Prüfsumme falsch"


def test_mysql_refuses_what_it_would_have_to_cut(mariadb: MariaDB, use: Use) -> None:
    use(mariadb.new_database())
    orm.OrmSync.update_tables()
    with pytest.raises(peewee.DataError):
        orm.update_state(5, "x" * 300, "open tar", 0)


def set_version(major: int, minor: int) -> None:
    """Make the database say that it has a version."""
    for part, value in (("major", major), ("minor", minor)):
        orm.IngestStateSystem.update(value=value).where(orm.IngestStateSystem.part == part).execute()


def copy(old: str, new_database: NewDatabase) -> str:
    """Copy a MySQL database; another one is given back itself, as a transaction keeps it as it is."""
    if not old.startswith("mysql"):
        return old
    new = new_database()
    other = database.open_database(new)
    with other.connection_context():
        for table in ("ingeststate", "ingeststatesystem"):
            source = f"`{old.rpartition('/')[2]}`.{table}"
            other.execute_sql(f"CREATE TABLE {table} LIKE {source}")
            other.execute_sql(f"INSERT INTO {table} SELECT * FROM {source}")
    other.close_all()
    return new
