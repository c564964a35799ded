"""The database of this process: how it is opened, and what a fork does to it.

Not the tables (`orm`) and not what is done in them (`store`, `local`).  Importing opens nothing; the first use opens the
configured database.
"""

import functools
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import peewee
from playhouse import db_url
from playhouse.pool import PooledDatabase, PooledMySQLDatabase, PooledPostgresqlDatabase

from pacifica.ingest import config
from pacifica.ingest.core.errors import BadConfiguration

__all__ = [
    "DB",
    "alone",
    "change",
    "change_each",
    "connected",
    "found",
    "insert",
    "insert_all",
    "insert_new",
    "insert_once",
    "open_database",
    "queued",
    "use_database",
]

#: Connections of one process at most; each is used for one short transaction at a time.
MAX_CONNECTIONS = 10
#: How long, in seconds, a thread waits for a free connection.
POOL_WAIT_S = 30
#: A connection that was used less than so many seconds ago is taken to live.
FRESH_S = 5.0
#: Threads of one process that write at once, where the database takes more than one; and how long, in seconds, the others
#: wait for their turn.
WRITERS = 2
WRITE_WAIT_S = 30
#: How long, in seconds, SQLite waits for the lock of another process.
SQLITE_BUSY_S = 30
#: How long, in seconds, MySQL may take for one statement; a migration of many rows takes the longest.
MYSQL_SILENCE_S = 600

#: Serialises migrations of one database, which may take that many seconds.
MIGRATION_LOCK = 7_013_066
MIGRATION_WAIT_S = 600

#: First the patience, as switching to WAL needs it already.  WAL lets readers and one writer work at once; FULL makes a
#: commit durable before it returns.
SQLITE_PRAGMAS = (("busy_timeout", SQLITE_BUSY_S * 1000), ("journal_mode", "wal"), ("synchronous", "full"))

#: Names of a scheme that mean the same.
SAME_SCHEME = {"sqliteext": "sqlite", "postgres": "postgresql"}

OPTIONS: dict[str, dict[str, object]] = {
    # The pool hands a connection from thread to thread, to one at a time.
    "sqlite": {"pragmas": SQLITE_PRAGMAS, "check_same_thread": False},
    # A host that vanished without a word is noticed after about a minute.
    "postgresql": {
        "connect_timeout": 10,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    },
    "mysql": {
        "connect_timeout": 10,
        "read_timeout": MYSQL_SILENCE_S,
        "write_timeout": MYSQL_SILENCE_S,
        # MySQL counts changed rows unless it is asked for found ones (CLIENT_FOUND_ROWS).
        "client_flag": 2,
        "charset": "utf8mb4",
        # An error instead of a text that was silently cut.
        "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
        # As in the other databases: a statement sees what others committed before it.
        "init_command": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    },
}
POOL = {"max_connections": MAX_CONNECTIONS, "timeout": POOL_WAIT_S, "stale_timeout": 300}


class _ConfiguredDatabase(peewee.DatabaseProxy):
    """The database of this process; opened from the configuration when nobody gave another."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (a proxy)
        with _opening[0]:
            if self.obj is None:
                use_database(config.load_settings().database.peewee_url)
        return getattr(self.obj, name)


_opening = [threading.RLock()]
_writing = [threading.Semaphore()]
DB = _ConfiguredDatabase()
_url_in_use: list[str] = []
#: Connections that a fork inherited: closing them here would end the parent's sessions, so they are kept and not touched.
_inherited: list[object] = []


class _Trusting(PooledDatabase):  # type: ignore[misc]  # peewee has no types
    """A pool that asks the server whether a connection lives only when it was idle for a while.

    peewee asks each time, which is a round trip more for transactions that have a few.  A connection that dies meanwhile is
    met by `transactions`, which tries again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (peewee has no types)
        super().__init__(*args, **kwargs)
        #: When connections that are free were used last.
        self._used: dict[object, float] = {}

    def _is_closed(self, conn: object) -> bool:
        idle_s = time.monotonic() - self._used.pop(self.conn_key(conn), -math.inf)
        return idle_s >= FRESH_S and bool(super()._is_closed(conn))

    def _close(self, conn: object, close_conn: bool = False) -> None:  # noqa: FBT001, FBT002 (peewee's)
        self._used[self.conn_key(conn)] = time.monotonic()
        super()._close(conn, close_conn=close_conn)


class TrustingPostgresqlDatabase(_Trusting, PooledPostgresqlDatabase):  # type: ignore[misc]
    """PostgreSQL."""


class TrustingMySQLDatabase(_Trusting, PooledMySQLDatabase):  # type: ignore[misc]
    """MySQL and MariaDB."""


db_url.register_database(TrustingPostgresqlDatabase, "postgresql+trusting")
db_url.register_database(TrustingMySQLDatabase, "mysql+trusting")
#: How our pools are called.
POOLED = {"sqlite": "sqlite+pool", "postgresql": "postgresql+trusting", "mysql": "mysql+trusting"}


def open_database(url: str) -> Any:  # noqa: ANN401 (peewee has no types)
    """A connection pool for a peewee URL; connects at first use.

    Args:
        url: sqlite, sqliteext, postgres, postgresql or mysql, each also with `+pool`; other schemes of peewee as they are.
            Options in the URL beat ours.

    Raises:
        BadConfiguration: a scheme or a form that peewee does not know; not retryable.

    """
    scheme, _, rest = url.partition("://")
    base = scheme.removesuffix("+pool")
    base = SAME_SCHEME.get(base, base)
    try:
        if base not in OPTIONS:
            return db_url.connect(url)
        options = {**OPTIONS[base], **POOL}
        given = db_url.parse(url)
        return db_url.connect(
            f"{POOLED[base]}://{rest}", **{key: options[key] for key in options.keys() - given.keys()}
        )
    except (RuntimeError, ValueError, peewee.ImproperlyConfigured) as fault:
        # The rest of the URL may carry a password.
        told = str(fault).replace(rest, "…") if rest else str(fault)
        msg = f"[database] peewee_url: {told} (allowed: sqlite:///FILE, postgresql://… or mysql://…)"
        raise BadConfiguration(msg) from fault


@contextmanager
def queued() -> Iterator[None]:
    """Let few threads of this process write at once, the others one after the other.

    SQLite would have each of them look again after a pause, and another pause, and whoever comes meanwhile is faster.
    Other servers would take more, but Python runs one thread at a time: the more are awake, the longer each takes, and
    the longer waits who only asks for a state.

    Raises:
        peewee.OperationalError: others write for longer than `WRITE_WAIT_S` seconds; retryable.

    """
    if DB.in_transaction():
        yield
        return
    place = _writing[0]
    if not place.acquire(timeout=WRITE_WAIT_S):
        msg = f"others of this process have been writing for {WRITE_WAIT_S} s"
        raise peewee.OperationalError(msg)
    try:
        yield
    finally:
        place.release()


def use_database(url: str) -> None:
    """Let all models of this process work on the database of a URL."""
    database = open_database(url)
    _url_in_use[:] = [url]
    _writing[:] = [threading.Semaphore(1 if isinstance(database, peewee.SqliteDatabase) else WRITERS)]
    DB.initialize(database)


def _after_fork() -> None:
    _opening[0] = threading.RLock()
    if DB.obj is not None and _url_in_use:
        _inherited.append(DB.obj)
        use_database(_url_in_use[0])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def connected(database: Any) -> Iterator[None]:  # noqa: ANN401 (peewee has no types)
    """A connection meanwhile; one that the caller had open stays open."""
    if not database.is_closed():
        yield
        return
    with database.connection_context():
        yield


@contextmanager
def alone(database: Any) -> Iterator[None]:  # noqa: ANN401 (peewee has no types)
    """A transaction in which no other process migrates.

    MySQL ends it at each change of a table, the lock it keeps.

    Raises:
        peewee.OperationalError: another process holds the lock for too long; retryable.

    """
    if isinstance(database, peewee.MySQLDatabase):
        with _mysql_lock(database):
            yield
        return
    # SQLite cannot upgrade a read lock while another process writes, so it takes the write lock at once.
    mode = ("IMMEDIATE",) if isinstance(database, peewee.SqliteDatabase) else ()
    postgresql = isinstance(database, peewee.PostgresqlDatabase)
    with database.atomic(*mode):
        if postgresql:
            database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        yield


@contextmanager
def _mysql_lock(database: Any) -> Iterator[None]:  # noqa: ANN401 (peewee has no types)
    # The lock is one of the whole server, so the name tells the database; it may have 64 characters.
    name = "CONCAT('pacifica ingest ', LEFT(DATABASE(), 40))"
    (locked,) = database.execute_sql(f"SELECT GET_LOCK({name}, {MIGRATION_WAIT_S})").fetchone()
    if locked != 1:
        msg = f"Another process migrated the database for more than {MIGRATION_WAIT_S} s."
        raise peewee.OperationalError(msg)
    try:
        yield
    finally:
        database.execute_sql(f"SELECT RELEASE_LOCK({name})")


def insert_once(table: type[peewee.Model], **row: object) -> bool:
    """Whether the key of a row was free, and it was inserted; part of the caller's transaction."""
    if _kind(table).endswith("MySQLDatabase"):
        # INSERT IGNORE would also cut what is too long.
        try:
            with _of(table).atomic():
                insert(table, **row)
        except peewee.IntegrityError:
            return False
        return True
    return _insert(table, row, once=True)


# Building the text of a statement takes peewee longer than running it, so the texts of those that every request needs are
# kept.


def found(table: type[peewee.Model], key: object) -> Any:  # noqa: ANN401 (peewee has no types)
    """The row of a primary key, or None; part of the caller's session."""
    row = _of(table).execute_sql(_selection(_kind(table), table), (key,)).fetchone()
    if row is None:
        return None
    fields = table._meta.sorted_fields
    values = {field.name: field.python_value(value) for field, value in zip(fields, row, strict=True)}
    return table(__no_default__=1, **values)


def insert(table: type[peewee.Model], **row: object) -> None:
    """Insert a row, with the defaults of its table; part of the caller's transaction.

    Raises:
        peewee.IntegrityError: the key is taken; not retryable.

    """
    _insert(table, row)


def _insert(table: type[peewee.Model], row: Mapping[str, object], *, once: bool = False) -> bool:
    values = table(**row).__data__
    text = _row_insertion(_kind(table), table, tuple(values), once=once)
    return bool(_of(table).execute_sql(text, _written(table, values)).rowcount)


def change(table: type[peewee.Model], key: object, **row: object) -> bool:
    """Whether there was a row of a primary key to be changed; part of the caller's transaction."""
    row = _in_order(table, row)
    text = _change(_kind(table), table, tuple(row))
    return bool(_of(table).execute_sql(text, [*_written(table, row), key]).rowcount)


def change_each(table: type[peewee.Model], keys: Sequence[object], having: Mapping[str, object], **row: object) -> int:
    """Change those rows of some primary keys that have certain values, as one statement; part of the caller's transaction.

    Returns:
        how many had them.

    """
    if not keys:
        return 0
    row = _in_order(table, row)
    rest: list[object] = [list(keys)] if _takes_arrays(table) else list(keys)
    text = _changes(_kind(table), table, tuple(row), tuple(having), 0 if _takes_arrays(table) else len(keys))
    return int(_of(table).execute_sql(text, [*_written(table, row), *_written(table, having), *rest]).rowcount)


def _in_order(table: type[peewee.Model], row: Mapping[str, object]) -> dict[str, object]:
    """As peewee writes them, whatever the order in which they are given."""
    return {field.name: row[field.name] for field in table._meta.sorted_fields if field.name in row}


def _of(table: type[peewee.Model]) -> Any:  # noqa: ANN401 (peewee has no types)
    """The database of a table: that of this process, or another to which a caller bound it."""
    return table._meta.database


def _kind(table: type[peewee.Model]) -> str:
    """What a text is written for."""
    database = _of(table)
    return type(database.obj if database is DB else database).__name__


def _written(table: type[peewee.Model], row: Mapping[str, object]) -> list[object]:
    return [table._meta.fields[column].db_value(value) for column, value in row.items()]


@functools.lru_cache(maxsize=32)
def _selection(_for: str, table: type[peewee.Model]) -> str:
    text: str = table.select(*table._meta.sorted_fields).where(table._meta.primary_key == 0).sql()[0]
    return text


@functools.lru_cache(maxsize=32)
def _row_insertion(_for: str, table: type[peewee.Model], columns: tuple[str, ...], *, once: bool) -> str:
    query = table.insert_many([[None] * len(columns)], fields=[getattr(table, name) for name in columns])
    text: str = (query.on_conflict_ignore() if once else query).sql()[0]
    return text


@functools.lru_cache(maxsize=32)
def _change(_for: str, table: type[peewee.Model], columns: tuple[str, ...]) -> str:
    nothing = {getattr(table, column): 0 for column in columns}
    text: str = table.update(nothing).where(table._meta.primary_key == 0).sql()[0]
    return text


@functools.lru_cache(maxsize=32)
def _changes(
    _for: str, table: type[peewee.Model], columns: tuple[str, ...], having: tuple[str, ...], count: int
) -> str:
    nothing = {getattr(table, column): 0 for column in columns}
    # The function keeps MySQL from finding the rows by another index than that of the keys, and locking all that it finds.
    conditions = [peewee.fn.COALESCE(field, field) == 0 for field in (getattr(table, column) for column in having)]
    query = table.update(nothing).where(*conditions)
    key: Any = table._meta.primary_key
    among = key.in_([0] * count) if count else peewee.SQL(f'"{key.column_name}" = ANY(%s)', [[]])
    text: str = query.where(among).sql()[0]
    return text


def insert_new(
    table: type[peewee.Model], columns: tuple[str, ...], rows: Sequence[Sequence[object]], **common: object
) -> None:
    """Insert those of some rows whose key is free, as one statement; part of the caller's transaction.

    Args:
        table: to insert into.
        columns: in which the rows differ.
        rows: values of these.
        common: column → value of all rows.

    """
    _insert_rows(table, columns, rows, common, new=True)


def insert_all(
    table: type[peewee.Model], columns: tuple[str, ...], rows: Sequence[Sequence[object]], **common: object
) -> None:
    """As `insert_new`, of rows whose keys must all be free.

    Raises:
        peewee.IntegrityError: one is taken; not retryable.

    """
    _insert_rows(table, columns, rows, common, new=False)


def _insert_rows(
    table: type[peewee.Model],
    columns: tuple[str, ...],
    rows: Sequence[Sequence[object]],
    common: Mapping[str, object],
    *,
    new: bool,
) -> None:
    if not rows:
        return
    same = list(common.values())
    if _takes_arrays(table):
        text = _array_insertion(table, columns, tuple(common), new=new)
        _of(table).execute_sql(text, [*same, *(list(values) for values in zip(*rows, strict=True))])
    else:
        text = _insertion(_kind(table), table, (*columns, *common), len(rows), new=new)
        _of(table).execute_sql(text, [value for row in rows for value in (*row, *same)])


@functools.lru_cache(maxsize=32)
def _insertion(_for: str, table: type[peewee.Model], columns: tuple[str, ...], count: int, *, new: bool) -> str:
    nothing = [[0] * len(columns)] * count
    query = table.insert_many(nothing, fields=[getattr(table, column) for column in columns])
    text: str = (query.on_conflict_ignore() if new else query).sql()[0]
    return text


def _takes_arrays(table: type[peewee.Model]) -> bool:
    """Whether a column of values is one parameter: psycopg reads each long statement anew, which takes longer than to run it."""
    return _kind(table).endswith("PostgresqlDatabase")


@functools.lru_cache(maxsize=32)
def _array_insertion(table: type[peewee.Model], columns: tuple[str, ...], common: tuple[str, ...], *, new: bool) -> str:
    types, fields = _of(table).field_types, table._meta.fields
    names = ", ".join(f'"{fields[column].column_name}"' for column in (*common, *columns))
    kinds = (types.get(fields[column].field_type, fields[column].field_type) for column in columns)
    arrays = ", ".join(f"%s::{kind}[]" for kind in kinds)
    chosen = ", ".join([*(["%s"] * len(common)), "rows.*"])
    name = table._meta.table_name
    text = f'INSERT INTO "{name}" ({names}) SELECT {chosen} FROM unnest({arrays}) AS rows'  # noqa: S608 (our names)
    return f"{text} ON CONFLICT DO NOTHING" if new else text
