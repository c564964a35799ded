"""The Celery side with real brokers and databases: whatever becomes of brokers and workers, each job runs once.

The neighbours are local ones, but for Policy where a test has to hold a job in the middle.
"""

import configparser
import contextlib
import json
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery

from pacifica.ingest.testing import BundleBuilder
from tests.harness import HttpServer, MariaDB, PacificaCore, PostgreSQL, Program, RabbitMQ, Redis, request
from tests.harness.command import base_environment
from tests.harness.waiting import until

ROOT = Path(__file__).parents[2]
FILES = {"a.txt": b"alpha", "deep/b.bin": bytes(range(256)) * 500, "empty": b""}
LEASE_S = 2
#: Of a running job: noticed by a sweep, which comes every 2 seconds, after a lease; then sent and taken up.
TAKE_OVER_S = 60.0
WARM_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A facility of its own: configuration, database and landing zone.

    Attributes:
        folder: holds everything.
        broker_url: where hints go.
        programs: stops what was started.
        started: the pools of its workers.
    """

    folder: Path
    broker_url: str
    programs: contextlib.ExitStack
    started: list[str] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return base_environment(self.folder) | {
            "INGEST_CONFIG": str(self.folder / "config.ini"),
            "PYTHONPATH": str(ROOT / "src"),
        }

    def server(self) -> str:
        command = [sys.executable, "-m", "pacifica.ingest", "-p", "{port}"]
        return self.programs.enter_context(HttpServer("server", command, env=self.env)).url

    def worker(self, pool: str = "prefork") -> Program:
        command = [sys.executable, "-m", "celery", "-A", "pacifica.ingest.tasks", "worker", "--pool", pool]
        self.started.append(pool)
        options = ["--concurrency", "1", "--loglevel", "info", "--hostname", f"{len(self.started)}@%h"]
        return self.programs.enter_context(Program("worker", [*command, *options], env=self.env, says="ready."))

    def admin(self, *arguments: str) -> str:
        code = "import sys; from pacifica.ingest.__main__ import cmd; sys.exit(cmd(sys.argv[1:]))"
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, env=self.env, check=True, capture_output=True, text=True, timeout=60).stdout

    def events(self, job_id: int) -> list[str]:
        """The names of what happened to a job, oldest first."""
        return self._ask(f"[event.name for event in current().store.events({job_id})]")

    def registered(self, job_id: int) -> dict[str, bytes]:
        """Path → archived bytes of the files that the catalogue has of a job."""
        found = f"[[f.path, ask.archive.location(f.file_id)] for f in ask.catalogue.lookup({job_id}) or []]"
        return {path: Path(place).read_bytes() for path, place in self._ask(found)}

    def _ask(self, expression: str) -> Any:
        code = "import json; from pacifica.ingest.app import current; ask = current().neighbours; "
        command = [sys.executable, "-c", f"{code}print(json.dumps({expression}))"]
        done = subprocess.run(command, env=self.env, check=True, capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout)

    def publish(self, task: str, *arguments: object, **options: Any) -> None:
        """Send a message as a server of 0.4.1 does."""
        original = Celery("ingest", broker=self.broker_url, backend="rpc://", set_as_current=False)
        with original.connection_for_write() as connection:
            original.send_task(f"pacifica.ingest.tasks.{task}", args=arguments, connection=connection, **options)
        original.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes a site; what runs on it is stopped at the end."""
    with contextlib.ExitStack() as programs:

        def make(broker_url: str, database_url: str = "", **changes: dict[str, str]) -> Site:
            made = Site(folder=tmp_path, broker_url=broker_url, programs=programs)
            sqlite = f"sqlite:///{tmp_path / 'db.sqlite3'}"
            write_config(made, database_url or sqlite, changes)
            made.admin("dbsync")
            return made

        yield make


def write_config(site: Site, database_url: str, changes: dict[str, dict[str, str]]) -> None:
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_dict(
        {
            "ingest": {
                "volume_path": str(site.folder / "staging"),
                "move_roots": str(site.folder / "incoming"),
                "lease": str(LEASE_S),
            },
            "uniqueid": {"url": "local:"},
            "policy": {"ingest_url": "local:"},
            "archiveinterface": {"url": (site.folder / "archive").as_uri()},
            "metadata": {"ingest_url": "local:"},
            "database": {"peewee_url": database_url, "connect_attempts": "2", "connect_wait": "0"},
            "celery": {"broker_url": site.broker_url},
        }
    )
    ini.read_dict(changes)
    with (site.folder / "config.ini").open("w", encoding="utf-8") as file:
        ini.write(file)


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    return redis_server.new_database()


@pytest.fixture
def rabbitmq_url(rabbitmq: RabbitMQ) -> str:
    return emptied(rabbitmq.url)


def emptied(broker_url: str) -> str:
    with kombu.Connection(broker_url) as connection:
        connection.ensure_connection(max_retries=10)
        queue = kombu.Queue("celery", kombu.Exchange("celery"), "celery", channel=connection.default_channel)
        queue.declare()
        queue.purge()
    return broker_url


def bundle(files: dict[str, bytes]) -> bytes:
    builder = BundleBuilder()
    for path, content in files.items():
        builder.add(path, content)
    return builder.build()


def send(url: str, files: dict[str, bytes] = FILES) -> int:
    reply = request("POST", f"{url}/upload", bundle(files))
    assert reply.status == 200, reply.body
    return int(reply.json()["job_id"])


def state(url: str, job_id: int) -> dict[str, Any]:
    answer: dict[str, Any] = request("GET", f"{url}/get_state?job_id={job_id}").json()
    return answer


def assert_done(site: Site, url: str, job_id: int, files: dict[str, bytes] = FILES) -> None:
    until(lambda: bool(state(url, job_id)["complete"]), f"job {job_id} to end")
    assert state(url, job_id)["exception"] == ""
    assert site.registered(job_id) == files


# Brokers, pools, databases


@pytest.mark.parametrize(
    ("broker", "pool", "database"),
    [
        ("redis_url", "prefork", ""),
        ("redis_url", "threads", "postgresql"),
        ("redis_url", "solo", "mariadb"),
        ("rabbitmq_url", "prefork", "postgresql"),
        ("rabbitmq_url", "threads", "mariadb"),
        ("rabbitmq_url", "solo", ""),
    ],
)
def test_a_worker_of_any_pool_completes_bundles_and_moves(
    broker: str, pool: str, database: str, site: Callable[..., Site], request: pytest.FixtureRequest
) -> None:
    server: PostgreSQL | MariaDB | None = request.getfixturevalue(database) if database else None
    here = site(request.getfixturevalue(broker), server.new_database() if server else "")
    url = here.server()
    here.worker(pool)
    assert_done(here, url, send(url))
    assert_done(here, url, move(here, url), {"moved.bin": b"moved"})


def move(site: Site, url: str) -> int:
    source = site.folder / "incoming" / "moved.bin"
    source.parent.mkdir()
    source.write_bytes(b"moved")
    builder = BundleBuilder().entry("moved.bin", b"moved", source=str(source))
    body = json.dumps(builder.document()).encode()
    return int(request("POST", f"{url}/move", body, headers={"Content-Type": "application/json"}).json()["job_id"])


# The broker


@pytest.mark.parametrize("kind", [Redis, RabbitMQ])
def test_an_upload_is_accepted_while_the_broker_is_down_and_runs_when_it_is_back(
    kind: type[Redis | RabbitMQ], site: Callable[..., Site]
) -> None:
    with kind() as broker:
        here = site(broker.url)
        url = here.server()
        worker = here.worker()
        assert_done(here, url, send(url))
        broker.kill()
        job_ids = [send(url) for _ in range(3)]
        assert not any(state(url, job_id)["complete"] for job_id in job_ids)
        broker.start()
        for job_id in job_ids:
            assert_done(here, url, job_id)
        assert worker.running


@pytest.mark.parametrize("kind", [Redis, RabbitMQ])
def test_a_broker_that_does_not_answer_holds_up_no_more_than_one_upload(
    kind: type[Redis | RabbitMQ], site: Callable[..., Site]
) -> None:
    with kind() as broker:
        here = site(broker.url)
        url = here.server()
        broker.pause()
        began = time.monotonic()
        first = send(url)
        waited = time.monotonic() - began
        assert waited < 4.5
        others = [send(url) for _ in range(5)]
        assert time.monotonic() - began < waited + 2
        broker.resume()
        here.worker()
        for job_id in [first, *others]:
            assert_done(here, url, job_id)


def test_a_broker_url_that_cannot_be_used_loses_no_upload(redis_url: str, site: Callable[..., Site]) -> None:
    here = site("nosuch://broker")
    job_id = send(here.server())
    assert here.events(job_id) == ["accepted"]
    here.programs.close()
    write_config(replace(here, broker_url=redis_url), f"sqlite:///{here.folder / 'db.sqlite3'}", {})
    here.worker()
    until(lambda: "done" in here.events(job_id), "the job to be done")


# Messages


@pytest.mark.parametrize("broker", ["redis_url", "rabbitmq_url"])
def test_a_message_of_a_server_of_the_original_is_adopted(
    broker: str, site: Callable[..., Site], request: pytest.FixtureRequest
) -> None:
    here = site(request.getfixturevalue(broker))
    url = here.server()
    staged = here.folder / "staging" / "4711.tar"
    staged.parent.mkdir(exist_ok=True)
    staged.write_bytes(bundle(FILES))
    here.admin("job", "--job-id", "4711", "--state", "OK", "--task", "UPLOADING", "--task-percent", "0")
    here.worker()
    here.publish("ingest", 4711, str(staged), "dmlb2001")
    assert_done(here, url, 4711)
    until(lambda: not staged.exists(), "the staged file to go")


def test_a_message_without_a_user_is_taken(redis_url: str, site: Callable[..., Site]) -> None:
    here = site(redis_url)
    url = here.server()
    staged = here.folder / "4712.tar"
    staged.write_bytes(bundle(FILES))
    here.worker()
    here.publish("ingest", 4712, str(staged))
    until(lambda: "state" in state(url, 4712) and "job_id" in state(url, 4712), "job 4712 to be known")
    assert_done(here, url, 4712)


def test_a_late_message_does_not_touch_a_job_that_the_original_completed(
    redis_url: str, site: Callable[..., Site]
) -> None:
    here = site(redis_url)
    url = here.server()
    here.admin("job", "--job-id", "4713", "--state", "OK", "--task", "ingest metadata", "--task-percent", "100")
    here.worker()
    here.publish("ingest", 4713, str(here.folder / "4713.tar"), "dmlb2001")
    assert_done(here, url, send(url))
    assert state(url, 4713)["state"] == "OK"
    assert here.events(4713) == ["forced"]


@pytest.mark.parametrize("broker", ["redis_url", "rabbitmq_url"])
def test_doubled_messages_run_a_job_once(
    broker: str, site: Callable[..., Site], core: PacificaCore, request: pytest.FixtureRequest
) -> None:
    # Who stands still for a lease is taken over, rightly, and the job claimed twice.
    changes = {"policy": {"ingest_url": core.policy_ingest_url}, "ingest": {"lease": "60"}}
    here = site(request.getfixturevalue(broker), **changes)
    url = here.server()
    core.policy.pause()
    job_id = send(url)
    staged = str(here.folder / "staging" / f"{job_id}.tar")
    here.worker()
    here.worker()
    for _ in range(5):
        here.publish("ingest", job_id, staged, "root")
    until(lambda: state(url, job_id)["task"] == "Policy Validation", "the job to be claimed")
    core.policy.resume()
    assert_done(here, url, job_id)
    for _ in range(5):
        here.publish("ingest", job_id, staged, "root")
    assert_done(here, url, send(url))
    assert here.events(job_id).count("claimed") == 1


@dataclass(frozen=True, slots=True)
class Trap:
    """Creates a file when it is unpickled."""

    path: str

    def __reduce__(self) -> tuple[Callable[[str, str], object], tuple[str, str]]:
        return open, (self.path, "w")


def test_a_pickled_message_is_refused(rabbitmq_url: str, site: Callable[..., Site]) -> None:
    here = site(rabbitmq_url)
    url = here.server()
    worker = here.worker()
    sprung = here.folder / "sprung"
    headers = {"task": "pacifica.ingest.tasks.ingest", "id": "1", "lang": "py"}
    with kombu.Connection(rabbitmq_url) as connection:
        connection.Producer().publish(
            pickle.dumps(((Trap(str(sprung)), "x"), {}, {})),
            content_type="application/x-python-serialize",
            content_encoding="binary",
            headers=headers,
            routing_key="celery",
        )
    until(lambda: "ContentDisallowed" in worker.log.read_text(), "the refusal")
    assert_done(here, url, send(url))
    assert not sprung.exists()


def test_a_worker_logs_as_our_other_processes_do(redis_url: str, site: Callable[..., Site]) -> None:
    here = site(redis_url)
    url = here.server()
    worker = here.worker()
    job_id = send(url)
    assert_done(here, url, job_id)
    until(lambda: f"done job_id={job_id}\n" in worker.log.read_text(), "the line of the job")
    assert "data=" not in worker.log.read_text()


# The end of a worker


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_the_job_of_a_killed_worker_goes_on_with_another(
    pool: str, redis_url: str, site: Callable[..., Site], core: PacificaCore
) -> None:
    here = site(redis_url, policy={"ingest_url": core.policy_ingest_url})
    url = here.server()
    first = here.worker(pool)
    core.policy.pause()
    job_id = send(url)
    until(lambda: state(url, job_id)["task"] == "Policy Validation", "the job to be claimed")
    first.kill()
    core.policy.resume()
    here.worker(pool)
    until(lambda: bool(state(url, job_id)["complete"]), "the job to be taken over", TAKE_OVER_S)
    assert_done(here, url, job_id)
    # Or more than once: on a busy machine its new owner may seem to stand still.
    assert "taken over" in here.events(job_id)


def test_the_job_of_a_killed_child_goes_on_in_the_same_worker(
    rabbitmq_url: str, site: Callable[..., Site], core: PacificaCore
) -> None:
    here = site(rabbitmq_url, policy={"ingest_url": core.policy_ingest_url})
    url = here.server()
    worker = here.worker("prefork")
    core.policy.pause()
    job_id = send(url)
    until(lambda: state(url, job_id)["task"] == "Policy Validation", "the job to be claimed")
    for child in worker.processes()[1:]:
        child.send(signal.SIGKILL)
    core.policy.resume()
    until(lambda: bool(state(url, job_id)["complete"]), "the job to be taken over", TAKE_OVER_S)
    assert_done(here, url, job_id)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_that_is_told_to_stop_gives_its_job_back(pool: str, redis_url: str, site: Callable[..., Site]) -> None:
    files = {f"many/{number:05}.txt": b"%d" % number for number in range(5000)}
    here = site(redis_url)
    url = here.server()
    first = here.worker(pool)
    job_id = send(url, files)
    until(lambda: state(url, job_id)["task"] == "ingest files", "the files to be ingested")
    began = time.monotonic()
    first.signal(signal.SIGTERM)
    until(lambda: not first.running, "the worker to end", WARM_S)
    assert "released" in here.events(job_id), f"ended after {time.monotonic() - began} s, with its job"
    here.worker(pool)
    assert_done(here, url, job_id, files)


# The start of a worker


def started(site: Site) -> subprocess.CompletedProcess[str]:
    """Run a worker that is to refuse to start."""
    command = [sys.executable, "-m", "celery", "-A", "pacifica.ingest.tasks", "worker", "--concurrency", "1"]
    return subprocess.run(
        command, env=site.env, cwd=site.folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_worker_refuses_a_database_of_another_version(redis_url: str, site: Callable[..., Site]) -> None:
    here = site(redis_url)
    write_config(here, f"sqlite:///{here.folder / 'other.sqlite3'}", {})
    done = started(here)
    assert done.returncode == 1
    assert re.search(r"^The worker cannot start: The database has schema 0\.0.*dbsync", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


def test_a_worker_says_that_the_database_does_not_answer(redis_url: str, site: Callable[..., Site]) -> None:
    here = site(redis_url)
    write_config(here, "postgresql://nobody@127.0.0.1:1/none", {})
    done = started(here)
    assert done.returncode == 1
    assert re.search(r"^The worker cannot start: The database did not answer 2 times", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
