"""The examples of the documentation run as they stand, against a standalone service."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stage import ROOT, Standalone, bundle, few

PAGE = (ROOT / "docs" / "exampleusage.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with Standalone(tmp_path_factory.mktemp("examples")) as running:
        yield running


def _example(language: str, service: Standalone) -> str:
    """The first example in a language, for a service on another port."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert "http://127.0.0.1:8066" in found[1]
    return found[1].replace("http://127.0.0.1:8066", service.url)


def test_the_shell_example_uploads_a_bundle(service: Standalone, tmp_path: Path) -> None:
    script = _example("sh", service)
    said = subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    job = re.search(r'"job_id": (\d+)', said)
    assert job is not None, said
    assert service.end(int(job[1]))["state"] == "OK"


def test_a_bundle_is_sent_while_it_is_made(service: Standalone, tmp_path: Path) -> None:
    subprocess.run(["sh", "-e", "-c", _example("sh", service)], cwd=tmp_path, capture_output=True, check=True)
    line = re.search(r"`(tar -cf - .*?)`", PAGE)
    assert line is not None
    script = line[1].replace("http://127.0.0.1:8066", service.url)
    said = subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    job = re.search(r'"job_id": (\d+)', said)
    assert job is not None, said
    assert service.end(int(job[1]))["state"] == "OK"


def test_the_python_example_uploads_a_bundle(service: Standalone, tmp_path: Path) -> None:
    (tmp_path / "bundle.tar").write_bytes(bundle(few()))
    command = [sys.executable, "-c", _example("python", service)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "OK"
