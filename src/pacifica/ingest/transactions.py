"""Transactions on the database of this process, for the adapters that keep rows in it.

One connection for each transaction, and one place where faults of the database become `DatabaseDown`.  Not the tables
(`orm`) and not what is done with them (`store`, `local`).
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import peewee
from playhouse.pool import MaxConnectionsExceeded, PooledDatabase

from pacifica.ingest.core.errors import DatabaseDown, NoSpace, Unavailable
from pacifica.ingest.database import DB, queued

__all__ = ["retried"]

#: What another try changes nothing of.  Not the plain `DatabaseError`: SQLite tells so of a disk that cannot be read.  Nor
#: `InternalError`, a state of the server: PostgreSQL tells so that it is read-only, after another server took its place.
FAULTS_OF_OURS = (peewee.DataError, peewee.IntegrityError, peewee.ProgrammingError)
#: What SQLite says to the end of a transaction that it ended by itself.
ROLLED_BACK = ("cannot rollback", "no such savepoint")

#: What it says when its disk is full.
FULL = "database or disk is full"

P = ParamSpec("P")
R = TypeVar("R")


def retried(*, atomic: bool) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Run a function on one connection, and once more when that connection turned out to be dead.

    The function must bear a second run after a commit whose answer was lost: a compare-and-set finds no row then, an
    insert finds its own rows.

    Args:
        atomic: whether the function is one transaction; reading a single statement needs none.

    Raises:
        DatabaseDown: the second run failed as well; retryable.
        NoSpace: as SQLite has no space, and surely changed nothing; retryable.

    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            for last in (False, True):
                try:
                    with _session(atomic=atomic):
                        return function(*args, **kwargs)
                except (peewee.DatabaseError, peewee.InterfaceError, MaxConnectionsExceeded) as fault:
                    if isinstance(fault, FAULTS_OF_OURS):
                        raise
                    _forget_connections()
                    if last:
                        raise _told(_cause(fault)) from fault
            raise AssertionError  # the loop returns or raises

        return run

    return decorate


@contextmanager
def _session(*, atomic: bool) -> Iterator[None]:
    """One connection, with one transaction if it is to be atomic."""
    if not atomic:
        with DB.connection_context():
            yield
        return
    # SQLite cannot upgrade a read lock while another process writes, so it takes the write lock at once.
    mode = ("IMMEDIATE",) if _is_sqlite() else ()
    with queued(), DB.connection_context(), DB.atomic(*mode):
        yield


def _is_sqlite() -> bool:
    if DB.obj is None:
        DB.is_closed()  # opens the configured one
    return isinstance(DB.obj, peewee.SqliteDatabase)


def _told(cause: BaseException) -> Unavailable:
    if str(cause) == FULL:
        return NoSpace("The disk of the database is full. Try again later.")
    return DatabaseDown(f"The database cannot be used now: {cause}")


def _cause(fault: BaseException) -> BaseException:
    """What began it: SQLite rolls back by itself when its disk is full, and the rollback that follows fails."""
    while str(fault).startswith(ROLLED_BACK) and fault.__context__ is not None:
        fault = fault.__context__
    return fault


def _forget_connections() -> None:
    """Drop idle connections, as the server may have closed them all."""
    if isinstance(DB.obj, PooledDatabase):
        DB.close_idle()
