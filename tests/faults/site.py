"""A real site for fault rounds: a server and its workers as processes, which can be killed one by one.

What it is: `Site`, either standalone or with Celery workers on a broker, on any database, with local neighbours or the
real ones; it starts what was killed, as a supervisor does, waits until nothing moves any more, and collects the
evidence from database, archive, catalogue and landing zone.

What it is not: a client (see `tests.faults.load`), or a judge (see `tests.faults.oracle`).  A round is::

    with Site(tmp_path, setting) as site:
        with Client(site.server.port, seed, incoming=site.incoming) as client:
            ...  # whatever is to go wrong; site.revive() starts again what was killed
        site.settled()
        assert not faults(client, site.evidence(client.sent)), seed

Who may call it: the fault rounds.
"""

import configparser
import hashlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pacifica.ingest import orm, tables
from pacifica.ingest.core.paths import canonical
from pacifica.ingest.core.states import Phase
from pacifica.ingest.database import open_database
from tests.faults.oracle import Evidence, Found, JobSeen, Sent
from tests.harness import HarnessError, HttpServer, PacificaCore, Program, RabbitMQ, Server, run
from tests.harness.command import base_environment, tail
from tests.harness.guard import Process, kill_tree
from tests.harness.landing import landed

__all__ = ["ADMIN", "LEASE_S", "TODAY", "Code", "Setting", "Site", "new_vhost"]

ROOT = Path(__file__).parents[2]
#: Runs the admin command, installed or not.
ADMIN = "import sys; from pacifica.ingest.__main__ import cmd; sys.exit(cmd(sys.argv[1:]))"
#: A job whose owner shows nothing for that long is taken over, in seconds; the shortest that can be set.
LEASE_S = 2
#: A sender may pause that long, in seconds; a dead upload is given up after twice that time.
PAUSE_S = 4
#: A site comes to rest within that time, in seconds, or something is stuck: several leases, pauses between two sweeps and
#: hints, and whatever work is left on a busy machine.
REST_S = 120.0
#: Celery's main process ends with these words when its first children die before they are ready.
GAVE_UP = "Could not start worker processes"
#: What is told of the jobs that stand still.
TOLD = 20
LOG_LINES = 15

#: The models of this process belong to one site at a time.
_reading = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Which code runs.

    Attributes:
        python: of the environment that it is in.
        sources: folders that come before what is installed there.
    """

    python: Path = Path(sys.executable)
    sources: Sequence[Path] = ()


#: The code of this checkout.
TODAY = Code(sources=[ROOT / "src"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a site is made of.

    Attributes:
        name: for the table.
        broker_url: where hints go; empty for a standalone site, which has no use for the next two.
        database_url: empty for SQLite in its folder.
        core: the real neighbours; None for local ones.
        workers: how many processes work on jobs.
        code: that runs first, see `Site.replace`.
        changes: section → key → value, beats all above: an address of a proxy, say.
    """

    name: str
    broker_url: str = ""
    database_url: str = ""
    core: PacificaCore | None = None
    workers: int = 4
    code: Code = TODAY
    changes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class Site:
    """A facility of its own; a context manager, entered when it takes uploads.

    Attributes:
        folder: holds everything.
        incoming: where sources of moves are put.
        server: the server; of a standalone site with its workers as children.
        worker: the Celery worker with its children; never started by a standalone site.
        died: what ended without being killed, with the end of its log.
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        """Write the configuration; start nothing."""
        self.folder = folder
        self.setting = setting
        self.incoming = folder / "incoming"
        self.incoming.mkdir(parents=True)
        self._home = folder if setting.broker_url else folder / "service"
        self._write_configuration()
        self.server = HttpServer("server", [], folder)
        self.worker = Program("worker", [], folder, says="ready.")
        for part in (self.server, self.worker):
            self.replace(part, setting.code)
        self.died: list[str] = []
        #: Leaders of trees that were killed in part: what they leave behind ends by itself, or is ended in the end.
        self._left: list[Process] = []
        core = setting.core
        #: What the real neighbours had before.
        self._before = set(_core_transactions(core)) if core else set()
        self._objects_before = core.archived_ids() if core else set()
        self._database: Any = None

    # --- what it is made of

    @property
    def url(self) -> str:
        """Where it takes uploads."""
        return self.server.url

    @property
    def env(self) -> dict[str, str]:
        """The environment of its commands, with today's code."""
        return self.environment(TODAY)

    def environment(self, code: Code) -> dict[str, str]:
        """That of its commands, with some code."""
        env = base_environment(self.folder) | {"INGEST_CONFIG": str(self.folder / "config.ini")}
        return env | ({"PYTHONPATH": os.pathsep.join(map(str, code.sources))} if code.sources else {})

    @property
    def parts(self) -> Sequence[Server]:
        """What a supervisor looks after."""
        return [self.server, self.worker] if self.setting.broker_url else [self.server]

    @property
    def database_url(self) -> str:
        """The database of its jobs."""
        if not self.setting.broker_url:
            return f"sqlite:///{self._home / 'ingest.sqlite3'}"
        return self.setting.database_url or f"sqlite:///{self.folder / 'ingest.sqlite3'}"

    @property
    def staging(self) -> Path:
        """The landing zone."""
        return self._home / "staging"

    @property
    def archive(self) -> Path:
        """The folder of the archive."""
        return self.setting.core.archive_dir if self.setting.core else self._home / "archive"

    def _write_configuration(self) -> None:
        core, setting = self.setting.core, self.setting
        ini = configparser.ConfigParser(interpolation=None)
        ini.read_dict(
            {
                "ingest": {
                    "volume_path": str(self.staging),
                    "move_roots": str(self.incoming),
                    "lease": str(LEASE_S),
                    "upload_timeout": str(PAUSE_S),
                    "workers": str(setting.workers),
                },
                "uniqueid": {"url": core.uniqueid_url if core else "local:"},
                "policy": {"ingest_url": core.policy_ingest_url if core else "local:"},
                "archiveinterface": {"url": core.archive_url if core else self.archive.as_uri()},
                "metadata": {"ingest_url": core.metadata_ingest_url if core else "local:"},
                "database": {"peewee_url": self.database_url, "connect_attempts": "30", "connect_wait": "1"},
                "celery": {"broker_url": setting.broker_url or "memory://"},
            }
        )
        ini.read_dict(setting.changes)
        with (self.folder / "config.ini").open("w", encoding="utf-8") as file:
            ini.write(file)

    def replace(self, part: HttpServer | Program, code: Code) -> None:
        """Let a part that does not run start with other code."""
        part._command = self._command(part, code)
        part._env = self.environment(code)

    def _command(self, part: HttpServer | Program, code: Code) -> list[str | Path]:
        if part is self.server:
            serve = [code.python, "-m", "pacifica.ingest", "-a", "127.0.0.1", "-p", str(part.port)]
            return serve if self.setting.broker_url else [*serve, "--standalone", str(self._home)]
        work = [code.python, "-m", "celery", "-A", "pacifica.ingest.tasks", "worker", "--loglevel", "info"]
        return [*work, "--concurrency", str(self.setting.workers), "--without-gossip", "--without-mingle"]

    # --- life

    def __enter__(self) -> Self:
        """Start."""
        try:
            if self.setting.broker_url:
                self.admin("dbsync", code=self.setting.code)
            for part in self.parts:
                part.launch()
            self.server.wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End everything, and what was left behind of killed trees."""
        self.kill_all()
        if self._database is not None:
            self._database.close_all()
            self._database = None

    def admin(self, *arguments: str, code: Code = TODAY) -> str:
        """Run the admin command, which must succeed."""
        return run([code.python, "-c", ADMIN, *arguments], env=self.environment(code))

    def revive(self) -> None:
        """Start what does not run, as a supervisor does; wait for nothing."""
        for part in self.parts:
            if not part.running:
                self._note_end(part)
                part.launch()

    def _note_end(self, part: Server) -> None:
        with suppress(HarnessError):  # it was killed with its tree, or never ran
            if part.pid not in {process.pid for process in self._left} and GAVE_UP not in tail(part.log):
                self.died.append(f"the {part.name} ended by itself; its log ends:\n{tail(part.log, LOG_LINES)}")

    def works(self) -> bool:
        """Whether those that work have started: Celery ends when its first children die before that."""
        return not self.setting.broker_url or self.worker.ready()

    def workers(self) -> list[Process]:
        """The processes that work on jobs."""
        *_, part = self.parts
        children = part.processes()[1:]
        if self.setting.broker_url:
            return children
        starters = {starter.pid for starter in self.starters()}
        return [child for child in children if child.parent in starters]

    def starters(self) -> list[Process]:
        """The process that forks those that work: Celery's main process, or a child of a standalone server."""
        *_, part = self.parts
        everybody = part.processes()
        if self.setting.broker_url:
            return everybody[:1]
        # Another child of a standalone server keeps a list for the standard library, and has no children.
        parents = {process.parent for process in everybody}
        return [process for process in everybody[1:] if process.parent == part.pid and process.pid in parents]

    def owners(self) -> set[int]:
        """Numbers of the processes that have a job right now."""
        with self._read():
            names = [row.worker for row in tables.JobRow.select().where(tables.JobRow.phase == Phase.RUNNING)]
        return {int(name.rpartition(":")[2]) for name in names}

    def kill(self, process: Process) -> None:
        """Kill one process as a crash does, and nothing that it started."""
        if any(part.running and part.pid == process.pid for part in self.parts):
            self._left.append(process)
        process.send(signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill everything at once, as a power cut does, also what is left of trees that were killed in part."""
        for part in self.parts:
            part.kill()
        for leader in self._left:
            kill_tree(leader)

    # --- the end

    def settled(self, wait_s: float = REST_S, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Return when every job ended and is cleaned away; nothing may be killed or sent meanwhile.

        Args:
            wait_s: how long nothing may get further; a backlog that gets smaller does not stand still.
            meanwhile: called again and again.

        Raises:
            AssertionError: something stands still; says what.
        """
        least, since = len(self._open_jobs()), time.monotonic()
        pause_s = 0.05
        while left := len(self._open_jobs()):
            if left < least:
                least, since = left, time.monotonic()
            assert time.monotonic() - since < wait_s, self._complaint(wait_s)
            self.revive()
            meanwhile()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.5)

    def _open_jobs(self) -> list[str]:
        """The jobs that did not end, or whose staged file is still to be removed."""
        ended = tables.JobRow.phase.in_([Phase.DONE, Phase.FAILED]) & (tables.JobRow.unclean == False)  # noqa: E712 (SQL)
        with self._read():
            rows = list(tables.JobRow.select().where(~ended).order_by(tables.JobRow.job_id))
        return [_told(row) for row in rows]

    def _complaint(self, wait_s: float) -> str:
        jobs = self._open_jobs()
        logs = [f"--- {part.log.name}\n{tail(part.log, LOG_LINES)}" for part in self.parts]
        return "\n".join([f"after {wait_s:g} s {len(jobs)} jobs stand still:", *jobs[:TOLD], *logs])

    def taken_over(self) -> int:
        """How often a job or an upload was taken from an owner that stood still."""
        with self._read():
            return int(tables.JobEvent.select().where(tables.JobEvent.name == "taken over").count())

    def evidence(self, sent: Sequence[Sent]) -> Evidence:
        """All that there is, when it is settled.

        Args:
            sent: all requests; those without an answer get that of the job that they made, if they made one.
        """
        with self._read():
            ids: dict[int, dict[int, str]] = {}
            for owned in tables.ArchiveId.select():
                ids.setdefault(owned.job_id, {})[owned.file_id] = owned.state
            rows = {row.job_id: row for row in tables.JobRow.select()}
            told = {row.job_id: row for row in orm.IngestState.select()}
            jobs = {
                job_id: _seen(rows.get(job_id), told.get(job_id), ids.get(job_id, {}))
                for job_id in rows.keys() | told.keys()
            }
            transactions = self._transactions()
        return Evidence(
            sent=list(_matched(sent, jobs, transactions)),
            jobs=jobs,
            transactions=list(transactions.items()),
            objects={file_id: _digest(path) for file_id, path in self._archived() if path.name.isdigit()},
            staged={path.name: _digest(path) for path in landed(self.staging)},
            pieces=[file_id for file_id, path in self._archived() if not path.name.isdigit()],
        )

    def _archived(self) -> Iterator[tuple[int, Path]]:
        """Everything in the archive: objects have their id for a name, what is not finished begins with it."""
        for path in self.archive.rglob("*"):
            file_id, point, _ = path.name.partition(".")
            if path.is_file() and file_id.isdigit() and (point or int(file_id) not in self._objects_before):
                yield int(file_id), path

    def _transactions(self) -> dict[int, list[Found]]:
        core = self.setting.core
        if core is not None:
            found = _core_transactions(core)
            return {number: files for number, files in found.items() if number not in self._before}
        local: dict[int, list[Found]] = {row.job_id: [] for row in tables.CatalogueTransaction.select()}
        for row in tables.CatalogueFile.select():
            digest = f"{row.hashtype}:{row.hashsum}"
            file = Found(path=canonical(f"{row.subdir}/{row.name}"), file_id=row.file_id, digest=digest)
            local.setdefault(row.job_id, []).append(file)
        return local

    @contextmanager
    def _read(self) -> Iterator[None]:
        """Let the models of this process read the site's database."""
        if self._database is None:
            self._database = open_database(self.database_url)
        database, models = self._database, [*tables.TABLES, orm.IngestState]
        bound = database.bind_ctx(models, bind_refs=False, bind_backrefs=False)
        with _reading, bound, database.connection_context():
            yield


def new_vhost(broker: RabbitMQ) -> str:
    """The URL of an empty part of a broker, which no other site uses."""
    name = f"site{random.SystemRandom().getrandbits(32)}"
    for command in (["add_vhost", name], ["set_permissions", "-p", name, "guest", ".*", ".*", ".*"]):
        run(["/usr/lib/rabbitmq/bin/rabbitmqctl", "--quiet", *command], env=broker.environment())
    return broker.url.removesuffix("/") + name


def _told(row: Any) -> str:
    about = f"job {row.job_id} is {row.phase}, owner {row.worker!r}, epoch {row.epoch}, heartbeat {row.heartbeat}"
    unclean = ", its staged file is to be removed" if row.unclean else ""
    return f"{about}, due {row.not_before} UTC, waits for {row.waiting_for!r}{unclean}"


def _seen(row: Any, told: Any, ids: Mapping[int, str]) -> JobSeen:
    """A job of both tables; each belongs to one of the other."""
    return JobSeen(
        phase=row.phase if row else "unknown",
        complete=bool(told and told.complete),
        state=told.state if told else "",
        reason=told.exception if told else "",
        staged=Path(row.path).name if row and row.path else "",
        ids=ids,
    )


def _matched(
    sent: Sequence[Sent], jobs: Mapping[int, JobSeen], transactions: Mapping[int, Sequence[Found]]
) -> Iterator[Sent]:
    """The requests; one that got no answer has that of its job, as the same promise holds once a job is accepted."""
    answered = {one.job_id for one in sent}
    made = {
        frozenset((file.path, file.digest) for file in files): number
        for number, files in transactions.items()
        if number not in answered and number in jobs
    }
    for one in sent:
        number = made.get(frozenset(one.files.items())) if one.status is None and one.files else None
        yield one if number is None else replace(one, status=200, job_id=number)


def _core_transactions(core: PacificaCore) -> dict[int, list[Found]]:
    """Transaction → files, from the database of the Metadata service."""
    found: dict[int, list[Found]] = {
        int(line): [] for line in core.postgresql.query("SELECT id FROM transactions").split()
    }
    columns = "transaction_id, id, hashtype, hashsum, subdir, name"
    for line in core.postgresql.query(f"SELECT {columns} FROM files").splitlines():
        job_id, file_id, hashtype, hashsum, subdir, name = line.split("|")
        file = Found(path=canonical(f"{subdir}/{name}"), file_id=int(file_id), digest=f"{hashtype}:{hashsum}")
        found[int(job_id)].append(file)
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
