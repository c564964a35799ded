"""The harness's environments, and what runs in them: the clients and the original.

What it is not: a test of the package.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import (
    ALLOWED,
    ALLOWED_TOO,
    REFUSED,
    Environment,
    HarnessError,
    OriginalIngest,
    PacificaCore,
    PostgreSQL,
    Redis,
    base_environment,
    beside_env,
    core_env,
    environment,
    original_env,
    project_env,
    run,
    upload_with_cli,
    upload_with_uploader,
    uwsgi_env,
    venvs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
BUILD_S = 240.0


# The clients, and the original


@pytest.fixture(scope="module")
def original(core: PacificaCore, postgresql: PostgreSQL) -> Iterator[OriginalIngest]:
    with Redis() as broker, OriginalIngest(core, postgresql.new_database(), broker.url) as running:
        yield running


@pytest.fixture
def upload_folder(tmp_path: Path) -> Path:
    (tmp_path / "upload" / "deep").mkdir(parents=True)
    (tmp_path / "upload" / "deep" / "a.txt").write_bytes(b"from a client")
    return tmp_path / "upload"


def test_the_uploader_library_uploads_to_the_original(
    core: PacificaCore, original: OriginalIngest, upload_folder: Path
) -> None:
    upload = upload_with_uploader(upload_folder, original.server.url, ALLOWED, key_values={"Tag": "Blah"})
    assert (upload.state["state"], upload.state["task"]) == ("OK", "ingest metadata"), upload
    assert core.key_values(upload.job_id) == {"Tag": "Blah"}
    (file,) = core.files(upload.job_id)
    assert core.archived(file["_id"]) == b"from a client"


def test_the_uploader_library_asks_policy_when_told_to(
    core: PacificaCore, original: OriginalIngest, upload_folder: Path
) -> None:
    upload = upload_with_uploader(
        upload_folder, original.server.url, ALLOWED, policy_uploader_url=core.policy_uploader_url
    )
    found = core.transaction(upload.job_id)
    assert found is not None
    assert (found["submitter"], found["project"]) == (ALLOWED.submitter, ALLOWED.project)


def test_the_command_line_client_uploads_to_the_original(
    core: PacificaCore, original: OriginalIngest, upload_folder: Path
) -> None:
    upload = upload_with_cli(
        upload_folder, original.server.url, core.policy.url, ALLOWED_TOO, key_values={"Tag": "Blah"}
    )
    assert core.key_values(upload.job_id) == {"Tag": "Blah"}
    (file,) = core.files(upload.job_id)
    assert core.archived(file["_id"]) == b"from a client"


def test_a_refused_upload_shows_the_state_that_the_client_saw(original: OriginalIngest, upload_folder: Path) -> None:
    upload = upload_with_uploader(upload_folder, original.server.url, REFUSED)
    assert (upload.state["state"], upload.state["task"]) == ("FAILED", "Policy Validation")


# Environments


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a small project of our name."""
    root = tmp_path / "project"
    package = root / "src" / "pacifica" / "ingest"
    package.mkdir(parents=True)
    (root / "pyproject.toml").write_text(
        textwrap.dedent("""
            [build-system]
            requires = ["hatchling>=1.27"]
            build-backend = "hatchling.build"
            [project]
            name = "pacifica-ingest"
            version = "1.0.0"
            requires-python = ">=3.11"
            dependencies = ["six", "peewee>=1000; python_version < '3'"]
            optional-dependencies = { more = ["pager"] }
            scripts = { say = "pacifica.ingest:say" }
            [tool.hatch.build.targets.wheel]
            packages = ["src/pacifica"]
        """),
        encoding="utf-8",
    )
    write_package(root, "one")
    return root


def write_package(root: Path, word: str) -> None:
    """Write the project's one module."""
    module = root / "src" / "pacifica" / "ingest" / "__init__.py"
    module.write_text(f"def say():\n    print({word!r})\n", encoding="utf-8")


def say(found: Environment) -> str:
    """Run the project's command."""
    return run([found.bin("say")]).strip()


def has(found: Environment, *modules: str) -> bool:
    """Tell whether all these modules can be imported there."""
    try:
        run([found.python, "-I", "-c", f"import {', '.join(modules)}"])
    except HarnessError:
        return False
    return True


def test_an_environment_is_built_once_by_test_runs_side_by_side(tmp_path: Path) -> None:
    script = "from tests.harness import environment; print(environment('none').python)"
    env = base_environment(tmp_path) | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with contextlib.ExitStack() as runs:
        processes = [
            runs.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
            for _ in range(3)
        ]
        ends = [process.communicate(timeout=BUILD_S) for process in processes]
    assert len({out for out, _ in ends}) == 1
    assert sorted(err.count("building") for _, err in ends) == [0, 0, 1]
    assert Path(ends[0][0].strip()).is_relative_to(tmp_path / "cache" / "pacifica-ingest-tests")


def test_an_interrupted_build_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = environment("none")
    broken.python.unlink()
    (broken.folder / ".complete").unlink()
    assert environment("none").python.exists()


def test_a_missing_python_for_the_neighbours_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a version manager leaves on PATH for a Python that is not switched on.
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\nexit 127\n", encoding="ascii")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(venvs, "_CORE_PYTHON", "3.99")
    with pytest.raises(HarnessError, match=r"Python 3\.99 only.*install"):
        core_env()


def test_the_original_lives_in_a_copy_of_the_neighbours_environment() -> None:
    assert has(original_env(), "pacifica.ingest.rest", "pacifica.metadata")
    assert has(core_env(), "pacifica.metadata")
    assert not has(core_env(), "pacifica.ingest")


def test_the_project_is_installed_with_its_command_and_requirements(project: Path) -> None:
    found = project_env(project)
    assert say(found) == "one"
    assert has(found, "six")
    assert not has(found, "pager")
    assert has(project_env(project, "more"), "six", "pager")


def test_a_changed_source_makes_another_environment(project: Path) -> None:
    before = project_env(project)
    write_package(project, "two")
    assert say(project_env(project)) == "two"
    assert say(before) == "one"


def test_uwsgi_runs_beside_the_project(project: Path) -> None:
    found = uwsgi_env(project)
    assert say(found) == "one"
    assert run([found.bin("uwsgi"), "--version"]).startswith("2.")


def test_the_project_shares_its_namespace_with_the_neighbours(project: Path) -> None:
    found = beside_env(project)
    assert say(found) == "one"
    assert has(found, "pacifica.ingest", "pacifica.metadata", "pacifica.uniqueid")
