"""The harness itself: what it starts answers, survives a crash with its data, and goes away.

What it is not: a test of the package.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import kombu
import psycopg
import pymysql
import pytest
import redis

from tests.harness import (
    ADMIN,
    ALLOWED,
    ALLOWED_TOO,
    REFUSED,
    UNKNOWN,
    HarnessError,
    HttpServer,
    MariaDB,
    PacificaCore,
    PostgreSQL,
    Program,
    RabbitMQ,
    Redis,
    Reply,
    Submission,
    base_environment,
    free_port,
    request,
    run,
)
from tests.harness.fixtures import revive
from tests.harness.guard import find
from tests.harness.ports import LOOPBACK
from tests.harness.waiting import until

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}
DEADLINE_S = 20.0


def is_open(port: int) -> bool:
    """Tell whether something listens."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def python_environment(home: Path) -> dict[str, str]:
    """Return the environment of a Python that imports the harness."""
    return base_environment(home) | {"PYTHONPATH": str(ROOT), "TMPDIR": str(home)}


# Processes


def test_free_port_gives_each_port_once() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == len(ports)
    assert not any(is_open(port) for port in ports)


def test_test_runs_side_by_side_share_no_port(tmp_path: Path) -> None:
    # Ports that are given, though nobody listens on them: a server is down for its restart, say.
    script = "from tests.harness import free_port; print(*(free_port() for _ in range(200)), flush=True); input()"
    command = [sys.executable, "-c", script]
    with contextlib.ExitStack() as runs:
        given: list[str] = []
        for _ in range(4):
            process = subprocess.Popen(
                command, env=python_environment(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            runs.enter_context(process)
            runs.callback(process.kill)
            assert process.stdout is not None
            given += process.stdout.readline().split()
    assert len(given) == 800
    assert len(set(given)) == len(given)


def test_a_server_that_ends_early_shows_the_end_of_its_log() -> None:
    script = "print('before', flush=True); raise SystemExit('out of cheese')"
    with pytest.raises(HarnessError, match=r"(?s)exit code 1.*before.*out of cheese"):
        HttpServer("broken", [sys.executable, "-c", script]).__enter__()


def test_a_server_that_never_answers_is_given_up_and_killed() -> None:
    server = HttpServer("mute", [sys.executable, "-c", "import time; time.sleep(600)"])
    server.ready_s = 0.3
    with pytest.raises(HarnessError, match="not ready after"):
        server.start()
    assert not server.running
    server.close()


def test_kill_reaches_children_in_sessions_of_their_own() -> None:
    script = textwrap.dedent("""
        import subprocess, sys, time
        nap = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(nap, start_new_session=True)
        print("child", child.pid, flush=True)
        time.sleep(600)
    """)
    with Program("parent", [sys.executable, "-c", script], says="child") as parent:
        child = find(int(parent.log.read_text().split()[1]))
        assert child is not None
        parent.kill()
        assert not child.alive()


def test_a_killed_test_process_leaves_no_server_behind(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import time
        from tests.harness import Redis
        server = Redis().start()
        print(server.port, flush=True)
        time.sleep(600)
    """)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=python_environment(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert is_open(port)
        process.send_signal(signal.SIGKILL)
        until(lambda: not is_open(port))


def test_run_kills_a_command_that_misses_its_deadline() -> None:
    with pytest.raises(HarnessError, match=r"longer than 0\.2 s"):
        run([sys.executable, "-c", "import time; time.sleep(600)"], wait_s=0.2)


def test_a_frozen_server_takes_connections_and_answers_nothing(redis_server: Redis) -> None:
    redis_server.pause()
    with pytest.raises(OSError, match="timed out"):
        redis_server.ready()
    redis_server.resume()
    until(redis_server.ready)


def test_close_removes_the_folder_that_was_made_for_the_server() -> None:
    with Redis() as server:
        folder = server.folder
        assert folder.is_dir()
    assert not folder.exists()


def test_a_given_folder_is_kept(tmp_path: Path) -> None:
    with Redis(tmp_path / "mine") as server:
        assert server.running
    assert server.log.is_file()


def test_a_folder_that_the_account_cannot_reach_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir(mode=0o700)
    server = PostgreSQL(blocked / "inside")
    if server.account is None:
        # Not root: the server runs as ourselves, and we may enter.
        with server:
            assert server.running
    else:
        with pytest.raises(HarnessError, match="may not enter"):
            server.start()


def test_shared_servers_left_dead_or_frozen_run_again_for_the_next_test() -> None:
    with Redis() as dead, Redis() as frozen, Redis() as untouched:
        pid = untouched.pid
        dead.kill()
        frozen.pause()
        revive([dead, frozen, untouched])
        until(lambda: all(server.ready() for server in (dead, frozen, untouched)))
        assert untouched.pid == pid


# Servers: each answers, keeps its data over a crash, and gives its port and data back.


def test_postgresql_keeps_committed_rows_over_a_crash(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (n integer)")
        connection.execute("INSERT INTO t VALUES (42)")
    postgresql.kill()
    assert not is_open(postgresql.port)
    postgresql.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM t").fetchall() == [(42,)]


def test_postgresql_databases_are_empty_and_apart(postgresql: PostgreSQL) -> None:
    urls = {postgresql.new_database() for _ in range(2)}
    assert len(urls) == 2
    for url in urls:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE t (n integer)")


def mysql(url: str) -> pymysql.Connection[Any]:
    """Connect to a peewee-style URL."""
    account, _, place = url.removeprefix("mysql://").partition("@")
    user, _, password = account.partition(":")
    address, _, database = place.partition("/")
    host, _, port = address.partition(":")
    return pymysql.connect(host=host, port=int(port), user=user, password=password, database=database)


def test_mariadb_keeps_committed_rows_over_a_crash(mariadb: MariaDB) -> None:
    url = mariadb.new_database()
    with mysql(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (name varchar(20))")
        cursor.execute("INSERT INTO t VALUES ('Größe 🧪')")
        connection.commit()
    mariadb.kill()
    assert not is_open(mariadb.port)
    mariadb.start()
    with mysql(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name FROM t")
        assert cursor.fetchall() == (("Größe 🧪",),)


def test_redis_keeps_its_keys_over_a_crash(redis_server: Redis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("kept", "yes")
    redis_server.kill()
    redis_server.start()
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.get("kept") == b"yes"


def test_rabbitmq_keeps_durable_messages_over_a_crash(rabbitmq: RabbitMQ) -> None:
    confirmed = {"confirm_publish": True}
    with (
        kombu.Connection(rabbitmq.url, transport_options=confirmed) as connection,
        connection.SimpleQueue("kept") as queue,
    ):
        queue.put({"n": 42})
    rabbitmq.kill()
    rabbitmq.start()
    with kombu.Connection(rabbitmq.url) as connection, connection.SimpleQueue("kept") as queue:
        message = queue.get(timeout=DEADLINE_S)
        assert message.payload == {"n": 42}
        message.ack()


def test_rabbitmq_takes_its_name_service_along(rabbitmq: RabbitMQ) -> None:
    port = int(rabbitmq.environment()["ERL_EPMD_PORT"])
    assert is_open(port)
    rabbitmq.stop()
    assert not is_open(port)
    assert not is_open(rabbitmq.port)


def test_a_server_restarts_on_its_port(redis_server: Redis) -> None:
    before = redis_server.port, redis_server.pid
    redis_server.restart()
    assert redis_server.port == before[0]
    assert redis_server.pid != before[1]
    assert is_open(redis_server.port)


# The neighbours


def ask_policy(core: PacificaCore, submission: Submission) -> Reply:
    """Ask whether a submission is allowed."""
    body = json.dumps(submission.document()).encode()
    return request("POST", core.policy_ingest_url, body, headers=JSON)


@pytest.mark.parametrize("submission", [ALLOWED, ALLOWED_TOO, ADMIN], ids=lambda s: s.login)
def test_policy_accepts_allied_submissions(core: PacificaCore, submission: Submission) -> None:
    reply = ask_policy(core, submission)
    assert (reply.status, reply.json()) == (200, {"status": "success"})


@pytest.mark.parametrize("submission", [REFUSED, UNKNOWN], ids=["refused", "unknown"])
def test_policy_refuses_others_with_412(core: PacificaCore, submission: Submission) -> None:
    reply = ask_policy(core, submission)
    assert reply.status == 412
    assert reply.json()["status"].startswith("412")


def fresh_id(core: PacificaCore, mode: str) -> int:
    """Return a number that no job and no file of this test run has or will get."""
    start: int = request("GET", f"{core.uniqueid_url}/getid?range=1&mode={mode}").json()["startIndex"]
    return start


def test_uniqueid_gives_ranges_that_go_on_after_a_crash(core: PacificaCore) -> None:
    address = f"{core.uniqueid_url}/getid?range=3&mode=harness"
    first = request("GET", address).json()
    core.uniqueid.kill()
    core.uniqueid.start()
    second = request("GET", address).json()
    assert first["endIndex"] - first["startIndex"] == 2
    assert second["startIndex"] == first["endIndex"] + 1


def test_the_archive_keeps_bytes_under_their_number(core: PacificaCore) -> None:
    file_id, content = fresh_id(core, "file"), os.urandom(100_000)
    reply = request("PUT", f"{core.archive_url}/{file_id}", content, headers=BYTES)
    assert (reply.status, reply.json()["total_bytes"]) == (201, len(content))
    assert core.archived(file_id) == content
    assert core.archive_path(file_id).read_bytes() == content
    assert file_id in core.archived_ids()


def test_the_archive_knows_nothing_of_other_numbers(core: PacificaCore) -> None:
    with pytest.raises(KeyError):
        core.archived(fresh_id(core, "file"))


def test_metadata_registers_a_transaction_that_can_be_looked_up(core: PacificaCore) -> None:
    job_id, file_id = fresh_id(core, "upload_job"), fresh_id(core, "file")
    assert core.transaction(job_id) is None
    entry = {
        "destinationTable": "Files",
        "_id": file_id,
        "name": "a.txt",
        "subdir": "b",
        "size": 5,
        "mimetype": "text/plain",
        "mtime": "2020-01-02T03:04:05",
        "ctime": "2020-01-02T03:04:05",
        "hashtype": "sha1",
        "hashsum": "0" * 40,
    }
    pair = {"destinationTable": "TransactionKeyValue", "key": "Tag", "value": "Blah"}
    number = {"destinationTable": "Transactions._id", "value": job_id}
    body = json.dumps([*ALLOWED.document(), number, pair, entry]).encode()
    assert request("PUT", core.metadata_ingest_url, body, headers=JSON).status == 200

    core.postgresql.kill()
    core.metadata.kill()
    core.postgresql.start()
    core.metadata.start()
    found = core.transaction(job_id)
    assert found is not None
    assert found["_id"] == job_id
    assert found["submitter"] == ALLOWED.submitter
    assert found["project"] == ALLOWED.project
    assert found["instrument"] == ALLOWED.instrument
    assert core.key_values(job_id) == {"Tag": "Blah"}
    assert [(f["_id"], f["name"], f["size"]) for f in core.files(job_id)] == [(file_id, "a.txt", 5)]


def test_one_neighbour_can_be_down_while_the_others_serve(core: PacificaCore) -> None:
    core.policy.kill()
    with pytest.raises(OSError, match="refused"):
        ask_policy(core, ALLOWED)
    assert request("GET", core.uniqueid_url).status == 200
    core.policy.start()
    assert ask_policy(core, ALLOWED).status == 200
