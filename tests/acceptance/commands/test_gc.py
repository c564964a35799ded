"""`gc`: what is removed by age, and what never is."""

import os
import sqlite3

from tests.acceptance.commands.place import Place


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
