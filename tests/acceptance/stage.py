"""What the tests of the installed commands share: bundles, the admin command, a standalone service."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pacifica.ingest.testing import BundleBuilder
from tests.harness import HttpServer
from tests.harness.command import base_environment
from tests.harness.ingest import IngestCalls
from tests.harness.process import Program
from tests.harness.waiting import END_S, until

ROOT = Path(__file__).parents[2]
#: Runs one of the two entries of the package, installed or not.
ENTRY = "import sys; from pacifica.ingest.__main__ import {0}; sys.exit({0}(sys.argv[1:]))"


def bundle(files: Mapping[str, bytes]) -> bytes:
    """A bundle as clients send it."""
    builder = BundleBuilder()
    for path, content in files.items():
        builder.add(path, content)
    return builder.build()


def few() -> dict[str, bytes]:
    """Files of different kinds: empty, in folders, of a name that is not ASCII."""
    return {"a.txt": b"alpha", "empty": b"", "sub/deep/b.bin": bytes(range(256)) * 500, "sub/größe 1.txt": b"umlaut"}


def many(count: int = 3000) -> dict[str, bytes]:
    """Enough files that ingesting them takes seconds, so that something can go wrong meanwhile."""
    return {f"run{number % 7}/{number:05}.dat": b"%d" % number * 50 for number in range(count)}


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a command: ours is found whether it is installed or not."""
    return base_environment(home) | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "160"} | more


def admin(*arguments: str | Path) -> list[str]:
    """The command line of the admin command."""
    return [sys.executable, "-c", ENTRY.format("cmd"), *map(str, arguments)]


def command(*arguments: str | Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the admin command to its end, whatever that is."""
    return subprocess.run(
        admin(*arguments), env=env, capture_output=True, text=True, timeout=END_S, stdin=subprocess.DEVNULL, check=False
    )


def background(name: str, folder: Path, line: Sequence[str], env: Mapping[str, str], says: str = "") -> Program:
    """A command that runs meanwhile; a context manager, entered when it said so."""
    return Program(name, line, folder, env=env, says=says)


def exit_code(program: Program) -> int:
    """Wait for a program to end by itself."""
    until(lambda: not program.running, f"{program.name} to end")
    assert program._process is not None
    code: int = program._process.returncode
    return code


class Standalone(HttpServer, IngestCalls):
    """`pacifica-ingest --standalone` in a folder."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.home = folder / "service"
        command = [
            sys.executable,
            "-m",
            "pacifica.ingest",
            "--standalone",
            self.home,
            "-a",
            "127.0.0.1",
            "-p",
            "{port}",
        ]
        super().__init__("standalone", command, folder, env=environment(folder, **env))
