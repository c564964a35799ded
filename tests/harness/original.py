"""The original ingest 0.4.1, beside which ours is compared.

What it is: its server and one Celery worker, unmodified, against a `PacificaCore` or other neighbours.

What it is not: an oracle. It has known faults; a test says which of its answers it wants.

Who may call it: tests and benchmarks.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from tests.harness.command import run
from tests.harness.ports import LOOPBACK
from tests.harness.process import HttpServer, Program
from tests.harness.venvs import original_env

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Neighbours", "OriginalIngest"]


class Neighbours(Protocol):
    """Addresses of four neighbours, under the names of ingest's configuration: a `PacificaCore`, say."""

    @property
    def uniqueid_url(self) -> str:
        """``[uniqueid] url``."""

    @property
    def policy_ingest_url(self) -> str:
        """``[policy] ingest_url``."""

    @property
    def archive_url(self) -> str:
        """``[archiveinterface] url``."""

    @property
    def metadata_ingest_url(self) -> str:
        """``[metadata] ingest_url``."""


class OriginalIngest:
    """The original's server and worker; a context manager.

    Attributes:
        folder: All its files; removed at the end.
        volume: Where it stages bundles.
        server: Answers ``/upload``, ``/move`` and ``/get_state`` at ``server.url``.
        worker: Does the work.
    """

    def __init__(
        self, core: Neighbours, database_url: str, broker_url: str, *, works: bool = True, workers: int = 1
    ) -> None:
        """Write the configuration; start nothing.

        Args:
            core: Its neighbours, running.
            database_url: An empty database, as peewee URL.
            broker_url: A broker that nobody else uses for ingest: its queue is ``celery``.
            works: Start the worker, too.
            workers: Processes of the worker.
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
            f"--concurrency={workers}",
            "--loglevel=INFO",
        ]
        self._works = works
        self._dbsync: list[str | Path] = [environment.bin("pacifica-ingest-cmd"), "dbsync"]
        self.server = HttpServer("server", serve, self.folder / "server", env=env)
        self.worker = Program("worker", work, self.folder / "worker", env=env, says=" ready.")

    def __enter__(self) -> Self:
        """Make the tables, then start both."""
        try:
            run(self._dbsync, env=self.server.environment())
            self.server.start()
            if self._works:
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
