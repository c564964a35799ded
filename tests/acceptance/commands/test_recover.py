"""`recover`: what a crash or version 0.4.1 left behind."""

from tests.acceptance.commands.place import Place, age
from tests.acceptance.stage import (
    admin,
    background,
    bundle,
    exit_code,
    few,
    many,
    until,
)


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
