"""Pytest fixtures: one server of each kind for the whole session, started when asked for.

What it is: a pytest plug-in (``pytest_plugins = ["tests.harness.fixtures"]`` in
``tests/conftest.py``).

What it is not: isolation of data. A test takes a new database, a queue name of its own
or a job id of its own.

Who may call it: pytest.

A test may kill or freeze a shared server and leave it so: after each test what does not
run is started again, on the same port and with the same data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.harness.core import PacificaCore
from tests.harness.servers import MariaDB, PostgreSQL, RabbitMQ, Redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.harness.process import Server

__all__ = ["core", "mariadb", "postgresql", "rabbitmq", "redis_server", "revive", "revived"]

S = TypeVar("S", bound="Server")

_shared: list[Server] = []


def _share(server: S) -> Iterator[S]:
    """Yield a server that runs, for the session."""
    with server:
        _shared.append(server)
        yield server
        _shared.remove(server)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A private PostgreSQL; take a database with ``new_database()``."""
    yield from _share(PostgreSQL())


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A private MariaDB; take a database with ``new_database()``."""
    yield from _share(MariaDB())


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A private Redis."""
    yield from _share(Redis())


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A private RabbitMQ."""
    yield from _share(RabbitMQ())


@pytest.fixture(scope="session")
def core() -> Iterator[PacificaCore]:
    """The four neighbours with reference data."""
    with PacificaCore() as neighbours:
        servers = [neighbours.postgresql, *neighbours.services]
        _shared.extend(servers)
        yield neighbours
        for server in servers:
            _shared.remove(server)


def revive(servers: Sequence[Server]) -> None:
    """Start again what is dead, thaw what is frozen, leave alone what runs."""
    for server in servers:
        server.resume()
        if not server.running:
            server.restart()


@pytest.fixture(autouse=True)
def revived() -> Iterator[None]:
    """Start again, after a test, the shared servers that it left dead or frozen."""
    yield
    revive(_shared)
