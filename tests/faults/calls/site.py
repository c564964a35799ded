"""A service with real adapters in a folder of its own, one client, and what is left of both.

What it is: `Site`, the folder before anything runs; `Life`, one process that serves it; `evidence`, what the oracle is
shown.  The clock is by hand, so nothing waits.

Who may call it: `rounds`, in a process of its own: what a life sets up stays.
"""

import hashlib
import json
import random
import sqlite3
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from pacifica.ingest import app, deposit
from pacifica.ingest.config import Settings
from pacifica.ingest.core.errors import ClaimLost, IngestError, Unavailable
from pacifica.ingest.core.jobs import Claim
from pacifica.ingest.core.paths import canonical
from pacifica.ingest.core.states import Kind
from pacifica.ingest.database import DB
from pacifica.ingest.intake import Body
from pacifica.ingest.local import landing, objects
from pacifica.ingest.orm import OrmSync
from pacifica.ingest.testing import BundleBuilder, ManualClock, MemoryQueue
from tests.faults.oracle import Evidence, Found, JobSeen, Sent
from tests.harness.landing import landed

__all__ = ["DATABASE", "Core", "Life", "Site", "evidence", "is_over", "make_small", "misplaced"]

DATABASE = "ingest.sqlite3"
START = datetime(2020, 1, 1, tzinfo=UTC)
#: When a process starts that takes the place of one that died.
RESTART_AFTER = timedelta(minutes=10)
LEASE_S = 600
#: A turn of the sweepers; the first are short, as jobs wait for seconds, the later ones long, as leases are.
SHORT_TURN_S, SHORT_TURNS = 5.0, 20
LONG_TURN_S, TURNS = 60.0, 60
#: What passes whenever somebody looks at the clock: so progress is written often.
TICK_S = 0.03
#: What passes between two pieces of a body: longer than an upload may go without a sign of life.
PIECE_S = 6.0

#: One short, one long, one empty.
FILES = {"a.txt": b"first", "deep/er/b.bin": bytes(range(256)) * 160, "ü": b""}


def make_small() -> None:
    """Let small files pass what long ones do, and few files several windows."""
    vars(deposit)["WINDOW_FILES"] = 2
    vars(objects).update(SMALL=8192, PIECE=16384, SYNC_EVERY=32768)
    vars(landing)["SMALL"] = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """Where the four neighbours are, and the folder in which the Archive Interface keeps its files."""

    uniqueid: str
    policy: str
    archive: str
    metadata: str
    archive_folder: str


@dataclass(frozen=True, kw_only=True)
class Site:
    """A folder, what the client sends, and which neighbours there are.

    Attributes:
        folder: of this round alone.
        kind: of the job.
        core: the neighbours; None for local ones.
        salt: makes the files of this round unlike all others.
        taken: what was in the archive's folder before.

    """

    folder: Path
    kind: Kind
    core: Core | None
    salt: str
    taken: frozenset[Path] = frozenset()

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Path → bytes."""
        if self.core is None:
            return FILES
        # Metadata is asked for what it has of these bytes, so no other round may have sent them.
        return {path: content + f"{path} of {self.salt}".encode() for path, content in FILES.items()}

    @cached_property
    def digests(self) -> dict[str, str]:
        """Path → digest."""
        return {path: _digest(content) for path, content in self.files.items()}

    @cached_property
    def body(self) -> bytes:
        """What the client sends."""
        builder = BundleBuilder()
        for number, (path, content) in enumerate(self.files.items()):
            if self.kind is Kind.INGEST:
                builder.add(path, content)
            else:
                builder.entry(path, content, source=str(self.source(number)))
        return builder.build() if self.kind is Kind.INGEST else json.dumps(builder.document()).encode()

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / DATABASE

    @property
    def archive(self) -> Path:
        """The folder of the local archive, or of the Archive Interface."""
        return Path(self.core.archive_folder) if self.core else self.folder / "archive"

    def source(self, number: int) -> Path:
        """A file that the move consumes."""
        return self.folder / "incoming" / f"source{number}"

    def prepare(self, schema: bytes) -> None:
        """Make the folder, with a database that has the tables already."""
        (self.folder / "incoming").mkdir(parents=True)
        self.database.write_bytes(schema)
        if self.kind is Kind.MOVE:
            for number, content in enumerate(self.files.values()):
                self.source(number).write_bytes(content)

    def settings(self) -> Settings:
        """As an operator would write them."""
        core, local = self.core, self.core is None
        values: dict[str, Any] = {
            "ingest": {
                "volume_path": self.folder / "staging",
                "move_roots": (self.folder / "incoming",),
                "lease": LEASE_S,
                "upload_timeout": LEASE_S // 2,
                "transfer_size": 16384,
                "keep_free": 0,
            },
            "uniqueid": {"url": core.uniqueid if core else "local:"},
            "policy": {"ingest_url": core.policy if core else "local:"},
            "archiveinterface": {"url": core.archive if core else self.archive.as_uri()},
            "metadata": {"ingest_url": core.metadata if core else "local:"},
            "database": {"peewee_url": f"sqlite:///{self.database}"},
        }
        return Settings.model_validate(values).model_copy(update={"standalone": self.folder if local else None})

    def make_schema(self) -> None:
        """Make the tables; in a process that does nothing else."""
        app.compose(self.settings(), MemoryQueue())
        OrmSync.update_tables()
        DB.close_all()


class _Clock(ManualClock):
    def monotonic(self) -> float:
        self.advance(TICK_S)
        return super().monotonic()


class Life:
    """One process that serves a site, until it dies or nothing is left to do.

    Attributes:
        raised: what escaped from where nothing may.

    """

    def __init__(self, site: Site, *, deaths: int) -> None:
        """Wire the service, which died so often before; nothing is opened yet."""
        random.seed(0)
        self._site = site
        self._deaths = deaths
        self._clock = _Clock(START + deaths * RESTART_AFTER)
        vars(app)["SystemClock"] = lambda: self._clock
        self._hints = MemoryQueue()
        self._service = app.compose(site.settings(), self._hints)
        self.raised: list[str] = []

    def send(self, answered: Callable[[int, int | None], None]) -> None:
        """Be a client that sends one body, and the server that takes it."""
        try:
            body = Body(chunks=self._pieces(), length=self._length)
            job = self._service.intake.accept(self._site.kind, "10", body, f"key of {self._site.salt}")
        except ClaimLost:
            answered(503, None)
        except IngestError as fault:
            answered(fault.status, None)
        except Exception:  # noqa: BLE001 (the error page of the server)
            answered(500, None)
        else:
            answered(200, job.job_id)
            self._service.intake.hint(job)

    def settle(self, is_over: Callable[[], bool]) -> None:
        """Let sweeper and worker do what they do, until all is over or too much time has passed."""
        if self._deaths and self._site.core is None:
            self._guarded(self._service.recovery.seize_all)
        for turn in range(TURNS):
            self._guarded(self._service.recovery.sweep)
            while claim := self._guarded(self._claim):
                self._work(claim)
            if is_over():
                return
            self._clock.advance(SHORT_TURN_S if turn < SHORT_TURNS else LONG_TURN_S)

    @property
    def _length(self) -> int:
        return len(self._site.body)

    def _pieces(self) -> Iterator[bytes]:
        third = self._length // 3 + 1
        for start in range(0, self._length, third):
            self._clock.advance(PIECE_S)
            yield self._site.body[start : start + third]

    def _claim(self) -> Claim | None:
        """Workers of a pool look for work; those of Celery are hinted."""
        if self._site.core is None:
            return self._service.store.claim_any("worker")
        while self._hints.sent:
            claim = self._service.store.claim(self._hints.sent.pop(0).job_id, "worker")
            if claim is not None:
                return claim
        return None

    def _work(self, claim: Claim) -> None:
        try:
            self._service.pipeline.run(claim)
        except Exception as fault:  # noqa: BLE001 (nothing may be raised)
            self.raised.append(f"the pipeline raised {fault!r}")

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """What the loops of the service do with faults."""
        try:
            return action()
        except Unavailable:
            return None
        except Exception as fault:  # noqa: BLE001 (nothing else may be raised)
            self.raised.append(f"{action.__name__} raised {fault!r}")
            return None


# --- what is left


def is_over(site: Site) -> bool:
    """Whether nothing is left to do."""
    with closing(_connect(site)) as rows:
        (left,) = rows.execute(
            "SELECT COUNT(*) FROM ingest_job WHERE unclean OR phase NOT IN ('done', 'failed')"
        ).fetchone()
        return not left


def evidence(site: Site, status: int | None, job_id: int | None) -> Evidence:
    """What the oracle is shown.

    Args:
        site: on which nothing runs any more.
        status: of the answer; None when none came.
        job_id: of the answer 200.

    """
    with closing(_connect(site)) as rows:
        jobs = {number: _job(number, rows) for number in _numbers(rows)}
        if status is None:
            # It was ready, so the client could have had the answer.
            found = rows.execute("SELECT job_id FROM ingest_event WHERE name = 'accepted'").fetchone()
            status, job_id = (200, found[0]) if found else (None, None)
        local = [] if site.core else _local_transactions(rows)
    sent = Sent(files=site.digests, body=_digest(site.body), status=status, job_id=job_id)
    there = _archived(site)
    return Evidence(
        sent=[sent],
        jobs=jobs,
        transactions=_core_transactions(site, site.core) if site.core else local,
        objects={int(path.name): _digest(path.read_bytes()) for path in there if path.name.isdigit()},
        staged={path.name: _digest(path.read_bytes()) for path in landed(site.folder / "staging")},
        # The name of what was not finished begins with its id.
        pieces=[int(path.name.partition(".")[0]) for path in there if not path.name.isdigit()],
    )


def misplaced(site: Site, shown: Evidence) -> list[str]:
    """What the oracle cannot know: a source of a move that is neither archived nor where it was, or both."""
    if site.kind is Kind.INGEST:
        return []
    done = any(job.phase == "done" for job in shown.jobs.values())
    left = [site.source(number).exists() for number in range(len(site.files))]
    if done:
        return ["a source was archived and is still there"] if any(left) else []
    there = {number: _digest(site.source(number).read_bytes()) for number in range(len(left)) if left[number]}
    kept = {*there.values(), *shown.objects.values()}
    return [f"the source of {path!r} is gone" for path, digest in site.digests.items() if digest not in kept]


def _connect(site: Site) -> sqlite3.Connection:
    return sqlite3.connect(site.database)


def _numbers(rows: sqlite3.Connection) -> list[int]:
    return [number for (number,) in rows.execute("SELECT job_id FROM ingest_job UNION SELECT id FROM ingeststate")]


def _job(number: int, rows: sqlite3.Connection) -> JobSeen:
    row = rows.execute("SELECT phase, path FROM ingest_job WHERE job_id = ?", (number,)).fetchone()
    told = rows.execute("SELECT state, complete, exception FROM ingeststate WHERE id = ?", (number,)).fetchone()
    phase, path = row or ("unknown", "")
    state, complete, reason = told or ("unknown", False, "")
    ids = rows.execute("SELECT file_id, state FROM ingest_archive_id WHERE job_id = ?", (number,))
    return JobSeen(
        phase=phase, complete=bool(complete), state=state, reason=reason, staged=Path(path).name, ids=dict(ids)
    )


def _local_transactions(rows: sqlite3.Connection) -> list[tuple[int, list[Found]]]:
    query = "SELECT subdir, name, file_id, hashtype, hashsum FROM ingest_catalogue_file WHERE job_id = ?"
    numbers = [number for (number,) in rows.execute("SELECT job_id FROM ingest_catalogue_transaction")]
    return [(number, [_found(*row) for row in rows.execute(query, (number,))]) for number in numbers]


def _core_transactions(site: Site, core: Core) -> list[tuple[int, list[Found]]]:
    """Whatever Metadata has of these bytes, under whichever number."""
    found: dict[int, list[Found]] = {}
    for digest in site.digests.values():
        for row in _ask(f"{core.metadata.removesuffix('/ingest')}/files", hashsum=digest.partition(":")[2]):
            file = _found(row["subdir"], row["name"], row["_id"], row["hashtype"], row["hashsum"])
            found.setdefault(row["transaction"], []).append(file)
    return sorted(found.items())


def _ask(url: str, **where: str) -> list[Mapping[str, Any]]:
    query = urllib.parse.urlencode({**where, "recursion_depth": 0})
    with urllib.request.urlopen(f"{url}?{query}", timeout=60) as answer:
        found: list[Mapping[str, Any]] = json.load(answer)
        return found


def _found(subdir: str, name: str, file_id: int, hashtype: str, hashsum: str) -> Found:
    return Found(path=canonical(f"{subdir}/{name}"), file_id=file_id, digest=f"{hashtype}:{hashsum}")


def _archived(site: Site) -> list[Path]:
    """What the archive has of this round, whole or not; its marker is no object."""
    return [path for path in _files(site.archive) if path not in site.taken and path.name[:1].isdigit()]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
