"""Our service as a facility runs it: server, Celery worker, PostgreSQL, a broker, and the real neighbours."""

import configparser
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import HttpServer, PacificaCore, PostgreSQL, Program, Redis, free_port
from tests.harness.command import base_environment
from tests.integration.facility import Facility


@pytest.fixture(scope="session")
def facility(
    core: PacificaCore,
    postgresql: PostgreSQL,
    redis_server: Redis,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Facility]:
    """One facility for the session: `retry_for` is short, so that tests of neighbours that stay away end."""
    folder = tmp_path_factory.mktemp("facility")
    (folder / "incoming").mkdir()
    env = base_environment(folder) | {"INGEST_CONFIG": str(_configuration(folder, core, postgresql, redis_server))}
    port = free_port()
    server = HttpServer("ingest", [sys.executable, "-m", "pacifica.ingest", "-p", str(port)], port=port, env=env)
    celery = [sys.executable, "-m", "celery", "-A", "pacifica.ingest.tasks", "worker", "--concurrency", "2"]
    worker = Program("worker", [*celery, "--loglevel", "info"], env=env, says="ready.")
    service = Facility(url=server.url, folder=folder, env=env)
    service.command("dbsync")
    with server, worker:
        yield service


def _configuration(folder: Path, core: PacificaCore, postgresql: PostgreSQL, broker: Redis) -> Path:
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_dict(
        {
            "ingest": {
                "volume_path": str(folder / "staging"),
                "move_roots": str(folder / "incoming"),
                "retry_for": "10",
                "lease": "5",
            },
            "uniqueid": {"url": core.uniqueid_url},
            "policy": {"ingest_url": core.policy_ingest_url},
            "archiveinterface": {"url": core.archive_url},
            "metadata": {"ingest_url": core.metadata_ingest_url},
            "database": {"peewee_url": postgresql.new_database()},
            "celery": {"broker_url": broker.new_database()},
        }
    )
    path = folder / "config.ini"
    with path.open("w") as file:
        ini.write(file)
    return path
