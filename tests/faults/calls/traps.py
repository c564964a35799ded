"""Where a call can go wrong, how, and the trap that lets one call go wrong that way.

What it is: the values `Point` and `Way`, and the counting of SQL statements (at the driver) and HTTP calls (at the
client).  System calls are counted by `shim`.

Who may call it: `rounds` and `site`, in a process of their own: what they prepare stays.
"""

import errno
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, TypeVar

import urllib3
from urllib3.exceptions import ProtocolError

from pacifica.ingest.database import DB
from pacifica.ingest.neighbours import http
from pacifica.ingest.neighbours.line import Head, Line

__all__ = ["DIED", "Call", "Point", "Trap", "Way", "count_http", "count_sql", "points"]

#: The exit code of a process that a trap ended.
DIED = 137
#: Names that are drawn by chance: of savepoints and temporary files.
_RANDOM = re.compile(r"[0-9a-f]{16,}")
#: Numbers of jobs and files: others in every round, as the services live on.
_NUMBER = re.compile(r"\d+")

T = TypeVar("T")


class Call(StrEnum):
    """What kind of call."""

    SYSTEM = "system call"
    #: On a file of the database: there are many, and each is a part of a statement, which is tried as well.
    STORAGE = "system call of SQLite"
    SQL = "SQL statement"
    HTTP = "HTTP call"


class Way(IntEnum):
    """How a call goes wrong; `shim.c` has the same numbers."""

    #: It is not done, and the caller is told so.
    ERROR = 1
    #: It is done, and the caller is told that it was not.
    LOST = 2
    #: The process ends before it.
    DEATH = 3
    #: The process ends right after it.
    DEATH_AFTER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One call of a job.

    Attributes:
        call: its kind.
        label: what it does, to what.
        occurrence: the how manieth of that label; 1 is the first.
        error: the errno of a system call that fails.

    """

    call: Call
    label: str
    occurrence: int
    error: int = errno.EIO

    def __str__(self) -> str:
        """For people."""
        return f"{self.call} {self.label!r} no. {self.occurrence}"


def points(call: Call, labels: Sequence[str]) -> list[Point]:
    """The points of calls that were made in that order."""
    seen: Counter[str] = Counter()
    found: list[Point] = []
    for label in labels:
        seen[label] += 1
        found.append(Point(call=call, label=label, occurrence=seen[label]))
    return found


class Trap:
    """Counts SQL statements and HTTP calls, and lets one of them go wrong.

    Attributes:
        labels: what was called, in order.
        sprung: how often it happened.
        listening: whether calls count.

    """

    def __init__(self, point: Point | None = None, way: Way | None = None) -> None:
        """Let `point` go wrong in a way; nothing at all when it is None."""
        self._point = point
        self._way = way
        self._seen: Counter[tuple[Call, str]] = Counter()
        self.labels: dict[Call, list[str]] = {call: [] for call in Call}
        self.sprung = 0
        self.listening = True

    def around(
        self, call: Call, label: str, error: Exception, action: Callable[[], T], lose: Callable[[T], None] | None = None
    ) -> T:
        """Do a call, unless it is the one that goes wrong; `lose` lets go of a result that is lost."""
        way = self._due(call, _RANDOM.sub("*", label))
        if way is Way.ERROR:
            raise error
        if way is Way.DEATH:
            os._exit(DIED)
        result = action()
        if way is Way.LOST:
            if lose is not None:
                lose(result)
            raise error
        if way is Way.DEATH_AFTER:
            os._exit(DIED)
        return result

    def _due(self, call: Call, label: str) -> Way | None:
        if not self.listening:
            return None
        self.labels[call].append(label)
        self._seen[call, label] += 1
        point = self._point
        if point is None or (point.call, point.label, point.occurrence) != (call, label, self._seen[call, label]):
            return None
        self.sprung += 1
        return self._way


def count_sql(trap: Trap) -> None:
    """Let the statements of the database of this process count, which is SQLite and not yet open."""

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, parameters: Any = (), /) -> Any:
            error = sqlite3.OperationalError("disk I/O error")
            run = super().execute
            return trap.around(Call.SQL, sql, error, lambda: run(sql, parameters))

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    DB.obj.connect_params["factory"] = Connection


def count_http(trap: Trap) -> None:
    """Let the calls of all HTTP clients count that are made from now on."""

    class Pool(http._Pool):
        def urlopen(self, method: str, url: str, *args: Any, **options: Any) -> Any:
            run = super().urlopen
            error = ProtocolError("Connection aborted.", ConnectionResetError(errno.ECONNRESET, "reset by peer"))
            label = _NUMBER.sub("*", f"{method} {url}")
            return trap.around(Call.HTTP, label, error, lambda: run(method, url, *args, **options), _let_go)

    class Tapped(Line):
        """Requests that do not wait for their answers: to send one is a call, and so is to read its answer."""

        def lead(self, method: str, path: str, *about: Any) -> bytes:
            run = super().lead
            return self._around(f"send {method} {path}", lambda: run(method, path, *about))

        def head(self) -> Head:
            run = super().head
            return self._around("answer to {} {}".format(*self._waiting[0]), run)

        def _around(self, label: str, action: Callable[[], T]) -> T:
            error = ConnectionResetError(errno.ECONNRESET, "reset by peer")
            return trap.around(Call.HTTP, _NUMBER.sub("*", label), error, action)

    vars(http).update(_Pool=Pool, Line=Tapped)


def _let_go(response: urllib3.BaseHTTPResponse) -> None:
    # All of it, so that the service is done with the request.
    response.drain_conn()
    response.close()
    response.release_conn()
