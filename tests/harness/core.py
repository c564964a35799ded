"""The four neighbours, real and private: UniqueID, Metadata, Policy, Archive Interface.

What it is: `PacificaCore`, which starts the four services with their own commands in
the neighbours' environment, loads reference data, and reads back what a test wants to
know afterwards: a transaction, its files, archived bytes.

What it is not: a double. Nothing is simulated; each service can be killed, frozen and
restarted by itself (``core.policy.kill()``).

Who may call it: `tests.harness.fixtures` and tests.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.harness.command import HarnessError, base_environment, run
from tests.harness.ports import LOOPBACK
from tests.harness.process import HttpServer
from tests.harness.reference import ADMIN, ADMIN_GROUP, reference_objects
from tests.harness.servers import PostgreSQL
from tests.harness.venvs import core_env
from tests.harness.web import request

if TYPE_CHECKING:
    from types import TracebackType


__all__ = ["PacificaCore"]


class PacificaCore:
    """The four services and the database of Metadata.

    A context manager; or call `start` and `close`.

    Attributes:
        folder: All files of all services.
        environment: The virtual environment that the services run in.
        archive_dir: Where the Archive Interface keeps its files.
        postgresql: The server under Metadata.
        uniqueid: The four services, each a `tests.harness.process.HttpServer` …
        metadata: … which can be killed and restarted …
        policy: … by itself …
        archive: … and keeps port and data.
    """

    def __init__(self, folder: Path | None = None, *, durable: bool = False) -> None:
        """Choose folder and ports; build the environment if need be; start nothing.

        Args:
            folder: Kept after `close`; a temporary one, removed by it, when None. As
                root it must be passable for everybody (PostgreSQL's account).
            durable: Keep fsync in the database.
        """
        self._temporary = folder is None
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="pacifica-core-"))
            folder.chmod(0o755)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.archive_dir = self.folder / "archive" / "files"
        self.environment = core_env()
        self._loaded = False
        self.postgresql = PostgreSQL(self.folder / "postgresql", durable=durable)
        self.metadata = self._metadata()
        self.uniqueid = self._uniqueid()
        self.policy = self._policy()
        self.archive = self._archive()

    # The addresses, under the names of ingest's configuration.

    @property
    def uniqueid_url(self) -> str:
        """``[uniqueid] url``."""
        return self.uniqueid.url

    @property
    def policy_ingest_url(self) -> str:
        """``[policy] ingest_url``."""
        return f"{self.policy.url}/ingest"

    @property
    def policy_uploader_url(self) -> str:
        """Where the clients ask who may upload what."""
        return f"{self.policy.url}/uploader"

    @property
    def archive_url(self) -> str:
        """``[archiveinterface] url``."""
        return self.archive.url

    @property
    def metadata_url(self) -> str:
        """Root of the Metadata service."""
        return self.metadata.url

    @property
    def metadata_ingest_url(self) -> str:
        """``[metadata] ingest_url``."""
        return f"{self.metadata.url}/ingest"

    # The four services.

    def _metadata(self) -> HttpServer:
        env = {
            # Metadata's database is the one that the private server starts with.
            "PEEWEE_URL": self.postgresql.url,
            "NOTIFICATIONS_DISABLED": "True",
            "DATABASE_CONNECT_ATTEMPTS": "5",
            "DATABASE_CONNECT_WAIT": "1",
        }
        return self._service("metadata", "--cpconfig", env=env)

    def _uniqueid(self) -> HttpServer:
        database = self.folder / "uniqueid" / "uniqueid.sqlite"
        env = {"PEEWEE_URL": f"sqliteext:///{database}"}
        return self._service("uniqueid", "--cpconfig", env=env)

    def _policy(self) -> HttpServer:
        env = {
            "METADATA_URL": self.metadata.url,
            "STATUS_URL": f"{self.metadata.url}/groups",
            "ADMIN_USER_ID": str(ADMIN.submitter),
            "ADMIN_GROUP_ID": str(ADMIN_GROUP),
        }
        return self._service("policy", "-c", env=env)

    def _archive(self) -> HttpServer:
        self.archive_dir.mkdir(parents=True, exist_ok=True)
        ini = self.folder / "archive" / "config.ini"
        ini.write_text("[posix]\nuse_id2filename = false\n", encoding="ascii")
        options: list[str | Path] = ["-c", ini, "-t", "posix", "--prefix", self.archive_dir]
        return self._service(
            "archive",
            "--cherrypy-config",
            *options,
            program="pacifica-archiveinterface",
            # The backend keeps the option's file name in a module, read before options.
            env={"ARCHIVEINTERFACE_CONFIG": str(ini)},
            # One open file for all threads: with more than one it stores wrong bytes.
            threads=1,
        )

    def _service(
        self,
        name: str,
        config_flag: str,
        *options: str | Path,
        env: dict[str, str],
        program: str | None = None,
        threads: int = 10,
    ) -> HttpServer:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "cherrypy.conf"
        config.write_text(
            "[global]\n"
            "engine.autoreload.on: False\n"
            "log.screen: True\n"
            f"server.thread_pool: {threads}\n"
            "server.max_request_body_size: 0\n"
            "[/]\n"
            "request.dispatch: cherrypy.dispatch.MethodDispatcher()\n"
            "tools.response_headers.on: True\n"
            "tools.response_headers.headers: [('Content-Type', 'application/json')]\n",
            encoding="ascii",
        )
        command = [
            self.environment.bin(program or f"pacifica-{name}"),
            *(config_flag, config),
            *("-a", LOOPBACK, "-p", "{port}"),
            *options,
        ]
        return HttpServer(name, command, folder, env=env)

    # Life.

    @property
    def services(self) -> tuple[HttpServer, ...]:
        """The four services."""
        return (self.uniqueid, self.metadata, self.policy, self.archive)

    def start(self) -> Self:
        """Start everything, side by side, and load the reference data the first time.

        Raises:
            HarnessError: One did not start; nothing is left running.
        """
        steps = (self._start_metadata, self._start_uniqueid, self.policy.start, self.archive.start)
        with ThreadPoolExecutor(len(steps)) as pool:
            futures = [pool.submit(step) for step in steps]
        try:
            for future in futures:
                future.result()
        except BaseException:
            self.close()
            raise
        return self

    def _start_metadata(self) -> None:
        self.postgresql.start()
        self._dbsync(self.metadata, "pacifica-metadata-cmd")
        self.metadata.start()
        self._load()

    def _start_uniqueid(self) -> None:
        self._dbsync(self.uniqueid, "pacifica-uniqueid-cmd")
        self.uniqueid.start()

    def _dbsync(self, service: HttpServer, program: str) -> None:
        if not self._loaded:
            command: list[str | Path] = [self.environment.bin(program), "dbsync"]
            run(command, env=service.environment(), cwd=service.folder)

    def _load(self) -> None:
        if self._loaded:
            return
        script = Path(__file__).parent / "scripts" / "load_reference_data.py"
        job = json.dumps({"url": self.metadata.url, "objects": reference_objects()})
        env = base_environment(self.folder)
        run([self.environment.python, script], env=env, text=job)
        self._loaded = True

    def stop(self) -> None:
        """Stop all; data and ports stay."""
        with ThreadPoolExecutor(len(self.services)) as pool:
            list(pool.map(HttpServer.stop, self.services))
        self.postgresql.stop()

    def close(self) -> None:
        """Stop all, and remove the folder if it was made for this."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    # What a test asks afterwards.

    def transaction(self, job_id: int) -> dict[str, Any] | None:
        """Return the registered transaction of that number; None when there is none.

        Metadata keeps it in two tables, written in one database transaction. The answer
        is both: ``_id``, ``created``, … and ``submitter``, ``project``, ``instrument``.
        """
        found = self._objects("transactions", _id=job_id)
        return found[0] | self._objects("transsip", _id=job_id)[0] if found else None

    def files(self, job_id: int) -> list[dict[str, Any]]:
        """Return the registered files of a transaction, by ``_id``."""
        return sorted(self._objects("files", transaction=job_id), key=lambda item: int(item["_id"]))

    def key_values(self, job_id: int) -> dict[str, str]:
        """Return the registered key-value pairs of a transaction."""
        keys = {item["_id"]: item["key"] for item in self._objects("keys")}
        values = {item["_id"]: item["value"] for item in self._objects("values")}
        pairs = self._objects("trans_key_value", transaction=job_id)
        return {keys[pair["key"]]: values[pair["value"]] for pair in pairs}

    def _objects(self, kind: str, **where: str | int) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode(where | {"recursion_depth": 0})
        reply = request("GET", f"{self.metadata.url}/{kind}?{query}")
        if reply.status != 200:
            message = f"Metadata answers {reply.status} to {kind}?{query}: {reply.body!r}"
            raise HarnessError(message)
        found: list[dict[str, Any]] = reply.json()
        return found

    def archived(self, file_id: int) -> bytes:
        """Return the archive's bytes of a file, over HTTP.

        Raises:
            KeyError: The archive does not have it.
        """
        reply = request("GET", f"{self.archive.url}/{file_id}")
        if reply.status != 200:
            raise KeyError(file_id)
        return reply.body

    def archived_ids(self) -> set[int]:
        """Return the numbers of all files in the archive, whole or not, from its folder."""
        return {int(path.name) for path in self.archive_dir.iterdir()}

    def archive_path(self, file_id: int) -> Path:
        """Return where the archive keeps a file."""
        return self.archive_dir / str(file_id)
