"""`demo`: a whole life of a bundle on this machine, from an empty folder to compared bytes.

Runs the real server as a process of its own and speaks HTTP to it; then it reads catalogue and archive as an operator
would.  Leaves nothing running and nothing behind, unless it is told to keep the folder.
"""

import http.client
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

import pacifica.ingest
from pacifica.ingest import app
from pacifica.ingest.cli import screen
from pacifica.ingest.cli.exits import EPILOG, Exit
from pacifica.ingest.cli.subject import running_server
from pacifica.ingest.cli.text import rate, size
from pacifica.ingest.config import standalone_settings
from pacifica.ingest.core.errors import NeighbourDown
from pacifica.ingest.core.wire import Body
from pacifica.ingest.packing import files_below, pack
from pacifica.ingest.ports import RegisteredFile

__all__ = ["demo"]

#: How long, in seconds, the server may be silent.
ANSWER_S = 120.0
#: Rows of the table of files.
ROWS = 20
#: Characters of a digest that are shown there.
DIGEST = 14
#: Bytes compared at a time.
PIECE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What happened, for the summary.

    Attributes:
        job_id: of the bundle.
        sources: path in the bundle → file that it was made from.
        files: what the catalogue has.
        sent_s: seconds that packing and sending took.
        ingested_s: seconds from the answer to the end of the job.

    """

    job_id: int
    sources: Mapping[str, Path]
    files: list[RegisteredFile]
    sent_s: float
    ingested_s: float


@click.command(epilog=EPILOG)
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Use this folder for the service, and leave it there.",
)
def demo(folder: Path | None, keep: Path | None) -> int:
    """Show a whole ingest of FOLDER on this machine: upload, archive, catalogue, comparison.

    Starts a standalone service of its own in a temporary folder, and removes both at the end.  Without FOLDER, the files of
    this package are taken.  Exit code 0 only when every archived file equals its source.
    """
    sources = _sources(folder)
    if not sources:
        msg = f"{folder} has no files to send."
        raise click.BadParameter(msg, param_hint="FOLDER")
    with ExitStack() as stack:
        home = keep or Path(stack.enter_context(_scratch()))
        url = stack.enter_context(running_server(home))
        screen.say(f"A service runs at {url}, in {home}.")
        screen.say(f"{len(sources)} files of {folder or 'this package'} are packed and sent.")
        run = _run(sources, url, home)
        return _report(run, home) if run else Exit.NO


def _scratch() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="pacifica-demo-", ignore_cleanup_errors=True)


def _run(sources: Mapping[str, Path], url: str, home: Path) -> Run | None:
    """Send files and follow their job; None when that failed, which is told."""
    began = time.monotonic()
    job_id = int(_send(sources, url)["job_id"])
    sent = time.monotonic()
    ended = screen.follow(lambda: _state(url, job_id))
    ingested = time.monotonic()
    if ended.state != "OK":
        screen.say(f"job {job_id} failed at {ended.step}: {ended.reason}", style="red")
        return None
    return Run(
        job_id=job_id,
        sources=sources,
        files=app.compose(standalone_settings(home)).neighbours.catalogue.lookup(job_id) or [],
        sent_s=sent - began,
        ingested_s=ingested - sent,
    )


def _sources(folder: Path | None) -> Mapping[str, Path]:
    """What is packed; of this package, what does not change while it runs."""
    if folder is not None:
        return files_below(folder)
    package = Path(pacifica.ingest.__file__).parent
    return {path: file for path, file in files_below(package).items() if "__pycache__" not in path}


def _send(sources: Mapping[str, Path], url: str) -> Body:
    """Upload a bundle while it is made; returns the answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_S)
    try:
        connection.putrequest("POST", "/upload")
        connection.putheader("Content-Type", "application/octet-stream")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        with _transfer("upload", sum(file.stat().st_size for file in sources.values())) as advance:
            body = _Chunked(connection, advance)
            pack(sources, cast("BinaryIO", body), submitter="1", project="demo", instrument="1")
            body.end()
        return _answer(connection)
    finally:
        connection.close()


class _Chunked:
    """A request body that is written, as chunks of HTTP."""

    def __init__(self, connection: http.client.HTTPConnection, advance: Callable[[int], None]) -> None:
        self._connection = connection
        self._advance = advance

    def write(self, data: bytes) -> int:
        if data:
            self._connection.send(b"%x\r\n" % len(data))
            self._connection.send(data)
            self._connection.send(b"\r\n")
            self._advance(len(data))
        return len(data)

    def end(self) -> None:
        self._connection.send(b"0\r\n\r\n")


def _state(url: str, job_id: int) -> screen.JobView:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_S)
    try:
        connection.request("GET", f"/get_state?job_id={job_id}")
        return screen.view(_answer(connection))
    finally:
        connection.close()


def _answer(connection: http.client.HTTPConnection) -> Body:
    answer = connection.getresponse()
    body: Body = json.loads(answer.read())
    if answer.status != http.client.OK:
        raise NeighbourDown("server", str(body.get("message")))
    return body


@contextmanager
def _transfer(name: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    out = screen.console()
    with Progress(*columns, console=out, disable=not out.is_terminal) as progress:
        bar = progress.add_task(name, total=total)
        yield lambda count: progress.advance(bar, count)


def _report(run: Run, home: Path) -> int:
    """Compare everything, and tell."""
    archive = app.compose(standalone_settings(home)).neighbours.archive
    places = {file.path: Path(archive.location(file.file_id)) for file in run.files}
    total = sum(file.size_bytes for file in run.files)
    with _transfer("compare", total) as advance:
        good = [path for path in run.sources if path in places and _equal(run.sources[path], places[path], advance)]
    screen.say("")
    screen.show_table(("file", "size", "digest", f"lies now in {home}"), _rows(run, places, home), right=("size",))
    if len(run.files) > ROWS:
        screen.say(f"… and {len(run.files) - ROWS} more")
    screen.say("")
    screen.show_table((), list(_summary(run, total)))
    whole = len(good) == len(run.sources) == len(places)
    screen.say("")
    verdict = f"{len(good)} of {len(run.sources)} files are byte for byte as they were sent."
    screen.say(verdict, style="bold green" if whole else "bold red")
    return Exit.OK if whole else Exit.NO


def _rows(run: Run, places: Mapping[str, Path], home: Path) -> Iterator[tuple[str, str, str, Path]]:
    for file in run.files[:ROWS]:
        kept = places[file.path].relative_to(home.absolute())
        yield file.path, size(file.size_bytes), f"{file.digest[:DIGEST]}…", kept


def _summary(run: Run, total: int) -> Iterator[tuple[str, str]]:
    yield "job", f"{run.job_id}, done"
    yield "upload", f"{run.sent_s:.1f} s ({rate(total, run.sent_s)}): read, digested, packed, sent, accepted"
    yield "ingest", f"{run.ingested_s:.1f} s ({rate(total, run.ingested_s)}): checked, archived, read back, registered"
    yield "catalogue", f"transaction {run.job_id} with {len(run.files)} files, {size(total)}"


def _equal(source: Path, kept: Path, advance: Callable[[int], None]) -> bool:
    """Whether two files hold the same bytes."""
    with source.open("rb") as one, kept.open("rb") as other:
        while True:
            ours, theirs = one.read(PIECE), other.read(PIECE)
            if ours != theirs:
                return False
            if not ours:
                return True
            advance(len(ours))
