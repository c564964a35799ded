"""The job protocol, as generators that give up control at each call to the outside.

What it is: the protocol's specification, to be read top to bottom: a server takes a body (`serve`), a worker carries a job
(`carry`), its heart beats (`beat`), a sweeper repairs (`sweep`).  Each `yield` is one atomic step: its name, as the doubles
name it, then a method of `World` and its arguments.  What goes wrong is raised there.

What it is not: the service; nothing of it is used here.

Who may call it: the model's side of `play`.

Source: the job protocol in `docs/architecture.md`.
"""

# ruff: noqa: SIM105, TRY003 (the shape of each step is to be seen, and a word is enough of a reason)

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
    World,
)

__all__ = ["Life", "Process", "Steps", "beat", "serve", "sweep", "sweeping", "work"]

Steps = Generator[tuple[Any, ...], Any, Any]

LEASE_S = 30.0
UPLOAD_LEASE_S = 600.0
UNCLAIMED_S = 5.0
SIGN_OF_LIFE_S = 5.0
REPORT_EVERY_S = 1.0
SWEEP_EVERY_S = 2.0
IDLE_S = 1.0
ID_TRIES = 100
RANGE_TRIES = 10
POLICY_SILENCE_S = 120.0
ARCHIVE_SILENCE_S = 300.0
REGISTER_SILENCE_S = 120.0 + 0.05 * len(FILES)


class Process(Protocol):
    """What a generator knows of the process that it runs in."""

    stopping: bool
    ready_at: float
    #: The call that was made last.
    pending: str | None

    def start_heart(self, life: "Life") -> Callable[[], None]:
        """Run the heart of a job beside it; returns what waits for its end."""
        ...


# --- a server takes a body


def serve(world: World, process: Process, me: str, number: int, answer: Answer) -> Steps:
    """Take the body of a client, answer, then hint."""
    is_move = world.plan.moves[number]
    key = f"key{number}" if world.plan.keyed[number] else ""
    try:
        job_id = yield from accept(world, number, me, key)
    except Cut:
        answer.told(400)
        return
    except Exception:
        # Whether a row was committed is not known when the answer of the database is lost.
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


def accept(world: World, number: int, me: str, key: str) -> Steps:
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
    try:
        yield from receive(world, path, number, job_id, me)
    except Conflict:
        yield from forget(world, job_id, me)
        raise
    except Exception:
        yield from drop(world, path, job_id, me)
        raise
    if world.off is Rule.ROW_BEFORE_ANSWER:
        return job_id
    try:
        accepted: int = yield "jobs.accept", world.accept, job_id, me, path, key
    except ClaimLost:
        yield from drop(world, path, job_id, me)
        raise
    if accepted != job_id:
        yield from drop(world, path, job_id, me)
    return accepted


def receive(world: World, path: str, number: int, job_id: int, me: str) -> Steps:
    """A partial file, then a whole one."""
    body = body_of(number)
    shown = world.mono
    found = 0
    for chunk in (body[:4],) if world.plan.clients[number] is Client.CUT else (body[:4], body[4:]):
        found += len(chunk)
        yield "upload.write", world.write, path, chunk
        if world.mono - shown > SIGN_OF_LIFE_S:
            try:
                yield "jobs.receiving", world.receiving, job_id, me
            except Away:
                pass  # the next sign may arrive
            shown = world.mono
    if found != len(body) and world.off is not Rule.LENGTH:
        raise Cut
    if world.off is not Rule.FILE_BEFORE_ANSWER:
        yield "upload.commit", world.commit, path


def drop(world: World, path: str, job_id: int, me: str) -> Steps:
    """The file goes first, as what the row names is found again."""
    yield "staging.discard", world.remove, f"{path}.part", path
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
    life = Life(world, process, claim)
    join = process.start_heart(life)
    try:
        yield from guard(life)
    except (ClaimLost, Away):
        pass  # somebody else has it, or will have it
    finally:
        life.over = True
        join()


def guard(life: Life) -> Steps:
    """What becomes of a job when a step goes wrong."""
    world = life.world
    try:
        yield from (move if life.claim.is_move else ingest)(life)
    except ClaimLost:
        raise
    except Stopping:
        yield "jobs.release", world.release, life.claim
    except (Away, Broken, Conflict, Refused) as fault:
        yield from settle(life, fault)
    except Exception:  # noqa: BLE001 (nobody expects it)
        yield from fail(life, "internal")


def settle(life: Life, fault: Fault) -> Steps:
    """Wait when waiting may help and there is time left, else fail."""
    world, now = life.world, life.world.now
    since, reached = (yield "jobs.job", world.failing, life.claim.job_id) or (now, life.step)
    if life.step > reached:
        since, reached = now, life.step  # it got further than before
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
        left = yield from settle_moves(life, number)
        yield from check_sources(life, number, left, is_faulty=client is Client.FAULTY)
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
        for parcel in parcels:
            file_id, _, content = parcel
            call = step("archive.store", life.world.store, file_id, content, life.claim.path)
            yield from life.patiently(ARCHIVE_SILENCE_S, call)
            sent.append(parcel)
    except (Away, Stopping):
        yield from confirm(life, sent)
        raise
    yield from confirm(life, sent)


def confirm(life: Life, parcels: Sequence[Parcel]) -> Steps:
    """Read back what was sent, and record what is whole."""
    if not parcels:
        return
    world, claim = life.world, life.claim
    yield from life.patiently(ARCHIVE_SILENCE_S, step("archive.flush", world.nothing))
    if world.off is Rule.INTENT_FIRST:
        yield "jobs.intend", world.intend, claim, {seq: file_id for file_id, seq, _ in parcels}
    whole: list[int] = []
    problem: Exception | None = None
    try:
        for file_id, _, content in parcels:
            yield from read_back(life, file_id, content)
            whole.append(file_id)
            yield from life.advance()
    except Exception as fault:  # noqa: BLE001 (it is raised below)
        problem = fault
    if whole:
        yield "jobs.archived", world.archived, claim, whole
    if problem is not None:
        raise problem


def read_back(life: Life, file_id: int, content: str) -> Steps:
    """The archive's word proves nothing."""
    if life.world.off is not Rule.READ_BACK:
        yield from compare(life, file_id, content)


def compare(life: Life, file_id: int, content: str) -> Steps:
    """The archive's copy is read."""
    found = yield from life.patiently(ARCHIVE_SILENCE_S, step("archive.digest", life.world.digest, file_id))
    if found != content:
        raise Away


# --- files into the archive that it can reach itself: it consumes the source, so nothing can be sent again


File = tuple[int, str, str]


def settle_moves(life: Life, number: int) -> Steps:
    """Bring to an end what an earlier attempt began; returns what nothing was begun with."""
    world, job_id = life.world, life.claim.job_id
    begun = yield "jobs.intents", world.file_ids, job_id, "intent"
    yield "jobs.sources", world.nothing
    archived = yield "jobs.file_ids", world.file_ids, job_id
    if world.off is Rule.BOTH_SIDES:
        begun = {}
    for seq, name, content in life.files:
        if seq in archived:
            yield from life.advance()
        elif seq in begun:
            yield from life.advance()
            yield from finish_move(life, begun[seq], source_of(number, name), content)
    return [file for file in life.files if file[0] not in archived and file[0] not in begun]


def finish_move(life: Life, file_id: int, source: str, content: str) -> Steps:
    """What is left on both sides tells what became of it."""
    there = yield from size(life, file_id)
    is_here = source in life.world.sources
    if there is None and not is_here:
        raise Away
    if there not in {None, len(content)}:
        raise Away
    if there is not None and is_here:
        yield from compare(life, file_id, content)
    if is_here:
        yield from adopt(life, file_id, source)
    yield from record(life, file_id, content)


def check_sources(life: Life, number: int, left: Sequence[File], *, is_faulty: bool) -> Steps:
    """Every source is looked at before the first is consumed."""
    if life.world.off is Rule.CHECK:
        return
    gone = False
    for _, name, _ in left:
        if source_of(number, name) in life.world.sources:
            yield from life.patiently(ARCHIVE_SILENCE_S, life.advance())
        else:
            gone = True
            life.patience(0)
    if gone:
        raise Refused("does not exist")
    if is_faulty:
        raise Refused("metadata says")


def relocate(life: Life, number: int, left: Sequence[File]) -> Steps:
    """Move what was checked."""
    world = life.world
    yield "jobs.note_sources", world.note_sources, life.claim
    life.count = len(left)
    for start in range(0, len(left), world.plan.window):
        window = left[start : start + world.plan.window]
        chosen: dict[int, int] = {}
        yield from intend(life, [seq for seq, _, _ in window], chosen)
        for seq, name, content in window:
            there = yield from size(life, chosen[seq])
            if there is not None or source_of(number, name) not in world.sources:
                yield "jobs.abandon", world.abandon, life.claim
                raise Away
            yield from adopt(life, chosen[seq], source_of(number, name))
            yield from record(life, chosen[seq], content)


def size(life: Life, file_id: int) -> Steps:
    """What the archive has under an id."""
    return (yield from life.patiently(ARCHIVE_SILENCE_S, step("archive.size", life.world.size, file_id)))


def adopt(life: Life, file_id: int, source: str) -> Steps:
    """The archive takes the source."""
    yield from life.patiently(ARCHIVE_SILENCE_S, step("archive.adopt", life.world.adopt, file_id, source))


def record(life: Life, file_id: int, content: str) -> Steps:
    """What was moved is read back, and counts."""
    yield from life.patiently(ARCHIVE_SILENCE_S, step("archive.flush", life.world.nothing))
    yield from read_back(life, file_id, content)
    yield "jobs.archived", life.world.archived, life.claim, [file_id]
    yield from life.advance()


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


# --- a sweeper repairs


def sweeping(world: World, process: Process) -> Steps:
    """The life of a sweeper."""
    seen: dict[int, tuple[tuple[int, int], float]] = {}
    while True:
        process.ready_at = world.mono + SWEEP_EVERY_S
        yield "sweeper.pause", world.nothing
        try:
            yield from sweep(world, seen, UNCLAIMED_S)
        except Exception:  # noqa: BLE001 (without the sweep, the next crash would cost a job)
            pass


def sweep(world: World, seen: dict[int, tuple[tuple[int, int], float]], unclaimed_s: float) -> Steps:
    """Take over, hint, clean."""
    for job in (yield from still(world, seen)):
        yield from take_over(world, job)
    if world.off is not Rule.SWEEP_HINTS:
        yield from hint(world, unclaimed_s)
    if world.off is not Rule.SWEEP_CLEANS:
        yield from clean(world)


def still(world: World, seen: dict[int, tuple[tuple[int, int], float]]) -> Steps:
    """Jobs that did not move for a lease of this sweeper's own clock."""
    now = world.mono
    held: list[Seen] = yield "jobs.held", world.held
    signs = {job.job_id: ((job.epoch, job.heartbeat), now) for job in held}
    for job_id, (sign, _) in signs.items():
        if job_id in seen and seen[job_id][0] == sign:
            signs[job_id] = seen[job_id]
    seen.clear()
    seen.update(signs)
    lease_s = {"running": LEASE_S, "receiving": UPLOAD_LEASE_S}
    return [job for job in held if now - seen[job.job_id][1] >= lease_s[job.phase]]


def take_over(world: World, job: Seen) -> Steps:
    """A job goes on, an upload is given up."""
    if world.off is (Rule.SWEEP_TAKES_OVER if job.phase == "running" else Rule.SWEEP_GIVES_UP):
        return
    yield "jobs.take_over", world.take_over, job


def hint(world: World, unclaimed_s: float) -> Steps:
    """What nobody took up."""
    for job in (yield "jobs.unclaimed", world.unclaimed, unclaimed_s):
        if not (yield "jobs.hinted", world.hinted, job):
            continue
        try:
            yield "queue.send", world.send, job.job_id
        except Away:
            yield "jobs.unhinted", world.unhinted, job
            break


def clean(world: World) -> Steps:
    """What is done needs no staged file, and what was given up leaves none."""
    for job in (yield "jobs.leftovers", world.leftovers):
        path = name_of(job.job_id, is_move=job.is_move)
        try:
            if job.path:
                yield "staging.remove", world.remove, job.path
            else:
                yield "staging.discard", world.remove, f"{path}.part", path
        except Broken:
            continue
        yield "jobs.cleaned", world.cleaned, job.job_id
