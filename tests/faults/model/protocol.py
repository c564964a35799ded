"""The job protocol, as generators that give up control at each call to the outside.

What it is: the protocol's specification, to be read top to bottom: a server takes a body (`serve`), a worker carries a job
(`carry`), its heart beats (`beat`), a sweeper repairs (`sweep`).  Each `yield` is one atomic step: its name, as the doubles
name it, then a method of `World` and its arguments.  What goes wrong is raised there.

What it is not: the service; nothing of it is used here.

Who may call it: the model's side of `play`.

Source: the job protocol in `docs/architecture.md`.
"""

# ruff: noqa: SIM105, TRY003, TRY301 (the shape of each step is to be seen, and a word is enough of a reason)

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.faults.model.plan import FILES, Client, body_of, content_of, name_of, source_of
from tests.faults.model.play import Answer
from tests.faults.model.rule import Rule
from tests.faults.model.world import (
    Away,
    Broken,
    Bug,
    Claim,
    ClaimLost,
    Conflict,
    Cut,
    Fault,
    Refused,
    Seen,
    Stopping,
    Unconfirmed,
    World,
)

__all__ = ["Life", "Process", "Steps", "Watch", "beat", "retain", "serve", "sweep", "sweeping", "work"]

Steps = Generator[tuple[Any, ...], Any, Any]

LEASE_S = 30.0
UPLOAD_LEASE_S = 600.0
UNCLAIMED_S = 5.0
SIGN_OF_LIFE_S = 5.0
REPORT_EVERY_S = 1.0
SWEEP_EVERY_S = 2.0
FINISHING_S = 4.0
IDLE_S = 1.0
COMMIT_SILENCE_S = 600.0
COMMIT_SILENCE_PER_BYTE_S = 1e-7
UNCONFIRMED_S = 30.0
ASK_AGAIN_S = 2.0
ID_TRIES = 100
RANGE_TRIES = 10
POLICY_SILENCE_S = 120.0
ARCHIVE_SILENCE_S = 300.0
REGISTER_SILENCE_S = 120.0 + 0.05 * len(FILES)


class Process(Protocol):
    """What a generator knows of the process that it runs in."""

    stopping: bool
    ready_at: float
    #: The job and the epoch that it carries.
    carries: tuple[int, int] | None
    #: The call that was made last.
    pending: str | None

    def start_heart(self, beats: "Callable[[Process], Steps]") -> Callable[[], None]:
        """Run the heart of a job or an upload beside it; returns what waits for its end."""
        ...


# --- a server takes a body


def serve(world: World, process: Process, me: str, number: int, answer: Answer) -> Steps:
    """Take the body of a client, answer, then hint."""
    is_move = world.plan.moves[number]
    key = f"key{number}" if world.plan.keyed[number] else ""
    try:
        job_id = yield from accept(world, process, number, me, key)
    except Cut:
        answer.told(400)
        return
    except Unconfirmed as fault:
        yield "client.answer", world.nothing
        answer.told(202, fault.job_id)
        return
    except Away:
        answer.told(None if key else 503)
        raise
    except Exception:
        # What nobody expects of a commit says nothing of it.
        answer.told(None if key or process.pending == "jobs.accept" else 503)
        raise
    path = name_of(job_id, is_move=is_move)
    yield "client.answer", world.nothing
    answer.told(200, job_id)
    if world.off is Rule.FILE_BEFORE_ANSWER:
        yield "upload.commit", world.commit, path
    if world.off is Rule.ROW_BEFORE_ANSWER:
        yield "jobs.accept", world.accept, job_id, me, path, ""
    try:
        yield "queue.send", world.send, job_id
    except Away:
        pass  # the sweep hints again


def accept(world: World, process: Process, number: int, me: str, key: str) -> Steps:
    """File, row: in this order."""
    user = "nobody" if world.plan.clients[number] is Client.REFUSED else "somebody"
    yield "staging.admit", world.nothing
    for _ in range(ID_TRIES):
        job_id = (yield "ids.reserve", world.reserve, "job", 1).start
        if not (yield "jobs.open", world.open, job_id, me, user, world.plan.moves[number]):
            continue
        path = name_of(job_id, is_move=world.plan.moves[number])
        try:
            yield "staging.begin", world.begin, path
            break
        except Conflict:
            yield from forget(world, job_id, me)
        except Exception:
            yield from drop(world, path, job_id, me)
            raise
    else:
        raise Away
    pulse = Pulse(world, process, job_id, me)
    try:
        try:
            yield from receive(world, path, number, pulse)
        except Conflict:
            yield from forget(world, job_id, me)
            raise
        except Exception:
            yield from drop(world, path, job_id, me)
            raise
        if world.off is Rule.ROW_BEFORE_ANSWER:
            return job_id
        try:
            accepted: int = yield from commit(pulse, path, key)
        except ClaimLost:
            yield from drop(world, path, job_id, me)
            raise
        if accepted != job_id:
            yield from drop(world, path, job_id, me)
        return accepted
    finally:
        pulse.end()


def commit(pulse: "Pulse", path: str, key: str) -> Steps:
    """Commit; what is unclear is asked for again."""
    world, job_id = pulse.world, pulse.job_id
    until = world.mono + UNCONFIRMED_S
    while True:
        try:
            return (yield "jobs.accept", world.accept, job_id, pulse.me, path, key)
        except Away as fault:
            if world.off is Rule.CONFIRM:
                raise
            if world.mono >= until:
                raise Unconfirmed(job_id) from fault
        pulse.process.ready_at = world.mono + ASK_AGAIN_S
        yield "server.pause", world.nothing


@dataclass(slots=True)
class Pulse:
    """The heart of an upload, which beats while it is committed."""

    world: World
    process: Process
    job_id: int
    me: str
    until: float = 0.0
    over: bool = False
    join: Callable[[], None] | None = None

    def start(self, size: int) -> None:
        self.until = self.world.mono + COMMIT_SILENCE_S + COMMIT_SILENCE_PER_BYTE_S * size
        self.join = self.process.start_heart(self.beat)

    def end(self) -> None:
        self.over = True
        if self.join is not None:
            self.join()

    def beat(self, heart: Process) -> Steps:
        while True:
            heart.ready_at = self.world.mono + SIGN_OF_LIFE_S
            yield "heart.wait", self.world.nothing
            if self.over or self.world.mono > self.until:
                return
            try:
                yield from self.show()
            except ClaimLost:
                return

    def show(self) -> Steps:
        """The next sign may arrive."""
        try:
            yield "jobs.receiving", self.world.receiving, self.job_id, self.me
        except Away:
            pass


def receive(world: World, path: str, number: int, pulse: Pulse) -> Steps:
    """A partial file, then a whole one."""
    body = body_of(number)
    shown = world.mono
    found = 0
    for chunk in (body[:4],) if world.plan.clients[number] is Client.CUT else (body[:4], body[4:]):
        found += len(chunk)
        yield "upload.write", world.write, path, chunk
        if world.mono - shown > SIGN_OF_LIFE_S:
            yield from pulse.show()
            shown = world.mono
    if found != len(body) and world.off is not Rule.LENGTH:
        raise Cut
    pulse.start(found)
    if world.off is not Rule.FILE_BEFORE_ANSWER:
        yield "upload.commit", world.commit, path


def drop(world: World, path: str, job_id: int, me: str) -> Steps:
    """The file goes first, as what the row names is found again."""
    try:
        yield "staging.discard", world.remove, f"{path}.part", path
    except Broken:
        return  # the sweep finds it
    yield from forget(world, job_id, me)


def forget(world: World, job_id: int, me: str) -> Steps:
    """The upload was refused; what is not forgotten now stays until the sweep."""
    try:
        yield "jobs.refuse", world.refuse, job_id, me
    except Away:
        pass


# --- a worker carries a job


def work(world: World, process: Process, me: str) -> Steps:
    """The life of a worker process."""
    while not process.stopping:
        try:
            if world.plan.by_hints:
                job_id = yield "worker.hint", world.take_hint
                claim = yield "jobs.claim", world.claim, job_id, me
            else:
                claim = yield "jobs.claim_any", world.claim_any, me
        except Away:
            claim = None
        if claim is not None:
            yield from carry(world, process, claim)
        elif not world.plan.by_hints:
            process.ready_at = world.mono + IDLE_S
            yield "worker.idle", world.nothing


@dataclass(slots=True)
class Life:
    """One claim while it is worked on, and how long it may be silent."""

    world: World
    process: Process
    claim: Claim
    files: tuple[tuple[int, str, str], ...] = ()
    lost: bool = False
    over: bool = False
    reported: float = 0.0
    finishing: bool = False
    stopped_at: float | None = None
    silence_s: float = LEASE_S
    silent_until: float = 0.0
    step: int = 0
    ids: list[int] = field(default_factory=list)
    count: int = 1

    def __post_init__(self) -> None:
        self.reported = self.world.mono
        self.silent_until = self.world.mono + LEASE_S

    def patience(self, seconds: float) -> None:
        """From now on the work may be silent for that long."""
        self.silence_s = seconds + LEASE_S
        self.silent_until = self.world.mono + self.silence_s

    def alive(self) -> None:
        if self.lost:
            raise ClaimLost
        if self.process.stopping:
            if self.stopped_at is None:
                self.stopped_at = self.world.mono
            if not self.finishing or self.world.mono - self.stopped_at >= FINISHING_S:
                raise Stopping
        self.silent_until = self.world.mono + self.silence_s

    def begin(self, step: int) -> Steps:
        """Enter a step."""
        self.step = step
        self.alive()
        yield from self.report()

    def advance(self) -> Steps:
        """Something was done."""
        self.alive()
        if self.world.mono - self.reported >= REPORT_EVERY_S:
            yield from self.report()

    def report(self) -> Steps:
        self.reported = self.world.mono
        try:
            yield "jobs.report", self.world.report, self.claim
        except Away:
            pass

    def patiently(self, seconds: float, steps: Steps) -> Steps:
        """Steps that may be silent."""
        self.patience(seconds)
        try:
            return (yield from steps)
        finally:
            self.patience(0)


def step(*call: Any) -> Steps:
    """One call, as steps."""
    return (yield call)


def beat(life: Life, process: Process) -> Steps:
    """The heart beats for as long as the work moved lately, or said how long it may be silent."""
    world = life.world
    while True:
        process.ready_at = world.mono + LEASE_S / 6
        yield "heart.wait", world.nothing
        if life.over:
            return
        if world.mono > life.silent_until:
            continue
        try:
            yield "jobs.beat", world.own, life.claim
        except ClaimLost:
            life.lost = True
            return
        except Away:
            pass


def carry(world: World, process: Process, claim: Claim) -> Steps:
    """Work on a claimed job until it is done, failed, waiting or given back."""
    process.carries = (claim.job_id, claim.epoch)
    life = Life(world, process, claim)
    join = process.start_heart(lambda heart: beat(life, heart))
    try:
        yield from guard(life)
    except (ClaimLost, Away):
        pass  # somebody else has it, or will have it
    finally:
        life.over = True
        join()
        process.carries = None


def guard(life: Life) -> Steps:
    """What becomes of a job when a step goes wrong."""
    world = life.world
    try:
        yield from flow(life)
    except ClaimLost:
        raise
    except Stopping:
        yield "jobs.release", world.release, life.claim
    except (Away, Broken, Conflict, Refused) as fault:
        yield from settle(life, fault)
    except Exception:  # noqa: BLE001 (nobody expects it)
        yield from fail(life, "internal")


def flow(life: Life) -> Steps:
    """From the staged file to the catalogue; what may be registered is looked up before its document fails it."""
    try:
        yield from (move if life.claim.is_move else ingest)(life)
    except Refused:
        if not life.claim.frozen or not (yield from is_recorded(life)):
            raise
        yield from finish(life)


def settle(life: Life, fault: Fault) -> Steps:
    """Wait when waiting may help and there is time left, else fail."""
    world, now = life.world, life.world.now
    since, reached = (yield "jobs.job", world.failing, life.claim.job_id) or (now, life.step)
    if life.step > reached:
        since, reached = now, life.step  # it got further than before
    since = min(since, now)  # a clock that was set back must not make it endless
    left_s = world.plan.retry_for_s - (now - since)
    if isinstance(fault, (Away, Broken)) and left_s > 0 and world.off is not Rule.WAIT:
        ceiling = min(600.0, 2 * max(1.0, now - since))
        delay_s = min(max(1.0, world.chance() * ceiling), left_s)
        yield "jobs.wait", world.wait, life.claim, now + delay_s, (since, reached)
    else:
        yield from fail(life, str(fault) or type(fault).__name__)


def fail(life: Life, reason: str) -> Steps:
    """The bundle stays."""
    yield "jobs.fail", life.world.fail, life.claim, reason
    if life.world.off is Rule.FAILED_KEEPS:
        yield "staging.remove", life.world.remove, life.claim.path


def staged(life: Life) -> tuple[int, Client]:
    """Whose the staged file is; no step, as everybody may look at the disk."""
    world, path = life.world, life.claim.path
    if not path:
        raise Refused("no bundle")
    if path not in world.staged:
        raise Away("no bundle to be seen")
    numbers = [number for number in range(len(world.plan.clients)) if body_of(number) == world.staged[path]]
    if not numbers:
        raise Refused("half a bundle")
    number = numbers[0]
    life.files = tuple((seq, name, content_of(number, name)) for seq, name in enumerate(FILES))
    life.patience(0)
    return number, world.plan.clients[number]


def ingest(life: Life) -> Steps:
    """A bundle, from the staged file to the catalogue."""
    yield from life.begin(1)
    _, client = staged(life)
    yield from life.begin(2)
    life.patience(0)
    if not life.claim.frozen:
        yield from permit(life)
        yield from life.begin(4)
        yield from check(life, is_faulty=client is Client.FAULTY)
        yield from deposit(life)
    yield from conclude(life)


def move(life: Life) -> Steps:
    """Files that the archive can reach, from the staged document to the catalogue."""
    yield from life.begin(2)
    number, client = staged(life)
    life.patience(0)
    if not life.claim.frozen:
        yield from permit(life)
        yield from life.begin(4)
        known = yield "jobs.sources", life.world.known, life.claim.job_id
        left = yield from settle_moves(life, number, known)
        yield from check_sources(life, number, left, known, is_faulty=client is Client.FAULTY)
        yield from relocate(life, number, left)
    yield from conclude(life)


def permit(life: Life) -> Steps:
    """Before anything is done."""
    yield from life.begin(3)
    if life.world.off is not Rule.POLICY:
        call = step("policy.permit", life.world.permit, life.claim.user)
        yield from life.patiently(POLICY_SILENCE_S, call)


def conclude(life: Life) -> Steps:
    """Register, end the job, remove the staged file: in this order."""
    world, claim = life.world, life.claim
    yield from life.begin(5)
    yield from register(life)
    if world.off is Rule.DONE_BEFORE_REMOVAL:
        yield "staging.remove", world.remove, claim.path
    yield from finish(life)


def finish(life: Life) -> Steps:
    """End the job, remove the staged file: in this order."""
    world, claim = life.world, life.claim
    yield "jobs.finish", world.finish, claim
    yield "staging.remove", world.remove, claim.path
    yield "jobs.cleaned", world.cleaned, claim.job_id


def check(life: Life, *, is_faulty: bool) -> Steps:
    """All that is wrong is found before the first byte is sent."""
    if life.world.off is Rule.CHECK:
        return
    for _ in life.files:
        yield from life.advance()
        yield from life.advance()
    if is_faulty:
        raise Refused("metadata says")


# --- bytes into the archive


def deposit(life: Life) -> Steps:
    """Every file that is not archived yet, under ids that nothing was ever sent under."""
    world, claim = life.world, life.claim
    begun = world.file_ids(claim.job_id, "intent") if world.off is Rule.BYTES_ONCE else {}
    if world.off not in {Rule.ABANDON, Rule.BYTES_ONCE}:
        yield "jobs.abandon", world.abandon, claim
    archived = yield "jobs.file_ids", world.file_ids, claim.job_id
    for _ in archived:
        yield from life.advance()
    left = [file for file in life.files if file[0] not in archived]
    life.count = len(left)
    for start in range(0, len(left), world.plan.window):
        window = left[start : start + world.plan.window]
        chosen = {seq: begun[seq] for seq, _, _ in window if seq in begun}
        yield from intend(life, [seq for seq, _, _ in window if seq not in begun], chosen)
        yield from send(life, [(chosen[seq], seq, content) for seq, _, content in window])


def number(life: Life) -> Steps:
    """The next candidate."""
    if not life.ids:
        found = yield from life.patiently(ARCHIVE_SILENCE_S, free_range(life.world, max(1, life.count)))
        life.ids, life.count = list(found), 1
    return life.ids.pop(0)


def free_range(world: World, count: int) -> Steps:
    """A range whose first id is not in use: the service may give out a range again."""
    for _ in range(RANGE_TRIES):
        found = yield "ids.reserve", world.reserve, "file", count
        if world.off is Rule.PROBE or (yield "archive.size", world.size, found.start) is None:
            return found
    raise Away


def intend(life: Life, waiting: Sequence[int], chosen: dict[int, int]) -> Steps:
    """Commit which file gets which id, before anything is sent."""
    world = life.world
    fruitless = 0
    while waiting:
        wanted = {}
        for seq in waiting:
            wanted[seq] = yield from number(life)
        if world.off is Rule.INTENT_FIRST:
            ours = set(wanted)
        else:
            ours = yield "jobs.intend", world.intend, life.claim, wanted
        chosen |= {seq: wanted[seq] for seq in ours}
        waiting = [seq for seq in waiting if seq not in chosen]
        fruitless = 0 if ours else fruitless + 1
        if fruitless == RANGE_TRIES:
            raise Away


Parcel = tuple[int, int, str]


def send(life: Life, parcels: Sequence[Parcel]) -> Steps:
    """Send; what was sent before something went wrong counts."""
    sent: list[Parcel] = []
    try:
        yield from life.patiently(ARCHIVE_SILENCE_S, ship(life, parcels, sent))
    except (Away, Stopping):
        # Without the rule, what was sent under the id that met the fault may be there.
        first = len(sent) + (life.world.off is not Rule.VOID)
        yield from let_go(life, [file_id for file_id, _, _ in parcels[first:]])
        yield from confirm(life, sent)
        raise
    yield from confirm(life, sent)


def ship(life: Life, parcels: Sequence[Parcel], sent: list[Parcel]) -> Steps:
    """One after the other."""
    for parcel in parcels:
        file_id, _, content = parcel
        yield "archive.store", life.world.store, file_id, content, life.claim.path
        sent.append(parcel)


def let_go(life: Life, file_ids: Sequence[int]) -> Steps:
    """Intents that nothing was done with are no garbage: somebody else may have something there."""
    if file_ids:
        yield "jobs.void", life.world.void, life.claim, file_ids


def confirm(life: Life, parcels: Sequence[Parcel]) -> Steps:
    """Read back what was sent, and record what is whole; a stop waits for it."""
    if not parcels:
        return
    world, claim = life.world, life.claim
    yield from life.patiently(ARCHIVE_SILENCE_S, step("archive.flush", world.nothing))
    if world.off is Rule.INTENT_FIRST:
        yield "jobs.intend", world.intend, claim, {seq: file_id for file_id, seq, _ in parcels}
    whole: list[int] = []
    problem: Exception | None = None
    life.finishing = True
    try:
        if world.off is Rule.READ_BACK:
            yield from verify(life, parcels, whole)
        else:
            yield from life.patiently(ARCHIVE_SILENCE_S, verify(life, parcels, whole))
    except Exception as fault:  # noqa: BLE001 (it is raised below)
        problem = fault
    life.finishing = False
    if whole:
        yield "jobs.archived", world.archived, claim, whole
    if problem is not None:
        raise problem


def verify(life: Life, parcels: Sequence[Parcel], whole: list[int]) -> Steps:
    """One after the other, up to the first that is not what was sent."""
    for file_id, _, content in parcels:
        if life.world.off is not Rule.READ_BACK and (yield "archive.digest", life.world.digest, file_id) != content:
            raise Away
        whole.append(file_id)
        yield from life.advance()


# --- files into the archive that it can reach itself: it consumes the source, so nothing can be sent again


File = tuple[int, str, str]


def settle_moves(life: Life, number: int, known: dict[int, int | None]) -> Steps:
    """Bring to an end what an earlier attempt began; returns what is still to be moved."""
    world, job_id = life.world, life.claim.job_id
    archived = yield "jobs.file_ids", world.file_ids, job_id
    begun = yield "jobs.intents", world.file_ids, job_id, "intent"
    given_up = yield "jobs.given_up", world.given_up, job_id
    if world.off is Rule.BOTH_SIDES:
        begun = {}
    left = []
    for file in life.files:
        seq = file[0]
        older = given_up.get(seq, [])
        if seq in archived:
            yield from life.advance()
            continue
        if seq in begun:
            is_moved = yield from finish_move(life, number, file, [begun[seq], *older], known[seq])
        else:
            is_moved = older and (yield from find(life, number, file, older))
        if is_moved:
            yield from life.advance()
        else:
            left.append(file)
    return left


def finish_move(life: Life, number: int, file: File, ids: Sequence[int], part: int | None) -> Steps:
    """What is left on both sides tells what became of it; False when its id is given up."""
    world, claim = life.world, life.claim
    seq, name, content = file
    file_id, *older = ids
    source = source_of(number, name)
    there = yield from size(life, file_id)
    is_whole = yield from is_all(life, file_id, there, content)
    is_here = yield from look(life, source)
    if not is_here and not is_whole:
        if (yield from take_back(life, older, content)):
            return True
        raise Away
    if not is_here:
        yield from flush(life)
        yield "jobs.archived", world.archived, claim, [file_id]
        yield from life.advance()
    elif there is None or is_whole:
        yield from adopt(life, number, [(file_id, seq, content)], untouched=False)
    elif part is None or there > part or world.off is Rule.GIVE_UP:
        yield "jobs.note_part", world.note_part, claim, seq, there
        raise Away
    else:
        yield "jobs.abandon", world.abandon, claim, [file_id]
        return False
    return True


def find(life: Life, number: int, file: File, older: Sequence[int]) -> Steps:
    """Nothing was begun with it anew, and its source is not there to be moved."""
    _, name, content = file
    is_here = yield from look(life, source_of(number, name))
    return not is_here and (yield from take_back(life, older, content))


def take_back(life: Life, older: Sequence[int], content: str) -> Steps:
    """An old request came to its end after all, under an id that was given up."""
    world = life.world
    if world.off is Rule.TAKE_BACK:
        return False
    for file_id in older:
        there = yield from size(life, file_id)
        if (yield from is_all(life, file_id, there, content)):
            yield from flush(life)
            yield "jobs.take_back", world.take_back, life.claim, file_id
            yield from life.advance()
            return True
    return False


def is_all(life: Life, file_id: int, there: int | None, content: str) -> Steps:
    """Whether the whole file lies under an id."""
    if there != len(content):
        return False
    found = yield from life.patiently(ARCHIVE_SILENCE_S, step("archive.digest", life.world.digest, file_id))
    return found == content


def look(life: Life, source: str) -> Steps:
    """Whether a source is there; no step, as everybody may look at the disk."""
    life.patience(0)
    return source in life.world.sources
    yield


def check_sources(
    life: Life, number: int, left: Sequence[File], known: dict[int, int | None], *, is_faulty: bool
) -> Steps:
    """Every source is looked at before the first is consumed."""
    if life.world.off is Rule.CHECK:
        return
    gone = []
    for seq, name, _ in left:
        if source_of(number, name) in life.world.sources:
            yield from life.patiently(ARCHIVE_SILENCE_S, life.advance())
        else:
            gone.append(seq)
            life.patience(0)
    if any(seq not in known for seq in gone):
        raise Refused("does not exist")
    if is_faulty:
        raise Refused("metadata says")
    if gone:
        raise Away


def relocate(life: Life, number: int, left: Sequence[File]) -> Steps:
    """Move what was checked."""
    world = life.world
    yield "jobs.note_sources", world.note_sources, life.claim, [seq for seq, _, _ in left]
    life.count = len(left)
    for start in range(0, len(left), world.plan.window):
        window = left[start : start + world.plan.window]
        chosen: dict[int, int] = {}
        yield from intend(life, [seq for seq, _, _ in window], chosen)
        parcels = [(chosen[seq], seq, content) for seq, _, content in window]
        try:
            yield from life.patiently(ARCHIVE_SILENCE_S, probe(life, parcels))
            for _, name, _ in window:
                if not (yield from look(life, source_of(number, name))):
                    raise Away
        except (Away, Stopping):
            yield from let_go(life, list(chosen.values()))
            raise
        yield from adopt(life, number, parcels, untouched=True)


def probe(life: Life, parcels: Sequence[Parcel]) -> Steps:
    """What is in the way is not ours."""
    for file_id, _, _ in parcels:
        if (yield "archive.size", life.world.size, file_id) is not None:
            raise Away
        yield from life.advance()


def size(life: Life, file_id: int) -> Steps:
    """What the archive has under an id."""
    return (yield from life.patiently(ARCHIVE_SILENCE_S, step("archive.size", life.world.size, file_id)))


def adopt(life: Life, number: int, parcels: Sequence[Parcel], *, untouched: bool) -> Steps:
    """The archive takes sources; what it took before something went wrong counts."""
    begun: list[int] = []
    moved: list[Parcel] = []
    try:
        yield from life.patiently(ARCHIVE_SILENCE_S, take(life, number, parcels, begun, moved))
    except (Away, Stopping):
        if untouched:
            yield from let_go(life, [file_id for file_id, _, _ in parcels if file_id not in begun])
        yield from confirm(life, moved)
        raise
    yield from confirm(life, moved)


def take(life: Life, number: int, parcels: Sequence[Parcel], begun: list[int], moved: list[Parcel]) -> Steps:
    """One after the other; the claim is asked for last."""
    for parcel in parcels:
        file_id, seq, _ = parcel
        yield "jobs.beat", life.world.own, life.claim
        begun.append(file_id)
        source = source_of(number, life.files[seq][1])
        yield "archive.adopt", life.world.adopt, file_id, source
        moved.append(parcel)


def flush(life: Life) -> Steps:
    """Durable first."""
    yield from life.patiently(ARCHIVE_SILENCE_S, step("archive.flush", life.world.nothing))


# --- the catalogue


def register(life: Life) -> Steps:
    """Exactly once."""
    file_ids = yield "jobs.file_ids", life.world.file_ids, life.claim.job_id
    if len(file_ids) < len(life.files):
        raise Bug
    files = sorted(((name, file_ids[seq], content) for seq, name, content in life.files), key=lambda file: file[1])
    yield from life.patiently(REGISTER_SILENCE_S, register_files(life, files))


def register_files(life: Life, files: Sequence[tuple[str, int, str]]) -> Steps:
    """Freeze, register, and look up what is not clear."""
    world, claim = life.world, life.claim
    if claim.frozen and world.off is not Rule.LOOK_UP and (yield from is_registered(life, files)):
        return
    yield "jobs.freeze", world.freeze, claim, len(files)
    try:
        yield "catalogue.register", world.register, claim.job_id, files
    except (Conflict, Away):
        if world.off is Rule.LOOK_UP or not (yield from is_registered(life, files)):
            raise


def is_registered(life: Life, files: Sequence[tuple[str, int, str]]) -> Steps:
    """Whether exactly this is there."""
    found = yield "catalogue.lookup", life.world.lookup, life.claim.job_id
    if found is None:
        return False
    if list(found) != list(files):
        raise Conflict("other files")
    return True


def is_recorded(life: Life) -> Steps:
    """Whether a transaction with just these archive ids is there."""
    file_ids = yield "jobs.file_ids", life.world.file_ids, life.claim.job_id
    lookup = step("catalogue.lookup", life.world.lookup, life.claim.job_id)
    found = yield from life.patiently(REGISTER_SILENCE_S, lookup)
    if found is None:
        return False
    if {file_id for _, file_id, _ in found} != set(file_ids.values()):
        raise Conflict("other files")
    return True


# --- a sweeper repairs


@dataclass(slots=True)
class Watch:
    """What a sweeper remembers: when it saw a job as it is for the first time, and since when it sees nobody."""

    seen: dict[int, tuple[tuple[int, int], float]] = field(default_factory=dict)
    blind_since: float | None = None


def sweeping(world: World, process: Process) -> Steps:
    """The life of a sweeper."""
    watch = Watch()
    while True:
        process.ready_at = world.mono + SWEEP_EVERY_S
        yield "sweeper.pause", world.nothing
        try:
            yield from sweep(world, watch, UNCLAIMED_S)
        except Exception:  # noqa: BLE001 (without the sweep, the next crash would cost a job)
            pass


def sweep(world: World, watch: Watch, unclaimed_s: float) -> Steps:
    """Take over, hint, clean."""
    for job in (yield from still(world, watch)):
        yield from apart(take_over(world, job))
    if world.off is not Rule.SWEEP_HINTS:
        yield from hint(world, unclaimed_s)
    if world.off is not Rule.SWEEP_CLEANS:
        yield from clean(world)


def still(world: World, watch: Watch) -> Steps:
    """Jobs that did not move for a lease of this sweeper's own clock; while it could see nobody, nobody could move."""
    if watch.blind_since is None:
        watch.blind_since = world.mono
    held: list[Seen] = yield "jobs.held", world.held
    now = world.mono
    blind_s, watch.blind_since = now - watch.blind_since, None
    signs = {job.job_id: ((job.epoch, job.heartbeat), now) for job in held}
    for job_id, (sign, _) in signs.items():
        if job_id in watch.seen and watch.seen[job_id][0] == sign:
            signs[job_id] = (sign, watch.seen[job_id][1] + blind_s)
    watch.seen = signs
    lease_s = {"running": LEASE_S, "receiving": UPLOAD_LEASE_S}
    return [job for job in held if now - signs[job.job_id][1] >= lease_s[job.phase]]


def take_over(world: World, job: Seen) -> Steps:
    """A job goes on, an upload is given up."""
    if world.off is (Rule.SWEEP_TAKES_OVER if job.phase == "running" else Rule.SWEEP_GIVES_UP):
        return
    yield "jobs.take_over", world.take_over, job


def apart(steps: Steps) -> Steps:
    """What goes wrong with one job is kept from the others, unless it is what all of them would meet."""
    try:
        return (yield from steps)
    except Bug:
        return None


def hint(world: World, unclaimed_s: float) -> Steps:
    """What nobody took up."""
    for job in (yield "jobs.unclaimed", world.unclaimed, unclaimed_s):
        if (yield from apart(hint_one(world, job))):
            break


def hint_one(world: World, job: Seen) -> Steps:
    """Whether nobody hears it."""
    if not (yield "jobs.hinted", world.hinted, job):
        return False
    try:
        yield "queue.send", world.send, job.job_id
    except Away:
        yield "jobs.unhinted", world.unhinted, job
        return True
    return False


def clean(world: World) -> Steps:
    """What is done needs no staged file, and what was given up leaves none."""
    for job in (yield "jobs.leftovers", world.leftovers):
        yield from apart(clean_one(world, job))


def clean_one(world: World, job: Seen) -> Steps:
    """What cannot be removed now is tried again."""
    path = name_of(job.job_id, is_move=job.is_move)
    try:
        if job.path:
            yield "staging.remove", world.remove, job.path
        else:
            yield "staging.discard", world.remove, f"{path}.part", path
    except Broken:
        return
    yield "jobs.cleaned", world.cleaned, job.job_id


# --- an operator removes what is kept long enough


def retain(world: World, keep_s: float) -> Steps:
    """Bundles, then garbage."""
    for job in (yield "jobs.expired", world.expired, keep_s):
        if world.off is not Rule.ONLY_COPY and (yield from is_needed(world, job)):
            continue
        if (yield "jobs.expire", world.expire, job):
            yield "staging.remove", world.remove, job.path
            yield "jobs.cleaned", world.cleaned, job.job_id
    garbage = yield "jobs.garbage", world.garbage, keep_s
    in_use = set()
    if garbage:
        in_use = yield "catalogue.registered", world.registered, garbage
    for file_id in garbage:
        if file_id not in in_use:
            yield from remove_garbage(world, file_id)


def remove_garbage(world: World, file_id: int) -> Steps:
    """An id that cannot be removed stays on the list, and does not stop the others."""
    try:
        yield "archive.remove", world.remove_object, file_id
    except Away:
        if world.off is not Rule.GONE_BEFORE_REMOVED:
            return
    yield "jobs.removed", world.removed, file_id


def is_needed(world: World, job: Seen) -> Steps:
    """Whether something would be lost with a bundle."""
    if job.phase == "done":
        return (yield "catalogue.lookup", world.lookup, job.job_id) is None
    if job.is_move:
        for call, state in (("jobs.file_ids", "archived"), ("jobs.intents", "intent"), ("jobs.given_up", "garbage")):
            if (yield call, world.file_ids, job.job_id, state):
                return True
    return job.frozen and (yield "catalogue.lookup", world.lookup, job.job_id) is not None
