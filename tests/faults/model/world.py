"""Everything outside the processes, as dicts: database, landing zone, neighbours, queue and clock.

What it is: the ports of the service with the least that can fulfil them; each method is one atomic step.  A rule that is
taken away (`off`) is missing here or in `protocol`.

What it is not: the doubles of `pacifica.ingest.testing`; nothing of the service is used here, so that a fault of the one
is not a fault of the other.

Who may call it: `protocol` and the model's side of `play`.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.faults.model.plan import FILES, FOREIGN, JOBS_FROM, SPOILT, Plan, content_of, source_of
from tests.faults.model.rule import Rule

__all__ = [
    "Away",
    "Broken",
    "Bug",
    "Claim",
    "ClaimLost",
    "Conflict",
    "Cut",
    "Fault",
    "Job",
    "Refused",
    "Stopping",
    "Unconfirmed",
    "World",
]

#: As in `core.jobs` and `store`.
LONGEST_DELAY_S = 600.0
LOST_OWNERS = 10
#: What Policy says.
REFUSAL = "not allowed"
HINT_AGAIN_S = (5.0, 600.0)
LONG_AGO_S = HINT_AGAIN_S[1]


class Fault(Exception):
    """Whatever ends a step."""


class Away(Fault):
    """Try again later."""


class Unconfirmed(Away):
    """Nobody knows whether an upload was accepted."""

    def __init__(self, job_id: int) -> None:
        super().__init__(job_id)
        self.job_id = job_id


class Broken(Fault):
    """The disk does not do it."""


class Bug(Fault):
    """Nobody expects it."""


class Conflict(Fault):
    """Something else is there."""


class Cut(Fault):
    """Less arrived than was announced."""


class Refused(Fault):
    """The sender has to mend something."""


class ClaimLost(Fault):
    """Somebody else owns the job."""


class Stopping(Fault):
    """The process is to end."""


@dataclass(slots=True)
class Job:
    """A job's row, with what clients are told of it."""

    job_id: int
    phase: str
    worker: str = ""
    epoch: int = 0
    heartbeat: int = 0
    not_before: float = 0.0
    hinted: float = 0.0
    #: The series of transient faults: since when, and at which step.
    failing: tuple[float, int] | None = None
    lost_owners: int = 0
    frozen: bool = False
    path: str = ""
    accepted: bool = False
    is_move: bool = False
    user: str = ""
    unclean: bool = False
    #: When clients were told something for the last time.
    updated: float = 0.0
    #: Its bundle was given up, as it was kept long enough.
    expired: bool = False
    state: str = "OK"
    complete: bool = False
    reason: str = ""


class Claim(NamedTuple):
    """The right to work on a job, and the job as it was then."""

    job_id: int
    epoch: int
    frozen: bool
    path: str
    user: str
    is_move: bool


class Seen(NamedTuple):
    """A row as it was read."""

    job_id: int
    phase: str
    epoch: int
    heartbeat: int
    path: str
    lost_owners: int
    is_move: bool
    frozen: bool


@dataclass(slots=True)
class Id:
    """An archive id that was ever ours."""

    job_id: int
    seq: int
    #: Since when it is what it is.
    noted: float
    state: str = "intent"


def _seen(job: Job) -> Seen:
    return Seen(job.job_id, job.phase, job.epoch, job.heartbeat, job.path, job.lost_owners, job.is_move, job.frozen)


@dataclass(slots=True)
class World:
    """The world of one schedule."""

    plan: Plan
    off: Rule | None = None
    now: float = 0.0
    mono: float = 0.0
    jobs: dict[int, Job] = field(default_factory=dict)
    ids: dict[int, Id] = field(default_factory=dict)
    staged: dict[str, str] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    #: Job → place → how much of a source that was checked an attempt found in the archive, None when none found a part.
    noted: dict[int, dict[int, int | None]] = field(default_factory=dict)
    #: Source → under which id, and what the archive still does with it.
    rests: dict[str, tuple[int, list[Callable[[], None]]]] = field(default_factory=dict)
    objects: dict[int, str] = field(default_factory=dict)
    transactions: dict[int, list[tuple[str, int, str]]] = field(default_factory=dict)
    hints: list[int] = field(default_factory=list)
    next_id: dict[str, int] = field(default_factory=dict)
    refuses_all: bool = False
    spoils: bool = False
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        """Somebody else archived something already."""
        self.objects.update(FOREIGN)
        for number, is_move in enumerate(self.plan.moves):
            if is_move:
                self.sources.update({source_of(number, name): content_of(number, name) for name in FILES})
        self.next_id = {"job": JOBS_FROM, "file": max(FOREIGN) + 1}
        self.chance = random.Random(self.plan.seed).random

    # --- the database: uploads

    def open(self, job_id: int, worker: str, user: str, is_move: bool) -> bool:  # noqa: FBT001 (calls are tuples)
        if job_id in self.jobs and self.off is not Rule.JOB_ID_ONCE:
            return False
        row = {"worker": worker, "user": user, "is_move": is_move, "not_before": self.now, "hinted": self.now}
        self.jobs[job_id] = Job(job_id, "receiving", updated=self.now, **row)  # type: ignore[arg-type]
        return True

    def receiving(self, job_id: int, worker: str) -> None:
        self._upload(job_id, worker).heartbeat += 1

    def accept(self, job_id: int, worker: str, path: str, key: str) -> int:
        known = self.jobs.get(job_id)
        if known and (known.path == path if self.off is Rule.ACCEPTED else known.accepted):
            return job_id
        job = self._upload(job_id, worker)
        if key and self.off is not Rule.KEY_ONCE:
            first = self.keys.setdefault(key, job_id)
            if first != job_id:
                return first
        job.phase, job.worker, job.path, job.accepted = "ready", "", path, True
        self._due_now(job)
        self._tell(job, "OK")
        return job_id

    def refuse(self, job_id: int, worker: str) -> None:
        job = self.jobs.get(job_id)
        if job and job.worker == worker and job.phase == "receiving":
            del self.jobs[job_id]

    def _upload(self, job_id: int, worker: str) -> Job:
        job = self.jobs.get(job_id)
        if job is None or (self.off is not Rule.UPLOAD_OWNER and (job.worker, job.phase) != (worker, "receiving")):
            raise ClaimLost
        return job

    def _due_now(self, job: Job) -> None:
        job.not_before = job.hinted = self.now

    def _tell(self, job: Job, state: str, reason: str = "", *, complete: bool = False) -> None:
        job.state, job.reason, job.complete, job.updated = state, reason, complete, self.now

    # --- the database: owners

    def claim(self, job_id: int, worker: str) -> Claim | None:
        job = self.jobs.get(job_id)
        if job is None or not self._is_due(job):
            return None
        if self.off is not Rule.NEW_EPOCH:
            job.epoch += 1
        job.phase, job.worker, job.heartbeat = "running", worker, 0
        if job.failing:
            since, step = job.failing
            job.failing = (min(since + max(self.now - job.not_before, 0), self.now), step)
        return Claim(job_id, job.epoch, job.frozen, job.path, job.user, job.is_move)

    def claim_any(self, worker: str) -> Claim | None:
        due = [job for job in self.jobs.values() if self._is_due(job)]
        if not due:
            return None
        return self.claim(min(due, key=lambda job: (job.not_before, job.job_id)).job_id, worker)

    def _is_due(self, job: Job) -> bool:
        if job.phase != "ready":
            return self.off is Rule.READY_ONLY and job.phase != "receiving"
        far = job.not_before > self.now + 2 * LONGEST_DELAY_S and self.off is not Rule.NEVER_THAT_LONG
        return job.not_before <= self.now or far

    def own(self, claim: Claim) -> Job:
        """The one gate of every owner's write; also the heartbeat itself."""
        job = self.jobs.get(claim.job_id)
        if job is None or (self.off is not Rule.EPOCH and (job.epoch, job.phase) != (claim.epoch, "running")):
            raise ClaimLost
        job.heartbeat += 1
        return job

    def report(self, claim: Claim) -> None:
        self._tell(self.own(claim), "OK")

    def wait(self, claim: Claim, not_before: float, series: tuple[float, int]) -> None:
        job = self.own(claim)
        job.phase, job.worker, job.not_before, job.failing = "ready", "", not_before, series
        job.hinted = not_before - LONG_AGO_S

    def release(self, claim: Claim) -> None:
        job = self.own(claim)
        job.phase, job.worker, job.not_before, job.hinted = "ready", "", self.now, self.now - LONG_AGO_S

    def fail(self, claim: Claim, reason: str) -> None:
        job = self.own(claim)
        job.phase, job.worker, job.failing = "failed", "", None
        self._tell(job, "FAILED", reason, complete=True)

    def finish(self, claim: Claim) -> None:
        job = self.own(claim)
        job.phase, job.worker, job.failing, job.unclean = "done", "", None, True
        self._tell(job, "OK", complete=True)

    def cleaned(self, job_id: int) -> None:
        job = self.jobs[job_id]
        if job.unclean:
            job.unclean, job.path = False, ""

    def failing(self, job_id: int) -> tuple[float, int] | None:
        return self.jobs[job_id].failing

    # --- the database: archive ids

    def intend(self, claim: Claim, wanted: dict[int, int]) -> set[int]:
        self.own(claim)
        ours = set()
        for seq, file_id in wanted.items():
            if file_id not in self.ids or self.off is Rule.ID_ONCE:
                self.ids[file_id] = Id(claim.job_id, seq, self.now)
                ours.add(seq)
        return ours

    def archived(self, claim: Claim, file_ids: Iterable[int]) -> None:
        job = self.own(claim)
        job.failing, job.lost_owners = None, 0
        for file_id in file_ids:
            found = self.ids.get(file_id)
            if found and (found.job_id, found.state) == (claim.job_id, "intent"):
                found.state = "archived"

    def abandon(self, claim: Claim, file_ids: Iterable[int] | None = None) -> None:
        self.own(claim)
        for file_id, found in self.ids.items():
            is_meant = file_ids is None or file_id in file_ids
            if is_meant and (found.job_id, found.state) == (claim.job_id, "intent"):
                found.state, found.noted = "garbage", self.now

    def void(self, claim: Claim, file_ids: Iterable[int]) -> None:
        self.own(claim)
        for file_id in file_ids:
            found = self.ids.get(file_id)
            if found and (found.job_id, found.state) == (claim.job_id, "intent"):
                found.state, found.noted = "void", self.now

    def take_back(self, claim: Claim, file_id: int) -> None:
        job = self.own(claim)
        job.failing, job.lost_owners = None, 0
        found = self.ids[file_id]
        if (found.job_id, found.state) != (claim.job_id, "garbage"):
            return
        for other in self.ids.values():
            if (other.job_id, other.seq, other.state) == (claim.job_id, found.seq, "intent"):
                other.state, other.noted = "garbage", self.now
        found.state = "archived"

    def file_ids(self, job_id: int, state: str = "archived") -> dict[int, int]:
        wanted = (job_id, state)
        return {found.seq: file_id for file_id, found in self.ids.items() if (found.job_id, found.state) == wanted}

    def given_up(self, job_id: int) -> dict[int, list[int]]:
        places: dict[int, list[int]] = {}
        for file_id, found in sorted(self.ids.items(), reverse=True):
            if (found.job_id, found.state) == (job_id, "garbage"):
                places.setdefault(found.seq, []).append(file_id)
        return places

    def note_sources(self, claim: Claim, seqs: Iterable[int]) -> None:
        self.own(claim)
        begun = self.file_ids(claim.job_id, "intent")
        known = self.noted.setdefault(claim.job_id, {})
        known.update({seq: None for seq in seqs if seq not in begun})

    def known(self, job_id: int) -> dict[int, int | None]:
        return dict(self.noted.get(job_id, {}))

    def note_part(self, claim: Claim, seq: int, size: int) -> None:
        job, part = self.own(claim), self.noted[claim.job_id][seq]
        if size > (part or 0) and seq not in self.given_up(claim.job_id):
            self.own(claim).failing = None
        self.noted[job.job_id][seq] = size

    def freeze(self, claim: Claim, files: int) -> None:
        self.own(claim)
        if len(self.file_ids(claim.job_id)) != files:
            raise Conflict
        job = self.own(claim)
        if self.off is not Rule.FREEZE:
            job.frozen = True

    # --- the database: recovery and administration

    def held(self) -> list[Seen]:
        return [_seen(job) for _, job in sorted(self.jobs.items()) if job.phase in {"running", "receiving"}]

    def take_over(self, seen: Seen) -> bool:
        job = self.jobs.get(seen.job_id)
        if job is None:
            return False
        if self.off is not Rule.STILL_THE_SAME and _seen(job)[:4] != seen[:4]:
            return False
        if self.off is not Rule.NEW_EPOCH:
            job.epoch = seen.epoch + 1
        job.worker = ""
        self._due_now(job)
        job.lost_owners = seen.lost_owners + 1
        goes_on = seen.phase == "running" and job.lost_owners < LOST_OWNERS
        job.phase = "ready" if goes_on else "failed"
        job.unclean = seen.phase == "receiving"
        if not goes_on:
            self._tell(job, "FAILED", "owners lost", complete=True)
        return True

    def unclaimed(self, older_than_s: float) -> list[Seen]:
        jobs = [job for job in self.jobs.values() if self._is_due(job) and self._is_quiet(job, older_than_s)]
        return [_seen(job) for job in sorted(filter(self._hint_is_due, jobs), key=lambda job: (job.hinted, job.job_id))]

    def _hint_is_due(self, job: Job) -> bool:
        waited, since_hint = abs(self.now - job.not_before), abs(self.now - job.hinted)
        return since_hint >= min(max(waited / 2, HINT_AGAIN_S[0]), HINT_AGAIN_S[1])

    def _is_quiet(self, job: Job, seconds: float) -> bool:
        return job.hinted <= self.now - seconds or job.hinted > self.now + LONG_AGO_S

    def hinted(self, seen: Seen) -> bool:
        job = self.jobs.get(seen.job_id)
        if job is None or (job.epoch, job.phase) != (seen.epoch, "ready"):
            return False
        if not self._is_quiet(job, HINT_AGAIN_S[0] / 2):
            return False
        job.hinted = self.now
        return True

    def unhinted(self, seen: Seen) -> None:
        job = self.jobs.get(seen.job_id)
        if job and (job.epoch, job.phase) == (seen.epoch, "ready"):
            job.hinted = self.now - LONG_AGO_S

    def leftovers(self) -> list[Seen]:
        return [_seen(job) for _, job in sorted(self.jobs.items()) if job.unclean]

    def expired(self, older_than_s: float) -> list[Seen]:
        before = self.now - older_than_s
        ended = [job for _, job in sorted(self.jobs.items()) if job.phase in {"failed", "done"} and job.path]
        return [_seen(job) for job in ended if job.updated < before and not job.unclean]

    def expire(self, seen: Seen) -> bool:
        job = self.jobs.get(seen.job_id)
        if job is None or job.unclean:
            return False
        if self.off is not Rule.STILL_ENDED and (job.epoch, job.phase) != (seen.epoch, seen.phase):
            return False
        job.epoch = seen.epoch + 1
        job.unclean = job.expired = True
        if seen.phase == "failed":
            for found in self.ids.values():
                if found.job_id == seen.job_id and found.state in {"intent", "archived"}:
                    found.state, found.noted = "garbage", self.now
        return True

    def garbage(self, older_than_s: float) -> list[int]:
        before = self.now - older_than_s
        old = (id_ for id_, found in self.ids.items() if found.state == "garbage" and found.noted < before)
        return sorted(id_ for id_ in old if not self._is_spared(self.jobs[self.ids[id_].job_id]))

    @staticmethod
    def _is_spared(job: Job) -> bool:
        """What a move gave up may be the only copy."""
        return job.is_move and (job.phase != "done" or (job.path != "" and not job.unclean))

    def removed(self, file_id: int) -> None:
        if self.ids[file_id].state == "garbage":
            self.ids[file_id].state = "removed"

    def retry(self, job_id: int) -> None:
        job = self.jobs[job_id]
        if job.phase in {"failed", "ready"} and not job.unclean:
            job.phase, job.failing, job.lost_owners = "ready", None, 0
            job.epoch += 1
            self._due_now(job)
            self._tell(job, "OK")

    def force(self, job_id: int, state: str) -> None:
        """The administrator calls a job FAILED or done, or wakes it."""
        job = self.jobs[job_id]
        end = {"FAILED": "failed", "DONE": "done"}.get(state)
        if end is not None:
            taken_back = end == "failed" and job.path and not job.unclean
            if job.phase != "done" or taken_back:
                job.unclean = job.unclean or job.phase == "receiving"
                self._move(job, end)
        elif state == "OK" and job.phase == "failed" and not job.unclean:
            self._move(job, "ready")
        elif state == "OK" and job.phase in {"failed", "done"}:
            return  # refused
        reason = "forced" if state == "FAILED" else ""
        self._tell(job, "FAILED" if reason else "OK", reason, complete=end is not None)

    def _move(self, job: Job, phase: str) -> None:
        job.phase, job.worker, job.failing, job.lost_owners = phase, "", None, 0
        job.epoch += 1
        self._due_now(job)

    # --- the landing zone

    def begin(self, path: str) -> None:
        if path in self.staged:
            raise Conflict
        self.staged[f"{path}.part"] = ""

    def write(self, path: str, chunk: str) -> None:
        if f"{path}.part" in self.staged:
            self.staged[f"{path}.part"] += chunk

    def commit(self, path: str) -> None:
        if path in self.staged:
            self.staged.pop(f"{path}.part", None)
            raise Conflict
        if f"{path}.part" not in self.staged:
            raise ClaimLost
        self.staged[path] = self.staged.pop(f"{path}.part")

    def remove(self, *paths: str) -> None:
        for path in paths:
            self.staged.pop(path, None)

    # --- the neighbours

    def reserve(self, mode: str, count: int) -> range:
        start = self.next_id[mode]
        self.next_id[mode] += count
        return range(start, start + count)

    def permit(self, user: str) -> None:
        if user == "nobody" or self.refuses_all:
            raise Refused(REFUSAL)

    def size(self, file_id: int) -> int | None:
        return len(self.objects[file_id]) if file_id in self.objects else None

    def store(self, file_id: int, content: str, path: str) -> None:
        """An archive as it is in the field: it overwrites what is there, and says that all is well."""
        if path not in self.staged:
            raise Away
        self.objects[file_id] = SPOILT if self.spoils else content

    def adopt(self, file_id: int, source: str) -> None:
        """A source that is gone cannot be taken, also when an older request takes it first."""
        for rest in self.rests.pop(source, (0, []))[1]:
            rest()
        if source not in self.sources:
            raise Away
        self.objects[file_id] = self.sources.pop(source)

    def copy_half(self, file_id: int, source: str, is_slow: bool) -> list[Callable[[], None]]:  # noqa: FBT001 (likewise)
        """The archive copies between file systems, and is cut; returns what it does when it is only slow."""
        if source not in self.sources:
            return []
        content = self.sources[source]
        self.objects[file_id] = content[:2]

        def rest() -> None:
            self.objects[file_id] = content
            self.sources.pop(source, None)

        self.rests[source] = file_id, [rest] if is_slow else []
        return self.rests[source][1]

    def remove_object(self, file_id: int) -> None:
        self.objects.pop(file_id, None)

    def registered(self, file_ids: Iterable[int]) -> set[int]:
        return {file_id for there in self.transactions.values() for _, file_id, _ in there}.intersection(file_ids)

    def digest(self, file_id: int) -> str:
        if file_id not in self.objects:
            raise Away
        return self.objects[file_id]

    def register(self, job_id: int, files: Sequence[tuple[str, int, str]]) -> None:
        known = {file_id for there in self.transactions.values() for _, file_id, _ in there}
        new = [file_id for _, file_id, _ in files]
        if job_id in self.transactions or known.intersection(new) or len(set(new)) < len(new):
            raise Conflict
        self.transactions[job_id] = list(files)

    def lookup(self, job_id: int) -> list[tuple[str, int, str]] | None:
        return self.transactions.get(job_id)

    # --- the queue

    def send(self, job_id: int) -> None:
        self.hints.append(job_id)

    def take_hint(self) -> int:
        return self.hints.pop(0)

    def nothing(self) -> None:
        """A call that changes nothing."""
