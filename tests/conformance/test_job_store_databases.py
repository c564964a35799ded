"""The job store on databases that go away, are locked, and have many users."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peewee
import pytest
from playhouse.pool import PooledMySQLDatabase, PooledPostgresqlDatabase

from pacifica.ingest import database, orm, tables
from pacifica.ingest.core.errors import ClaimLost, DatabaseDown, NoSpace
from pacifica.ingest.core.jobs import Claim
from pacifica.ingest.core.states import Kind, Phase, State, Step
from pacifica.ingest.local.clock import SystemClock
from pacifica.ingest.store import SqlJobStore
from pacifica.ingest.transactions import retried
from tests.conformance.jobs import JOB, at_once, claimed, everything, ready
from tests.harness import MariaDB, PostgreSQL
from tests.harness.command import base_environment, run

SOURCES = Path(__file__).parents[2] / "src"
#: Takes any job until there is none; prints which.
WORKER = """
import json, sys
from pacifica.ingest import database
from pacifica.ingest.local.clock import SystemClock
from pacifica.ingest.store import SqlJobStore
database.use_database(sys.argv[1])
store, done = SqlJobStore(SystemClock()), []
print("ready", flush=True)
sys.stdin.readline()
while claim := store.claim_any("worker"):
    done.append(claim.job_id)
    store.finish(claim)
print(json.dumps(done))
"""
#: Works, forks four workers, and works on.
FORKING = """
import json, os, sys
from pacifica.ingest import database
from pacifica.ingest.core.states import Kind
from pacifica.ingest.local.clock import SystemClock
from pacifica.ingest.store import SqlJobStore
database.use_database(sys.argv[1])
store = SqlJobStore(SystemClock())
assert store.claim(100, "parent")
reader, writer = os.pipe()
for _ in range(4):
    if os.fork() == 0:
        while claim := store.claim_any("child"):
            os.write(writer, f"{claim.job_id}\\n".encode())
        raise SystemExit
assert [os.wait()[1] for _ in range(4)] == [0] * 4
os.close(writer)
assert store.job(100).worker == "parent"
assert store.open(200, Kind.INGEST, "a", "upload")
with open(reader) as lines:
    print(json.dumps([int(line) for line in lines]))
database.DB.close_all()
"""
#: Holds the write lock of a SQLite file until a line comes.
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
connection.close()
"""


@contextmanager
def using(url: str, *, empty: bool = True) -> Iterator[SqlJobStore]:
    """A store on an empty database, or on one as it is."""
    before = database.DB.obj
    database.use_database(url)
    if empty:
        orm.OrmSync.update_tables()
    try:
        yield SqlJobStore(SystemClock())
    finally:
        database.DB.close_all()
        database.DB.initialize(before)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    found: str = request.getfixturevalue(request.param).new_database()
    return found


@pytest.fixture
def store(url: str) -> Iterator[SqlJobStore]:
    with using(url) as found:
        yield found


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> PostgreSQL | MariaDB:
    found: PostgreSQL | MariaDB = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a Python script that says a word and then waits for a line; returns when it said it."""
    env = base_environment(tmp_path) | {"PYTHONPATH": str(SOURCES)}
    started: list[subprocess.Popen[str]] = []

    def begin(script: str, *arguments: str) -> "subprocess.Popen[str]":
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", script, *arguments], env=env, **pipes))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline()
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


# --- many users


def test_processes_that_take_any_job_get_each_job_once(
    url: str, store: SqlJobStore, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    for job_id in range(100, 150):
        ready(store, job_id)
    workers = [start(WORKER, url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda worker: worker.communicate("go\n")[0], workers))
    done = [job_id for answer in answers for job_id in json.loads(answer)]
    assert sorted(done) == list(range(100, 150))
    assert {store.job(job_id).phase for job_id in done} == {Phase.DONE}


def test_forked_workers_and_their_parent_do_not_share_connections(url: str, store: SqlJobStore, tmp_path: Path) -> None:
    for job_id in range(100, 150):
        ready(store, job_id)
    env = base_environment(tmp_path) | {"PYTHONPATH": str(SOURCES)}
    done = json.loads(run([sys.executable, "-W", "error", "-c", FORKING, url], env=env))
    assert sorted(done) == list(range(101, 150))


def test_more_threads_than_connections_wait_for_each_other(store: SqlJobStore) -> None:
    assert all(at_once(40, lambda number: store.open(100 + number, Kind.INGEST, "a", "upload")))


def test_few_threads_write_at_once_and_who_only_reads_does_not_wait_for_them(url: str, store: SqlJobStore) -> None:
    ready(store)
    most = 1 if url.startswith("sqlite") else database.WRITERS
    inside = threading.Semaphore(most)
    met, gone = threading.Barrier(most + 1), threading.Barrier(most + 1)

    @retried(atomic=True)
    def write(number: int) -> None:
        assert inside.acquire(blocking=False), "one too many"
        if number < most:
            met.wait(10)
            gone.wait(10)
        inside.release()

    with ThreadPoolExecutor(20) as pool:
        first = [pool.submit(write, number) for number in range(most)]
        met.wait(10)
        others = [pool.submit(write, number) for number in range(most, 20)]
        assert store.job(JOB).phase is Phase.READY
        gone.wait(10)
        for writer in (*first, *others):
            writer.result()


def test_who_writes_already_does_not_wait_for_a_turn(store: SqlJobStore) -> None:
    within = retried(atomic=True)(lambda number: store.open(100 + number, Kind.INGEST, "a", "upload"))
    assert all(at_once(2 * database.WRITERS, within))


def test_a_connection_that_was_used_a_moment_ago_is_not_asked_whether_it_lives(
    server: PostgreSQL | MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = PooledPostgresqlDatabase if isinstance(server, PostgreSQL) else PooledMySQLDatabase
    asked: list[object] = []
    ask = kind._is_closed
    monkeypatch.setattr(kind, "_is_closed", lambda pool, conn: bool(asked.append(conn) or ask(pool, conn)))
    with using(server.new_database()) as store:
        ready(store)
        asked.clear()
        for _ in range(10):
            store.job(JOB)
        assert asked == []
        monkeypatch.setattr(database, "FRESH_S", 0.0)
        store.job(JOB)
        assert len(asked) == 1


def test_a_connection_that_died_a_moment_ago_is_replaced(server: PostgreSQL | MariaDB) -> None:
    with using(server.new_database()) as store:
        ready(store)
        for read in (lambda: store.job(JOB), lambda: store.claim(JOB, "worker").job):
            with database.DB.connection_context():
                pass
            for _, _, connection in list(database.DB.obj._connections):
                # As if the server had gone: the pool still believes in it.
                with socket.socket(fileno=os.dup(_number(connection))) as line:
                    line.shutdown(socket.SHUT_RDWR)
            assert read().job_id == JOB


def _number(connection: Any) -> int:
    """The descriptor of a connection."""
    return int(connection._sock.fileno() if hasattr(connection, "_sock") else connection.fileno())


def test_a_job_that_is_forced_while_its_owner_reports_ends_once(store: SqlJobStore) -> None:
    forced = threading.Event()

    def report(claim: Claim) -> bool:
        """Report until the claim is lost; whether that was before long."""
        try:
            while not forced.is_set():
                store.report(claim, Step.INGEST_FILES, 50)
            store.report(claim, Step.INGEST_FILES, 50)
        except ClaimLost:
            return True
        return False

    for job_id in range(100, 103):
        claim = claimed(store, job_id)
        forced.clear()
        with ThreadPoolExecutor(2) as pool:
            owners = [pool.submit(report, claim) for _ in range(2)]
            try:
                orm.update_state(job_id, State.FAILED, Step.INGEST_FILES, 0, "by hand")
            finally:
                forced.set()
            assert all(owner.result() for owner in owners)
        assert store.job(job_id).phase is Phase.FAILED
        assert store.status(job_id).reason == "by hand"


# --- one transaction


def test_a_method_that_fails_half_way_has_changed_nothing(store: SqlJobStore) -> None:
    claim = claimed(store)
    before = everything(store)[0:2]
    tables.JobEvent.drop_table()
    with pytest.raises((DatabaseDown, peewee.ProgrammingError)):
        store.fail(claim, Step.OPEN_TAR, "broken")
    assert (store.job(JOB), store.status(JOB)) == before


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    with using(url):
        pass
    # No page more than the empty tables have.
    full = (*database.SQLITE_PRAGMAS, ("max_page_count", 1))
    monkeypatch.setitem(database.OPTIONS["sqlite"], "pragmas", full)
    with using(url) as store, pytest.raises(NoSpace, match="disk of the database is full"):
        store.adopt(JOB, Kind.INGEST, "a" * 100_000, tmp_path)


def test_intents_whose_commit_was_not_answered_are_ours_when_asked_again(store: SqlJobStore) -> None:
    claim, other = claimed(store), claimed(store, 6)
    assert store._intend(claim, {0: 10, 1: 11}, mark=1) == {0, 1}
    assert store._intend(claim, {0: 10, 1: 11}, mark=1) == {0, 1}
    assert store._intend(claim, {0: 10, 2: 12}, mark=2) == {2}
    assert store._intend(other, {0: 10, 1: 11}, mark=1) == set()


@contextmanager
def statements(*verbs: str) -> Iterator[list[tuple[str, list[object]]]]:
    """The SQL that is run meanwhile, with its parameters."""
    seen: list[tuple[str, list[object]]] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if isinstance(record.msg, tuple) and record.msg[0].startswith(verbs):
                seen.append(record.msg)

    logger, listener = logging.getLogger("peewee"), Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    try:
        yield seen
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)


def test_a_window_costs_few_statements_however_many_files_the_job_has(store: SqlJobStore) -> None:
    claim = claimed(store)
    for start in (0, 10_000):
        window = {seq: seq for seq in range(start, start + 256)}
        with statements("INSERT", "UPDATE", "SELECT") as intending:
            store.intend(claim, window)
        with statements("INSERT", "UPDATE", "SELECT") as fulfilling:
            store.archived(claim, window.values())
        assert len(intending) <= 4
        assert len(fulfilling) <= 3


def test_no_query_reads_the_jobs_that_are_over(tmp_path: Path) -> None:
    with using(f"sqlite:///{tmp_path / 'plans.sqlite3'}") as store:
        with statements("SELECT") as seen:
            store.claim_any("worker")
            store.unclaimed(older_than_s=5)
            store.held()
            store.leftovers()
            store.file_ids(JOB)
            store.intents(JOB)
        assert len(seen) == 6
        for sql, parameters in seen:
            rows = database.DB.execute_sql(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
            plan = " ".join(row[3] for row in rows)
            assert "SEARCH" in plan, (sql, plan)
            assert "SCAN" not in plan, (sql, plan)


def test_no_update_of_a_job_locks_another_job(mariadb: MariaDB) -> None:
    with using(mariadb.new_database()) as store:
        with statements("UPDATE `ingest_job`") as seen:
            store.open(4, Kind.INGEST, "a", "upload")
            store.receiving(4, "upload")
            claim = claimed(store)
            store.beat(claim)
            store.take_over(store.job(JOB))
            store.hinted(store.job(JOB))
            store.retry(JOB)
            store.force(JOB, State.FAILED, Step.OPEN_TAR, 0, "")
            store.force(JOB, State.OK, Step.OPEN_TAR, 0, "")
            store.finish(claimed(store, 6))
            store.cleaned(6)
        assert len(seen) >= 12
        for sql, parameters in seen:
            keys = database.DB.execute_sql(f"EXPLAIN {sql}", parameters).fetchone()[4:6]
            assert set(keys) <= {"PRIMARY", None}, (sql, keys)


# --- what a server says of itself


@retried(atomic=True)
def told(sql: str) -> None:
    """Let the server raise what it would raise by itself."""
    database.DB.execute_sql(sql)


#: SQLSTATE of what another try, or an operator, may change: read-only; deadlock, serialisation, lock; full, broken and
#: damaged disk; too many connections; stop and start of the server; time limits that an operator set; the server's own fault.
POSTGRESQL_AWAY = (
    "25006 40001 40P01 55P03 53100 53200 53300 58030 XX000 XX001 57P01 57P02 57P03 57014 25P02 25P03 25P04 08006"
)
#: The same, as numbers of MySQL.
MYSQL_AWAY = "3 5 126 1290 1792 1836 1205 1213 1021 1030 1114 1040 1053 1203 1226 1317 1927 2013"
OURS = (peewee.DataError, peewee.IntegrityError, peewee.ProgrammingError)


@pytest.mark.parametrize("code", POSTGRESQL_AWAY.split())
def test_what_passes_in_postgresql_can_be_waited_for(postgresql: PostgreSQL, code: str) -> None:
    with using(postgresql.url, empty=False), pytest.raises(DatabaseDown, match="by itself"):
        told(f"DO $$ BEGIN RAISE EXCEPTION 'by itself' USING ERRCODE = '{code}'; END $$")


@pytest.mark.parametrize("code", ["22003", "22021", "23505", "42P01", "42703"])
def test_a_fault_of_ours_in_postgresql_is_not_waited_for(postgresql: PostgreSQL, code: str) -> None:
    with using(postgresql.url, empty=False), pytest.raises(OURS):
        told(f"DO $$ BEGIN RAISE EXCEPTION 'a fault of ours' USING ERRCODE = '{code}'; END $$")


@pytest.mark.parametrize("code", MYSQL_AWAY.split())
def test_what_passes_in_mariadb_can_be_waited_for(mariadb: MariaDB, code: str) -> None:
    with using(mariadb.url, empty=False), pytest.raises(DatabaseDown, match="by itself"):
        told(f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'by itself'")


@pytest.mark.parametrize("code", ["1062", "1064", "1146", "1264", "1406"])
def test_a_fault_of_ours_in_mariadb_is_not_waited_for(mariadb: MariaDB, code: str) -> None:
    with using(mariadb.url, empty=False), pytest.raises(OURS):
        told(f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'a fault of ours'")


@contextmanager
def read_only_postgresql(server: PostgreSQL, url: str) -> Iterator[None]:
    name = url.rpartition("/")[2]
    for value in ("on", "off"):
        server.query(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')
        # As after a failover: who was connected connects again.
        server.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        if value == "on":
            yield


@contextmanager
def read_only_mariadb(server: MariaDB) -> Iterator[None]:
    server.query("SET GLOBAL read_only = 1")
    try:
        yield
    finally:
        server.query("SET GLOBAL read_only = 0")


def test_a_server_that_became_read_only_is_waited_for(server: PostgreSQL | MariaDB) -> None:
    url = server.new_database()
    if isinstance(server, MariaDB):
        # Who may do anything may write all the same.
        name = url.rpartition("/")[2]
        server.query(f"CREATE USER plain@127.0.0.1; GRANT ALL ON `{name}`.* TO plain@127.0.0.1")
        url = url.replace("pacifica:pacifica", "plain")
    with using(url) as store:
        claim = claimed(store)
        before = store.job(JOB)
        with read_only_mariadb(server) if isinstance(server, MariaDB) else read_only_postgresql(server, url):
            for write in (
                lambda: store.beat(claim),
                lambda: store.open(6, Kind.INGEST, "a", "b"),
                lambda: store.fail(claim, Step.OPEN_TAR, "broken"),
                lambda: store.take_over(before),
            ):
                with pytest.raises(DatabaseDown) as raised:
                    write()
                assert raised.value.retryable
            assert store.job(JOB) == before
        store.finish(claim)


def test_a_sqlite_file_that_became_read_only_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    with using(url) as store:
        claim = claimed(store)
    monkeypatch.setitem(database.OPTIONS["sqlite"], "pragmas", (*database.SQLITE_PRAGMAS, ("query_only", 1)))
    with using(url, empty=False) as store, pytest.raises(DatabaseDown, match="readonly"):
        store.finish(claim)


def test_a_damaged_sqlite_file_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    with using(f"sqlite:///{path}") as store:
        ready(store)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with using(f"sqlite:///{path}", empty=False) as store, pytest.raises(DatabaseDown, match="malformed"):
        store.claim(JOB, "worker")


# --- servers that go away


def test_a_server_that_died_and_came_back_is_used_again_without_a_word(server: PostgreSQL | MariaDB) -> None:
    with using(server.new_database()) as store:
        ready(store)
        at_once(8, lambda _: store.job(JOB))  # leaves connections of its own in the pool
        server.kill()
        server.restart()
        assert store.claim(JOB, "worker") is not None
        assert len(at_once(8, lambda _: store.job(JOB))) == 8


def test_a_server_that_is_away_is_said_to_be_away(server: PostgreSQL | MariaDB) -> None:
    with using(server.new_database()) as store:
        claim = claimed(store)
        server.kill()
        for action in (lambda: store.beat(claim), lambda: store.job(JOB), lambda: store.open(6, Kind.INGEST, "a", "b")):
            with pytest.raises(DatabaseDown) as raised:
                action()
            assert raised.value.retryable
        server.restart()
        store.beat(claim)
        assert store.open(6, Kind.INGEST, "a", "b")


def test_what_was_answered_survives_a_server_that_dies_at_any_moment(server: PostgreSQL | MariaDB) -> None:
    with using(server.new_database()) as store:
        claim = claimed(store)
        answered: dict[int, int] = {}
        stop, running = threading.Event(), threading.Event()

        def intend() -> None:
            file_id = 0
            while not stop.is_set():
                file_id += 1
                try:
                    if store.intend(claim, {file_id: file_id}):
                        answered[file_id] = file_id
                except DatabaseDown:
                    continue
                if len(answered) > 20:
                    running.set()

        with ThreadPoolExecutor(1) as pool:
            owner = pool.submit(intend)
            for _ in range(2):
                running.clear()
                assert running.wait(30)
                server.kill()
                server.restart()
            running.clear()
            assert running.wait(30)
            stop.set()
            owner.result()
        found = store.intents(JOB)
        assert answered.items() <= found.items()
        assert all(seq == file_id for seq, file_id in found.items())


def test_a_locked_sqlite_file_is_waited_for(tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]) -> None:
    path = tmp_path / "jobs.sqlite3"
    with using(f"sqlite:///{path}") as store, ThreadPoolExecutor(2) as pool:
        ready(store)
        holder = start(HOLDER, str(path))
        writers: list[Future[object]] = [
            pool.submit(store.claim, JOB, "worker"),
            pool.submit(orm.update_state, 9, "OK", "open tar", 0),
        ]
        with pytest.raises(TimeoutError):
            writers[0].result(timeout=2)
        assert not writers[1].done()
        assert store.status(JOB).step is Step.UPLOADING
        holder.communicate("go\n")
        assert writers[0].result() is not None
        writers[1].result()
        assert orm.read_state(9).task == "open tar"
