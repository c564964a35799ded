"""The model's side of a schedule: the generators of `protocol` in a `World`.

Who may call it: `rounds`.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.faults.model import protocol
from tests.faults.model.plan import JOBS_FROM, Plan
from tests.faults.model.play import Agent, Answer, Collected, How
from tests.faults.model.protocol import Steps
from tests.faults.model.rule import Rule
from tests.faults.model.world import Away, Broken, Bug, Fault, World
from tests.faults.oracle import Found, JobSeen

__all__ = ["Imagined"]


class Process:
    """`play.Agent` around a generator."""

    __slots__ = (
        "_args",
        "_gen",
        "_side",
        "_work",
        "carries",
        "heart",
        "name",
        "owner",
        "pending",
        "ready_at",
        "stopping",
    )

    def __init__(self, side: "Imagined", name: str, owner: Agent | None = None) -> None:
        self.name = name
        self.pending: str | None = ""
        self.ready_at = 0.0
        self.stopping = False
        self.heart: Agent | None = None
        self.owner = owner
        self.carries: tuple[int, int] | None = None
        self._side = side
        self._work: Callable[..., Any] = side.world.nothing
        self._args: list[Any] = []

    def begin(self, steps: Steps) -> "Process":
        """Run to the first call."""
        self._gen = steps
        self.pending, self._work, *self._args = next(steps)
        return self

    @property
    def about(self) -> int:
        """The archive id of a call to the archive."""
        return int(self._args[0])

    def resume(self, how: How) -> None:
        gen = self._gen
        try:
            if how is How.OK:
                try:
                    value = self._work(*self._args)
                except Fault as fault:
                    call = gen.throw(fault)
                else:
                    call = gen.send(value)
            elif how in {How.DIES, How.DIES_AFTER}:
                self._die(how)
                return
            else:
                call = self._go_wrong(how)
        except (StopIteration, Fault):
            self.pending = None
            return
        self.pending, self._work, *self._args = call

    def _die(self, how: How) -> None:
        if how is How.DIES_AFTER:
            with suppress(Fault):
                self._work(*self._args)
        self.kill()

    def _go_wrong(self, how: How) -> Any:
        error = Broken() if self.pending in {"staging.discard", "staging.remove"} else Away()
        if how is How.SPOILT:
            world = self._side.world
            world.spoils = True
            self._work(*self._args)
            world.spoils = False
            return self._gen.send(None)
        if how is How.LOST:
            try:
                self._work(*self._args)
            except Fault as fault:
                return self._gen.throw(fault)
        elif how in {How.HALF, How.SLOW}:
            rests = self._side.world.copy_half(*self._args, how is How.SLOW)
            self._side.under_way += [(rest, [], self._args[0]) for rest in rests]
        elif how is How.LATE:
            file_id = self._args[0] if self.pending != "catalogue.register" else 0
            self._side.under_way.append((self._work, self._args, file_id))
        return self._gen.throw(Bug() if how is How.BUG else error)

    def kill(self) -> None:
        if self.heart is not None:
            self.heart.kill()
            self.heart = None
        self.pending = None

    def start_heart(self, beats: Callable[[protocol.Process], Steps]) -> Callable[[], None]:
        heart = Process(self._side, f"{self.name} heart", self)
        heart.begin(beats(heart))
        self.heart = heart

        def join() -> None:
            while heart.pending is not None:
                heart.resume(How.OK)
            self.heart = None

        return join


class Imagined:
    """`play.Side` of the model."""

    def __init__(self, plan: Plan, off: Rule | None = None) -> None:
        self.plan = plan
        self.world = World(plan, off)
        self.mono = 0.0
        self.answers = [Answer() for _ in plan.clients]
        #: Requests that arrive late.
        self.under_way: list[tuple[Callable[..., Any], list[Any], int]] = []

    def start(self, role: str, number: int, name: str, keep_s: float = 0.0) -> Agent:
        process = Process(self, name)
        world = self.world
        if role == "server":
            return process.begin(protocol.serve(world, process, name, number, self.answers[number]))
        if role == "worker":
            return process.begin(protocol.work(world, process, name))
        if role == "sweeper":
            return process.begin(protocol.sweeping(world, process))
        if role == "gc":
            return process.begin(protocol.retain(world, keep_s))
        return process.begin(protocol.sweep(world, protocol.Watch(), 0.0))

    def advance(self, seconds: float) -> None:
        self.world.mono += seconds
        self.world.now += seconds
        self.mono = self.world.mono

    def jump(self, seconds: float) -> None:
        self.world.now += seconds

    def hints(self) -> int:
        return len(self.world.hints)

    def lose(self, place: int) -> None:
        del self.world.hints[place]

    def double(self, place: int) -> None:
        self.world.hints.append(self.world.hints[place])

    def again(self, mode: str, number: int) -> None:
        lowest = min(self.world.objects) if mode == "file" else JOBS_FROM
        self.world.next_id[mode] = max(lowest, self.world.next_id[mode] - number)

    def late(self) -> int:
        return len(self.under_way)

    def deliver(self, place: int) -> None:
        work, args, _ = self.under_way.pop(place)
        if work == self.world.store:
            # The archive takes what arrives for whole: its writer died on the way.
            self.world.objects[args[0]] = args[1][:2]
            return
        with suppress(Fault):
            work(*args)

    def whose(self, file_id: int) -> int:
        return self.world.ids[file_id].job_id

    def epoch(self, job_id: int) -> int:
        return self.world.jobs[job_id].epoch

    def forget_registrations(self) -> None:
        self.under_way = [late for late in self.under_way if late[0] != self.world.register]

    def forget_late(self, file_id: int) -> None:
        self.under_way = [late for late in self.under_way if late[2] != file_id]
        self.world.rests = {source: rest for source, rest in self.world.rests.items() if rest[0] != file_id}

    def refuse_all(self, *, refuses: bool) -> None:
        self.world.refuses_all = refuses

    def phases(self) -> dict[int, tuple[str, str]]:
        return {job_id: (job.phase, "" if job.unclean else job.path) for job_id, job in self.world.jobs.items()}

    def retry(self, job_id: int) -> None:
        self.world.retry(job_id)

    def force(self, job_id: int, state: str) -> None:
        self.world.force(job_id, state)

    def unclean(self) -> bool:
        return any(job.unclean for job in self.world.jobs.values())

    def collect(self) -> Collected:
        world = self.world
        ids: dict[int, dict[int, str]] = {job_id: {} for job_id in world.jobs}
        for file_id, found in world.ids.items():
            ids.setdefault(found.job_id, {})[file_id] = found.state
        jobs = {
            job_id: JobSeen(
                phase=job.phase,
                complete=job.complete,
                state=job.state,
                reason=job.reason,
                staged=job.path,
                expired=job.expired,
                ids=ids[job_id],
            )
            for job_id, job in world.jobs.items()
        }
        transactions = [
            (job_id, [Found(path=path, file_id=file_id, digest=content) for path, file_id, content in files])
            for job_id, files in world.transactions.items()
        ]
        return Collected(
            jobs=jobs,
            transactions=transactions,
            objects=dict(world.objects),
            staged=dict(world.staged),
            sources=dict(world.sources),
        )

    def close(self) -> None:
        """Generators end by themselves."""
