"""The test harness: private, killable instances of real servers on the loopback.

What it is: databases, brokers and the four neighbours as objects with `start`, `stop`,
`kill` and `restart`; virtual environments for what cannot share ours; the two
unmodified clients as functions; the original ingest to compare with. What it starts, it
stops: at the end of a ``with`` block, at the exit of the process, and, by a process of
its own, when that was killed. Several test runs may use it side by side: each has its
own servers on ports that no other run takes, and they share the environments.

What it is not: part of the package, or a set of doubles (those are in
`pacifica.ingest.testing`). It imports nothing of the package.

Who may call it: tests.

How a test gets what it needs: it names a fixture of `tests.harness.fixtures`. The
server behind it starts with the first test that asks, serves the whole session, and is
started again, with its data, after a test that killed or froze it::

    def test_a_job_survives(core: PacificaCore, postgresql: PostgreSQL, redis_server: Redis) -> None:
        database_url = postgresql.new_database()  # empty, for this test; mariadb has it, too
        broker_url = redis_server.new_database()  # or rabbitmq.url, with a queue name of your own
        ids, archive = core.uniqueid_url, core.archive_url
        core.policy.kill()  # one neighbour down; core.policy.start() brings it back
        ...
        assert core.transaction(job_id) is not None
        assert core.archived(file_id) == b"..."

`ALLOWED`, `REFUSED` and their like say who may upload what. A command of ours runs as
`HttpServer` or `Program` from the `project_env` of the checkout. A test that needs a
server for itself takes the class: ``with PostgreSQL(durable=True) as mine: ...``.
"""

from tests.harness.clients import Upload, upload_with_cli, upload_with_uploader
from tests.harness.command import HarnessError, base_environment, run
from tests.harness.core import PacificaCore
from tests.harness.original import OriginalIngest
from tests.harness.ports import free_port
from tests.harness.process import HttpServer, Program, Server
from tests.harness.reference import ADMIN, ALLOWED, ALLOWED_TOO, REFUSED, UNKNOWN, Submission
from tests.harness.servers import MariaDB, PostgreSQL, RabbitMQ, Redis
from tests.harness.venvs import (
    Environment,
    beside_env,
    core_env,
    earlier_env,
    environment,
    original_env,
    project_env,
    uwsgi_env,
)
from tests.harness.web import Reply, request

__all__ = [
    "ADMIN",
    "ALLOWED",
    "ALLOWED_TOO",
    "REFUSED",
    "UNKNOWN",
    "Environment",
    "HarnessError",
    "HttpServer",
    "MariaDB",
    "OriginalIngest",
    "PacificaCore",
    "PostgreSQL",
    "Program",
    "RabbitMQ",
    "Redis",
    "Reply",
    "Server",
    "Submission",
    "Upload",
    "base_environment",
    "beside_env",
    "core_env",
    "earlier_env",
    "environment",
    "free_port",
    "original_env",
    "project_env",
    "request",
    "run",
    "upload_with_cli",
    "upload_with_uploader",
    "uwsgi_env",
]
