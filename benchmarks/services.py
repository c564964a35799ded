"""Who takes: the original and ours, each with a worker, on the same neighbours, database server, broker and disk.

A `Bench` has what both share and starts each service anew for each round, with an empty database; so no round pays for
what an earlier one left.
"""

import configparser
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from benchmarks import clients
from benchmarks.bundles import Shape, write
from benchmarks.measure import put_away
from benchmarks.results import Options
from tests.harness import (
    HttpServer,
    OriginalIngest,
    PacificaCore,
    PostgreSQL,
    Program,
    RabbitMQ,
    Redis,
    Server,
    core_env,
    original_env,
    project_env,
    run,
)
from tests.harness.command import base_environment
from tests.harness.ports import LOOPBACK

__all__ = ["ORIGINAL", "OURS", "Bench", "InstantNeighbours", "Service"]

ROOT: Final = Path(__file__).parents[1]
OURS: Final = "ours"
ORIGINAL: Final = "original"
#: Kept in memory when there is room for that much and as much again, in bytes.
_IN_MEMORY: Final = 4 << 30


class InstantNeighbours(HttpServer):
    """`benchmarks.sink` as a server, with the addresses of all four neighbours."""

    def __init__(self, python: Path, work: Path) -> None:
        """Run it with some Python; keep moved files in `work`."""
        folder = Path(tempfile.mkdtemp(prefix="sink-", dir=work))
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2 * _IN_MEMORY
        script = Path(__file__).with_name("sink.py")
        command: list[str | Path] = [python, "-I", script, "{port}", memory if roomy else folder, folder / "moved"]
        super().__init__("sink", command, folder)
        self.uniqueid_url = self.archive_url = self.url
        self.policy_ingest_url = self.metadata_ingest_url = f"{self.url}/ingest"

    def close(self) -> None:
        """Stop, and remove what was moved."""
        super().close()
        put_away(self.folder)


Neighbours = InstantNeighbours | PacificaCore


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service that takes uploads.

    Attributes:
        name: `ours` or `original`.
        url: of its server.
        folder: all its files; below it what it moves.
        servers: its processes: the server, and the worker if there is one.
        database: of its jobs on the bench's PostgreSQL; empty elsewhere.
    """

    name: str
    url: str
    folder: Path
    servers: Sequence[Server]
    database: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """How a service is started; see `Bench.service`."""

    neighbours: Neighbours
    broker_url: str
    works: bool
    workers: int
    changes: Mapping[str, Mapping[str, str]]


@dataclass
class Bench:
    """What rows share: options, servers, bundles, and both services.  Each part starts when it is first asked for.

    Attributes:
        options: of the command line.
        work: folder on the disk that is measured.
    """

    options: Options
    work: Path
    stack: ExitStack = field(default_factory=ExitStack)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # --- what both need

    @cached_property
    def postgresql(self) -> PostgreSQL:
        """With fsync: what a job costs there is part of the figure."""
        return self.stack.enter_context(PostgreSQL(durable=True))

    @cached_property
    def redis(self) -> Redis:
        """The broker of both, where a row names no other."""
        return self.stack.enter_context(Redis())

    @cached_property
    def rabbitmq(self) -> RabbitMQ:
        """The other broker."""
        return self.stack.enter_context(RabbitMQ())

    @cached_property
    def core(self) -> PacificaCore:
        """The real neighbours."""
        return self.stack.enter_context(PacificaCore(durable=True))

    @cached_property
    def python(self) -> Path:
        """The Python of an environment with our package, as users install it."""
        return project_env(ROOT, "postgresql", "redis").python

    @contextmanager
    def instant(self) -> Iterator[InstantNeighbours]:
        """Instant neighbours that know nothing yet."""
        with InstantNeighbours(self.python, self.work) as sink:
            yield sink

    def bundle(self, shape: Shape) -> Path:
        """A bundle as a file."""
        folder = self.work / "bundles"
        folder.mkdir(exist_ok=True)
        self.options.say(f"    bundle {shape}")
        return write(shape, folder)

    def scaled(self, count: int, least: int = 1) -> int:
        """A number of bytes or files, as `--scale` says."""
        return max(least, round(count * self.options.scale))

    def folder(self) -> Path:
        """A new folder on the disk that is measured."""
        folder = self.work / f"service-{next(self._numbers)}"
        folder.mkdir()
        return folder

    # --- the services

    @contextmanager
    def service(
        self,
        name: str,
        neighbours: Neighbours,
        *,
        works: bool = True,
        workers: int = 1,
        broker_url: str = "",
        changes: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Iterator[Service]:
        """One of the two with an empty database, warm: one small bundle went through.

        Args:
            name: `OURS` or `ORIGINAL`.
            neighbours: of it.
            works: whether it has a worker.
            workers: processes of the worker.
            broker_url: of a broker that nobody else uses; empty: a database of `redis`.
            changes: section → key → value of our configuration.

        """
        start = self._original if name == ORIGINAL else self._ours
        broker = broker_url or self.redis.new_database()
        setting = _Setting(
            neighbours=neighbours, broker_url=broker, works=works, workers=workers, changes=changes or {}
        )
        with start(setting) as service:
            job_id = clients.upload(service.url, self.bundle(Shape(files=3, size_bytes=100)))
            if works:
                clients.until_done(service.url, job_id)
            yield service

    @contextmanager
    def _original(self, setting: _Setting) -> Iterator[Service]:
        database = self.postgresql.new_database()
        original = OriginalIngest(
            setting.neighbours, database, setting.broker_url, works=setting.works, workers=setting.workers
        )
        with original:
            servers = [original.server, original.worker] if setting.works else [original.server]
            yield Service(
                name=ORIGINAL, url=original.server.url, folder=original.folder, servers=servers, database=database
            )

    @contextmanager
    def _ours(self, setting: _Setting) -> Iterator[Service]:
        folder = self.folder()
        database = self.postgresql.new_database()
        sections = {
            "ingest": {"volume_path": str(folder / "volume"), "move_roots": str(folder)},
            "uniqueid": {"url": setting.neighbours.uniqueid_url},
            "policy": {"ingest_url": setting.neighbours.policy_ingest_url},
            "archiveinterface": {"url": setting.neighbours.archive_url},
            "metadata": {"ingest_url": setting.neighbours.metadata_ingest_url},
            "database": {"peewee_url": database},
            "celery": {"broker_url": setting.broker_url},
        }
        env = self._environment(folder, sections, setting.changes)
        bin_folder = self.python.parent
        serve: list[str | Path] = [bin_folder / "pacifica-ingest", "-a", LOOPBACK, "-p", "{port}"]
        work: list[str | Path] = [bin_folder / "celery", "-A", "pacifica.ingest.tasks", "worker"]
        work += ["--concurrency", str(setting.workers), "--loglevel", "INFO"]
        with ExitStack() as stack:
            stack.callback(put_away, folder)
            run([bin_folder / "pacifica-ingest-cmd", "dbsync"], env=base_environment(folder) | env)
            servers: list[Server] = [stack.enter_context(HttpServer("server", serve, folder / "server", env=env))]
            if setting.works:
                servers.append(stack.enter_context(Program("worker", work, folder / "worker", env=env, says=" ready.")))
            url = f"http://{LOOPBACK}:{servers[0].port}"
            yield Service(name=OURS, url=url, folder=folder, servers=servers, database=database)

    @contextmanager
    def standalone(
        self, *, workers: int = 1, home: Path | None = None, changes: Mapping[str, Mapping[str, str]] | None = None
    ) -> Iterator[Service]:
        """Ours on one machine: SQLite, its own archive; warm as well.

        Args:
            workers: processes that it starts for the work.
            home: folder for everything, when not on the disk that is measured.
            changes: as for `service`.

        """
        folder = home or self.folder()
        env = self._environment(folder, {"ingest": {"workers": str(workers)}}, changes or {})
        command: list[str | Path] = [
            self.python.parent / "pacifica-ingest",
            "--standalone",
            folder / "home",
            "-a",
            LOOPBACK,
            "-p",
            "{port}",
        ]
        with ExitStack() as stack:
            stack.callback(put_away, folder)
            server = stack.enter_context(HttpServer("server", command, folder / "server", env=env))
            clients.until_done(server.url, clients.upload(server.url, self.bundle(Shape(files=3, size_bytes=100))))
            yield Service(name=OURS, url=server.url, folder=folder, servers=[server])

    def _environment(
        self, folder: Path, sections: Mapping[str, Mapping[str, str]], changes: Mapping[str, Mapping[str, str]]
    ) -> dict[str, str]:
        ini = configparser.ConfigParser(interpolation=None)
        ini.read_dict(sections)
        ini.read_dict(changes)
        with (folder / "config.ini").open("w", encoding="utf-8") as file:
            ini.write(file)
        return {"INGEST_CONFIG": str(folder / "config.ini")}

    def prepare(self) -> None:
        """Build the environments before anything is measured."""
        core_env()
        original_env()
        _ = self.python
