"""Neighbours that give nobody anything alone: numbers that others have got already, an archive that is partly in use.

What it is: `Numbers`, a UniqueID service in this process that gives a part of its ranges twice; `occupy`, which puts objects
of somebody else into an archive folder.

Who may call it: the fault rounds.
"""

import json
import random
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.harness import free_port
from tests.harness.ports import LOOPBACK

__all__ = ["Numbers", "occupy"]

#: What somebody else archived; an object of ours is never that.
THEIRS = b"somebody else's"


class Numbers:
    """Gives number ranges over HTTP; a context manager.

    Attributes:
        url: where it listens.
        doubled: series → how many ranges were given to a second caller.
    """

    def __init__(self, seed: int, share: float) -> None:
        """Give `share` of the ranges twice in a row."""
        self.doubled: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._share = share
        self._next = Counter[str]()
        self._last = Counter[str]()
        self._lock = threading.Lock()
        numbers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = parse_qs(urlsplit(self.path).query)
                start, end = numbers.take(asked["mode"][0], int(asked["range"][0]))
                body = json.dumps({"startIndex": start, "endIndex": end}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (overrides)
                """Say nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, free_port()), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"

    def take(self, mode: str, count: int) -> tuple[int, int]:
        """The first and the last number of a range."""
        with self._lock:
            start = self._next[mode] + 1
            if start > 1 and self._chance.random() < self._share:
                # The last range again: whoever has it is still busy with it.
                start = self._last[mode]
                self.doubled[mode] += 1
            self._last[mode] = start
            self._next[mode] = max(self._next[mode], start + count - 1)
            return start, start + count - 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def occupy(archive: Path, file_ids: range) -> list[Path]:
    """Put objects of somebody else where ours would be; ids below 1000 lie in one folder."""
    folder = archive / "000/000/000"
    folder.mkdir(parents=True, exist_ok=True)
    places = [folder / str(file_id) for file_id in file_ids]
    for place in places:
        place.write_bytes(THEIRS)
    return places
