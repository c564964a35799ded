"""`retry`: a job is carried to its end in the foreground."""

import json
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pacifica.ingest.testing import BundleBuilder
from tests.acceptance.commands.place import RULES, Place
from tests.acceptance.stage import (
    admin,
    background,
    bundle,
    exit_code,
    few,
    many,
    until,
)


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
