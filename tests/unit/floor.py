"""The work floor on the doubles: intake, pipeline and recovery, wired as `app` does it.

What it is not: a test.  The landing zone is the real one in a temporary folder, as bundles are read from the disk.

Who may call it: unit tests.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pacifica.ingest.bundle import Limits
from pacifica.ingest.core.jobs import Claim, Job, Status
from pacifica.ingest.core.metadata import Registration
from pacifica.ingest.core.paths import canonical
from pacifica.ingest.core.states import Kind, Phase, State, Step
from pacifica.ingest.intake import Body, Intake
from pacifica.ingest.pipeline import Neighbours, Pipeline, Rules
from pacifica.ingest.ports import Receipt, Upload
from pacifica.ingest.recovery import Recovery
from pacifica.ingest.staging import FolderStaging
from pacifica.ingest.submitter import Enforcement, SubmitterPolicy
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
from tests.harness.landing import landed

__all__ = ["FILES", "LEASE_S", "UPLOAD_LEASE_S", "Floor", "Landing", "Store", "TickingClock", "bundle", "registered"]

LEASE_S = 30.0
UPLOAD_LEASE_S = 600.0

FILES = {"a.txt": b"first", "deep/er/b.bin": bytes(range(256)) * 40, "empty": b"", "ü/c": b"third", "d": b"last"}


def bundle(files: Mapping[str, bytes] = FILES) -> BundleBuilder:
    """A whole bundle of some files."""
    builder = BundleBuilder()
    for path, content in files.items():
        builder.add(path, content)
    return builder


def registered(document: Registration) -> dict[str, int]:
    """Path → archive id, as the catalogue has it."""
    return {
        canonical(f"{entry['subdir']}/{entry['name']}"): entry["_id"]
        for entry in document
        if entry["destinationTable"] == "Files"
    }


class TickingClock(ManualClock):
    """A clock that goes on by a second whenever it is asked for monotonic time, so that all progress is reported."""

    def monotonic(self) -> float:
        self.advance(1)
        return super().monotonic()


class Store(MemoryJobStore):
    """The job store, which also remembers what clients could see."""

    def __init__(self, clock: ManualClock, faults: Faults) -> None:
        super().__init__(clock, faults)
        self.told: list[tuple[Step, float]] = []

    def report(self, claim: Claim, step: Step, percent: float) -> None:
        super().report(claim, step, percent)
        self.told.append((step, percent))

    @property
    def jobs(self) -> list[Job]:
        """All jobs, without a call that could fail or be counted."""
        return list(self._jobs.values())

    @property
    def statuses_now(self) -> dict[int, Status]:
        """All statuses, likewise."""
        return dict(self._statuses)

    @property
    def ids(self) -> dict[int, str]:
        """Archive id → whether it is an intent, archived or garbage."""
        return {file_id: found.state for file_id, found in self._ids.items()}

    @property
    def unclean(self) -> set[int]:
        """Jobs whose staged file may still be there."""
        return set(self._unclean)


class Landing(Double):
    """The landing zone in a folder, which can fail on command."""

    role = "staging"

    def __init__(self, folder: Path, faults: Faults) -> None:
        super().__init__(faults)
        self.folder = folder
        self._real = FolderStaging(folder, 0)
        self._opened: list[Upload] = []

    @can_fail
    def admit(self, size_bytes: int | None) -> str:
        return self._real.admit(size_bytes)

    @can_fail
    def begin(self, job_id: int, kind: Kind, landing_zone: str) -> "_Landed":
        upload = self._real.begin(job_id, kind, landing_zone)
        self._opened.append(upload)
        return _Landed(upload, self.faults)

    def is_here(self, path: Path, landing_zone: str) -> bool:
        return self._real.is_here(path, landing_zone)

    @can_fail
    def discard(self, job_id: int, kind: Kind, landing_zone: str) -> None:
        self._real.discard(job_id, kind, landing_zone)

    @can_fail
    def remove(self, path: Path, landing_zone: str) -> None:
        self._real.remove(path, landing_zone)

    def owns(self, path: Path) -> bool:
        return self._real.owns(path)

    def close(self) -> None:
        """Close files that nobody knows of, as the system does for a process that dies."""
        for upload in self._opened:
            upload.close()


class _Landed(Double):
    role = "upload"

    def __init__(self, real: Upload, faults: Faults) -> None:
        super().__init__(faults)
        self._real = real

    @can_fail
    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self._real.write(chunk)

    @can_fail
    def commit(self) -> Receipt:
        return self._real.commit()

    def close(self) -> None:
        # A file is closed when its process dies, and nothing can fail here.
        self._real.close()


class Floor:
    """Everything between the edges, on doubles that share their faults."""

    def __init__(
        self,
        folder: Path,
        *,
        verify: str = "full",
        retry_for_s: float = 120.0,
        min_hash: str = "",
        still_s: float = 0.0,
        metadata_bytes: int = 1 << 20,
        clock: ManualClock | None = None,
        enforce_submitter: Enforcement = "off",
    ) -> None:
        self.folder = folder
        self.incoming = folder / "incoming"
        #: Where sources may lie; empty: in `incoming`.
        self.roots: tuple[Path, ...] = ()
        self.clock = clock or ManualClock()
        self.faults = Faults()
        self.store = Store(self.clock, self.faults)
        self.staging = Landing(folder / "staging", self.faults)
        self.ids = MemoryIds(self.faults)
        self.policy = MemoryPolicy(self.faults)
        self.archive = MemoryArchive(self.faults)
        self.catalogue = MemoryCatalogue(self.faults)
        self.queue = MemoryQueue(self.faults)
        self.verify = verify
        self.retry_for_s = retry_for_s
        self.min_hash = min_hash
        self.still_s = still_s
        self.enforce_submitter = enforce_submitter
        self.limits = Limits(metadata_bytes=metadata_bytes)
        # Ids of jobs and of files differ, so that a mix-up shows.
        self.ids.next_id = dict(zip(self.ids.next_id, (7, 1000), strict=True))
        self.restart()

    def restart(self, faults: Faults | None = None) -> None:
        """What a new process does: everything that was in memory is gone, and with it the faults."""
        self.faults = faults or Faults()
        for double in (self.store, self.staging, self.ids, self.policy, self.archive, self.catalogue, self.queue):
            double.faults = self.faults
        self.intake = Intake(
            store=self.store,
            staging=self.staging,
            ids=self.ids,
            queue=self.queue,
            clock=self.clock,
            pause=self.clock.advance,
            max_bytes=0,
        )
        policy = SubmitterPolicy(self.policy, self.catalogue, self.enforce_submitter)
        self.pipeline = Pipeline(
            store=self.store,
            staging=self.staging,
            neighbours=Neighbours(ids=self.ids, policy=policy, archive=self.archive, catalogue=self.catalogue),
            clock=self.clock,
            rules=Rules(
                verify=self.verify,
                move_roots=self.roots or (self.incoming,),
                chunk_bytes=4096,
                retry_for_s=self.retry_for_s,
                lease_s=LEASE_S,
                limits=self.limits,
                min_hash=self.min_hash,
                still_s=self.still_s,
            ),
        )
        self.recovery = Recovery(
            store=self.store,
            staging=self.staging,
            queue=self.queue,
            clock=self.clock,
            lease_s=LEASE_S,
            upload_lease_s=UPLOAD_LEASE_S,
        )

    # --- what clients do

    def upload(self, content: bytes | None = None, kind: Kind = Kind.INGEST, user: str = "dmlb2001") -> Job:
        """Send a body, in two pieces."""
        content = bundle().build() if content is None else content
        half = len(content) // 2
        return self.intake.accept(kind, user, Body(chunks=[content[:half], content[half:]], length=len(content)))

    def document(self, files: Mapping[str, bytes] = FILES) -> list[dict[str, object]]:
        """Write the sources of a move; returns the document that names them."""
        self.incoming.mkdir(exist_ok=True)
        builder = BundleBuilder()
        for number, (path, content) in enumerate(files.items()):
            source = self.incoming / f"source{number}"
            source.write_bytes(content)
            builder.entry(path, content, source=str(source))
        return builder.document()

    def move(self, document: list[dict[str, object]] | None = None) -> Job:
        """Send the document of a move."""
        return self.upload(json.dumps(self.document() if document is None else document).encode(), Kind.MOVE)

    # --- what workers do

    def claim(self, job: Job) -> Claim:
        """Claim a job that is due."""
        claim = self.store.claim(job.job_id, "worker")
        assert claim is not None, self.store.job(job.job_id)
        return claim

    def run(self, job: Job) -> Job:
        """Let a worker take the job once; returns it as it is then."""
        self.pipeline.run(self.claim(job))
        return self.store.job(job.job_id)

    def run_when_due(self, job: Job) -> Job:
        """The same, when the wait of a waiting job is over."""
        before = self.store.job(job.job_id)
        assert before.phase is Phase.READY, self.status(job)
        self.clock.advance(max(0.0, (before.not_before - self.clock.now()).total_seconds()))
        return self.run(job)

    # --- what is to be seen

    def status(self, job: Job) -> Status:
        """What a client is told."""
        return self.store.status(job.job_id)

    def names(self, job: Job) -> list[str]:
        """The names of the job's events."""
        return [event.name for event in self.store.events(job.job_id)]

    def is_kept(self, job: Job) -> bool:
        """Whether the staged file is there, and known."""
        return Path(job.path).is_file() and job.path in {other.path for other in self.store.jobs}

    def staged(self) -> set[str]:
        """The names in the landing zone, without its marker."""
        return {path.name for path in landed(self.staging.folder)}

    def archived(self, job: Job) -> dict[str, bytes]:
        """Path → bytes in the archive, of a registered job."""
        document = self.catalogue.transactions[job.job_id]
        return {path: self.archive.objects[file_id] for path, file_id in registered(document).items()}

    def assert_failed(self, job: Job, step: Step, reason: str) -> None:
        """The job failed as documented, with everything kept."""
        status = self.status(job)
        assert (status.state, status.step, status.percent, status.complete) == (State.FAILED, step, 0, True), status
        assert reason in status.reason
        assert "Traceback" not in status.reason
        assert self.store.job(job.job_id).phase is Phase.FAILED
        assert self.is_kept(job)

    def assert_done(self, job: Job, files: Mapping[str, bytes] = FILES) -> None:
        """The job is over, everything is where it belongs, and nothing is left behind."""
        status = self.status(job)
        expected = (State.OK, Step.INGEST_METADATA, 100, "", True)
        assert (status.state, status.step, status.percent, status.reason, status.complete) == expected
        assert self.store.job(job.job_id).phase is Phase.DONE
        assert self.archived(job) == files
        assert not Path(job.path).exists()
        known = registered(self.catalogue.transactions[job.job_id]).values()
        assert set(known) == set(self.store.file_ids(job.job_id).values())
        if job.kind is Kind.MOVE:
            assert list(self.incoming.iterdir()) == []
