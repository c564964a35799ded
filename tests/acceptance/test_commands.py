"""The admin command as an operator meets it: processes, exit codes, and what is printed."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from pacifica.ingest.testing import BundleBuilder
from tests.acceptance.raw_http import Wire, head
from tests.acceptance.stage import (
    ENTRY,
    ROOT,
    Standalone,
    admin,
    background,
    bundle,
    command,
    environment,
    exit_code,
    few,
    many,
    until,
)
from tests.harness import PacificaCore, PostgreSQL, free_port, project_env

RULES = '[[allow]]\nsubmitter = "*"\nproject = "*"\ninstrument = "*"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A configured service without other services, and nobody that works on its jobs.

    Attributes:
        folder: holds everything; `staging` is the landing zone.
        config: the configuration file.
        env: of commands.
    """

    folder: Path
    config: Path
    env: Mapping[str, str]

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return command("-c", self.config, *arguments, env=self.env)

    def stage(self, name: str, content: bytes) -> Path:
        """Put a file into the landing zone, as version 0.4.1 did."""
        path = self.folder / "staging" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path


def configure(folder: Path, neighbours: Mapping[str, str] | None = None, database: str | None = None) -> Place:
    """Write a configuration; `neighbours` are URLs by the name of their section, local ones when they are not given."""
    folder.mkdir(exist_ok=True)
    rules = folder / "policy.toml"
    rules.write_text(RULES, encoding="utf-8")
    sections = {
        "ingest": {"volume_path": str(folder / "staging"), "lease": "2"},
        "uniqueid": {"url": "local:"},
        "policy": {"ingest_url": f"local:{rules}"},
        "archiveinterface": {"url": (folder / "archive").as_uri()},
        "metadata": {"ingest_url": "local:"},
        "database": {"peewee_url": database or f"sqliteext:///{folder / 'db.sqlite3'}"},
        "celery": {"broker_url": f"pyamqp://127.0.0.1:{free_port()}"},
    }
    for name, url in (neighbours or {}).items():
        sections[name] = dict.fromkeys(sections[name], url)
    config = folder / "config.ini"
    lines = [
        f"[{name}]\n" + "\n".join(f"{key} = {value}" for key, value in keys.items()) for name, keys in sections.items()
    ]
    config.write_text("\n".join(lines), encoding="utf-8")
    return Place(folder=folder, config=config, env=environment(folder))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = configure(tmp_path / "place")
    assert made.run("dbsync").returncode == 0
    return made


# --- configuration and schema


def test_dbchk_says_no_until_dbsync_ran(tmp_path: Path) -> None:
    place = configure(tmp_path / "place")
    assert place.run("dbchk").returncode == 1
    assert place.run("dbchk", "--equal").returncode == 1
    assert place.run("dbsync").returncode == 0
    assert place.run("dbchk").returncode == 0
    assert place.run("dbchk", "--equal").returncode == 0


@pytest.mark.parametrize("arguments", ["dbchk", "jobs", "show 1", "doctor", "recover"])
def test_who_only_asks_makes_no_database(tmp_path: Path, arguments: str) -> None:
    """As the operator of a standalone service meets who forgot the option."""
    place = configure(tmp_path / "place")
    found = place.run(*arguments.split())
    assert found.returncode == 1
    assert f"There is no database {place.folder / 'db.sqlite3'}" in found.stdout + found.stderr
    assert "--standalone DIR" in found.stdout + found.stderr
    assert not (place.folder / "db.sqlite3").exists()


def test_the_file_of_the_option_beats_that_of_the_environment(tmp_path: Path) -> None:
    chosen, other = configure(tmp_path / "chosen"), configure(tmp_path / "other")
    env = {**chosen.env, "INGEST_CONFIG": str(other.config)}
    assert command("-c", chosen.config, "dbsync", env=env).returncode == 0
    assert (chosen.folder / "db.sqlite3").exists()
    assert not (other.folder / "db.sqlite3").exists()


def test_without_the_option_the_file_of_the_environment_counts(tmp_path: Path) -> None:
    place = configure(tmp_path / "place")
    assert command("dbsync", env={**place.env, "INGEST_CONFIG": str(place.config)}).returncode == 0
    assert (place.folder / "db.sqlite3").exists()


def test_the_server_does_not_start_on_an_unsafe_schema_and_says_what_to_run(tmp_path: Path) -> None:
    place = configure(tmp_path / "place")
    server = serve("-c", str(place.config), env=place.env)
    assert (server.returncode, server.stderr.count("\n")) == (1, 1)
    assert "dbsync" in server.stderr


def serve(*arguments: str, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "pacifica.ingest", *arguments]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("program", ["main", "cmd"])
def test_each_wrong_setting_is_one_line_that_names_file_and_key(program: str, tmp_path: Path) -> None:
    config = tmp_path / "config.ini"
    config.write_text("[ingest]\nlease = soon\n[archiveinterface]\nverify = maybe\n", encoding="utf-8")
    line = [sys.executable, "-c", ENTRY.format(program), "-c", str(config), *(["jobs"] if program == "cmd" else [])]
    found = subprocess.run(line, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 3
    lines = found.stderr.splitlines()
    assert len(lines) == 2
    assert all(str(config) in line for line in lines)
    assert "lease" in lines[0]
    assert "verify" in lines[1]


def test_a_configuration_file_that_is_not_there_is_a_wrong_command_line(tmp_path: Path) -> None:
    found = command("-c", tmp_path / "none.ini", "jobs", env=environment(tmp_path))
    assert found.returncode == 2
    assert "none.ini" in found.stderr


def test_a_database_that_is_away_is_told_after_the_configured_attempts(tmp_path: Path) -> None:
    env = environment(
        tmp_path,
        PEEWEE_URL=f"postgresql://nobody@127.0.0.1:{free_port()}/nothing",
        DATABASE_CONNECT_ATTEMPTS="2",
        DATABASE_CONNECT_WAIT="1",
    )
    began = time.monotonic()
    found = command("dbsync", env=env)
    assert found.returncode == 4, found.stderr
    assert time.monotonic() - began >= 1
    assert "Traceback" not in found.stderr


def test_a_folder_in_which_no_service_ran_is_not_made_into_one(tmp_path: Path) -> None:
    found = command("--standalone", tmp_path / "typo", "jobs", env=environment(tmp_path))
    assert (found.returncode, found.stderr.count("\n")) == (3, 1)
    assert not (tmp_path / "typo").exists()


# --- job, jobs, show, files


def test_job_forces_what_is_seen(place: Place) -> None:
    words = ("--state", "FAILED", "--task", "ingest files", "--task-percent", "12.5", "--exception", "by hand")
    forced = place.run("job", "--job-id", "7", *words)
    assert forced.returncode == 0
    assert "Nobody knew a job 7 before" in forced.stderr
    assert place.run("job", "--job-id", "7", *words).stderr == ""
    shown = place.run("show", "7")
    assert shown.returncode == 0
    assert "FAILED, ingest files, 12.5 %" in shown.stdout
    assert "by hand" in shown.stdout


def test_faults_are_a_line_each_and_counted_where_there_is_one_line(place: Place) -> None:
    place.stage("5.tar", BundleBuilder().add("a", b"1", size=2).add("b", b"1", size=3).build())
    assert place.run("retry", "--job_id", "5").returncode == 1
    shown = place.run("show", "5").stdout.splitlines()
    (place_of_first,) = [number for number, line in enumerate(shown) if line.startswith("reason: ")]
    assert "'b' has 1 bytes" in shown[place_of_first + 1]
    for line in (shown[-1], place.run("jobs").stdout.splitlines()[-1]):
        assert re.search("'a' has 1 bytes.* … and 1 more *$", line)


def test_a_job_that_is_done_and_is_called_failed_is_told_so(place: Place) -> None:
    place.stage("5.tar", bundle(few()))
    assert place.run("retry", "--job_id", "5").returncode == 0
    back = "`job --job-id 5 --state OK --task 'ingest metadata' --task-percent 100` takes it back"
    assert back in place.run(*FAILED).stderr
    assert back in place.run("show", "5").stdout
    again = place.run("retry", "--job_id", "5")
    assert again.returncode == 1
    assert back in again.stdout
    assert place.run(*DONE).stderr == ""
    assert back not in place.run("show", "5").stdout


def test_an_upload_that_is_not_complete_is_told(tmp_path: Path) -> None:
    with Standalone(tmp_path) as service, Wire(service.url) as wire:

        def told(*arguments: str) -> str:
            return command("--standalone", service.home, *arguments, env=service.environment()).stdout

        wire.send(head("POST", "/upload", "Content-Length: 1000000"), bytes(100_000))
        until(lambda: "for the rest of its upload" in told("jobs"), "the upload to be under way")
        assert re.search("^staged: +still arriving *$", told("show", "1"), re.MULTILINE)
        assert told("recover") == "Nothing was left behind.\nSome jobs have not ended: `jobs --unfinished` says why.\n"


@pytest.mark.parametrize(
    "words",
    [
        ("--state", "failed", "--task", "ingest files"),
        ("--state", "FAILED", "--task", "ingest"),
        ("--state", "OK", "--task", "UPLOADING", "--task-percent", "101"),
    ],
)
def test_job_takes_only_the_documented_words(place: Place, words: tuple[str, ...]) -> None:
    found = place.run("job", "--job-id", "7", *words)
    assert found.returncode == 2
    assert place.run("show", "7").returncode == 1


LIVE, DONE, FAILED = (
    ("job", "--job-id", "5", "--state", state, "--task", "ingest metadata", "--task-percent", percent)
    for state, percent in (("OK", "50"), ("OK", "100"), ("FAILED", "0"))
)


def test_a_job_that_is_done_does_not_come_to_life(place: Place) -> None:
    place.stage("5.tar", bundle(few()))
    assert place.run("retry", "--job_id", "5").returncode == 0
    found = place.run(*LIVE)
    assert (found.returncode, found.stderr.count("\n")) == (1, 1)
    assert "job 5: OK, ingest metadata, 100.0 %, ended" in place.run("show", "5").stdout


def test_a_job_that_was_called_done_is_shown_as_such_and_that_can_be_taken_back(place: Place) -> None:
    path = place.stage("5.tar", b"no bundle")
    assert place.run("retry", "--job_id", "5").returncode == 1
    assert place.run(*DONE).returncode == 0
    shown = place.run("show", "5").stdout
    assert "done, forced by hand" in shown
    assert str(path) in shown
    assert place.run(*FAILED).returncode == 0
    path.write_bytes(bundle(few()))
    assert place.run("retry", "--job_id", "5").returncode == 0
    assert "forced by hand" not in place.run("show", "5").stdout


@pytest.mark.parametrize("name", ["show", "files", "retry --job_id"])
def test_an_unknown_job_is_the_answer_no(place: Place, name: str) -> None:
    found = place.run(*name.split(), "99")
    assert found.returncode == 1
    assert "99" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("number", ["abc", "1.5"])
def test_what_is_no_number_of_a_job_is_told_as_that(place: Place, number: str) -> None:
    for words in (("show", number), ("retry", "--job-id", number)):
        found = place.run(*words)
        assert found.returncode == 2
        assert f"'{number}' is not a valid job number." in found.stderr


def test_foreign_text_cannot_move_the_cursor(place: Place) -> None:
    words = ("--state", "FAILED", "--task", "ingest files", "--exception", "\x1b[2Jgone\rfaked")
    place.run("job", "--job-id", "7", *words)
    for shown in (place.run("show", "7"), place.run("jobs")):
        assert "\x1b" not in shown.stdout
        assert "\r" not in shown.stdout
        assert "\\x1b[2Jgone\\rfaked" in shown.stdout


# --- retry


def test_retry_takes_up_a_staged_bundle_and_carries_it_to_its_end(place: Place) -> None:
    path = place.stage("5.tar", bundle(few()))
    done = place.run("retry", "--job_id", "5", "--path", path, "--username", "somebody")
    assert done.returncode == 0, done.stderr
    listed = json.loads(place.run("files", "5", "--json").stdout)
    assert {file["path"]: Path(file["archive_path"]).read_bytes() for file in listed} == few()
    assert "somebody" in place.run("show", "5").stdout
    assert not path.exists()


def test_retry_finds_the_bundle_of_an_old_job_by_itself(place: Place) -> None:
    place.stage("5.tar", bundle(few()))
    assert place.run("retry", "--job-id", "5").returncode == 0


def test_retry_moves_files(place: Place) -> None:
    source = place.stage("data.bin", b"moved")
    document = BundleBuilder().entry("moved/data.bin", b"moved", source=str(source)).document()
    path = place.stage("6.json", json.dumps(document).encode())
    assert place.run("retry", "--move", "--job_id", "6", "--path", path, "--username", "somebody").returncode == 0
    listed = json.loads(place.run("files", "6", "--json").stdout)
    assert Path(listed[0]["archive_path"]).read_bytes() == b"moved"
    assert not source.exists()


def test_retry_of_a_bad_bundle_fails_with_its_reason_and_keeps_the_bundle(place: Place) -> None:
    path = place.stage("5.tar", b"this is no tar")
    for _ in range(2):
        found = place.run("retry", "--job_id", "5")
        assert found.returncode == 1
        assert "FAILED, open tar" in found.stdout
        assert path.exists()


def test_a_file_outside_of_the_landing_zone_that_retry_was_told_of_is_never_removed(place: Place) -> None:
    elsewhere = place.folder / "backup"
    elsewhere.mkdir()
    # The second has the name that it would have in the landing zone.
    good, bad = elsewhere / "good.tar", elsewhere / "6.tar"
    good.write_bytes(bundle(few()))
    bad.write_bytes(b"my thesis")
    assert place.run("retry", "--job_id", "5", "--path", good).returncode == 0
    assert place.run("retry", "--job_id", "6", "--path", bad).returncode == 1
    with closing(sqlite3.connect(place.folder / "db.sqlite3")) as database, database:
        database.execute("UPDATE ingeststate SET updated = '2020-01-01 00:00:00'")
    stays = "given up; its file lies outside of the landing zone, and stays"
    assert place.run("gc", "--dry-run").stdout == f"job 6: bundle 6.tar (9 B) would be {stays}\n"
    assert place.run("gc").stdout == f"job 6: bundle 6.tar (9 B) {stays}\n"
    assert place.run("gc").stdout == "Nothing is older than 30 days.\n"
    place.run("recover")
    assert [path.exists() for path in (good, bad)] == [True, True]


def test_retry_does_not_take_the_file_of_another_job(place: Place) -> None:
    path = place.stage("6.tar", bundle(few()))
    found = place.run("retry", "--job_id", "5", "--path", path)
    assert found.returncode == 2
    assert "6.tar belongs to another job" in found.stderr
    assert path.exists()


def test_retry_says_that_a_job_keeps_its_file_its_kind_and_its_user(place: Place) -> None:
    path = place.stage("5.tar", b"this is no tar")
    other = place.stage("other.tar", bundle(few()))
    assert place.run("retry", "--job_id", "5", "--username", "ada").returncode == 1
    for wrong in (("--path", other), ("--move",)):
        found = place.run("retry", "--job_id", "5", *wrong)
        assert found.returncode == 2
        assert f"Invalid value for {wrong[0]}: " in found.stderr
    found = place.run("retry", "--job_id", "5", "--path", path, "--username", "eve")
    assert found.returncode == 1
    assert "job 5 was sent by 'ada', and stays theirs." in found.stderr


def test_retry_of_a_job_that_is_done_changes_nothing(place: Place) -> None:
    place.stage("5.tar", bundle(few()))
    assert place.run("retry", "--job_id", "5").returncode == 0
    before = place.run("show", "5").stdout
    assert place.run("retry", "--job_id", "5").returncode == 0
    assert place.run("show", "5").stdout == before


def test_retry_waits_with_its_job_for_a_neighbour(place: Place) -> None:
    rules = place.folder / "policy.toml"
    rules.write_text("broken", encoding="utf-8")
    place.stage("5.tar", bundle(few()))
    line = admin("-c", place.config, "retry", "--job_id", "5")
    with background("retry", place.folder, line, place.env, says="policy cannot be used now") as retry:
        gives_up = re.compile(r"gives up: +at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(\[ingest\] retry_for\)")
        # At times it does not wait, but is tried.
        until(lambda: gives_up.search(place.run("show", "5").stdout), "the job to wait")
        rules.write_text(RULES, encoding="utf-8")
        assert exit_code(retry) == 0
        told = retry.log.read_text(encoding="utf-8")
        assert not re.search("watching|UPLOADING", told), told
    assert "gives up" not in place.run("show", "5").stdout


def test_jobs_that_have_not_ended_are_listed_alone(place: Place) -> None:
    place.stage("5.tar", b"this is no tar")
    assert place.run("retry", "--job_id", "5").returncode == 1
    assert " 5  " in place.run("jobs").stdout
    assert " 5  " not in place.run("jobs", "--unfinished").stdout
    assert place.run(*LIVE).returncode == 0
    assert " 5  " in place.run("jobs", "--unfinished").stdout
    assert place.run("jobs", "--unfinished", "--phase", "ready").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_retry_gives_its_job_back(place: Place, number: signal.Signals) -> None:
    place.stage("5.tar", bundle(many()))
    line = admin("-c", place.config, "retry", "--job_id", "5")
    with background("retry", place.folder, line, place.env, says="job 5: ingest files") as retry:
        retry.signal(number)
        assert exit_code(retry) == 130
    assert "the worker stopped" in place.run("show", "5").stdout
    assert place.run("retry", "--job_id", "5").returncode == 0


def test_retry_watches_a_job_that_another_worker_has(place: Place) -> None:
    # Who stands still for a lease is taken over, rightly.
    place.config.write_text(
        place.config.read_text(encoding="utf-8").replace("lease = 2", "lease = 60"), encoding="utf-8"
    )
    place.stage("5.tar", bundle(many()))
    line = admin("-c", place.config, "retry", "--job_id", "5")
    with background("retry", place.folder, line, place.env, says="job 5: ingest files") as first:
        second = place.run("retry", "--job_id", "5")
        assert second.returncode == 0
        assert exit_code(first) == 0
    assert "UPLOADING" not in second.stdout
    assert place.run("show", "5").stdout.count("claimed") == 1


def test_retry_says_whom_it_watches_and_takes_over_who_shows_no_sign_of_life(place: Place) -> None:
    place.stage("5.tar", b"no bundle")
    assert place.run("retry", "--job_id", "5").returncode == 1
    place.stage("5.tar", bundle(few()))
    with closing(sqlite3.connect(place.folder / "db.sqlite3")) as database, database:
        database.execute("UPDATE ingest_job SET phase = 'running', worker = 'elsewhere:1' WHERE job_id = 5")
        database.execute("UPDATE ingeststate SET state = 'OK', task = 'ingest files', complete = 0 WHERE id = 5")
    found = place.run("retry", "--job_id", "5")
    assert found.returncode == 0, found.stdout
    watching = "job 5: ingest files (watching: elsewhere:1 has it, and loses it after 2 s without a sign of life)"
    assert watching in found.stdout.splitlines()


# --- recover


def test_recover_takes_a_job_over_from_a_dead_worker(place: Place) -> None:
    place.stage("5.tar", bundle(many()))
    line = admin("-c", place.config, "retry", "--job_id", "5")
    with background("retry", place.folder, line, place.env, says="job 5: ingest files") as retry:
        retry.kill()
    found = place.run("recover")
    assert found.returncode == 0
    assert "job 5: taken over" in found.stdout
    assert place.run("retry", "--job_id", "5").returncode == 0


def test_recover_leaves_a_job_alone_that_is_being_worked_on(place: Place) -> None:
    place.stage("5.tar", bundle(many()))
    line = admin("-c", place.config, "retry", "--job_id", "5")
    with background("retry", place.folder, line, place.env, says="job 5: ingest files") as retry:
        assert "taken over" not in place.run("recover").stdout
        assert exit_code(retry) == 0


def test_recover_takes_up_unfinished_bundles_of_the_old_version(place: Place) -> None:
    path = place.stage("5.tar", bundle(few()))
    place.run("job", "--job-id", "5", "--state", "OK", "--task", "UPLOADING")
    age(path, -3600)
    assert "still changes" in place.run("recover").stdout
    age(path, 3600)
    until(lambda: "taken up from version 0.4.1" in place.run("recover").stdout, "the bundle to be taken up")
    assert place.run("retry", "--job_id", "5").returncode == 0


def test_recover_leaves_bundles_alone_whose_job_ended_or_is_unknown(place: Place) -> None:
    for name in ("5.tar", "6.tar", "notes.tar", "07.tar"):
        age(place.stage(name, bundle(few())), 3600)
    place.run("job", "--job-id", "5", "--state", "FAILED", "--task", "open tar")
    assert place.run("recover").stdout == "Nothing was left behind.\n"


def test_recover_removes_old_parts_of_uploads_only(place: Place) -> None:
    names = ("5.tar.part", "6.json.part", "7.tar.part", "movie.part")
    old, young, unknown, other = (place.stage(name, b"x") for name in names)
    for path in (old, unknown, other):
        age(path, 2 * 86_400)
    for job_id in ("5", "6"):
        place.run("job", "--job-id", job_id, "--state", "FAILED", "--task", "UPLOADING")
    assert str(old) in place.run("recover").stdout
    assert [path.exists() for path in (old, young, unknown, other)] == [False, True, True, True]


def test_recover_removes_bundles_that_rose_again_when_their_job_is_over_for_long(place: Place) -> None:
    for name in ("5.tar", "6.tar", "7.tar"):
        place.stage(name, bundle(few()))
    assert place.run("retry", "--job_id", "5").returncode == 0
    assert place.run("retry", "--job_id", "6").returncode == 0
    # As a power cut leaves them, or a server that slept while its upload was given up; the last is a stranger's.
    old, young, other_kind, strange = (place.stage(name, b"x") for name in ("5.tar", "6.tar", "5.json", "8.tar"))
    for path in (old, other_kind, strange):
        age(path, 2 * 86_400)
    assert place.run("recover").stdout == f"{old}: removed, job 5 was over long ago\n"
    assert [path.exists() for path in (old, young, other_kind, strange)] == [False, True, True, True]


def test_recover_leaves_the_bundle_of_a_failed_job_alone_however_old_it_is(place: Place) -> None:
    path = place.stage("5.tar", b"no bundle")
    assert place.run("retry", "--job_id", "5").returncode == 1
    age(path, 90 * 86_400)
    assert place.run("recover").stdout == "Nothing was left behind.\n"
    assert path.exists()


# --- gc


def test_gc_keeps_what_it_cannot_reach_and_says_so(place: Place) -> None:
    path = place.stage("5.tar", b"no bundle")
    assert place.run("retry", "--job_id", "5").returncode == 1
    database = sqlite3.connect(place.folder / "db.sqlite3")
    with database:
        database.execute("UPDATE ingeststate SET updated = '2020-01-01 00:00:00' WHERE id = 5")
        database.execute("UPDATE ingest_job SET landing_zone = 'another' WHERE job_id = 5")
    database.close()
    for option in ((), ("--dry-run",)):
        found = place.run("gc", *option)
        assert found.stdout == "job 5: bundle 5.tar (9 B) is kept: its landing zone is not mounted here\n"
    (path.parent / ".landing-zone-another").touch()
    assert "removed" in place.run("gc").stdout
    assert not path.exists()


def test_gc_removes_bundles_of_failed_jobs_that_are_old_enough_and_says_so_before(place: Place) -> None:
    old, young = (place.stage(name, b"no bundle") for name in ("5.tar", "6.tar"))
    for job_id in ("5", "6"):
        assert place.run("retry", "--job_id", job_id).returncode == 1
    database = sqlite3.connect(place.folder / "db.sqlite3")
    with database:
        database.execute("UPDATE ingeststate SET updated = '2020-01-01 00:00:00' WHERE id = 5")
    database.close()
    assert place.run("gc", "--dry-run").stdout == "job 5: bundle 5.tar (9 B) would be removed\n"
    assert old.exists()
    assert place.run("gc").stdout == "job 5: bundle 5.tar (9 B) removed\n"
    assert [old.exists(), young.exists()] == [False, True]
    assert place.run("gc").stdout == "Nothing is older than 30 days.\n"
    assert place.run("gc", "--older-than", "1").stdout == "Nothing is older than 1 day.\n"
    assert "expired" in place.run("show", "5").stdout


def test_gc_goes_on_after_an_id_that_cannot_be_removed_and_says_so_at_the_end(place: Place) -> None:
    objects = place.folder / "archive/000/000/000"
    objects.mkdir(parents=True)
    left = {"7": b"whole", "8.0123456789abcdef.part": b"somebody is writing it", "9": b"whole", "10": b"not ours"}
    for name, content in left.items():
        (objects / name).write_bytes(content)
    database = sqlite3.connect(place.folder / "db.sqlite3")
    with database:
        database.executemany(
            "INSERT INTO ingest_archive_id (file_id, job_id, seq, state, mark, noted) VALUES (?, 5, 0, ?, 0, ?)",
            [(file_id, "garbage", "2020-01-01 00:00:00") for file_id in (7, 8, 9, 11)]
            + [(10, "void", "2020-01-01 00:00:00")],
        )
    database.close()
    ended = place.run("gc")
    assert ended.stdout == "archive id 7: garbage removed\narchive id 9: garbage removed\n"
    assert ended.returncode == 4
    assert "archive id 8 could not be removed and stays on the list" in ended.stderr
    assert {path.name for path in objects.iterdir()} == {"8.0123456789abcdef.part", "10"}
    os.utime(objects / "8.0123456789abcdef.part", (0, 0))
    assert place.run("gc").stdout == "archive id 8: garbage removed\n"
    assert place.run("gc").stdout == "Nothing is older than 30 days.\n"


def test_gc_keeps_the_bundle_of_a_job_that_was_called_done_by_hand_and_says_why(place: Place) -> None:
    bundle = place.stage("5.tar", b"no bundle")
    assert place.run("retry", "--job_id", "5").returncode == 1
    database = sqlite3.connect(place.folder / "db.sqlite3")
    with database:
        database.execute("UPDATE ingest_job SET phase = 'done' WHERE job_id = 5")
        database.execute("UPDATE ingeststate SET updated = '2020-01-01 00:00:00' WHERE id = 5")
    database.close()
    told = "job 5: bundle 5.tar (9 B) is kept: the job is called done, but the catalogue has no such transaction\n"
    assert place.run("gc").stdout == told
    assert bundle.exists()


# --- jobs


def test_jobs_are_listed_by_what_they_are(place: Place) -> None:
    place.stage("5.tar", b"no bundle")
    place.stage("6.tar", bundle(few()))
    for job_id, user in (("5", "me"), ("6", "you")):
        place.run("retry", "--job_id", job_id, "--username", user)

    def listed(*options: str) -> list[str]:
        return re.findall(r"^ *(\d+) ", place.run("jobs", *options).stdout, re.MULTILINE)

    assert sorted(listed()) == ["5", "6"]
    assert listed("--state", "FAILED") == listed("--phase", "failed") == listed("--user", "me") == ["5"]
    assert listed("--phase", "done") == ["6"]
    assert listed("--phase", "running") == []


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


# --- doctor


def test_doctor_is_content_with_a_standalone_service(tmp_path: Path) -> None:
    with Standalone(tmp_path) as service:
        found = command("--standalone", service.home, "doctor", env=service.environment())
        assert found.returncode == 0, found.stdout
        assert "FAIL" not in found.stdout


def test_doctor_names_everything_that_is_missing_and_what_to_do(place: Place) -> None:
    text = place.config.read_text(encoding="utf-8").replace("url = local:", f"url = http://127.0.0.1:{free_port()}")
    place.config.write_text(text, encoding="utf-8")
    (place.folder / "staging").write_text("a file, no folder", encoding="utf-8")
    found = place.run("doctor")
    assert found.returncode == 1
    failed = {line.split()[1] for line in found.stdout.splitlines() if line.startswith("FAIL")}
    assert failed == {"landing", "uniqueid", "policy", "metadata", "broker", "workers"}
    assert all("To do: " in line for line in found.stdout.splitlines() if line.startswith("FAIL"))
    assert str(place.config) in found.stdout


@pytest.mark.parametrize("arguments", [["doctor"], ["-v", "doctor"], ["-v", "jobs"], ["dbsync"]])
def test_no_command_tells_a_password(tmp_path: Path, arguments: list[str]) -> None:
    """Of services that are away, which is when addresses are told."""

    def away(scheme: str) -> str:
        # The slash should have been encoded, and is not.
        return f"{scheme}://operator:hid/den@127.0.0.1:{free_port()}"

    http = {name: away("http") for name in ("uniqueid", "policy", "metadata", "archiveinterface")}
    encoded = {name: url.replace("d/d", "d%%2Fd") for name, url in http.items()}
    database = away("postgresql").replace("d/d", "d%%2Fd") + "/ingest"
    place = configure(tmp_path / "place", encoded | {"celery": away("redis").replace("d/d", "dd")}, database)
    text = place.config.read_text(encoding="utf-8")
    text = re.sub("(peewee_url = .*)", "\\1\nconnect_attempts = 1\nconnect_wait = 0", text)
    place.config.write_text(text, encoding="utf-8")
    found = place.run(*arguments)
    assert found.returncode != 0
    told = found.stdout + found.stderr
    assert "127.0.0.1" in told
    assert not re.search("hid|den@|operator:", told), told


def test_doctor_tells_which_archive_there_is_and_makes_none_in_its_place(place: Place) -> None:
    def archive() -> str:
        return next(line for line in place.run("doctor").stdout.splitlines() if "archive" in line)

    assert "no marker yet" in archive()
    place.stage("6.tar", bundle(few()))
    place.run("retry", "--job_id", "6", "--username", "me")
    folder = place.folder / "archive"
    (marker,) = folder.glob(".archive-*")
    assert archive().startswith("OK")
    assert marker.name in archive()
    folder.rename(place.folder / "volume")
    assert archive().startswith("FAIL")
    assert f"touch {marker}" in archive()
    assert not folder.exists()


def test_doctor_says_what_fits_the_fault(place: Place, tmp_path: Path) -> None:
    (place.folder / "policy.toml").write_text("broken", encoding="utf-8")
    found = place.run("doctor").stdout
    assert re.search("^FAIL +policy .* To do: mend that file, or ", found, re.MULTILINE), found
    for name in ("psycopg", "psycopg2"):
        (tmp_path / f"{name}.py").write_text("raise ImportError", encoding="utf-8")
    other = configure(tmp_path / "other", database="postgresql://127.0.0.1/ingest")
    env = {**other.env, "PYTHONPATH": f"{tmp_path}{os.pathsep}{other.env['PYTHONPATH']}"}
    found = command("-c", other.config, "doctor", env=env).stdout
    assert re.search(
        r"^FAIL +database .* To do: install its driver: `pip install '\.\[postgresql\]'`", found, re.MULTILINE
    )


def test_doctor_finds_an_unsafe_schema(tmp_path: Path) -> None:
    found = configure(tmp_path / "place").run("doctor")
    assert found.returncode == 1
    assert any(line.startswith("FAIL  schema") and "dbsync" in line for line in found.stdout.splitlines())
    assert "writing" not in found.stdout


def test_doctor_finds_a_database_that_somebody_keeps_locked(place: Place) -> None:
    with closing(sqlite3.connect(place.folder / "db.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = place.run("doctor").stdout
    assert re.search("^FAIL +writing +database is locked. To do: end who keeps it", found, re.MULTILINE), found
    assert re.search("^OK +writing ", place.run("doctor").stdout, re.MULTILINE)


def test_doctor_finds_a_database_that_takes_no_changes(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """As a replica does."""
    url = postgresql.new_database()
    assert configure(tmp_path / "primary", database=url).run("dbsync").returncode == 0
    replica = f"{url}?options=-c%%20default_transaction_read_only=on"
    found = configure(tmp_path / "replica", database=replica).run("doctor").stdout
    assert re.search("^OK +schema ", found, re.MULTILINE), found
    assert re.search("^FAIL +writing +cannot execute UPDATE in a read-only transaction", found, re.MULTILINE), found


def test_doctor_tries_several_connections_to_the_archive_when_asked(place: Place) -> None:
    found = place.run("doctor", "--archive-connections", "4")
    assert any(line.startswith("OK    4 archive connections") for line in found.stdout.splitlines()), found.stdout
    kept = [path for path in (place.folder / "archive").rglob("*") if path.is_file() and path.name.isdigit()]
    assert len(kept) == 64
    assert "1 to 64" in found.stdout


def test_doctor_reaches_the_real_neighbours_and_tries_the_archive(core: PacificaCore, tmp_path: Path) -> None:
    urls = {
        "uniqueid": core.uniqueid_url,
        "policy": core.policy_ingest_url,
        "archiveinterface": core.archive_url,
        "metadata": f"{core.metadata_url}/ingest",
    }
    place = configure(tmp_path / "place", urls)
    assert place.run("dbsync").returncode == 0
    found = place.run("doctor", "--archive-connections", "1")
    good = {line.split()[1] for line in found.stdout.splitlines() if line.startswith("OK")}
    assert good >= {"configuration", "database", "uniqueid", "policy", "archive", "metadata", "1"}, found.stdout


# --- demo


def test_the_demo_verifies_what_it_archived_and_leaves_nothing(tmp_path: Path) -> None:
    source, scratch = tmp_path / "source", tmp_path / "scratch"
    for path, content in few().items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    scratch.mkdir()
    found = command("demo", source, env=environment(tmp_path, TMPDIR=str(scratch)))
    assert found.returncode == 0, found.stderr
    assert all(path in found.stdout for path in few())
    assert "4 of 4 files are byte for byte as they were sent" in found.stdout
    assert list(scratch.iterdir()) == []


def test_the_demo_looks_at_the_files_before_it_starts_anything(tmp_path: Path) -> None:
    folder, kept = tmp_path / "folder", tmp_path / "kept"
    folder.mkdir()

    def refused(code: int, reason: str) -> None:
        found = command("demo", folder, "--keep", kept, env=environment(tmp_path))
        assert (found.returncode, found.stdout) == (code, "")
        assert reason in found.stderr
        assert not kept.exists()

    refused(2, "has no files to send")
    (folder / "link").symlink_to("elsewhere")
    refused(1, "only plain files and folders can be packed")


def test_the_demo_keeps_the_folder_when_asked(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert command("demo", "--keep", kept, env=environment(tmp_path)).returncode == 0
    listed = command("--standalone", kept, "files", "1", "--json", env=environment(tmp_path))
    assert all(Path(file["archive_path"]).stat().st_size == file["size"] for file in json.loads(listed.stdout))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    source, scratch = tmp_path / "source", tmp_path / "scratch"
    source.mkdir()
    scratch.mkdir()
    for name, content in many().items():
        (source / name.replace("/", "-")).write_bytes(content)
    env = environment(tmp_path, TMPDIR=str(scratch))
    with background("demo", tmp_path, admin("demo", source), env, says="ingest files") as demo:
        processes = demo.processes()
        assert len(processes) > 2
        demo.signal(number)
        assert exit_code(demo) == 130
        assert not any(process.alive() for process in processes)
    assert list(scratch.iterdir()) == []


def test_the_commands_are_installed_under_all_their_names(tmp_path: Path) -> None:
    installed = project_env(ROOT)
    for name in ("pacifica-ingest", "pacifica-ingest-cmd", "IngestCMD"):
        line = [str(installed.bin(name)), "--help"]
        found = subprocess.run(line, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
        assert found.returncode == 0, found.stderr
        assert "Exit codes:" in found.stdout
