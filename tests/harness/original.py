"""The original ingest 0.4.1, beside which ours is compared.

What it is: its server and one Celery worker, unmodified, against a `PacificaCore`.

What it is not: an oracle. It has known faults; a test says which of its answers it wants.

Who may call it: tests and benchmarks.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.harness.command import run
from tests.harness.ports import LOOPBACK
from tests.harness.process import HttpServer, Program
from tests.harness.venvs import original_env

if TYPE_CHECKING:
    from types import TracebackType

    from tests.harness.core import PacificaCore

__all__ = ["OriginalIngest"]


class OriginalIngest:
    """The original's server and worker; a context manager.

    Attributes:
        folder: All its files; removed at the end.
        volume: Where it stages bundles.
        server: Answers ``/upload``, ``/move`` and ``/get_state`` at ``server.url``.
        worker: Does the work.
    """

    def __init__(self, core: PacificaCore, database_url: str, broker_url: str) -> None:
        """Write the configuration; start nothing.

        Args:
            core: Its neighbours, running.
            database_url: An empty database, as peewee URL.
            broker_url: A broker that nobody else uses for ingest: its queue is ``celery``.
        """
        environment = original_env()
        self.folder = Path(tempfile.mkdtemp(prefix="pacifica-original-"))
        self.volume = self.folder / "volume"
        self.volume.mkdir()
        env = {
            "PEEWEE_URL": database_url,
            "BROKER_URL": broker_url,
            "BACKEND_URL": "rpc://",
            "VOLUME_PATH": str(self.volume),
            "UNIQUEID_URL": core.uniqueid_url,
            "POLICY_INGEST_URL": core.policy_ingest_url,
            "ARCHIVEINTERFACE_URL": core.archive_url,
            "METADATA_INGEST_URL": core.metadata_ingest_url,
        }
        config = self.folder / "cherrypy.conf"
        config.write_text(
            "[global]\n"
            "engine.autoreload.on: False\n"
            "server.max_request_body_size: 0\n"
            "[/]\n"
            "request.dispatch: cherrypy.dispatch.MethodDispatcher()\n",
            encoding="ascii",
        )
        serve: list[str | Path] = [environment.bin("pacifica-ingest"), "--cp-config", config]
        serve += ["-a", LOOPBACK, "-p", "{port}"]
        work: list[str | Path] = [
            environment.bin("celery"),
            "-A",
            "pacifica.ingest.tasks",
            "worker",
            "--concurrency=1",
            "--loglevel=INFO",
        ]
        self._dbsync: list[str | Path] = [environment.bin("pacifica-ingest-cmd"), "dbsync"]
        self.server = HttpServer("server", serve, self.folder / "server", env=env)
        self.worker = Program("worker", work, self.folder / "worker", env=env, says=" ready.")

    def __enter__(self) -> Self:
        """Make the tables, then start both."""
        try:
            run(self._dbsync, env=self.server.environment())
            self.server.start()
            self.worker.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop both."""
        self.close()

    def close(self) -> None:
        """Stop both, and remove the folder. May repeat."""
        self.worker.stop()
        self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
