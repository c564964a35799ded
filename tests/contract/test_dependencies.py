"""Which releases are installed: the floors, the lock, and what is said when the database of vulnerabilities is silent."""

import json
import runpy
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = PROJECT["optional-dependencies"].values()
DIRECT = [Requirement(line) for line in [*PROJECT["dependencies"], *(line for extra in OPTIONAL for line in extra)]]
LINES = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
LOCKED = [
    (Requirement(line.removesuffix(" \\")), following)
    for line, following in pairwise(LINES)
    if "==" in line and not line.startswith((" ", "#"))
]
#: The last release that a vulnerability is known of; see the comments in pyproject.toml.
VULNERABLE = {
    "celery": "5.5.3",
    "click": "8.3.2",
    "pydantic": "2.3.0",
    "pymysql": "1.1.2",
    "redis": "4.5.3",
    "urllib3": "2.6.3",
}


@pytest.mark.parametrize("wanted", DIRECT, ids=str)
def test_each_direct_dependency_is_locked_at_a_release_that_the_floor_lets_in(wanted: Requirement) -> None:
    (found,) = (locked for locked, _ in LOCKED if locked.name == wanted.name)
    (version,) = found.specifier
    assert wanted.specifier.contains(version.version)


def test_every_locked_release_has_a_digest() -> None:
    assert len(LOCKED) > len(DIRECT)
    assert not [locked.name for locked, following in LOCKED if "--hash=sha256:" not in following]


@pytest.mark.parametrize("package", VULNERABLE)
def test_the_floors_exclude_releases_with_known_vulnerabilities(package: str) -> None:
    (wanted,) = (one for one in DIRECT if one.name == package and not one.extras)
    assert not wanted.specifier.contains(VULNERABLE[package])


FLAW = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2"]}
ASKED = {"name": "a", "version": "1", "vulns": []}
UNASKED = {"name": "b", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([ASKED], 0, "Nothing is known against 1 packages"),
        ([ASKED, UNASKED], 3, "NOT AUDITED: 1 of 2 packages are not known where it asked: b"),
        ([], 3, "NOT AUDITED: 0 of 0"),
        ([ASKED | {"vulns": [FLAW]}, UNASKED], 1, "a 1: PYSEC-1, CVE-1; mended in 2"),
        (None, 3, "NOT AUDITED: the database of vulnerabilities cannot be reached"),
    ],
    ids=["clean", "one unknown", "none", "a finding", "no report"],
)
def test_an_audit_that_could_not_ask_is_not_taken_for_a_good_one(packages: Any, code: int, words: str) -> None:
    report = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    found, lines = runpy.run_path(str(ROOT / "tools/audit.py"))["judge"](report)
    assert found == code
    assert words in lines[0]
