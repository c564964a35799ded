"""Clock, landing zone and queue in memory, which can fail on command."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pacifica.ingest.core.errors import ClaimLost, Conflict, NoSpace, Unavailable
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Kind
from pacifica.ingest.ports import Receipt
from pacifica.ingest.testing.faults import Double, Faults, can_fail

__all__ = ["ManualClock", "MemoryQueue", "MemoryStaging", "MemoryUpload"]

#: The landing zone; there is no such folder.
FOLDER = Path("/memory")
#: The names of staged files.
STAGED = re.compile(r"[1-9]\d{0,18}(\.tar|\.json)(\.part)?", re.ASCII)


class ManualClock:
    """`ports.Clock` that stands still until it is told to move."""

    def __init__(self, start: datetime = datetime(2020, 1, 1, tzinfo=UTC)) -> None:
        """Begin at an aware time."""
        self._now = start
        self._monotonic = 0.0

    def now(self) -> datetime:
        """See `ports.Clock.now`."""
        return self._now

    def monotonic(self) -> float:
        """See `ports.Clock.monotonic`."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._monotonic += seconds
        self.jump(seconds)

    def jump(self, seconds: float) -> None:
        """Change the time of day alone, as an operator does; negative goes back."""
        self._now += timedelta(seconds=seconds)


class MemoryQueue(Double):
    """`ports.Queue`.

    Attributes:
        sent: the jobs that were hinted, in order.

    """

    role = "queue"

    def __init__(self, faults: Faults | None = None) -> None:
        """Begin empty."""
        super().__init__(faults)
        self.sent: list[Job] = []

    @can_fail
    def send(self, job: Job) -> None:
        """See `ports.Queue.send`."""
        self.sent.append(job)


class MemoryStaging(Double):
    """`ports.Staging`.

    Attributes:
        files: what lies there, finished or not (`.part`); the paths exist nowhere else.
        free_bytes: room for more; None is no limit.
        zone: which landing zone it is; another one when it is changed.

    """

    role = "staging"

    def __init__(self, faults: Faults | None = None) -> None:
        """Begin empty."""
        super().__init__(faults)
        self.files: dict[Path, bytes] = {}
        self.free_bytes: int | None = None
        self.zone = "memory"

    @can_fail
    def admit(self, size_bytes: int | None) -> str:
        """See `ports.Staging.admit`."""
        if self.free_bytes is not None and self.free_bytes < (size_bytes or 0):
            msg = f"There is room for {self.free_bytes} bytes, not for {size_bytes}."
            raise NoSpace(msg)
        return self.zone

    @can_fail
    def begin(self, job_id: int, kind: Kind, landing_zone: str) -> "MemoryUpload":
        """See `ports.Staging.begin`."""
        self._require(landing_zone)
        final = self.path(job_id, kind)
        self.refuse_taken(final)
        return MemoryUpload(self, final)

    def refuse_taken(self, final: Path) -> None:
        """Raise `Conflict` if something lies there."""
        if final in self.files:
            msg = f"{final.name} is there already, from another system; an operator has to look at it."
            raise Conflict(msg)

    def is_here(self, path: Path, landing_zone: str) -> bool:  # noqa: ARG002 (there is one folder)
        """See `ports.Staging.is_here`."""
        return landing_zone in {"", self.zone}

    def _require(self, landing_zone: str) -> None:
        if landing_zone not in {"", self.zone}:
            msg = f"The landing zone {landing_zone} is not mounted here."
            raise Unavailable(msg)

    @can_fail
    def discard(self, job_id: int, kind: Kind, landing_zone: str) -> None:
        """See `ports.Staging.discard`."""
        self._require(landing_zone)
        final = self.path(job_id, kind)
        for path in (final, _part(final)):
            self.files.pop(path, None)

    @can_fail
    def remove(self, path: Path, landing_zone: str) -> None:
        """See `ports.Staging.remove`."""
        self._require(landing_zone)
        if self.is_ours(path, landing_zone):
            self.files.pop(path, None)

    def is_ours(self, path: Path, landing_zone: str) -> bool:
        """See `ports.Staging.is_ours`."""
        return bool(landing_zone) or (STAGED.fullmatch(path.name) is not None and path.parent == FOLDER)

    @can_fail
    def owns(self, path: Path) -> bool:
        """See `ports.Staging.owns`."""
        return STAGED.fullmatch(path.name) is not None and path.parent == FOLDER

    @staticmethod
    def path(job_id: int, kind: Kind) -> Path:
        """Where the file of a job lies."""
        return FOLDER / f"{job_id}{kind.suffix}"


class MemoryUpload(Double):
    """`ports.Upload` into a `MemoryStaging`."""

    role = "upload"

    def __init__(self, staging: MemoryStaging, final: Path) -> None:
        """Begin an empty file."""
        super().__init__(staging.faults)
        self._staging = staging
        self._final = final
        staging.files[_part(final)] = b""

    @can_fail
    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """See `ports.Upload.write`."""
        free = self._staging.free_bytes
        if free is not None and free < len(chunk):
            msg = "The disk for uploads is full. Try again later."
            raise NoSpace(msg)
        if free is not None:
            self._staging.free_bytes = free - len(chunk)
        # What was removed meanwhile can still be written, but is nowhere to be found.
        if _part(self._final) in self._staging.files:
            self._staging.files[_part(self._final)] += bytes(chunk)

    @can_fail
    def commit(self) -> Receipt:
        """See `ports.Upload.commit`."""
        whole = self._staging.files.pop(_part(self._final), None)
        if whole is None:
            msg = f"{self._final.name}.part is gone: the upload was given up."
            raise ClaimLost(msg)
        self._staging.refuse_taken(self._final)
        self._staging.files[self._final] = whole
        return Receipt(path=self._final, size_bytes=len(whole))

    @can_fail
    def close(self) -> None:
        """See `ports.Upload.close`."""


def _part(final: Path) -> Path:
    return final.with_name(f"{final.name}.part")
