"""A configured service for the admin command, as an operator meets it: processes, exit codes, and what is printed."""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.stage import (
    command,
    environment,
)
from tests.harness import free_port

__all__ = ["RULES", "Place", "age", "configure"]

RULES = '[[allow]]\nsubmitter = "*"\nproject = "*"\ninstrument = "*"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A configured service without other services, and nobody that works on its jobs.

    Attributes:
        folder: holds everything; `staging` is the landing zone.
        config: the configuration file.
        env: of commands.
    """

    folder: Path
    config: Path
    env: Mapping[str, str]

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return command("-c", self.config, *arguments, env=self.env)

    def stage(self, name: str, content: bytes) -> Path:
        """Put a file into the landing zone, as version 0.4.1 did."""
        path = self.folder / "staging" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path


def configure(folder: Path, neighbours: Mapping[str, str] | None = None, database: str | None = None) -> Place:
    """Write a configuration; `neighbours` are URLs by the name of their section, local ones when they are not given."""
    folder.mkdir(exist_ok=True)
    rules = folder / "policy.toml"
    rules.write_text(RULES, encoding="utf-8")
    sections = {
        "ingest": {"volume_path": str(folder / "staging"), "lease": "2"},
        "uniqueid": {"url": "local:"},
        "policy": {"ingest_url": f"local:{rules}"},
        "archiveinterface": {"url": (folder / "archive").as_uri()},
        "metadata": {"ingest_url": "local:"},
        "database": {"peewee_url": database or f"sqliteext:///{folder / 'db.sqlite3'}"},
        "celery": {"broker_url": f"pyamqp://127.0.0.1:{free_port()}"},
    }
    for name, url in (neighbours or {}).items():
        sections[name] = dict.fromkeys(sections[name], url)
    config = folder / "config.ini"
    lines = [
        f"[{name}]\n" + "\n".join(f"{key} = {value}" for key, value in keys.items()) for name, keys in sections.items()
    ]
    config.write_text("\n".join(lines), encoding="utf-8")
    return Place(folder=folder, config=config, env=environment(folder))


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))
