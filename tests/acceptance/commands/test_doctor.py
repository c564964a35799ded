"""`doctor`: what is missing, and what to do."""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.acceptance.commands.place import Place, configure
from tests.acceptance.stage import (
    Standalone,
    bundle,
    command,
    few,
)
from tests.harness import PacificaCore, PostgreSQL, free_port


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
