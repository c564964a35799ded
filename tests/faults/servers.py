"""Rounds in which the servers around a site go wrong, while clients load it: its neighbours, its broker, its database.

What it is: `neighbours`, with a proxy before each real neighbour, which lets chosen requests go wrong, and kills and
freezes of the neighbours themselves; `hangs`, in which requests hang for ever; `outages`, which kills brokers and databases and starts them again.  They are cut
into chapters, each on a site of its own; at the end of a chapter all servers are well, everything comes to rest, and the
oracle judges.

What it is not: repeatable to the moment.  The seed decides what goes wrong, in which order, and what clients send; which
job a fault hits then, nobody knows.

Who may call it: `tests/faults/test_servers.py` and `python -m tests.faults`.
"""

import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from pacifica.ingest import tables
from pacifica.ingest.core.states import Kind, Phase
from pacifica.ingest.tables import naive_utc
from tests.faults.load import Client, faults, order
from tests.faults.proxy import Asked, Fault, Plan, Proxy
from tests.faults.rounds import Budget, Row, said
from tests.faults.site import ADMIN, LEASE_S, REST_S, Setting, Site
from tests.harness import PacificaCore, Server

__all__ = ["OPERATIONS", "Deal", "hangs", "neighbours", "outages", "pairs"]

#: Faults of one mixed chapter, and outages of one chapter; it bounds how long it takes until a fault is told.
CHAPTER = 150
OUTAGES = 20
#: How long a request that hangs is held, and nobody listens after a refusal, in seconds.  Our time limits are 60 s and,
#: towards the archive, 300 s, so the proxy hangs up before; but not in `hangs`.
HOLD_S = 0.5
#: How often a request goes wrong that may: while each fault is to be seen once, of those that are seldom made, in a mix.
SHARE = 0.4
RARE_SHARE = 0.9
MIXED_SHARE = 0.08
#: A job waits for a neighbour that long, in seconds: much longer than any chapter.
PATIENCE_S = 3600
#: A neighbour stays away that long, and the pause before the next one goes, in seconds.
AWAY_S = (0.2, 2.0)
GAP_S = (0.2, 1.5)
#: So many send at once: no more than the slowest site can carry, or it has a backlog in the end.
CLIENTS = 4
#: How often the end is looked for, in seconds.
REST_EVERY_S = 0.3
#: The longest time that a chapter may take, and one in which each pair is to be seen once, in seconds.  It ends as soon as
#: each was seen, which takes a minute, and several on a busy machine: each "remove" is a program that has to start.
CHAPTER_S = 900.0
PAIRS_S = 480.0
#: A request that hangs for ever is given up by the service after its own time limit, in seconds, 300 at most.
FOR_EVER_S = 3600.0
GIVEN_UP_S = 300.0

#: Every request that the service makes: its name → neighbour, and how method and target begin.
OPERATIONS: Mapping[str, tuple[str, str]] = {
    "job id": ("uniqueid", r"GET /getid\?.*mode=upload_job"),
    "file ids": ("uniqueid", r"GET /getid\?.*mode=file"),
    "permit": ("policy", r"POST /ingest"),
    "size": ("archive", r"HEAD /\d+$"),
    "store": ("archive", r"PUT /\d+$"),
    "adopt": ("archive", r"PATCH /\d+$"),
    "read": ("archive", r"GET /\d+$"),
    "look": ("archive", r"GET /\d+\?byte_range="),
    "remove": ("archive", r"DELETE /\d+$"),
    "register": ("metadata", r"PUT /ingest"),
    "find transaction": ("metadata", r"GET /transactions"),
    "find files": ("metadata", r"GET /files"),
}

#: Those that are made only after an unclear answer to "register".
LOOKUPS = {"find transaction", "find files"}
#: Those that few requests are.
RARE = LOOKUPS | {"adopt", "remove"}
#: How often `gc` runs beside a mix, and its exit codes: done, and something was unavailable.
GC_SHARE = 0.05
GC_ENDS = {0, 4}
GC_IDS = 3
#: What `gc` may take as if it were old is at least that old, in seconds: a request that was given up has ended by then.
GC_AGE_S = 5.0

Pair = tuple[str, Fault]


def pairs(names: Sequence[str] = tuple(OPERATIONS)) -> list[Pair]:
    """Every operation with every fault that it can have."""
    return [(name, fault) for name in names for fault in Fault if fault is not Fault.HALF or name == "store"]


class Deal:
    """Says which request goes wrong, and how: first each of the given pairs once, and a mix of all meanwhile and after.

    Attributes:
        seed: of the order.
        dealt: how often each fault hit each operation.
    """

    def __init__(self, seed: int, wanted: Sequence[Pair], mixed_share: float = MIXED_SHARE) -> None:
        """Deal `wanted` in an order of the seed; a request that is not wanted goes wrong with the chance `mixed_share`."""
        self.seed = seed
        self.dealt: Counter[Pair] = Counter()
        self._chance = random.Random(f"deal {seed}")
        self._mixed_share = mixed_share
        self._left = list(wanted)
        self._chance.shuffle(self._left)
        self._lock = threading.Lock()
        self._is_over = False

    @property
    def left(self) -> list[Pair]:
        """The pairs that were not dealt yet."""
        with self._lock:
            return list(self._left)

    def plan(self, neighbour: str) -> Plan:
        """For the proxy before a neighbour."""
        return partial(self._say, neighbour)

    def end(self) -> None:
        """From now on, all is well."""
        with self._lock:
            self._is_over = True

    def _say(self, neighbour: str, asked: Asked) -> Fault | None:
        name = _operation(neighbour, asked)
        with self._lock:
            fault = None if self._is_over or name is None else self._next(name)
            if name is None or fault is None or (fault is Fault.HALF and asked.length <= 1):
                return None
            self.dealt[name, fault] += 1
            if (name, fault) in self._left:
                self._left.remove((name, fault))
            return fault

    def _next(self, name: str) -> Fault | None:
        due = [fault for operation, fault in self._left if operation == name]
        share = SHARE if due else self._mixed_share
        if name in RARE and due:
            share = RARE_SHARE
        elif name == "register" and not due and LOOKUPS & {operation for operation, _ in self._left}:
            due, share = [Fault.NO_ANSWER], RARE_SHARE
        if self._chance.random() >= share:
            return None
        return due[0] if due else self._chance.choice([fault for _, fault in pairs([name])])


def _operation(neighbour: str, asked: Asked) -> str | None:
    """What a request is; None for others."""
    line = f"{asked.method} {asked.target}"
    found = (name for name, (whose, start) in OPERATIONS.items() if whose == neighbour and re.match(start, line))
    return next(found, None)


@contextmanager
def _proxied(core: PacificaCore, deal: Deal, hang_s: float = HOLD_S) -> Iterator[dict[str, dict[str, str]]]:
    """Proxies before all neighbours; gives the changes of a site's configuration."""
    ports = {name: getattr(core, name).port for name, _ in OPERATIONS.values()}
    with ExitStack() as stack:
        url = {
            name: stack.enter_context(Proxy(port, deal.plan(name), hold_s=HOLD_S, hang_s=hang_s)).url
            for name, port in ports.items()
        }
        yield {
            "ingest": {"retry_for": str(PATIENCE_S)},
            "uniqueid": {"url": url["uniqueid"]},
            "policy": {"ingest_url": f"{url['policy']}/ingest"},
            "archiveinterface": {"url": url["archive"]},
            "metadata": {"ingest_url": f"{url['metadata']}/ingest"},
        }


class _Numbers:
    """Numbers of requests of one kind only, for many threads."""

    def __init__(self, seed: int, kind: Kind, incoming: Path) -> None:
        self._seed, self._kind, self._incoming = seed, kind, incoming
        self._last = 0
        self._lock = threading.Lock()

    def __next__(self) -> int:
        with self._lock:
            self._last += 1
            while (order(self._seed, self._last, self._incoming).address == "/move") != (self._kind is Kind.MOVE):
                self._last += 1
            return self._last


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """What a chapter does.

    Attributes:
        seed: of everything in it.
        setting: what its site is made of.
        kind: of the jobs; None: both.
        what: how its folder is called.
        may_end: whether the main process of a Celery worker may end by itself, to be started again by its supervisor:
            kombu 5.7 does so at times when Redis goes away while it holds a message (in `QoS.restore_unacked`).
        rest_s: how long nothing may get further in the end, in seconds.
    """

    seed: int
    setting: Setting
    kind: Kind | None = None
    what: str = "servers"
    may_end: bool = False
    rest_s: float = REST_S

    def run(self, row: Row, work: Callable[[Site], None]) -> None:
        """Load a site while `work` lets servers go wrong, and judge it at rest; a site with a fault is kept."""
        folder = Path(tempfile.mkdtemp(prefix=f"pacifica-{self.what}-"))
        before = len(row.words)
        with Site(folder / "site", self.setting) as site:
            client = Client(site.server.port, self.seed, threads=CLIENTS, incoming=site.incoming)
            if self.kind is not None:
                client._numbers = _Numbers(self.seed, self.kind, site.incoming)  # type: ignore[assignment]
            with client:
                work(site)
            rest = said(lambda: site.settled(self.rest_s, lambda: _hurry(site)))
            if rest:
                # What still moves would move under the eyes of the judge.
                site.kill_all()
            self._record(row, site, client)
        died = [text for text in site.died if not (self.may_end and text.startswith("the worker "))]
        row.words += [f"seed {self.seed}: {text}" for text in [*rest, *died]]
        if len(row.words) == before:
            shutil.rmtree(folder)
        else:
            row.words.append(f"seed {self.seed}: the site is kept in {folder}")

    def _record(self, row: Row, site: Site, client: Client) -> None:
        evidence = site.evidence(client.sent)
        row.uploads += len(client.sent)
        row.accepted += sum(sent.status == 200 for sent in client.sent)
        row.taken_over += site.taken_over()
        row.done += sum(job.phase == Phase.DONE for job in evidence.jobs.values())
        row.failed += sum(job.phase == Phase.FAILED for job in evidence.jobs.values())
        row.judged(faults(client, evidence), self.seed)


def _hurry(site: Site) -> None:
    """Let jobs that wait for a neighbour go on at once, as `retry` does.

    A job waits about as long again as its trouble lasted, which would double the time of a round.
    """
    now = naive_utc()
    with site._read():
        waits = (tables.JobRow.phase == Phase.READY) & (tables.JobRow.not_before > now)
        tables.JobRow.update(not_before=now, hinted=now - timedelta(hours=1)).where(waits).execute()


# --- neighbours


def neighbours(
    seed: int,
    budget: Budget,
    setting: Callable[[], Setting],
    core: PacificaCore,
    kinds: Sequence[Kind | None] = (None,),
) -> Row:
    """A round of faults of the neighbours.

    Args:
        seed: of the first chapter; the next has the next.
        budget: a fault is a request that went wrong, or a neighbour that was killed or frozen.
        setting: gives broker and database of a chapter's site; nothing is shared between two.
        core: the neighbours, which are well before and after.
        kinds: each of these gets a chapter of every fault with every operation; what follows is a mix.
    """
    row = Row(round=f"neighbours, {setting().name}")
    hits: Counter[str] = Counter()
    chapters = [*((pairs(_asked_by(kind)), kind) for kind in kinds)]
    number = 0
    while not budget.is_spent(row.tried) or (chapters and time.monotonic() < budget.ends):
        wanted, kind = chapters.pop(0) if chapters else ([], None)
        share = replace(budget, tries=len(wanted) or min(CHAPTER, budget.tries - row.tried))
        deal = Deal(seed + number, wanted)
        with _proxied(core, deal) as changes:
            chosen = replace(setting(), core=core, changes=changes)
            chapter = Chapter(seed=seed + number, setting=chosen, kind=kind, what="neighbours")
            chapter.run(row, partial(_spoil, deal, core, share, hits))
        if deal.left and time.monotonic() < budget.ends:
            row.words.append(f"seed {seed + number}: never dealt: {deal.left}")
        hits += Counter(str(fault) for (_, fault), count in deal.dealt.items() for _ in range(count))
        row.tried = hits.total()
        row.mix = _told(hits)
        budget.say(f"{row.round}: {row.tried} of {budget.tries}, {row.done} jobs done, {len(row.words)} faults found")
        number += 1
    return row


def hangs(seed: int, budget: Budget, setting: Callable[[], Setting], core: PacificaCore) -> Row:
    """One chapter in which each operation hangs once, for ever: only the service's own time limits end it.

    Args:
        seed: of the chapter.
        budget: when it is over.
        setting: gives broker and database of its site.
        core: the neighbours.
    """
    row = Row(round=f"neighbours that hang for ever, {setting().name}")
    # Nobody but the administrator waits for "remove".
    deal = Deal(seed, [(name, Fault.HANG) for name in OPERATIONS if name != "remove"], mixed_share=0)
    hits: Counter[str] = Counter()
    with _proxied(core, deal, FOR_EVER_S) as changes:
        chosen = replace(setting(), core=core, changes=changes)
        chapter = Chapter(seed=seed, setting=chosen, what="hangs", rest_s=GIVEN_UP_S + REST_S)
        chapter.run(row, partial(_hang, deal, budget))
    if deal.left:
        row.words.append(f"seed {seed}: never dealt: {deal.left}")
    hits += Counter(str(fault) for (_, fault), count in deal.dealt.items() for _ in range(count))
    row.tried = hits.total()
    row.mix = _told(hits)
    return row


def _hang(deal: Deal, budget: Budget, site: Site) -> None:
    """Wait until each operation hung."""
    ends = min(budget.ends, time.monotonic() + CHAPTER_S)
    while deal.left and time.monotonic() < ends:
        time.sleep(REST_EVERY_S)
        site.revive()
        _hurry(site)
        budget.say(f"still to hang: {', '.join(name for name, _ in deal.left)}")
    deal.end()


def _asked_by(kind: Kind | None) -> list[str]:
    """The operations that jobs of a kind need; a move that is cut leaves no garbage to remove."""
    not_needed = {Kind.INGEST: {"adopt"}, Kind.MOVE: {"store", "remove"}, None: set()}[kind]
    return [name for name in OPERATIONS if name not in not_needed]


def _spoil(deal: Deal, core: PacificaCore, budget: Budget, hits: Counter[str], site: Site) -> None:
    """Let requests go wrong until the budget is spent, and neighbours meanwhile, each at least once."""
    chance = random.Random(f"neighbours {deal.seed}")
    clock = threading.Event()
    ends = min(budget.ends, time.monotonic() + (PAIRS_S if deal.left else CHAPTER_S))
    waiting = [(service, how) for service in core.services for how in ("killed", "frozen")]
    chance.shuffle(waiting)
    while time.monotonic() < ends and (waiting or deal.left or deal.dealt.total() < budget.tries):
        clock.wait(chance.uniform(*GAP_S) if waiting else REST_EVERY_S)
        if waiting:
            service, how = waiting.pop()
            _away(service, how, clock, chance.uniform(*AWAY_S))
            hits[how] += 1
        site.revive()
        if deal.left:
            _hurry(site)
        if "remove" in {name for name, _ in deal.left} or chance.random() < GC_SHARE:
            _collect(site)
    deal.end()


def _collect(site: Site) -> None:
    """Let `gc` remove garbage as if it were old; what cannot be removed now stays on the list."""
    with site._read():
        ended = naive_utc() - timedelta(seconds=GC_AGE_S)
        is_garbage = (tables.ArchiveId.state == tables.ArchiveId.GARBAGE) & (tables.ArchiveId.noted < ended)
        garbage = tables.ArchiveId.select().where(is_garbage)
        # Few: the catalogue is asked about each before the first is removed, and one answer that goes wrong ends it.
        few = [row.file_id for row in garbage.order_by(tables.ArchiveId.file_id).limit(GC_IDS)]
        old = naive_utc() - timedelta(days=2)
        tables.ArchiveId.update(noted=old).where(tables.ArchiveId.file_id.in_(few)).execute()
    command = [sys.executable, "-c", ADMIN, "gc", "--older-than", "1"]
    done = subprocess.run(command, env=site.env, capture_output=True, text=True, timeout=CHAPTER_S, check=False)
    assert done.returncode in GC_ENDS, done.stderr


def _away(service: Server, how: str, clock: threading.Event, away_s: float) -> None:
    """Take a server away for a while."""
    if how == "frozen":
        service.pause()
        clock.wait(away_s)
        service.resume()
    else:
        service.kill()
        clock.wait(away_s)
        service.start()


# --- broker and database


def outages(seed: int, budget: Budget, setting: Callable[[], Setting], servers: Sequence[Server]) -> Row:
    """A round in which broker and database are killed, or frozen, and come back.

    Args:
        seed: of the first chapter; the next has the next.
        budget: a fault is one of them.
        setting: gives what the site of a chapter is made of.
        servers: those that its broker and database are on.
    """
    row = Row(round=f"outages, {setting().name}")
    hits: Counter[str] = Counter()
    number = 0
    while not budget.is_spent(row.tried):
        share = replace(budget, tries=min(OUTAGES, budget.tries - row.tried))
        chapter = Chapter(seed=seed + number, setting=setting(), what="outages", may_end=True)
        chapter.run(row, partial(_take_away, servers, share, seed + number, hits))
        row.tried = hits.total()
        row.mix = _told(hits)
        budget.say(f"{row.round}: {row.tried} of {budget.tries}, {row.done} jobs done, {len(row.words)} faults found")
        number += 1
    return row


def _take_away(servers: Sequence[Server], budget: Budget, seed: int, hits: Counter[str], site: Site) -> None:
    """Take servers away for a while, at times for longer than a lease, each in turn; a supervisor is awake."""
    chance = random.Random(f"outages {seed}")
    clock = threading.Event()
    made = 0
    while not budget.is_spent(made):
        clock.wait(chance.uniform(*GAP_S))
        site.revive()
        server = servers[made % len(servers)]
        how = "killed" if chance.random() < 0.75 else "frozen"
        _away(server, how, clock, chance.choice([AWAY_S[0], chance.uniform(*AWAY_S), LEASE_S + 2.0]))
        hits[f"{server.name} {how}"] += 1
        made += 1


def _told(hits: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(hits.items()))
