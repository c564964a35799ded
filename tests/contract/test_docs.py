"""The documentation keeps up with the code."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pacifica.ingest.cli.admin import admin
from pacifica.ingest.cli.exits import Exit
from pacifica.ingest.cli.server import server
from pacifica.ingest.config import keys
from pacifica.ingest.core import errors
from pacifica.ingest.core.digests import ALGORITHMS
from pacifica.ingest.core.metadata import MIMETYPES
from pacifica.ingest.core.states import Phase, Step
from pacifica.ingest.rest import openapi
from pacifica.ingest.tables import TABLES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("key", keys(), ids=lambda key: f"{key.section}.{key.name}")
def test_every_key_is_in_the_configuration_page_with_variable_and_default(key: object) -> None:
    page = _text("docs/configuration.md")
    rows = [line for line in page.splitlines() if f"`{key.env}`" in line]  # type: ignore[attr-defined] (a Key)
    assert len(rows) == 1
    assert f"{key.name}`" in rows[0]  # type: ignore[attr-defined] (a Key)
    default = key.default or {"move_roots": "volume_path"}.get(key.name, "empty")  # type: ignore[attr-defined] (a Key)
    assert f"`{default}`" in rows[0]


def test_every_variable_that_names_a_file_with_a_secret_is_in_the_configuration_page() -> None:
    page = _text("docs/configuration.md")
    assert all(f"`{key.env_file}`" in page for key in keys() if key.env_file)


def test_every_exit_code_is_in_the_command_page() -> None:
    page = _text("docs/commandline.md")
    for code in Exit:
        assert re.search(rf"^\| {int(code)} \|", page, re.MULTILINE)


def _options() -> Iterator[tuple[str, str]]:
    for option in server.params:
        yield "pacifica-ingest", max(option.opts, key=len)
    for name, command in admin.commands.items():
        yield "pacifica-ingest-cmd", name
        for option in command.params:
            if isinstance(option, click.Option):
                yield "pacifica-ingest-cmd", option.opts[0]


@pytest.mark.parametrize(("program", "option"), sorted(set(_options())))
def test_every_command_and_option_is_in_the_command_page(program: str, option: str) -> None:
    if option in {"--version", "--help"}:
        return
    section = _text("docs/commandline.md").partition(f"\n## {program}\n")[2]
    assert option in section


def _errors(root: type[errors.IngestError]) -> Iterator[type[errors.IngestError]]:
    for error in root.__subclasses__():
        if error.__module__ == errors.__name__:
            yield error
            yield from _errors(error)


def test_every_error_that_a_request_can_get_is_in_the_interface_page() -> None:
    page = _text("docs/http.md")
    requests = {
        errors.BadRequest,
        errors.LengthMismatch,
        errors.DigestMismatch,
        errors.TooLarge,
        errors.NoSuchJob,
        errors.NoSpace,
    }
    requests |= {errors.TooSlow, errors.Busy, errors.TooManyUploads}
    for error in requests | {errors.Unavailable, errors.NeighbourDown, errors.DatabaseDown}:
        assert f"`{error.code}`" in page
        assert str(error.status) in page


def test_every_status_of_the_openapi_document_is_in_the_table_of_errors() -> None:
    table = _text("docs/http.md").partition("\n## Errors\n")[2]
    for status in openapi.document()["components"]["responses"]:
        assert re.search(rf"^\| [0-9, ]*{status}\b", table, re.MULTILINE), status


def test_the_tree_of_errors_at_the_top_names_every_error() -> None:
    assert errors.__doc__ is not None
    for error in _errors(errors.IngestError):
        assert re.search(rf"\b{error.__name__}\b", errors.__doc__)


def test_steps_phases_and_tables_are_in_the_architecture_page() -> None:
    page = _text("docs/architecture.md")
    for step in Step:
        assert f"`{step}`" in page
    for table in TABLES:
        assert f"`{table._meta.table_name}`" in page
    assert f"{['no', 'one', 'two', 'three', 'four', 'five'][len(Phase)]} phases" in page


def test_every_digest_is_in_the_interface_page() -> None:
    assert all(algorithm in _text("docs/http.md") for algorithm in ALGORITHMS)


def test_every_kind_of_mimetype_is_in_the_interface_page() -> None:
    assert all(f"`{kind}`" in _text("docs/http.md") for kind in MIMETYPES)


def test_the_pictures_are_those_that_the_code_draws(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools/draw.py", tmp_path], check=True)
    for drawn in tmp_path.iterdir():
        assert drawn.read_text() == (ROOT / "docs/pictures" / drawn.name).read_text(), f"{drawn.name}: make pictures"


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link
