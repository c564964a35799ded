"""A service whose database has its tables."""

from pathlib import Path

import pytest

from tests.acceptance.commands.place import Place, configure


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = configure(tmp_path / "place")
    assert made.run("dbsync").returncode == 0
    return made
