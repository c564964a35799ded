"""The documented commands, options and exit codes are there, under their names.

Source: documentation of pacifica-ingest 0.4.1, and the operator's promises of this version.
"""

import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest

from pacifica.ingest import cli
from pacifica.ingest.cli.admin import admin
from pacifica.ingest.cli.exits import Exit, exit_code
from pacifica.ingest.cli.server import server
from pacifica.ingest.core import errors

ROOT = Path(__file__).parents[2]

#: Command → its options and arguments.
DOCUMENTED = {
    "job": {"--job-id", "--state", "--task", "--task-percent", "--exception"},
    "dbsync": set(),
    "dbchk": {"--equal"},
    "retry": {"--move", "--path", "--username", "--job_id"},
}
OURS = {
    "retry": {"--job-id"},
    "demo": {"--keep", "folder"},
    "doctor": {"--archive-connections"},
    "recover": set(),
    "gc": {"--dry-run", "--older-than"},
    "files": {"--json", "job_id"},
    "jobs": {"--limit", "--phase", "--state", "--unfinished", "--user"},
    "show": {"job_id"},
}
OF_ADMIN = {"-c", "--config", "--standalone", "-v", "--verbose", "--version"}
OF_SERVER = {
    "--cp-config",
    "-c",
    "--config",
    "-p",
    "--port",
    "-a",
    "--address",
    "--standalone",
    "-v",
    "--verbose",
    "--version",
}


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_documented_options_exist(name: str) -> None:
    assert DOCUMENTED[name] <= options(admin.commands[name])


def test_there_is_no_command_or_option_beyond_the_listed_ones() -> None:
    listed = {name: DOCUMENTED.get(name, set()) | OURS.get(name, set()) for name in DOCUMENTED | OURS}
    assert {name: options(command) for name, command in admin.commands.items()} == listed
    assert options(admin) == OF_ADMIN
    assert options(server) == OF_SERVER


def test_the_server_listens_where_it_is_documented() -> None:
    text = " ".join(server.get_help(click.Context(server)).split())
    assert "[default: (8066)" in text
    assert "[default: (localhost)" in text


@pytest.mark.parametrize("name", [None, *sorted({*DOCUMENTED, *OURS})])
def test_each_help_tells_its_options_and_the_exit_codes(name: str | None) -> None:
    command = admin.commands[name] if name else admin
    text = command.get_help(click.Context(command, info_name=name))
    assert command.help
    assert all(option in text for option in options(command) if option.startswith("-"))
    assert all(f"  {int(code)} " in text for code in Exit)


def test_the_table_of_exit_codes_is_complete() -> None:
    told = [line.split()[0] for line in (cli.__doc__ or "").splitlines() if line[:1].isdigit()]
    assert told == [str(int(code)) for code in Exit]


def test_the_installed_names_lead_to_the_two_entries() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert set(scripts) == {"pacifica-ingest", "pacifica-ingest-cmd", "IngestCMD"}
    for target in scripts.values():
        module, _, name = target.partition(":")
        assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (errors.BadConfiguration("x"), 3),
        (errors.UnsafeSchema("x"), 1),
        (errors.NoSuchJob(1), 1),
        (errors.JobBusy("x"), 1),
        (errors.DatabaseDown("x"), 4),
        (errors.NeighbourDown("archive", "x"), 4),
        (errors.NoSpace("x"), 4),
        (OSError("x"), 4),
    ],
)
def test_an_error_has_its_exit_code(fault: Exception, code: int) -> None:
    assert exit_code(fault) == code
