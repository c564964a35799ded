"""`job`, `jobs`, `show` and `files`."""

import re
from pathlib import Path

import pytest

from pacifica.ingest.testing import BundleBuilder
from tests.acceptance.commands.place import Place
from tests.acceptance.raw_http import Wire, head
from tests.acceptance.stage import (
    Standalone,
    bundle,
    command,
    few,
    until,
)


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


def test_jobs_that_have_not_ended_are_listed_alone(place: Place) -> None:
    place.stage("5.tar", b"this is no tar")
    assert place.run("retry", "--job_id", "5").returncode == 1
    assert " 5  " in place.run("jobs").stdout
    assert " 5  " not in place.run("jobs", "--unfinished").stdout
    assert place.run(*LIVE).returncode == 0
    assert " 5  " in place.run("jobs", "--unfinished").stdout
    assert place.run("jobs", "--unfinished", "--phase", "ready").returncode == 2
