"""One schedule, from its seed to the verdict: who takes the next step, and what goes wrong at it.

What it is: the part that model and service share.  A `Side` has processes (`Agent`) that stand before their next call;
`Play` lets one of them take it, or lets something happen in the world, until the faults stop; then it lets everybody come to
an end, zombies last, and the oracle judges.  A recorded list of steps can be played again, also with steps left out.

What it is not: the model (`imagined`) or the service (`doubles`).

Who may call it: `rounds`.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from tests.faults.model.plan import FILES, FOR_EVER, FOREIGN, Client, Plan, body_of, content_of, source_of
from tests.faults.oracle import Evidence, Found, JobSeen, Sent, judge
from tests.faults.oracle import Fault as Wrong

__all__ = ["Agent", "Answer", "Collected", "How", "Play", "Result", "Side", "Step", "shrink"]

#: Faults of one schedule, at most.
FAULTS = 6
#: How likely a step is an event of the world, or of another process than the last.
EVENT, SWITCH = 0.08, 0.35
#: How likely a call that only looks for work goes wrong; they are many.
FAULT_OF_LOOKING = 0.03
#: How likely a process that would only look for work is passed over.
PASSED_OVER = 0.7
#: More turns than any job takes to its end.
TURNS = 40
#: The pauses between the turns, in seconds: long enough for each lease and each wait, again and again.
PAUSES_S = (6.0, 31.0, 31.0, 700.0)
#: More steps than any process takes without a pause.
ENOUGH = 300
#: What the job of another system is called.
FOREIGN_JOB = 5
#: The HTTP status of a request that was answered well, of one whose job is to be asked for, and of one that is not sent again.
OK, UNCONFIRMED, REFUSED = 200, 202, 400


class How(StrEnum):
    """What becomes of a call."""

    #: It is done, and answered.
    OK = "ok"
    #: It is not done, and fails.
    DOWN = "fails"
    #: It is done, and fails.
    LOST = "is done, the answer is lost"
    #: It fails, and is done later.
    LATE = "fails, and will be done late"
    #: Half of it is done, and it fails.
    HALF = "is done by half, and fails"
    #: The rest is done late, when the same is asked for again at the latest.
    SLOW = "is done by half, and fails; the rest will be done late"
    #: The archive keeps something else.
    SPOILT = "is answered well, and keeps something else"
    #: An error that nobody expects.
    BUG = "raises what nobody expects"
    #: The process ends before it.
    DIES = "dies before"
    #: The process ends after it.
    DIES_AFTER = "dies after"
    #: The process stands still before it, perhaps for long.
    FREEZES = "freezes before"


#: What can go wrong with any call, and with some.
ANY = (How.DOWN, How.LOST, How.DIES, How.DIES_AFTER, How.FREEZES, How.DOWN, How.LOST, How.BUG)
SOME = {
    "archive.adopt": (*ANY, How.LATE, How.LATE, *[How.HALF, How.SLOW] * 3),
    "archive.store": (*ANY[:-1], How.LATE, How.LATE, How.SPOILT, How.SPOILT),
    "catalogue.register": (*ANY, How.LATE, How.LATE),
    "jobs.beat": (How.DOWN, How.LOST, How.DIES, How.FREEZES),
}
SPECIAL = frozenset({How.LATE, How.HALF, How.SLOW, How.SPOILT})
#: How likely a removal from the archive goes wrong; they are few.
FAULT_OF_REMOVAL = 0.5
LOOKING = frozenset({"jobs.claim_any", "jobs.held", "jobs.unclaimed", "jobs.leftovers"})
#: A pause: what can happen there can happen at the next call as well.
PAUSES = frozenset({"worker.hint", "worker.idle", "sweeper.pause"})
#: What is no call to the outside: only its process can end there.
INSIDE = frozenset({"heart.wait", "server.pause", "client.answer"})
INSIDE_FAULTS = (How.DIES, How.FREEZES)


class Agent(Protocol):
    """A process that stands before a call."""

    name: str
    #: The call; None when the process ended.
    pending: str | None
    #: The job and the epoch that it carries.
    carries: tuple[int, int] | None
    #: When it goes on, in seconds of the monotonic clock.
    ready_at: float
    #: Whether it was asked to stop.
    stopping: bool
    #: What beats beside it, and whose heart it is itself.
    heart: "Agent | None"
    owner: "Agent | None"

    @property
    def about(self) -> int:
        """The archive id of a call to the archive."""
        ...

    def resume(self, how: How) -> None:
        """Take the step."""
        ...

    def kill(self) -> None:
        """End at once."""
        ...


@dataclass(slots=True)
class Answer:
    """What a client knows."""

    status: int | None = None
    job_id: int | None = None
    #: All jobs that requests of this client were answered with 200 for: after a 202, nobody knows whether there is one.
    jobs: set[int] = field(default_factory=set)

    def told(self, status: int | None, job_id: int | None = None) -> None:
        """The last word counts, but what was answered well stays so."""
        if job_id is not None and status == OK:
            self.jobs.add(job_id)
        if self.status != OK:
            self.status, self.job_id = status, job_id


@dataclass(kw_only=True)
class Collected:
    """What a side has when it is looked at: all but the requests, see `oracle.Evidence`."""

    jobs: dict[int, JobSeen]
    transactions: list[tuple[int, list[Found]]]
    objects: dict[int, str]
    staged: dict[str, str]
    sources: dict[str, str]


class Side(Protocol):
    """A world with processes."""

    plan: Plan
    answers: list[Answer]
    #: The monotonic clock.
    mono: float

    def start(self, role: str, number: int, name: str, keep_s: float = 0.0) -> Agent:
        """Start a process; `gc` removes what is older than `keep_s`."""
        ...

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        ...

    def jump(self, seconds: float) -> None:
        """Set the clock."""
        ...

    def hints(self) -> int:
        """How many hints are on their way."""
        ...

    def lose(self, place: int) -> None:
        """Lose a hint."""
        ...

    def double(self, place: int) -> None:
        """Double a hint."""
        ...

    def again(self, mode: str, number: int) -> None:
        """Let UniqueID give numbers again."""
        ...

    def late(self) -> int:
        """How many requests are still on their way."""
        ...

    def deliver(self, place: int) -> None:
        """One of them arrives."""
        ...

    def whose(self, file_id: int) -> int:
        """The job of an archive id."""
        ...

    def epoch(self, job_id: int) -> int:
        """How often a job changed hands."""
        ...

    def forget_registrations(self) -> None:
        """No registration is on its way any more."""
        ...

    def forget_late(self, file_id: int) -> None:
        """No request that sends something under an id is on its way any more."""
        ...

    def refuse_all(self, *, refuses: bool) -> None:
        """Policy changes its mind."""
        ...

    def phases(self) -> dict[int, tuple[str, str]]:
        """Job → phase and path; a bundle that is being removed has none."""
        ...

    def retry(self, job_id: int) -> None:
        """The administrator tries a job again."""
        ...

    def force(self, job_id: int, state: str) -> None:
        """The administrator overwrites a job's state: FAILED, OK, or DONE, which is OK in the last step at 100 percent."""
        ...

    def unclean(self) -> bool:
        """Whether there is a staged file that is not needed any more."""
        ...

    def collect(self) -> Collected:
        """What there is."""
        ...

    def close(self) -> None:
        """End all processes."""
        ...


class Step(NamedTuple):
    """Who does it, what, and how much."""

    who: str
    what: str
    amount: float = 0.0


@dataclass(kw_only=True)
class Result:
    """What a schedule came to.

    Attributes:
        steps: what was done while faults could happen; can be played again.
        trace: every step of every process, in words.
        standing: who stands before which call until when, at the moment when the faults stop.
        ends: the evidence, when nothing moves any more and after the operator's retry.
        wrong: what the oracle said.

    """

    steps: list[Step]
    trace: list[tuple[str, str | None, str]]
    standing: list[tuple[str, str | None, float]]
    ends: list[Evidence]
    wrong: list[tuple[Wrong, str]]


#: What happens in the world, and how much of it.
EVENTS: tuple[tuple[str, Sequence[float]], ...] = (
    ("time", (0.5, 2.0, 6.0, 31.0, 31.0, 400.0, 700.0)),
    ("time", (2.0, 6.0, 31.0, 31.0, 31.0)),
    ("time", (31.0,)),
    ("clock", (-1e6, -900.0, -5.0, 5.0, 900.0, 1e6)),
    ("lose", (0, 1)),
    ("double", (0, 1)),
    ("ids of jobs", (1, 2)),
    ("ids of files", (1, 2, 3, 100)),
    ("policy", (0,)),
    ("late", (0, 1)),
    ("stop", (1, 2)),
    ("thaw", (0, 1)),
    ("thaw", (0, 1)),
    ("retry", (0, 1)),
    ("force", (0, 1)),
    ("wake", (0, 1)),
    ("call done", (0, 1)),
    ("recover", (0,)),
    ("gc", (0.0, 0.0, 60.0)),
)
#: Where little is kept for long.
SHORT_EVENTS = (
    *EVENTS,
    *EVENTS[-1:] * 6,
    *EVENTS[:2],
    *(event for event in EVENTS if event[0] in {"force", "call done", "retry"}),
)


class Play:
    """One schedule on one side."""

    def __init__(self, side: Side, steps: Iterable[Step] | None = None) -> None:
        """Draw the steps from the plan's seed, or take these."""
        self.side = side
        self.plan = side.plan
        self.agents: dict[str, Agent] = {}
        self.frozen: dict[str, Agent] = {}
        self.count: dict[str, int] = {}
        self.trace: list[tuple[str, str | None, str]] = []
        self.taken: list[Step] = []
        self.flipped = self.refuses = False
        self.given_up = False
        #: Uploads that somebody called done before they were.
        self.called_done: set[int] = set()
        #: A server went on after an upload was given up, and may have left something that no sweep looks for.
        self.woke_late = False
        #: What is wrong beside what the oracle judges.
        self.beside: list[tuple[Wrong, str]] = []
        self.excused = self.plan.retry_for_s < FOR_EVER
        self.rng = random.Random(self.plan.seed)
        self.budget = FAULTS
        self.last: Agent | None = None
        self.given = steps
        for role in (*("server" for _ in self.plan.clients), "worker", "worker", "sweeper"):
            self.start(role)

    def start(self, role: str, keep_s: float = 0.0) -> Agent:
        number = self.count.get(role, 0)
        self.count[role] = number + 1
        name = f"{role}{number}"
        agent = self.side.start(role, number, name, keep_s)
        self.agents[name] = agent
        return agent

    # --- while faults happen

    def run(self) -> Result:
        """Play it to its end."""
        try:
            for step in self.draw() if self.given is None else self.given:
                if self.apply(step):
                    self.taken.append(step)
            standing = [(agent.name, agent.pending, agent.ready_at) for agent in self.present()]
            ends = list(self.end())
        finally:
            self.side.close()
        wrong = [found for evidence in ends for found in judge(evidence)] + self.beside
        return Result(steps=self.taken, trace=self.trace, standing=standing, ends=ends, wrong=wrong)

    def present(self) -> Iterator[Agent]:
        """Who is there, awake or not."""
        for agent in (*self.agents.values(), *self.frozen.values()):
            yield agent
            if agent.heart is not None:
                yield agent.heart

    def draw(self) -> Iterator[Step]:
        """Whatever the seed says."""
        chance = self.rng.random
        events = SHORT_EVENTS if self.plan.keeps_short else EVENTS
        for _ in range(self.plan.steps):
            if chance() < EVENT:
                what, amounts = events[int(chance() * len(events))]
                yield Step("", what, amounts[int(chance() * len(amounts))])
                continue
            agent = self.next()
            if agent is None:
                yield Step("", "time", (2.0, 6.0, 31.0)[int(chance() * 3)])
                continue
            is_spent = self.budget <= 0 and not agent.name.startswith("gc")  # it runs late, and rarely meets a fault
            is_safe = is_spent or (self.plan.calm_uploads and agent.name.startswith("server"))
            yield Step(agent.name, How.OK if is_safe else self.draw_fault(agent.pending or ""))
        if self.plan.keeps_short:
            yield from self.draw_gc()

    def draw_gc(self) -> Iterator[Step]:
        """At last, when there is most to remove."""
        yield Step("", "time", 700.0)
        yield Step("", "gc", 0.0)
        name = f"gc{self.count['gc'] - 1}"
        while name in self.agents:
            yield Step(name, self.draw_fault(self.agents[name].pending or ""))

    def draw_fault(self, call: str) -> How:
        """Whether a call goes wrong, and how."""
        chance = self.rng.random
        if call in PAUSES:
            return How.OK
        likely = FAULT_OF_LOOKING if call in LOOKING else self.plan.fault
        if chance() >= (FAULT_OF_REMOVAL if call == "archive.remove" else likely):
            return How.OK
        ways = INSIDE_FAULTS if call in INSIDE else SOME.get(call, ANY)
        return ways[int(chance() * len(ways))]

    def next(self) -> Agent | None:
        """Mostly the same process as before; None when all wait."""
        agent, chance = self.last, self.rng.random
        if agent is not None and self.is_ready(agent) and self.is_here(agent) and chance() >= SWITCH:
            return agent
        ready = self.ready()
        if not ready:
            return None
        agent = ready[int(chance() * len(ready))]
        if agent.pending in PAUSES and agent.pending != "worker.hint" and chance() < PASSED_OVER:
            agent = ready[int(chance() * len(ready))]
        return agent

    def is_here(self, agent: Agent) -> bool:
        """Whether it lives, and does not stand still."""
        return agent.pending is not None and (agent.owner or agent).name in self.agents

    def ready(self) -> list[Agent]:
        """Who can go on."""
        found = []
        mono, hints = self.side.mono, self.side.hints()
        for agent in self.agents.values():
            if agent.ready_at <= mono and (hints or agent.pending != "worker.hint"):
                found.append(agent)
            heart = agent.heart
            if heart is not None and heart.ready_at <= mono:
                found.append(heart)
        return found

    def is_ready(self, agent: Agent) -> bool:
        """Whether a process can go on."""
        return agent.ready_at <= self.side.mono and (agent.pending != "worker.hint" or self.side.hints() > 0)

    def apply(self, step: Step) -> bool:
        """Do it; False when it cannot be done here."""
        if not step.who:
            return self.event(step.what, step.amount)
        agent = self.agents.get(step.who)
        if agent is None and step.who.endswith(" heart"):
            owner = self.agents.get(step.who[: -len(" heart")])
            agent = owner and owner.heart
        if agent is None or not self.is_ready(agent):
            return False
        how = step.what if isinstance(step.what, How) else How(step.what)
        if how in SPECIAL and how not in SOME.get(agent.pending or "", ()):
            return False
        if how is not How.OK:
            self.budget -= 1
            self.excused |= how is How.BUG
        self.go(agent, how)
        return True

    def go(self, agent: Agent, how: How) -> None:
        """Let one process take its next step."""
        self.trace.append((agent.name, agent.pending, how))
        if agent.pending == "jobs.take_over":
            self.given_up = True
        elif self.given_up and agent.name.startswith("server"):
            self.woke_late = True
        elif agent.name.startswith("gc"):
            self.outlive(agent)
        process = agent.owner or agent
        if how is How.FREEZES:
            self.frozen[process.name] = self.agents.pop(process.name)
            self.replace(process)
            return
        if agent.owner is not None and how in {How.DIES, How.DIES_AFTER}:
            process.kill()
        else:
            agent.resume(how)
        self.last = agent
        if process.pending is None:
            self.agents.pop(process.name, None)
            if self.frozen.pop(process.name, None) is None:
                self.replace(process)

    def outlive(self, agent: Agent) -> None:
        """What `gc` looks at ended days ago: nobody who lost such a job goes on with it, and nothing is on its way."""
        if agent.pending == "jobs.expired":
            self.side.forget_registrations()
            self.end_late_owners(lambda other, _: other.pending == "catalogue.register")
        elif agent.pending == "archive.remove":
            self.side.forget_late(agent.about)
            mine = self.side.whose(agent.about)
            self.end_late_owners(lambda _, job_id: job_id == mine)

    def end_late_owners(self, is_meant: Callable[[Agent, int], bool]) -> None:
        """Those who carry a job that others took."""
        for agent in [*self.agents.values(), *self.frozen.values()]:
            if agent.carries is None or not is_meant(agent, agent.carries[0]):
                continue
            if agent.carries[1] < self.side.epoch(agent.carries[0]):
                agent.kill()
                if self.frozen.pop(agent.name, None) is None:
                    del self.agents[agent.name]
                    self.replace(agent)

    def replace(self, process: Agent) -> None:
        """Who ended has a successor, but for what is done once."""
        role = process.name.rstrip("0123456789")
        if role in {"worker", "sweeper"}:
            self.start(role)
        elif role == "server":
            self.send_again(process.name)

    def send_again(self, name: str) -> None:
        """A client with a key that got no answer sends again, once."""
        number = int(name.removeprefix("server"))
        if self.plan.keyed[number] and self.side.answers[number].status not in {OK, UNCONFIRMED, REFUSED}:
            again = f"{name} again"
            self.agents[again] = self.side.start("server", number, again)

    def event(self, what: str, amount: float) -> bool:
        """Something happens in the world; False when it cannot."""
        if not self.happens(what, amount):
            return False
        self.trace.append(("", what, str(amount)))
        return True

    def happens(self, what: str, amount: float) -> bool:
        """Let it happen; False when it cannot."""
        if what == "time":
            self.side.advance(amount)
        elif what == "clock":
            self.side.jump(amount)
        elif what in {"ids of jobs", "ids of files"}:
            self.side.again("job" if what == "ids of jobs" else "file", int(amount))
        elif what == "policy":
            self.flipped = True
            self.refuses = not self.refuses
            self.side.refuse_all(refuses=self.refuses)
        elif what == "recover":
            self.start("recover")
        elif what == "gc":
            self.start("gc", amount)
        elif what in {"lose", "double", "late"}:
            return self._on_its_way(what, int(amount))
        elif what in {"stop", "thaw"}:
            return self._process(what, int(amount))
        else:
            return self._administer(what, int(amount))
        return True

    def _on_its_way(self, what: str, place: int) -> bool:
        if place >= (self.side.late() if what == "late" else self.side.hints()):
            return False
        {"lose": self.side.lose, "double": self.side.double, "late": self.side.deliver}[what](place)
        return True

    def _process(self, what: str, place: int) -> bool:
        if what == "thaw":
            if place >= len(self.frozen):
                return False
            name = list(self.frozen)[place]
            self.agents[name] = self.frozen.pop(name)
            return True
        workers = [agent for agent in self.agents.values() if agent.name.startswith("worker")]
        if place >= len(workers):
            return False
        workers[place].stopping = True
        return True

    def _administer(self, what: str, place: int) -> bool:
        jobs = sorted(self.side.phases().items())
        if place >= len(jobs):
            return False
        job_id, (phase, path) = jobs[place]
        if what == "retry" and phase in {"failed", "ready"} and path:
            self.side.retry(job_id)
        elif what == "force" and (phase != "done" or path):
            self.excused = True
            self.given_up |= phase == "receiving"
            self.side.force(job_id, "FAILED")
        elif what == "call done" and phase != "done" and (phase == "receiving" or path):
            self.excused = True
            if phase == "receiving":
                self.given_up = True
                self.called_done.add(job_id)
            self.side.force(job_id, "DONE")
        elif what == "wake":
            self.side.force(job_id, "OK")
        else:
            return False
        return True

    # --- when faults stop

    def end(self) -> Iterator[Evidence]:
        """Everybody comes to an end: the living, then who slept; at last the operator tries again what failed."""
        self.settle()
        for place in reversed(range(self.side.late())):
            self.side.deliver(place)
        while self.frozen:
            name, agent = self.frozen.popitem()
            self.agents[name] = agent
            self.until_idle(agent)
        self.settle()
        for job_id, (phase, path) in sorted(self.side.phases().items()):
            if phase == "done" and path:
                # It was called done by hand, and may be anything.
                self.side.force(job_id, "FAILED")
        yield self.evidence(is_last=False)
        if self.plan.keeps_short:
            self.start("gc")
            self.settle()
            yield self.evidence(is_last=False)
        self.side.refuse_all(refuses=False)
        for job_id, (phase, path) in sorted(self.side.phases().items()):
            if phase == "failed" and path:
                self.side.retry(job_id)
        self.settle()
        yield self.evidence(is_last=True)

    def settle(self) -> None:
        """Let all processes do what they do until nothing moves."""
        for turn in range(TURNS):
            for agent in list(self.agents.values()):
                self.until_idle(agent)
            if self.is_quiet():
                return
            self.side.advance(PAUSES_S[turn % len(PAUSES_S)])

    def until_idle(self, agent: Agent) -> None:
        """Let one process go on until it waits or ends."""
        for _ in range(ENOUGH):
            if agent.pending is None or not self.is_ready(agent):
                return
            self.go(agent, How.OK)

    def is_quiet(self) -> bool:
        """Whether nothing is left to do."""
        over = all(phase in {"done", "failed"} for phase, _ in self.side.phases().values())
        alive = any(agent.name.startswith(("server", "recover", "gc")) for agent in self.agents.values())
        return over and not alive and not self.side.unclean()

    def evidence(self, *, is_last: bool) -> Evidence:
        """What there is, with the requests and with what another system has."""
        found = self.side.collect()
        registered = {job_id for job_id, _ in found.transactions}
        self.look_for_sources(found)
        self.look_for_twins(found)
        if self.woke_late:
            # `recover` removes it, a day later: also what a server began after an operator had ended the upload.
            for job_id, job in found.jobs.items():
                if (job.phase == "failed" or job_id in self.called_done) and not job.staged:
                    for name in [name for name in found.staged if name.startswith(f"{job_id}.")]:
                        del found.staged[name]
        return Evidence(
            sent=[self.sent(number, registered, is_last=is_last) for number in range(len(self.plan.clients))]
            + [THEIRS],
            jobs={**found.jobs, FOREIGN_JOB: THEIR_JOB},
            transactions=[*found.transactions, (FOREIGN_JOB, THEIR_FILES)],
            objects=found.objects,
            staged=found.staged,
        )

    def look_for_twins(self, found: Collected) -> None:
        """What is sent again with its key is one job."""
        for number, is_keyed in enumerate(self.plan.keyed):
            mine = {content_of(number, name) for name in FILES}
            count = sum(mine == {file.digest for file in files} for _, files in found.transactions)
            if is_keyed and max(count, len(self.side.answers[number].jobs)) > 1:
                self.beside.append((Wrong.DOUBLED, f"what client {number} sent again is another job"))

    def look_for_sources(self, found: Collected) -> None:
        """A file that is to be moved is where it was, or in the archive, and not in both when its job is done."""
        there = set(found.objects.values())
        done = {job_id for job_id, job in found.jobs.items() if job.phase == "done"} - self.called_done
        for number, is_move in enumerate(self.plan.moves):
            for name in FILES if is_move else ():
                is_here = source_of(number, name) in found.sources
                if not is_here and content_of(number, name) not in there:
                    self.beside.append((Wrong.LOST, f"{source_of(number, name)!r} is nowhere"))
                if is_here and self.side.answers[number].job_id in done:
                    self.beside.append((Wrong.DOUBLED, f"{source_of(number, name)!r} was moved, and is still there"))

    def sent(self, number: int, registered: set[int], *, is_last: bool) -> Sent:
        """What a client sent, and how it must end."""
        kind, answer = self.plan.clients[number], self.side.answers[number]
        fails: str | None = {Client.REFUSED: "not allowed", Client.FAULTY: "metadata says"}.get(kind, "")
        if not is_last and (self.excused or (self.flipped and answer.job_id not in registered)):
            fails = None
        files = {name: content_of(number, name) for name in FILES}
        if answer.status == UNCONFIRMED and answer.job_id in self.called_done:
            # That it is done is all that this client is told.
            return Sent(files=files, body=body_of(number), status=None, job_id=None, fails=fails)
        return Sent(files=files, body=body_of(number), status=answer.status, job_id=answer.job_id, fails=fails)


THEIR_FILES = [Found(path=f"f{file_id}", file_id=file_id, digest=content) for file_id, content in FOREIGN.items()]
THEIRS = Sent(files={file.path: file.digest for file in THEIR_FILES}, body="theirs", status=OK, job_id=FOREIGN_JOB)
THEIR_JOB = JobSeen(phase="done", complete=True, state="OK", reason="", staged="", ids={})


def shrink(steps: Sequence[Step], is_red: Callable[[Sequence[Step]], bool]) -> list[Step]:
    """Leave out what does not matter: ever smaller pieces, for as long as it stays red."""
    kept = list(steps)
    size = max(1, len(kept) // 2)
    while True:
        start, before = 0, len(kept)
        while start < len(kept):
            tried = kept[:start] + kept[start + size :]
            if is_red(tried):
                kept = tried
            else:
                start += size
        if size == 1 and len(kept) == before:
            return kept
        size = max(1, size // 2)
