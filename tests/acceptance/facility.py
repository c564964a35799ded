"""A server whose database, broker and neighbours are elsewhere, or nowhere."""

import configparser
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.acceptance.stage import command, environment
from tests.harness import HttpServer, free_port
from tests.harness.ports import LOOPBACK


class Facility(HttpServer):
    """Numbers, catalogue and archive are local, the broker is away; `sections` says what is different."""

    LINE = (sys.executable, "-m", "pacifica.ingest", "-a", LOOPBACK, "-p", "{port}")

    def __init__(
        self,
        folder: Path,
        sections: dict[str, dict[str, Any]] | None = None,
        line: Sequence[str | Path] = LINE,
        *,
        schema: bool = True,
    ) -> None:
        self.staging = folder / "staging"
        ini = configparser.ConfigParser(interpolation=None)
        ini.read_dict(
            {
                "ingest": {"volume_path": self.staging},
                "uniqueid": {"url": "local:"},
                "policy": {"ingest_url": "local:"},
                "metadata": {"ingest_url": "local:"},
                "archiveinterface": {"url": (folder / "archive").as_uri()},
                "database": {"peewee_url": f"sqlite:///{folder / 'db.sqlite3'}", "connect_attempts": 1},
                "celery": {"broker_url": f"redis://{LOOPBACK}:{free_port()}/0"},
            }
        )
        ini.read_dict(sections or {})
        with (folder / "config.ini").open("w") as file:
            ini.write(file)
        self.settings = {"INGEST_CONFIG": str(folder / "config.ini")}
        if schema:
            assert command("dbsync", env=environment(folder, **self.settings)).returncode == 0
        super().__init__("facility", line, folder, env=environment(folder, **self.settings))
