"""A running facility as tests see it: send bodies, ask for states, run admin commands."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.harness import run
from tests.harness.ingest import IngestCalls
from tests.harness.waiting import END_S


@dataclass(frozen=True, kw_only=True)
class Facility(IngestCalls):
    """A running service.

    Attributes:
        url: of the server.
        folder: holds the landing zone `staging` and the sources of moves, `incoming`.
        env: environment of its commands.
    """

    url: str
    folder: Path
    env: Mapping[str, str]

    def command(self, *arguments: str) -> str:
        """Run the admin command, which must succeed."""
        code = "import sys; from pacifica.ingest.__main__ import cmd; sys.exit(cmd(sys.argv[1:]))"
        return run([sys.executable, "-c", code, *arguments], env=dict(self.env), wait_s=END_S)

    def staged(self, job_id: int) -> list[Path]:
        """Whatever lies in the landing zone for a job."""
        return sorted((self.folder / "staging").glob(f"{job_id}.*"))
