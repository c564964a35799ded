"""Rounds of kills: processes of a real site are killed or frozen at random moments, while clients load it.

What it is: a seeded killer, which also does what a supervisor does: what was killed is started again.  A round is cut
into chapters, each on a site of its own; at the end of a chapter everything comes to rest, and the oracle judges.

What it is not: repeatable to the moment.  The seed decides who is hit, after which pause, and what clients send; where in
its work a process is hit then, nobody knows.

Who may call it: `tests/faults/test_kills.py` and `python -m tests.faults`.
"""

import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pacifica.ingest.core.states import Phase
from tests.faults.load import Client, faults
from tests.faults.rounds import Budget, Row, said
from tests.faults.site import LEASE_S, PAUSE_S, Setting, Site
from tests.harness.guard import Process
from tests.harness.waiting import until

__all__ = ["Hit", "chapter", "kills"]

#: Kills of one chapter at most; it bounds the disk space, and how long it takes until a fault is told.
CHAPTER = 250
#: The pause between two hits, in seconds: mostly short, at times long enough for a sweep to take jobs over.
SHORT_S = (0.01, 0.25)
LONG_S = (4.0, 5.0)
LONG_CHANCE = 0.02
#: How long a process stays frozen, in seconds: longer than a lease, and so long that others can take its jobs over.  There
#: are no others when the server is frozen, or all are; but seldom it is longer than the lease of an upload.
FROZEN_WORKER_S = (LEASE_S + 2.5, LEASE_S + 4.0)
FROZEN_S = (LEASE_S + 0.5, LEASE_S + 1.5)
FROZEN_LONG_S = 2 * PAUSE_S + 4.0
FROZEN_LONG_CHANCE = 0.1
#: How often a worker is killed that has a job; else it is any.
BUSY_CHANCE = 0.5
#: Somebody is there to be hit within that time, in seconds; else those that work were not replaced.
NOBODY_S = 180.0
#: How often the server is killed again before it took an upload.
EARLY_CHANCE = 0.2


class Hit(StrEnum):
    """Who is hit, and how."""

    #: The server is killed; its workers are left alone.
    SERVER = "server"
    #: A process that works on jobs is killed: a worker of a standalone server, a child of a Celery worker.
    WORKER = "worker"
    #: The process that forks those is killed: the main process of a Celery worker, or a child of a standalone server.
    PARENT = "parent"
    #: All processes are killed at once.
    BOTH = "both"
    #: The server is frozen for longer than a lease, then goes on.
    FROZEN_SERVER = "frozen server"
    #: So is a process that works on jobs.
    FROZEN_WORKER = "frozen worker"
    #: So are all processes at once.
    FROZEN_BOTH = "frozen both"


#: Out of a hundred kills; the rest hits workers.  Starting a server costs the most, a child of a Celery worker the least.
KILLS = {Hit.SERVER: 8, Hit.PARENT: 4, Hit.BOTH: 4}
#: Beside a hundred kills.
FREEZES = {Hit.FROZEN_SERVER: 2, Hit.FROZEN_WORKER: 6, Hit.FROZEN_BOTH: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """Processes that go on at a time of `time.monotonic`."""

    processes: Sequence[Process]
    until: float


class Killer:
    """Hits the processes of a site.

    Attributes:
        hits: how often who was hit.
    """

    def __init__(self, site: Site, client: Client, seed: int) -> None:
        """Hit nobody yet."""
        self.hits: Counter[Hit] = Counter()
        self._site = site
        self._client = client
        self._chance = random.Random(f"killer {seed}")
        self._deck: list[Hit] = []
        self._frozen: list[Frozen] = []
        self._clock = threading.Event()

    @property
    def freezes(self) -> int:
        """How many of the hits were no kills."""
        return sum(self.hits[hit] for hit in FREEZES)

    def run(self, budget: Budget) -> None:
        """Kill until the budget is spent, freeze meanwhile, and return when all that was frozen went on."""
        self._deck = self._shuffled(budget.tries)
        left, since = len(self._deck), time.monotonic()
        try:
            while self._deck and not budget.is_over():
                self._pause(self._gap())
                self._site.revive()
                self._strike()
                if len(self._deck) < left:
                    left, since = len(self._deck), time.monotonic()
                assert time.monotonic() - since < NOBODY_S, f"nobody could be hit for {NOBODY_S:g} s: {set(self._deck)}"
                budget.say(f"{self._site.setting.name}: {len(self._deck)} hits to come in this chapter")
            while self._frozen:
                self._pause(0.1)
        finally:
            self._thaw(self._frozen)

    def _shuffled(self, count: int) -> list[Hit]:
        """Hits to come, each of its share and at least once."""
        kills = [hit for hit, share in KILLS.items() for _ in range(max(1, round(share * count / 100)))][:count]
        freezes = [hit for hit, share in FREEZES.items() for _ in range(max(1, round(share * count / 100)))]
        deck = [*kills, *freezes, *[Hit.WORKER] * (count - len(kills))]
        self._chance.shuffle(deck)
        return deck

    def _gap(self) -> float:
        return self._chance.uniform(*(LONG_S if self._chance.random() < LONG_CHANCE else SHORT_S))

    def _pause(self, seconds: float) -> None:
        """Let the site work for a while; a supervisor is awake meanwhile."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self._clock.wait(min(left, 0.1))
            self._site.revive()
            self._thaw([frozen for frozen in self._frozen if frozen.until <= time.monotonic()])

    def _thaw(self, due: Sequence[Frozen]) -> None:
        """Let them go on."""
        for frozen in list(due):
            self._frozen.remove(frozen)
            for process in frozen.processes:
                process.send(signal.SIGCONT)

    def _strike(self) -> None:
        """Hit the next who may be hit now, if there is anybody."""
        hit = next((hit for hit in self._deck if self._may(hit)), None)
        accepted = self._accepted()
        if hit is None or not ACTIONS[hit](self):
            return
        self._deck.remove(hit)
        self.hits[hit] += 1
        if hit in {Hit.SERVER, Hit.BOTH} and self._chance.random() >= EARLY_CHANCE:
            until(lambda: self._works_again(accepted), "an upload to be accepted")

    def _may(self, hit: Hit) -> bool:
        """Whether those are there that it hits, and nobody is killed by it who is to stay frozen."""
        if hit in {Hit.WORKER, Hit.FROZEN_WORKER}:
            return self._site.works()
        return not self._frozen

    def _works_again(self, accepted: int) -> bool:
        self._pause(0.02)
        return self._accepted() > accepted

    def _accepted(self) -> int:
        return sum(sent.status == 200 for sent in self._client.sent)

    def kill_server(self) -> bool:
        """Kill the server, and none of its children."""
        return self._kill(self._site.server.processes()[:1])

    def kill_parent(self) -> bool:
        """Kill the process that forks those that work."""
        return self._kill(self._site.starters())

    def kill_worker(self) -> bool:
        """Kill one that works on jobs; every other time one that has a job."""
        return self._kill(self._worker(busy=self._chance.random() < BUSY_CHANCE))

    def kill_all(self) -> bool:
        """Kill everybody."""
        self._site.kill_all()
        return True

    def freeze_server(self) -> bool:
        """Freeze the server, without its workers."""
        seconds = self._chance.uniform(*FROZEN_S)
        is_long = self._chance.random() < FROZEN_LONG_CHANCE
        return self._freeze(self._site.server.processes()[:1], FROZEN_LONG_S if is_long else seconds)

    def freeze_worker(self) -> bool:
        """Freeze one that has a job."""
        return self._freeze(self._worker(busy=True), self._chance.uniform(*FROZEN_WORKER_S))

    def freeze_all(self) -> bool:
        """Freeze everybody."""
        everybody = [process for part in self._site.parts for process in part.processes()]
        return self._freeze(everybody, self._chance.uniform(*FROZEN_S))

    def _kill(self, processes: Sequence[Process]) -> bool:
        for process in processes:
            self._site.kill(process)
        return bool(processes)

    def _worker(self, *, busy: bool) -> list[Process]:
        """One that works on jobs and is not frozen; none if there is none."""
        frozen = {process.pid for some in self._frozen for process in some.processes}
        workers = [process for process in self._site.workers() if process.pid not in frozen]
        if busy:
            owners = self._site.owners()
            workers = [process for process in workers if process.pid in owners]
        return [self._chance.choice(workers)] if workers else []

    def _freeze(self, processes: Sequence[Process], seconds: float) -> bool:
        for process in processes:
            process.send(signal.SIGSTOP)
        if processes:
            self._frozen.append(Frozen(processes=processes, until=time.monotonic() + seconds))
        return bool(processes)


ACTIONS: dict[Hit, Callable[[Killer], bool]] = {
    Hit.SERVER: Killer.kill_server,
    Hit.WORKER: Killer.kill_worker,
    Hit.PARENT: Killer.kill_parent,
    Hit.BOTH: Killer.kill_all,
    Hit.FROZEN_SERVER: Killer.freeze_server,
    Hit.FROZEN_WORKER: Killer.freeze_worker,
    Hit.FROZEN_BOTH: Killer.freeze_all,
}


def kills(seed: int, budget: Budget, setting: Callable[[], Setting], at_once: int = 1) -> Row:
    """A round of kills, in chapters.

    Args:
        seed: of the first chapter; the next has the next.
        budget: tries are kills; freezes come on top.
        setting: gives what the site of a chapter is made of; nothing is shared between two that run at once.
        at_once: how many chapters run at the same time.
    """
    row = Row(round=f"kills, {setting().name}")
    hits: Counter[Hit] = Counter()
    turn = threading.Lock()

    def play(start: int) -> None:
        share = replace(budget, tries=min(CHAPTER, budget.tries - start))
        if share.is_over():
            return
        with turn:
            chosen = setting()
        part, made = chapter(seed + start // CHAPTER, share, chosen)
        with turn:
            row.add(part)
            hits.update(made)
            row.mix = ", ".join(f"{hit} {hits[hit]}" for hit in Hit if hits[hit])
            budget.say(f"{row.round}: {row.tried} of {budget.tries}, {row.done} jobs done, {len(row.words)} found")

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(play, range(0, budget.tries, CHAPTER)))
    return row


def chapter(seed: int, budget: Budget, setting: Setting) -> tuple[Row, Counter[Hit]]:
    """Kill on one site, and judge it at rest.  A site on which a fault was found is kept."""
    folder = Path(tempfile.mkdtemp(prefix="pacifica-kills-"))
    row = Row(round=setting.name)
    with Site(folder / "site", setting) as site:
        with Client(site.server.port, seed, incoming=site.incoming) as client:
            killer = Killer(site, client, seed)
            rest = said(lambda: killer.run(budget))
        rest += said(site.settled)
        if rest:
            # What still moves would move under the eyes of the judge.
            site.kill_all()
        _record(row, site, client, killer, seed)
    row.words += [f"seed {seed}: {text}" for text in [*rest, *site.died]]
    if row.words:
        row.words.append(f"seed {seed}: the site is kept in {folder}")
    else:
        shutil.rmtree(folder)
    return row, killer.hits


def _record(row: Row, site: Site, client: Client, killer: Killer, seed: int) -> None:
    evidence = site.evidence(client.sent)
    row.tried += killer.hits.total() - killer.freezes
    row.frozen += killer.freezes
    row.uploads += len(client.sent)
    row.accepted += sum(sent.status == 200 for sent in client.sent)
    row.taken_over += site.taken_over()
    row.done += sum(job.phase == Phase.DONE for job in evidence.jobs.values())
    row.failed += sum(job.phase == Phase.FAILED for job in evidence.jobs.values())
    row.judged(faults(client, evidence), seed)
