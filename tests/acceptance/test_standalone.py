"""A standalone service as its user meets it: installed commands as processes, HTTP, files on a disk, and signals."""

import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stage import Standalone, bundle, command, exit_code, few, many, until
from tests.harness.guard import Process, find
from tests.harness.landing import landed
from tests.harness.ports import free_port

#: A service must have stopped within that time, in seconds.
STOP_S = 20.0
#: A lease short enough to wait for it in a test.
LEASE = {"INGEST_LEASE": "2"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Standalone]:
    with Standalone(tmp_path, **LEASE) as running:
        yield running


def files(service: Standalone, job_id: int) -> list[dict[str, Any]]:
    """What the admin command lists, while the service runs."""
    listed = command("--standalone", service.home, "files", str(job_id), "--json", env=service.environment())
    assert listed.returncode == 0, listed.stderr
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    return found


def assert_kept(service: Standalone, job_id: int, sent: Mapping[str, bytes]) -> None:
    """The job is done, and the archive holds exactly what was sent."""
    state = service.end(job_id)
    assert (state["state"], state["task"], state["task_percent"]) == ("OK", "ingest metadata", "100.0"), state
    listed = files(service, job_id)
    assert {file["path"]: Path(file["archive_path"]).read_bytes() for file in listed} == dict(sent)
    assert [file["size"] for file in listed] == [len(sent[file["path"]]) for file in listed]


def under_way(service: Standalone, job_id: int) -> None:
    """Wait until files of the job are in the archive, and others are not."""
    until(lambda: service.state(job_id)["task"] == "ingest files", "the job to be under way")
    assert not service.state(job_id)["complete"]


def owner(service: Standalone, job_id: int) -> Process:
    """The worker process that has a job."""
    with sqlite3.connect(service.home / "ingest.sqlite3") as database:
        row = database.execute("SELECT worker FROM ingest_job WHERE job_id = ?", (job_id,)).fetchone()
    database.close()
    found = find(int(row[0].rpartition(":")[2]))
    assert found is not None
    assert found.pid in {process.pid for process in service.processes()[1:]}
    return found


def test_what_was_sent_can_be_read_back(service: Standalone) -> None:
    sent = few()
    assert_kept(service, service.post(bundle(sent)), sent)


def test_the_landing_zone_is_empty_when_jobs_are_done(service: Standalone) -> None:
    service.end(service.post(bundle(few())))
    until(lambda: not landed(service.home / "staging"), "the bundle to be removed")


def test_two_jobs_do_not_mix(service: Standalone) -> None:
    one, two = {"same.txt": b"one"}, {"same.txt": b"two"}
    jobs = [service.post(bundle(sent)) for sent in (one, two)]
    for job_id, sent in zip(jobs, (one, two), strict=True):
        assert_kept(service, job_id, sent)


def test_clients_see_how_far_the_files_are(service: Standalone) -> None:
    job_id = service.post(bundle(many(10_000)))
    seen: list[float] = []

    def look() -> bool:
        state = service.state(job_id)
        if state["task"] == "ingest files":
            seen.append(float(state["task_percent"]))
        return bool(state["complete"])

    until(look, "the job to end")
    assert service.state(job_id)["state"] == "OK"
    assert seen == sorted(seen)
    assert any(0 < percent < 100 for percent in seen)


def test_a_killed_worker_is_replaced_and_its_job_completes(service: Standalone) -> None:
    sent = many()
    job_id = service.post(bundle(sent))
    under_way(service, job_id)
    victim = owner(service, job_id)
    before = len(service.processes())
    victim.send(signal.SIGKILL)
    until(lambda: not victim.alive(), "the worker to die")
    assert_kept(service, job_id, sent)
    until(lambda: len(service.processes()) == before, "another worker to take its place")


def test_workers_whose_starter_was_killed_are_replaced_and_do_not_stay(service: Standalone) -> None:
    """The process that forks the workers: without it, the server cannot tell whether they live."""
    everybody = service.processes()
    (starter,) = {process.parent for process in everybody} & {p.pid for p in everybody if p.parent == service.pid}
    before = {process.pid for process in everybody if process.parent == starter}
    assert before
    next(process for process in everybody if process.pid == starter).send(signal.SIGKILL)
    until(lambda: not before & {process.pid for process in service.processes()}, "the workers to end")
    until(lambda: len(service.processes()) == len(everybody), "others to take their place")
    assert_kept(service, service.post(bundle(few())), few())


@pytest.mark.parametrize("moment", range(3))
def test_a_service_that_is_told_to_stop_while_it_starts_its_workers_stops(tmp_path: Path, moment: int) -> None:
    with Standalone(tmp_path, INGEST_WORKERS="4") as service:
        service.stop()
        service.launch()
        # The process that keeps a list, the one that forks, and the first that it forked.
        until(lambda: len(service.processes()) > moment + 1, "the service to start others")
        assert service.pid is not None
        os.kill(service.pid, signal.SIGTERM)
        exit_code(service)
        until(lambda: not service.processes(), "its workers to end")


def test_workers_end_by_themselves_when_the_server_is_killed_and_the_next_server_goes_on(service: Standalone) -> None:
    sent = many()
    job_id = service.post(bundle(sent))
    under_way(service, job_id)
    server, *others = service.processes()
    assert others
    server.send(signal.SIGKILL)
    until(lambda: not any(process.alive() for process in (server, *others)), "all workers to end", STOP_S)
    service.kill()
    service.start()
    assert_kept(service, job_id, sent)


def test_sigterm_under_load_stops_everything_in_time_and_loses_nothing(service: Standalone) -> None:
    sent = many()
    body = bundle(sent)
    jobs = [service.post(body) for _ in range(3)]
    # The first may have ended by now.
    under_way(service, jobs[-1])
    with half_an_upload(service):
        assert_stops(service, signal.SIGTERM)
    service.start()
    for job_id in jobs:
        assert_kept(service, job_id, sent)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize("busy", [False, True])
def test_what_is_sent_to_all_processes_stops_them_in_order(
    service: Standalone, number: signal.Signals, *, busy: bool
) -> None:
    """As a terminal does, or systemd with its `KillMode`."""
    if busy:
        under_way(service, service.post(bundle(many())))
    # Else the workers are just starting, and must be deaf already.
    assert_stops(service, number, everybody=True)
    log = service.log.read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert "a worker ended" not in log


def assert_stops(service: Standalone, number: signal.Signals, *, everybody: bool = False) -> None:
    processes = service.processes()
    assert len(processes) > 1
    began = time.monotonic()
    (os.killpg if everybody else os.kill)(service.pid, number)
    until(lambda: not any(process.alive() for process in processes), "all processes to end", STOP_S)
    assert time.monotonic() - began < STOP_S
    assert service._process is not None
    assert service._process.wait() == 0
    service.kill()


class half_an_upload:  # noqa: N801 (a context manager)
    """A sender that stops in the middle of a body."""

    def __init__(self, service: Standalone) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=STOP_S)

    def __enter__(self) -> None:
        self._connection.putrequest("POST", "/upload")
        self._connection.putheader("Content-Length", "1000000")
        self._connection.endheaders(b"x" * 1000)

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def test_a_second_service_in_the_same_folder_is_refused_in_one_clear_line(service: Standalone) -> None:
    line = [sys.executable, "-m", "pacifica.ingest", "--standalone", str(service.home), "-p", str(free_port())]
    second = subprocess.run(line, env=service.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 4
    assert [str(service.pid) in text and str(service.home) in text for text in second.stderr.splitlines()] == [True]
    assert_kept(service, service.post(bundle(few())), few())


def test_the_port_is_told_when_a_free_one_is_asked_for(tmp_path: Path) -> None:
    with Standalone(tmp_path) as service:
        service.stop()
        service._command[-1] = "0"
        service.launch()
        until(lambda: "http://127.0.0.1:" in last_start(service), "the address")
        port = last_start(service).partition("http://127.0.0.1:")[2].partition(" ")[0].rstrip(",/")
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=STOP_S)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()


def last_start(service: Standalone) -> str:
    """What was logged since the service was stopped first."""
    return service.log.read_text(encoding="utf-8").partition("takes uploads")[2].partition("\n")[2]


def test_a_taken_port_is_told_in_a_line(service: Standalone, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pacifica.ingest", "--standalone", str(tmp_path / "other")]
    line += ["-a", "127.0.0.1", "-p", str(service.port)]
    second = subprocess.run(line, env=service.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 4, second.stderr
    assert f"Cannot listen at 127.0.0.1, port {service.port}: " in second.stderr
    assert "Traceback" not in second.stderr


def test_a_rule_file_in_the_folder_decides_who_may_submit(service: Standalone) -> None:
    """As soon as it is there."""
    assert service.end(service.post(bundle(few())))["state"] == "OK"
    rules = '[[allow]]\nsubmitter = "10"\nproject = "another"\ninstrument = "*"\n'
    (service.home / "policy.toml").write_text(rules, encoding="utf-8")
    state = service.end(service.post(bundle(few())))
    assert (state["state"], state["task"]) == ("FAILED", "Policy Validation")


def test_a_rule_file_of_the_configuration_decides_too_and_what_is_not_used_is_told(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("", encoding="utf-8")
    with Standalone(tmp_path, POLICY_INGEST_URL=f"local:{rules}", VOLUME_PATH="/elsewhere") as service:
        state = service.end(service.post(bundle(few())))
        assert (state["state"], state["task"]) == ("FAILED", "Policy Validation")
        log = service.log.read_text(encoding="utf-8")
    (line,) = [line for line in log.splitlines() if "a standalone service does not use a setting" in line]
    assert "VOLUME_PATH" in line
