"""The service's side of a schedule: the real `Intake`, `Pipeline` and `Recovery` on the doubles of `pacifica.ingest.testing`.

Each process is a greenlet that gives up control in `Faults.around`, before each call to a port.  The heart of a job is one
too: `pacifica.ingest.work` and `intake` get a `threading` that starts a greenlet instead of a thread.

What is left out: a staged file gets its name by a link to the same bytes instead of being written and synced, and a worker that
gets a hint claims at once, without looking whether the job is one of version 0.4.1.

Who may call it: `rounds`.
"""

import hashlib
import json
import logging
import os
import random
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from greenlet import getcurrent, greenlet

from pacifica.ingest import deposit, intake, pipeline, work
from pacifica.ingest.bundle import Bundle, Limits
from pacifica.ingest.cli import gc
from pacifica.ingest.core.errors import (
    ClaimLost,
    Conflict,
    DatabaseDown,
    JobBusy,
    LengthMismatch,
    NeighbourDown,
    PolicyRefused,
    Unavailable,
    Unconfirmed,
)
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.metadata import Document, Registration
from pacifica.ingest.core.paths import canonical
from pacifica.ingest.core.states import Kind, State, Step
from pacifica.ingest.intake import Body, Intake
from pacifica.ingest.pipeline import Neighbours, Pipeline, Rules
from pacifica.ingest.ports import IdMode, Parcel, Progress, Receipt, Shipment
from pacifica.ingest.recovery import Recovery
from pacifica.ingest.retention import Retention
from pacifica.ingest.staging import STAGED
from pacifica.ingest.testing import (
    BundleBuilder,
    Faults,
    ManualClock,
    MemoryArchive,
    MemoryCatalogue,
    MemoryIds,
    MemoryJobStore,
    MemoryPolicy,
    MemoryQueue,
)
from pacifica.ingest.testing.faults import Double, can_fail
from tests.faults.model.plan import FILES, FOREIGN, JOBS_FROM, SPOILT, Client, Plan, body_of, content_of, source_of
from tests.faults.model.play import Agent, Answer, Collected, How
from tests.faults.oracle import Found, JobSeen

__all__ = ["Real", "Service", "Store", "as_processes"]

#: What Policy says.
REFUSAL = "not allowed"
LEASE_S = 30.0
UPLOAD_LEASE_S = 600.0
IDLE_S = 1.0


class Death(BaseException):
    """The process is gone: nothing catches it, and nothing that it would do afterwards happens."""


# --- processes


class Process(greenlet):
    """`play.Agent` as a greenlet."""

    def __init__(
        self, name: str, life: "Callable[[Process], None]", clock: ManualClock, owner: "Process | None" = None
    ) -> None:
        super().__init__()
        self.name = name
        self.pending: str | None = ""
        self.ready_at = 0.0
        self.stopping = False
        self.heart: Agent | None = None
        self.owner = owner
        self.carries: tuple[int, int] | None = None
        #: The archive id of the call to the archive that is made now.
        self.about = 0
        self.is_dead = False
        #: What the call that is made now would send, for when it arrives late.
        self.parcel: Callable[[], None] | None = None
        #: Likewise, when it is cut half-way; returns what the rest does when it is only slow.
        self.half: Callable[[bool], list[Callable[[], None]]] | None = None
        self.clock = clock
        self._life = life
        self.resume(How.OK)

    def run(self, *_: object) -> None:
        # Whatever escapes ends the process.
        with suppress(Death, Exception):
            self._life(self)
        self.pending = None

    def ask(self, call: str) -> How:
        """Give up control before a call; returns what becomes of it."""
        if self.is_dead:
            raise Death
        self.pending = call
        how: How = self.parent.switch()
        if how is How.DIES:
            self.is_dead = True
            raise Death
        return how

    def pause(self, call: str, seconds: float) -> None:
        """Give up control for that long."""
        self.ready_at = self.clock.monotonic() + seconds
        self.ask(call)

    def resume(self, how: How) -> None:
        self.parent = getcurrent()
        self.switch(how)
        if self.is_dead:
            self.pending = None

    def kill(self) -> None:
        if self.pending is not None:
            self.resume(How.DIES)


class Heart:
    """What `work` takes for a thread."""

    def __init__(self, *, target: Callable[[], None], **_: object) -> None:
        self._target = target
        self._process: Process | None = None

    def start(self) -> None:
        owner = current()
        self._process = Process(f"{owner.name} heart", lambda _: self._target(), owner.clock, owner)
        owner.heart = self._process

    def join(self) -> None:
        heart, owner = self._process, current()
        owner.heart = None
        while heart is not None and heart.pending is not None:
            heart.resume(How.DIES if owner.is_dead else How.OK)


class Over:
    """What `work` takes for an event."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def wait(self, seconds: float) -> bool:
        current().pause("heart.wait", seconds)
        return self._is_set


def current() -> Process:
    """The process that runs now."""
    process = getcurrent()
    assert isinstance(process, Process)
    return process


class Steps(Faults):
    """Gives up control before each call."""

    def __init__(self, late: list[tuple[str, int, Callable[[], None]]]) -> None:
        super().__init__()
        self._late = late
        self.archive: MemoryArchive | None = None

    def around(self, call: str) -> AbstractContextManager[None]:  # type: ignore[override]
        process = getcurrent()
        if not isinstance(process, Process):  # the operator and the judge
            return NOTHING
        how = process.ask(call)
        return NOTHING if how is How.OK else self._go_wrong(call, how, process)

    @contextmanager
    def _go_wrong(self, call: str, how: How, process: Process) -> Iterator[None]:
        if how is How.DIES_AFTER:
            process.is_dead = True
            yield
            raise Death
        elif how is How.LOST:
            yield
            raise _away(call)
        elif how is How.SPOILT:
            assert self.archive is not None
            self.archive.spoil = lambda _: SPOILT.encode()
            yield
            self.archive.spoil = bytes
        else:
            if how is How.LATE:
                assert process.parcel is not None
                self._late.append((call, process.about, process.parcel))
            elif how in {How.HALF, How.SLOW}:
                assert process.half is not None
                self._late += [(call, process.about, rest) for rest in process.half(how is How.SLOW)]
            raise RuntimeError(call) if how is How.BUG else _away(call)


#: Nothing goes wrong.
NOTHING = nullcontext()


def _away(call: str) -> Exception:
    role = call.partition(".")[0]
    if role == "jobs":
        return DatabaseDown("away")
    if call in {"staging.discard", "staging.remove"}:
        return OSError(5, "Input/output error")
    return Unavailable("away") if role in {"staging", "upload"} else NeighbourDown(role, "away")


# --- the world


class Store(MemoryJobStore):
    """The job store, open to the judge."""

    @property
    def jobs(self) -> dict[int, Job]:
        return self._jobs

    @property
    def unclean(self) -> set[int]:
        return self._unclean

    @property
    def ids(self) -> dict[int, Any]:
        return self._ids

    def seen(self) -> dict[int, JobSeen]:
        """As the oracle wants it."""
        ids: dict[int, dict[int, str]] = {job_id: {} for job_id in self._jobs}
        for file_id, found in self._ids.items():
            ids.setdefault(found.job_id, {})[file_id] = found.state
        return {job_id: self._seen(job, ids[job_id]) for job_id, job in self._jobs.items()}

    def _seen(self, job: Job, ids: dict[int, str]) -> JobSeen:
        status = self._statuses[job.job_id]
        return JobSeen(
            phase=job.phase,
            complete=status.complete,
            state=status.state,
            reason=status.reason,
            staged=job.path.rpartition("/")[2],
            ids=ids,
            expired=any(event.name == "expired" for event in self._events.get(job.job_id, ())),
        )


class Landing(Double):
    """A landing zone on the disk, as bundles are read from there; what lies in it is linked, not written."""

    role = "staging"

    def __init__(self, folder: Path, faults: Faults) -> None:
        super().__init__(faults)
        self.folder = folder
        self.files: dict[str, bytes] = {}

    @can_fail
    def admit(self, size_bytes: int | None) -> str:  # noqa: ARG002 (of the port)
        return "here"

    @can_fail
    def begin(self, job_id: int, kind: Kind, landing_zone: str) -> "Landed":  # noqa: ARG002 (likewise)
        name = f"{job_id}{kind.suffix}"
        if name in self.files:
            raise Conflict(name)
        self.files[f"{name}.part"] = b""
        return Landed(self, name)

    def is_here(self, path: Path, landing_zone: str) -> bool:  # noqa: ARG002 (of the port)
        """Everybody may look at the disk."""
        return True

    @can_fail
    def discard(self, job_id: int, kind: Kind, landing_zone: str) -> None:  # noqa: ARG002 (of the port)
        name = f"{job_id}{kind.suffix}"
        self.files.pop(f"{name}.part", None)
        self.unlink(name)

    @can_fail
    def remove(self, path: Path, landing_zone: str) -> None:  # noqa: ARG002 (of the port)
        self.unlink(path.name)

    def is_ours(self, path: Path, landing_zone: str) -> bool:  # noqa: ARG002 (of the port)
        """All that is staged here was uploaded."""
        return True

    def owns(self, path: Path) -> bool:
        return path.parent == self.folder and STAGED.fullmatch(path.name) is not None

    def unlink(self, name: str) -> None:
        if self.files.pop(name, None) is not None and not name.endswith(".part"):
            os.unlink(f"{self.folder}/{name}")  # noqa: PTH108 (called for every schedule)


class Landed(Double):
    """A file that is being written."""

    role = "upload"

    def __init__(self, landing: Landing, name: str) -> None:
        super().__init__(landing.faults)
        self._landing = landing
        self._name = name

    @can_fail
    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        part = f"{self._name}.part"
        if part in self._landing.files:
            self._landing.files[part] += chunk

    @can_fail
    def commit(self) -> Receipt:
        files = self._landing.files
        content = files.pop(f"{self._name}.part", None)
        if content is None:
            raise ClaimLost(self._name)
        if self._name in files:
            raise Conflict(self._name)
        files[self._name] = content
        path = f"{self._landing.folder}/{self._name}"
        os.link(_master(self._landing.folder, content), path)
        return Receipt(path=Path(path), size_bytes=len(content))

    def close(self) -> None:
        """A file is closed when its process dies, and nothing can fail here."""


@cache
def _master(folder: Path, content: bytes) -> str:
    path = folder / f"master {hashlib.sha256(content).hexdigest()}"
    path.write_bytes(content)
    return str(path)


class Policy(MemoryPolicy):
    """Refuses one user, or everybody."""

    @can_fail
    def permit(self, document: Registration, user: str) -> None:  # noqa: ARG002 (of the port)
        if user == "nobody" or self.refusal is not None:
            raise PolicyRefused(REFUSAL)


class Archive(MemoryArchive):
    """An archive as it is in the field: it overwrites what is there, and says that all is well."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(faults)
        #: Source → under which id, and what is still done with it.
        self.rests: dict[Path, tuple[int, list[Callable[[], None]]]] = {}

    # Progress is not told, so that each of these is one step.
    def store(self, parcel: Parcel, progress: Progress) -> None:  # noqa: ARG002 (of the port)
        current().parcel, current().about = lambda: self._cut(parcel), parcel.file_id
        super().store(parcel, lambda _: None)

    def digest(
        self,
        file_id: int,
        algorithm: str,
        progress: Progress,  # noqa: ARG002 (likewise)
        *,
        most_bytes: int | None = None,
    ) -> tuple[str, int]:
        return super().digest(file_id, algorithm, lambda _: None, most_bytes=most_bytes)

    def adopt(self, file_id: int, source: Path) -> None:
        current().parcel, current().about = lambda: self._adopt_late(file_id, source), file_id
        current().half = lambda is_slow: self._copy_half(file_id, source, is_slow=is_slow)
        with self.faults.around("archive.adopt"):
            self._take(file_id, source)

    def adopt_all(
        self,
        parcels: Sequence[Parcel],
        ready: Callable[[], object],
        progress: Progress,  # noqa: ARG002 (likewise)
        shipment: Shipment,
    ) -> None:
        super().adopt_all(parcels, ready, lambda _: None, shipment)

    def _take(self, file_id: int, source: Path) -> None:
        for rest in self.rests.pop(source, (0, []))[1]:
            rest()
        MemoryArchive.adopt.__wrapped__(self, file_id, source)  # type: ignore[attr-defined]  # of `can_fail`

    def size(self, file_id: int) -> int | None:
        current().about = file_id
        return super().size(file_id)

    def remove(self, file_id: int) -> bool:
        current().about = file_id
        return super().remove(file_id)

    def _adopt_late(self, file_id: int, source: Path) -> None:
        with suppress(NeighbourDown):
            self._take(file_id, source)

    def _copy_half(self, file_id: int, source: Path, *, is_slow: bool) -> list[Callable[[], None]]:
        """The archive copies between file systems, and is cut; returns what it does when it is only slow."""
        if not source.exists():
            return []
        content = source.read_bytes()
        self.objects[file_id] = content[:2]

        def rest() -> None:
            self.objects[file_id] = content
            source.unlink(missing_ok=True)

        self.rests[source] = file_id, [rest] if is_slow else []
        return self.rests[source][1]

    def _refuse_taken(self, file_id: int, path: str) -> None:
        pass

    def _cut(self, parcel: Parcel) -> None:
        """A request that arrives late, of a writer that died on the way."""
        self.objects[parcel.file_id] = CONTENTS[str(parcel.digest)][:2]


class Catalogue(MemoryCatalogue):
    """A catalogue that a request may reach late."""

    def register(self, job_id: int, document: Registration) -> None:
        current().parcel = lambda: self._late(job_id, document)
        super().register(job_id, document)

    def _late(self, job_id: int, document: Registration) -> None:
        with suppress(Conflict):
            super().register(job_id, document)


# --- what is sent: the same in every schedule


class Indexed(Bundle):
    """A bundle whose headers are read once for all schedules: what is linked is the same file."""

    __slots__ = ()
    _known: ClassVar[dict[int, "Indexed"]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], *_: object) -> "Indexed":
        inode = os.stat(path).st_ino  # noqa: PTH116 (called for every claim)
        if inode not in cls._known:
            cls._known[inode] = super().open(path)
        return cls._known[inode]

    def close(self) -> None:
        """The next schedule reads it."""

    @classmethod
    def forget(cls) -> None:
        """Close all of them."""
        while cls._known:
            Bundle.close(cls._known.popitem()[1])


class Read(Document):
    """A document that is parsed once for all schedules."""

    @classmethod
    def read(cls, pieces: Callable[[], Iterable[bytes]], members: Container[str] = ()) -> Document:
        return _document(b"".join(pieces()), tuple(members))  # type: ignore[arg-type]  # a container of names that can be listed


@cache
def _document(text: bytes, members: tuple[str, ...]) -> Document:
    return Document.parse(text, members)


@cache
def _body(number: int, kind: Client, folder: Path | None) -> bytes:
    """A bundle, or the document of a move of sources in a folder."""
    builder = BundleBuilder()
    for name in FILES:
        content = content_of(number, name).encode()
        wrong = {"hashsum": "0" * 64} if kind is Client.FAULTY and name == FILES[-1] else {}
        if folder is None:
            builder.add(name, content, **wrong)
        else:
            builder.entry(name, content, source=str(folder / source_of(number, name)), **wrong)
    return builder.build() if folder is None else json.dumps(builder.document()).encode()


#: Digest → what has it.
CONTENTS = {
    f"sha256:{hashlib.sha256(content).hexdigest()}": content
    for content in (content_of(number, name).encode() for number in range(2) for name in FILES)
}


# --- the service


class Service:
    """What `app` wires; a rule is taken away by another part in its place."""

    store = Store
    intake = Intake
    pipeline = Pipeline
    recovery = Recovery
    retention = Retention
    #: Functions of modules: module, name, what takes its place.
    patches: tuple[tuple[Any, str, Any], ...] = ()


class Real:
    """`play.Side` of the service."""

    def __init__(self, plan: Plan, folder: Path, service: type[Service] = Service) -> None:
        self.plan = plan
        self.mono = 0.0
        self.answers = [Answer() for _ in plan.clients]
        self.under_way: list[tuple[str, int, Callable[[], None]]] = []
        self.clock = ManualClock()
        self.faults = Steps(self.under_way)
        self.store = service.store(self.clock, self.faults)
        self.staging = Landing(folder, self.faults)
        self.archive = self.faults.archive = Archive(self.faults)
        self.catalogue = Catalogue(self.faults)
        self.queue = MemoryQueue(self.faults)
        self.policy = Policy(self.faults)
        self.ids = MemoryIds(self.faults)
        self.ids.next_id = {IdMode.JOB: JOBS_FROM, IdMode.FILE: max(FOREIGN) + 1}
        self.archive.objects.update({file_id: content.encode() for file_id, content in FOREIGN.items()})
        #: What lies there is moved.
        self._incoming = folder / "incoming"
        self._bodies = [
            _body(number, kind, self._incoming if is_move else None)
            for number, (kind, is_move) in enumerate(zip(plan.clients, plan.moves, strict=True))
        ]
        self._lay_out()
        self._service = service
        self._processes: list[Process] = []
        self._common: dict[str, Any] = {"store": self.store, "staging": self.staging, "clock": self.clock}
        deposit.WINDOW_FILES = plan.window
        random.seed(plan.seed)

    def _lay_out(self) -> None:
        """Put the sources of moves where they are."""
        for number, is_move in enumerate(self.plan.moves):
            for name in FILES if is_move else ():
                content = content_of(number, name).encode()
                os.link(_master(self.staging.folder, content), f"{self._incoming}/{source_of(number, name)}")

    def _sources(self) -> dict[str, str]:
        if not any(self.plan.moves):
            return {}
        found = {}
        for name in os.listdir(self._incoming):  # noqa: PTH208 (called for every schedule)
            with open(f"{self._incoming}/{name}") as file:  # noqa: PTH123 (likewise)
                found[name] = file.read()
        return found

    def start(self, role: str, number: int, name: str, keep_s: float = 0.0) -> Agent:
        life: Callable[[Process], None]
        if role == "server":
            intake = self._service.intake(
                **self._common,
                ids=self.ids,
                queue=self.queue,
                pause=lambda seconds: current().pause("server.pause", seconds),
                max_bytes=0,
            )
            life = lambda process: self._serve(process, intake, number)  # noqa: E731 (one of three)
        elif role == "worker":
            carrier = self._pipeline()
            life = lambda process: self._work(process, carrier)  # noqa: E731 (likewise)
        elif role == "gc":
            retention = self._service.retention(
                store=self.store, staging=self.staging, archive=self.archive, catalogue=self.catalogue, keep_s=keep_s
            )
            life = lambda _: self._retain(retention)  # noqa: E731 (likewise)
        else:
            recovery = self._service.recovery(
                **self._common, queue=self.queue, lease_s=LEASE_S, upload_lease_s=UPLOAD_LEASE_S
            )
            life = lambda process: self._sweep(process, recovery, is_once=role == "recover")  # noqa: E731 (likewise)
        process = Process(name, life, self.clock)
        self._processes.append(process)
        return process

    def _pipeline(self) -> Pipeline:
        neighbours = Neighbours(ids=self.ids, policy=self.policy, archive=self.archive, catalogue=self.catalogue)
        rules = Rules(
            verify="full",
            move_roots=(self._incoming,),
            chunk_bytes=4096,
            retry_for_s=self.plan.retry_for_s,
            lease_s=LEASE_S,
            limits=Limits(),
            min_hash="",
            still_s=0.0,
        )
        return self._service.pipeline(**self._common, neighbours=neighbours, rules=rules)

    def _serve(self, process: Process, intake: Intake, number: int) -> None:
        kind, answer, content = self.plan.clients[number], self.answers[number], self._bodies[number]
        half = len(content) // 2
        chunks = [content[:half]] if kind is Client.CUT else [content[:half], content[half:]]
        user = "nobody" if kind is Client.REFUSED else "somebody"
        wanted = Kind.MOVE if self.plan.moves[number] else Kind.INGEST
        key = f"key{number}" if self.plan.keyed[number] else ""
        try:
            job = intake.accept(wanted, user, Body(chunks=chunks, length=len(content)), key)
        except LengthMismatch:
            answer.told(400)
            return
        except Unconfirmed as fault:
            process.ask("client.answer")
            answer.told(202, fault.job_id)
            return
        except Unavailable:
            answer.told(None if key else 503)
            raise
        except Exception:
            # What nobody expects of a commit says nothing of it.
            answer.told(None if key or process.pending == "jobs.accept" else 503)
            raise
        process.ask("client.answer")
        answer.told(200, job.job_id)
        intake.hint(job)

    def _work(self, process: Process, carrier: Pipeline) -> None:
        """As `app.Service.work`, or as `tasks` does it."""
        while not process.stopping:
            claim = None
            with suppress(Unavailable):
                if self.plan.by_hints:
                    process.ask("worker.hint")
                    claim = self.store.claim(self.queue.sent.pop(0).job_id, process.name)
                else:
                    claim = self.store.claim_any(process.name)
            if claim is not None:
                process.carries = (claim.job_id, claim.epoch)
                carrier.run(claim, lambda: process.stopping)
                process.carries = None
            elif not self.plan.by_hints:
                process.pause("worker.idle", IDLE_S)

    @staticmethod
    def _sweep(process: Process, recovery: Recovery, *, is_once: bool) -> None:
        if is_once:
            recovery.sweep(unclaimed_s=0)
        else:
            recovery.run(Never(process))  # type: ignore[arg-type]

    @staticmethod
    def _retain(retention: Retention) -> None:
        """As the admin command does it."""
        for _ in (*gc._bundles(retention, dry_run=False), *gc.Removal(retention).lines()):
            pass

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.mono = self.clock.monotonic()

    def jump(self, seconds: float) -> None:
        self.clock.jump(seconds)

    def hints(self) -> int:
        return len(self.queue.sent)

    def lose(self, place: int) -> None:
        del self.queue.sent[place]

    def double(self, place: int) -> None:
        self.queue.sent.append(self.queue.sent[place])

    def again(self, mode: str, number: int) -> None:
        series, lowest = (IdMode.FILE, min(self.archive.objects)) if mode == "file" else (IdMode.JOB, JOBS_FROM)
        self.ids.next_id[series] = max(lowest, self.ids.next_id[series] - number)

    def late(self) -> int:
        return len(self.under_way)

    def deliver(self, place: int) -> None:
        self.under_way.pop(place)[2]()

    def whose(self, file_id: int) -> int:
        return int(self.store.ids[file_id].job_id)

    def epoch(self, job_id: int) -> int:
        return self.store.jobs[job_id].epoch

    def forget_registrations(self) -> None:
        self.under_way[:] = [late for late in self.under_way if late[0] != "catalogue.register"]

    def forget_late(self, file_id: int) -> None:
        sends = {("archive.store", file_id), ("archive.adopt", file_id)}
        self.under_way[:] = [late for late in self.under_way if late[:2] not in sends]
        self.archive.rests = {source: rest for source, rest in self.archive.rests.items() if rest[0] != file_id}

    def refuse_all(self, *, refuses: bool) -> None:
        self.policy.refusal = REFUSAL if refuses else None

    def phases(self) -> dict[int, tuple[str, str]]:
        unclean = self.store.unclean
        return {job_id: (job.phase, "" if job_id in unclean else job.path) for job_id, job in self.store.jobs.items()}

    def retry(self, job_id: int) -> None:
        with suppress(JobBusy):
            self.store.retry(job_id)

    def force(self, job_id: int, state: str) -> None:
        reason = "forced" if state == "FAILED" else ""
        step, percent = (Step.INGEST_METADATA, 100) if state == "DONE" else (Step.INGEST_FILES, 0)
        with suppress(JobBusy):
            self.store.force(job_id, State.FAILED if reason else State.OK, step, percent, reason)

    def unclean(self) -> bool:
        return bool(self.store.unclean)

    def collect(self) -> Collected:
        known = {b"": ""}
        for number, content in enumerate(self._bodies):
            known |= {content: body_of(number), content[: len(content) // 2]: "body"}
        return Collected(
            jobs=self.store.seen(),
            transactions=[(job_id, _found(document)) for job_id, document in self.catalogue.transactions.items()],
            objects={file_id: content.decode() for file_id, content in self.archive.objects.items()},
            staged={name: known.get(content, "?") for name, content in self.staging.files.items()},
            sources=self._sources(),
        )

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for name in list(self.staging.files):
            self.staging.unlink(name)
        for name in self._sources():
            os.unlink(f"{self._incoming}/{name}")  # noqa: PTH108 (called for every schedule)


def _found(document: Registration) -> list[Found]:
    return sorted(
        (
            Found(
                path=canonical(f"{entry['subdir']}/{entry['name']}"),
                file_id=entry["_id"],
                digest=CONTENTS.get(f"{entry['hashtype']}:{entry['hashsum']}", b"?").decode(),
            )
            for entry in document
            if entry["destinationTable"] == "Files"
        ),
        key=lambda file: file.file_id,
    )


class Never:
    """What `recovery` takes for an event that is never set."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def wait(self, seconds: float) -> bool:
        self._process.pause("sweeper.pause", seconds)
        return False


@contextmanager
def as_processes(service: type[Service] = Service) -> Iterator[Path]:
    """Let the hearts of jobs and uploads be greenlets; gives a folder for staged files."""
    threads = SimpleNamespace(Thread=Heart, Event=Over)
    hearts = ((work, "threading", threads), (intake, "threading", threads))
    once = ((pipeline, "Bundle", Indexed), (pipeline, "Document", Read))
    patches = (*hearts, *once, (deposit, "WINDOW_FILES", deposit.WINDOW_FILES), *service.patches)
    before = [(module, name, getattr(module, name)) for module, name, _ in patches]
    memory = Path("/dev/shm")
    logging.disable(logging.CRITICAL)
    try:
        for patch in patches:
            setattr(*patch)
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            (Path(folder) / "incoming").mkdir()
            yield Path(folder)
    finally:
        Indexed.forget()
        logging.disable(logging.NOTSET)
        for patch in before:
            setattr(*patch)
