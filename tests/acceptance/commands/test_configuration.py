"""What holds for every command: its configuration and the schema of its database, and what it never tells."""

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.acceptance.commands.place import configure
from tests.acceptance.stage import (
    ENTRY,
    ROOT,
    command,
    environment,
)
from tests.harness import free_port, project_env


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


def test_the_commands_are_installed_under_all_their_names(tmp_path: Path) -> None:
    installed = project_env(ROOT)
    for name in ("pacifica-ingest", "pacifica-ingest-cmd", "IngestCMD"):
        line = [str(installed.bin(name)), "--help"]
        found = subprocess.run(line, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
        assert found.returncode == 0, found.stderr
        assert "Exit codes:" in found.stdout
