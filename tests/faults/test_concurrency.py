"""Several that do the same at once: one effect each."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from pacifica.ingest import tables
from tests.acceptance.stage import admin, many
from tests.faults.disk.rivals import THEIRS, Numbers, occupy
from tests.faults.disk.uploads import bundle, bundle_of, orders, send, send_all, sent
from tests.faults.gate import Gate
from tests.faults.load import Order
from tests.faults.oracle import Sent, verdict
from tests.faults.site import LEASE_S, Setting, Site
from tests.harness import HttpServer, MariaDB, PostgreSQL, Redis
from tests.harness.waiting import END_S, until

SEED = 6
#: The admin command.
ADMIN = admin()
#: Processes that do the same.
RIVALS = 8
DATABASES = ["sqlite", "postgresql", "mariadb"]
#: Nobody listens there: hints are lost, and only who looks for work finds it.
NO_BROKER = "redis://127.0.0.1:1/0"


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind; empty for SQLite in the folder of the site."""
    if request.param == "sqlite":
        return ""
    server: PostgreSQL | MariaDB = request.getfixturevalue(request.param)
    return server.new_database()


class Quiet(Site):
    """A site with a server and no workers: jobs are carried by the commands of the test alone."""

    @property
    def parts(self) -> list[HttpServer]:
        return [self.server]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """What the jobs of a quiet site pass on their way to the archive; open."""
    return Gate(tmp_path / "rules.toml")


@pytest.fixture
def lease_s() -> int:
    """Nobody takes over from a process that a busy machine lets wait."""
    return 60


@pytest.fixture
def quiet(tmp_path: Path, database_url: str, gate: Gate, lease_s: int) -> Iterator[Site]:
    setting = Setting(name="quiet", broker_url=NO_BROKER, database_url=database_url)
    changes = {"ingest": {"retry_for": "0", "lease": str(lease_s)}, "policy": {"ingest_url": f"local:{gate.rules}"}}
    with Quiet(tmp_path, replace(setting, changes=changes)) as site:
        yield site


def events(site: Site, job_id: int | None) -> Counter[str]:
    """Name → how often that happened to a job."""
    with site._read():
        return Counter(row.name for row in tables.JobEvent.select().where(tables.JobEvent.job_id == job_id))


def accepted(site: Site, wanted: Order) -> Sent:
    answer = send(site.url, wanted)
    assert answer.status == 200, answer.body
    return sent(wanted, answer)


def test_a_job_that_is_retried_by_many_at_once_is_carried_once(quiet: Site, gate: Gate) -> None:
    told = accepted(quiet, next(orders(SEED)))
    # The archive cannot be made where a file lies.
    quiet.archive.write_bytes(b"")
    retry = [*ADMIN, "retry", "--job_id", str(told.job_id)]
    failed = subprocess.run(retry, env=quiet.env, capture_output=True, check=False)
    assert failed.returncode == 1, failed.stderr
    quiet.archive.unlink()
    gate.close()
    with ExitStack() as stack:
        rivals = start(stack, quiet, retry, RIVALS)
        for rival in rivals:
            # It brought the job back, or saw that somebody did, and shows now how far that is.
            assert rival.stdout
            assert rival.stdout.readline()
        until(gate.reached, "one of them to have the job")
        gate.open()
        assert [rival.wait(END_S) for rival in rivals] == [0] * RIVALS
    verdict(quiet.evidence([told]))
    assert events(quiet, told.job_id)["claimed"] == 2
    assert events(quiet, told.job_id)["done"] == 1


#: Retries a job, and waits for the others between reading and writing it.
RETRY = """
from contextlib import suppress
import sys
from pacifica.ingest.app import current
from pacifica.ingest.core.errors import JobBusy
from pacifica.ingest.store import SqlJobStore
unchanged = SqlJobStore._is_unchanged
def unchanged_since_all_read_it(job):
    print("ready", flush=True)
    sys.stdin.readline()
    return unchanged(job)
SqlJobStore._is_unchanged = staticmethod(unchanged_since_all_read_it)
with suppress(JobBusy):
    current().store.retry({job_id})
"""


# Of SQLite, nobody else reads meanwhile.
@pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
def test_of_several_that_retry_what_they_saw_fail_one_brings_it_back(quiet: Site) -> None:
    told = accepted(quiet, next(orders(SEED)))
    job = str(told.job_id)
    quiet.admin("job", "--job-id", job, "--state", "FAILED", "--task", "Policy Validation", "--exception", "halt")
    in_step(quiet, RETRY.format(job_id=job), 4)
    assert events(quiet, told.job_id)["retried"] == 1
    quiet.admin("retry", "--job_id", job)
    verdict(quiet.evidence([told]))


@pytest.mark.parametrize("lease_s", [LEASE_S])
def test_many_recoveries_at_once_take_each_dead_job_over_once(quiet: Site) -> None:
    told = [accepted(quiet, bundle_of(f"{number}/", many(1500))) for number in range(2)]
    # It recovers jobs as well.
    quiet.server.kill()
    for one in told:
        kill_in_the_middle(quiet, one.job_id)
    in_step(quiet, RECOVER, 4)
    for one in told:
        assert events(quiet, one.job_id)["taken over"] == 1
        quiet.admin("retry", "--job_id", str(one.job_id))
        assert events(quiet, one.job_id)["claimed"] == 2
    verdict(quiet.evidence(told))


#: The admin command, which waits for the others whenever it read who has which job.
RECOVER = """
import sys
from pacifica.ingest.__main__ import cmd
from pacifica.ingest.store import SqlJobStore
held = SqlJobStore.held
def held_as_all_see_it(store):
    jobs = held(store)
    print("ready", flush=True)
    sys.stdin.readline()
    return jobs
SqlJobStore.held = held_as_all_see_it
sys.exit(cmd(["recover"]))
"""


def in_step(site: Site, script: str, count: int) -> None:
    """Let processes run one script, which must succeed; each goes on when all the others wait as well, or ended."""
    with ExitStack() as stack:
        rivals = going = start(stack, site, [sys.executable, "-c", script], count)
        while going := [rival for rival in going if is_ready(rival)]:
            for rival in going:
                go_on(rival)
        assert [rival.wait(END_S) for rival in rivals] == [0] * count


def start(stack: ExitStack, site: Site, line: list[str], count: int) -> list[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    rivals = []
    for _ in range(count):
        rival = stack.enter_context(subprocess.Popen(line, env=site.env, stdin=pipe, stdout=pipe, text=True))
        # A test that failed waits for nobody.
        stack.callback(rival.kill)
        rivals.append(rival)
    return rivals


def is_ready(rival: subprocess.Popen[str]) -> bool:
    """Whether a process waits for the others; it ended otherwise."""
    assert rival.stdout
    return "ready\n" in rival.stdout


def go_on(rival: subprocess.Popen[str]) -> None:
    assert rival.stdin
    rival.stdin.write("\n")
    rival.stdin.flush()


def test_a_running_job_that_is_forced_to_fail_stops_and_goes_on_when_it_is_retried(quiet: Site, gate: Gate) -> None:
    told = accepted(quiet, next(orders(SEED)))
    job = str(told.job_id)
    gate.close()
    worker = subprocess.Popen([*ADMIN, "retry", "--job_id", job], env=quiet.env, stdout=subprocess.DEVNULL)
    try:
        until(gate.reached, "the job to ask for the rules")
        quiet.admin("job", "--job-id", job, "--state", "FAILED", "--task", "Policy Validation", "--exception", "halt")
        gate.open()
        assert worker.wait(60) == 1
    finally:
        worker.kill()
        worker.wait()
    verdict(quiet.evidence([replace(told, fails="halt")]))
    assert events(quiet, told.job_id)["done"] == 0
    quiet.admin("retry", "--job_id", job)
    verdict(quiet.evidence([told]))
    assert events(quiet, told.job_id)["done"] == 1


def kill_in_the_middle(site: Site, job_id: int | None) -> None:
    """Let a process take a job, and kill it when some of the files are archived."""
    worker = subprocess.Popen(
        [*ADMIN, "retry", "--job_id", str(job_id)],
        env=site.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        under_way(site, job_id)
    finally:
        worker.kill()
        worker.wait()


def under_way(site: Site, job_id: int | None) -> None:
    mine = (tables.ArchiveId.job_id == job_id) & (tables.ArchiveId.state == "archived")

    def begun() -> bool:
        with site._read():
            return bool(tables.ArchiveId.select().where(mine).exists())

    until(begun, "files of the job to be archived")


def test_each_job_is_claimed_once_however_many_workers_wake_for_it(tmp_path: Path) -> None:
    with Site(tmp_path, Setting(name="standalone", workers=8)) as site:
        told = []
        for number in range(30):
            told.append(accepted(site, bundle(f"small{number}", 1000)))
            # Nobody is busy when the next one comes, and all want it.
            site.settled()
        verdict(site.evidence(told))
        for one in told:
            assert events(site, one.job_id) == {"accepted": 1, "claimed": 1, "done": 1}


def test_numbers_that_were_given_twice_become_one_thing_each(
    tmp_path: Path, database_url: str, redis_server: Redis
) -> None:
    with Numbers(SEED, 0.1) as numbers:
        changes = {"uniqueid": {"url": numbers.url}}
        setting = Setting(name="doubled", broker_url=redis_server.new_database(), database_url=database_url)
        with Site(tmp_path, replace(setting, changes=changes)) as site:
            # Large enough that two workers are busy with the same numbers.
            wanted = [bundle_of(f"{number}/", many(60)) for number in range(30)]
            told = send_all(wanted, lambda one: accepted(site, one), 4)
            site.settled()
            verdict(site.evidence(told))
        assert numbers.doubled.keys() >= {"upload_job", "file"}, f"seed {SEED}"


@pytest.mark.parametrize("act", ["claim", "take over"])
def test_of_several_processes_that_want_a_job_one_has_it(quiet: Site, act: str) -> None:
    told = [accepted(quiet, bundle(f"small{number}", 1000)) for number in range(20)]
    numbers = sorted(str(one.job_id) for one in told)
    # It takes jobs over as well, when the others are slow to start.
    quiet.server.kill()
    assert race(quiet, "service.claim(job.job_id)", 4 if act == "claim" else 1) == numbers
    if act == "take over":
        # Their owner is dead by now.
        assert race(quiet, "service.store.take_over(job)", 4) == numbers


#: Reads all jobs, waits for the others, tries each, and prints those that it got.
RIVAL = """
import sys
from pacifica.ingest.app import current
service = current()
jobs = [service.store.job(status.job_id) for status in service.store.statuses(limit=100)]
print("ready", flush=True)
sys.stdin.readline()
print(*(job.job_id for job in jobs if {act}))
"""


def race(site: Site, act: str, count: int) -> list[str]:
    """Let processes do the same at once; returns the jobs that one of them got, each as often as it was got."""
    with ExitStack() as stack:
        rivals = start(stack, site, [sys.executable, "-c", RIVAL.format(act=act)], count)
        assert all(map(is_ready, rivals))
        for rival in rivals:
            go_on(rival)
        return sorted(" ".join(rival.communicate()[0] for rival in rivals).split())


@pytest.mark.parametrize("first", [1, 3])
def test_an_archive_that_refuses_to_overwrite_keeps_what_it_has(tmp_path: Path, first: int) -> None:
    """Ids that begin a range are found by the probe, others by the refusal."""
    places = occupy(tmp_path / "service" / "archive", range(first, first + 3))
    with Site(tmp_path, Setting(name="standalone")) as site:
        told = accepted(site, bundle_of("", {f"file{number}": b"%d" % number for number in range(6)}))
        site.settled()
        assert [place.read_bytes() for place in places] == [THEIRS] * 3
        evidence = site.evidence([told])
        theirs = {int(place.name) for place in places}
        ours = {file_id: found for file_id, found in evidence.objects.items() if file_id not in theirs}
        verdict(replace(evidence, objects=ours))
