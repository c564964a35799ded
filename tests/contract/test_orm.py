"""The documented names of `pacifica.ingest.orm`, and what programs that use them rely on."""

import inspect
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import peewee
import pytest

from pacifica.ingest import database, orm, tables
from pacifica.ingest.core.errors import BadConfiguration
from pacifica.ingest.core.states import Kind
from pacifica.ingest.local.clock import SystemClock
from pacifica.ingest.ports import Receipt
from pacifica.ingest.store import SqlJobStore
from tests.harness import MariaDB, PostgreSQL, Server
from tests.harness.command import base_environment, run

SOURCES = Path(__file__).parents[2] / "src"
#: Name → its parameters.
SIGNATURES = {
    "IngestState.atomic": [],
    "IngestState.database_close": [],
    "IngestState.database_connect": [],
    "IngestStateSystem.get_or_create_version": [],
    "IngestStateSystem.get_version": [],
    "IngestStateSystem.is_equal": [],
    "IngestStateSystem.is_safe": [],
    "OrmSync.dbconn_blocking": [],
    "OrmSync.update_0_0_to_1_0": [],
    "OrmSync.update_1_0_to_2_0": [],
    "OrmSync.update_tables": [],
    "read_state": ["job_id"],
    "update_state": ["job_id", "state", "task", "task_percent", "exception"],
}
FIELDS = ["job_id", "state", "task", "task_percent", "exception", "created", "updated", "complete"]
#: One bound database of each kind that somebody may bring.
BOUND = {
    "memory": lambda _: peewee.SqliteDatabase(":memory:"),
    "shared memory": lambda _: peewee.SqliteDatabase("file:pacifica?mode=memory&cache=shared", uri=True),
    "file": lambda folder: peewee.SqliteDatabase(folder / "bound.sqlite3"),
}


def python(script: str, folder: Path, **env: str) -> str:
    """Run Python with our sources; returns what it prints."""
    environment = base_environment(folder) | {"PYTHONPATH": str(SOURCES), "HOME": str(folder), **env}
    return run([sys.executable, "-W", "error", "-c", script], env=environment, cwd=folder).strip()


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[None]:
    """An empty SQLite database of this process."""
    before = database.DB.obj
    database.use_database(f"sqlite:///{tmp_path / 'configured.sqlite3'}")
    orm.OrmSync.update_tables()
    yield
    database.DB.close_all()
    database.DB.initialize(before)


@pytest.fixture(params=BOUND)
def bound(request: pytest.FixtureRequest, tmp_path: Path, configured: None) -> Iterator[Any]:  # noqa: ARG001 (a fixture)
    """A caller's own database, open, with the documented models bound to it."""
    other = BOUND[request.param](tmp_path)
    models = [orm.IngestState, orm.IngestStateSystem]
    with other.bind_ctx(models), other.connection_context():
        other.create_tables(models)
        yield other


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_documented_function_takes_the_documented_parameters(name: str) -> None:
    found: Any = orm
    for part in name.split("."):
        found = getattr(found, part)
    assert list(inspect.signature(found).parameters) == SIGNATURES[name]


def test_the_reason_has_a_default() -> None:
    assert inspect.signature(orm.update_state).parameters["exception"].default == ""


def test_documented_values() -> None:
    assert [field.name for field in orm.IngestState._meta.sorted_fields] == FIELDS
    assert orm.SCHEMA_MAJOR == 2
    assert orm.OrmSync.versions[:3] == [(0, 0), (1, 0), (2, 0)]
    assert orm.OrmSync.versions[-1] == (orm.SCHEMA_MAJOR, orm.SCHEMA_MINOR)
    assert issubclass(orm.IngestState, orm.BaseModel)
    assert issubclass(orm.IngestStateSystem, orm.BaseModel)


def test_each_step_between_versions_has_its_method() -> None:
    for before, after in zip(orm.OrmSync.versions, orm.OrmSync.versions[1:], strict=False):
        assert callable(getattr(orm.OrmSync, f"update_{before[0]}_{before[1]}_to_{after[0]}_{after[1]}"))


def test_all_names_exist_and_the_documented_ones_are_among_them() -> None:
    assert {name.partition(".")[0] for name in SIGNATURES} | {"BaseModel", "DB", "SCHEMA_MINOR"} <= set(orm.__all__)
    assert all(hasattr(orm, name) for name in orm.__all__)


def test_importing_opens_nothing_and_reads_no_environment(tmp_path: Path) -> None:
    script = "import pacifica.ingest.orm, os; print(os.listdir('.'))"
    assert python(script, tmp_path, PEEWEE_URL="nonsense") == "[]"


@pytest.mark.parametrize("url", ["sqliteext:///db.sqlite3", "sqlite:///db.sqlite3", "sqlite+pool:///db.sqlite3", ""])
def test_the_first_use_opens_the_configured_database(tmp_path: Path, url: str) -> None:
    script = """
from pacifica.ingest import orm
orm.OrmSync.dbconn_blocking()
orm.OrmSync.update_tables()
orm.update_state(5, "OK", "open tar", 50)
print(orm.IngestStateSystem.is_equal(), orm.read_state(5).task)
"""
    assert python(script, tmp_path, **({"PEEWEE_URL": url} if url else {})) == "True open tar"
    assert (tmp_path / "db.sqlite3").exists()


def test_an_update_that_is_the_first_use_also_moves_the_job(tmp_path: Path) -> None:
    make = """
from pacifica.ingest import orm, tables
orm.OrmSync.update_tables()
tables.JobRow.insert(job_id=5, kind="ingest", phase="running", worker="somebody").execute()
"""
    python(make, tmp_path)
    python("from pacifica.ingest import orm; orm.update_state(5, 'FAILED', 'open tar', 0)", tmp_path)
    show = (
        "from pacifica.ingest import tables; row = tables.JobRow.get(); print(row.phase, row.epoch, repr(row.worker))"
    )
    assert python(show, tmp_path) == "failed 1 ''"


def test_threads_that_use_it_first_at_once_share_one_database(tmp_path: Path) -> None:
    script = """
import threading
from concurrent.futures import ThreadPoolExecutor
from pacifica.ingest import database, orm
barrier = threading.Barrier(8)
def first(number):
    barrier.wait()
    database.DB.is_closed()
    return id(database.DB.obj)
with ThreadPoolExecutor(8) as pool:
    print(len(set(pool.map(first, range(8)))))
"""
    assert python(script, tmp_path) == "1"


def test_a_caller_can_bind_the_models_to_a_database_of_its_own(bound: Any) -> None:
    orm.update_state(5, "OK", "open tar", 50)
    orm.update_state("5", "FAILED", "ingest files", "12.5", "broken")
    record = orm.read_state(5)
    assert (record.job_id, record.state, record.task) == (5, "FAILED", "ingest files")
    assert (float(record.task_percent), record.exception, record.complete) == (12.5, "broken", True)
    assert record.created <= record.updated
    assert not bound.is_closed()
    assert bound.table_exists("ingeststate")
    assert tables.JobRow._meta.database is database.DB


def test_a_bound_database_can_be_migrated(tmp_path: Path, configured: None) -> None:  # noqa: ARG001 (a fixture)
    other = peewee.SqliteDatabase(tmp_path / "other.sqlite3")
    with other.bind_ctx([orm.IngestState, orm.IngestStateSystem]):
        assert not orm.IngestStateSystem.is_safe()
        orm.OrmSync.update_tables()
        assert orm.IngestStateSystem.is_equal()
    assert other.table_exists("ingest_job")
    assert tables.JobRow._meta.database is database.DB
    other.close()


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("job_id", [None, 0, -1, "-5"])
def test_an_id_that_cannot_be_one_is_neither_written_nor_found(job_id: Any) -> None:
    orm.update_state(job_id, "OK", "open tar", 0)
    assert orm.IngestState.select().count() == 0
    record = orm.read_state(job_id)
    assert (record.state, record.task, record.task_percent) == ("DATA_ACCESS_ERROR", "read_state", 0)


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("job_id", [5, 2**63 - 1, 2**63, 10**30])
def test_an_unknown_id_does_not_exist(job_id: int) -> None:
    with pytest.raises(peewee.DoesNotExist):
        orm.read_state(job_id)


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(
    ("state", "task", "percent", "complete"),
    [
        ("FAILED", "open tar", 0, True),
        ("OK", "ingest metadata", 100, True),
        ("OK", "ingest metadata", "100", True),
        ("OK", "ingest metadata", 99.9, False),
        ("OK", "ingest files", 100, False),
    ],
)
def test_what_counts_as_complete(state: str, task: str, percent: float, *, complete: bool) -> None:
    orm.update_state(5, state, task, percent)
    assert orm.read_state(5).complete is complete


@pytest.mark.usefixtures("configured")
def test_an_update_keeps_the_time_of_creation() -> None:
    orm.update_state(5, "OK", "open tar", 0)
    before = orm.read_state(5)
    orm.update_state(5, "OK", "open tar", 1)
    after = orm.read_state(5)
    assert after.created == before.created
    assert after.updated > before.updated
    assert abs(datetime.now(UTC).replace(tzinfo=None) - after.updated).total_seconds() < 60


@pytest.mark.usefixtures("configured")
def test_a_live_state_of_a_job_that_is_over_is_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    store = SqlJobStore(SystemClock())
    store.open(5, Kind.INGEST, "a", "upload")
    store.accept(5, "upload", Receipt(path=Path("/staging/5.tar"), size_bytes=1))
    claim = store.claim(5, "worker")
    assert claim
    store.finish(claim)
    orm.update_state(5, "OK", "open tar", 50)
    assert orm.read_state(5).complete
    assert "a job that is over" in caplog.text
    orm.update_state(5, "FAILED", "open tar", 0, "by hand")
    assert orm.read_state(5).state == "FAILED"


@pytest.mark.usefixtures("configured")
def test_updates_of_one_new_job_at_once_all_succeed() -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: orm.update_state(number // 8, "OK", "open tar", number), range(8, 88)))
    assert orm.IngestState.select().count() == 10


@pytest.mark.usefixtures("configured")
def test_atomic_undoes_what_was_not_finished() -> None:
    @orm.IngestState.atomic()
    def unfinished() -> None:
        orm.update_state(5, "OK", "open tar", 0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        unfinished()
    assert orm.IngestState.select().count() == 0


@pytest.mark.usefixtures("configured")
def test_connecting_and_closing_can_be_repeated() -> None:
    for action in (orm.IngestState.database_connect, orm.IngestState.database_close):
        action()
        action()
    assert database.DB.is_closed()


@pytest.mark.usefixtures("configured")
def test_a_version_is_written_where_there_is_none() -> None:
    rows = orm.IngestStateSystem.get_or_create_version()
    assert [row.value for row in rows] == [orm.SCHEMA_MAJOR, orm.SCHEMA_MINOR]
    orm.IngestStateSystem.drop_table()
    assert orm.IngestStateSystem.get_or_create_version() == (0, 0)
    assert orm.IngestStateSystem.get_version() == (0, 0)


@pytest.mark.parametrize(
    "url", ["nonsense", "http://host/database", "postgresql://user:secret@host:port/database", "mysql://user:secret@/"]
)
def test_a_url_that_cannot_be_used_is_named_without_its_password(url: str) -> None:
    with pytest.raises(BadConfiguration, match="peewee_url") as raised:
        database.open_database(url)
    assert "secret" not in str(raised.value)


def test_options_in_the_url_beat_ours(tmp_path: Path) -> None:
    pool = database.open_database(f"sqlite:///{tmp_path / 'db'}?max_connections=3")
    assert pool._max_connections == 3


@pytest.fixture(params=[PostgreSQL, MariaDB])
def absent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A configured database server that does not run yet."""
    server: PostgreSQL | MariaDB = request.param()
    monkeypatch.setenv("PEEWEE_URL", server.url)
    before = database.DB.obj
    database.use_database(server.url)
    yield server
    database.DB.close_all()
    database.DB.initialize(before)
    server.close()


def test_a_server_that_comes_up_meanwhile_is_waited_for(absent: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_CONNECT_ATTEMPTS", "200")
    monkeypatch.setenv("DATABASE_CONNECT_WAIT", "1")

    def connect() -> Any:
        orm.OrmSync.dbconn_blocking()
        try:
            return database.DB.execute_sql("SELECT 1").fetchone()[0]
        finally:
            orm.IngestState.database_close()

    with pytest.raises(peewee.OperationalError):
        orm.IngestState.database_connect()
    with ThreadPoolExecutor(1) as pool:
        connected = pool.submit(connect)
        absent.start()
        assert connected.result() == 1


def test_a_server_that_never_comes_is_given_up(absent: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not absent.running
    monkeypatch.setenv("DATABASE_CONNECT_ATTEMPTS", "3")
    monkeypatch.setenv("DATABASE_CONNECT_WAIT", "0")
    with pytest.raises(peewee.OperationalError, match="did not answer 3 times"):
        orm.OrmSync.dbconn_blocking()


def test_a_forked_process_leaves_the_connections_of_its_parent_alone(postgresql: PostgreSQL, tmp_path: Path) -> None:
    script = f"""
import json, os
from pacifica.ingest import database, orm
database.use_database({postgresql.new_database()!r})
orm.OrmSync.update_tables()
def session():
    return database.DB.execute_sql("SELECT pg_backend_pid()").fetchone()[0]
orm.IngestState.database_connect()
ours = session()
reader, writer = os.pipe()
if os.fork() == 0:
    orm.update_state(5, "OK", "open tar", 0)
    with database.DB.connection_context():
        os.write(writer, json.dumps(session()).encode())
    raise SystemExit
os.wait()
print(json.dumps([ours, session(), json.loads(os.read(reader, 100)), orm.read_state(5).task]))
os.close(reader), os.close(writer)
database.DB.close_all()
"""
    before, after, childs, task = json.loads(python(script, tmp_path))
    assert before == after != childs
    assert task == "open tar"
