"""`doctor`: whether everything that the service needs is there, and what to do if not."""

import http.client
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.text import Text

from pacifica.ingest import app
from pacifica.ingest import globals as places
from pacifica.ingest.cli import remedies, screen
from pacifica.ingest.cli.exits import EPILOG, FAULTS, Exit
from pacifica.ingest.cli.probe import probe_archive
from pacifica.ingest.cli.target import Target
from pacifica.ingest.cli.text import size
from pacifica.ingest.config import Settings
from pacifica.ingest.core.errors import NeighbourDown, NoSpace, PolicyRefused, Unavailable, UnsafeSchema
from pacifica.ingest.core.text import masked
from pacifica.ingest.local.archive import FolderArchive
from pacifica.ingest.orm import IngestState, IngestStateSystem, ensure_there
from pacifica.ingest.queue import celery_app

__all__ = ["doctor"]

#: How long, in seconds, a neighbour may take to answer.
ANSWER_S = 10.0
#: How long, in seconds, workers may take to answer.
PING_S = 2.0
#: From here on an HTTP status tells of trouble in the service itself.
TROUBLE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        what: that was looked at.
        ok: whether it is as it should be.
        found: what was seen.
        advice: what to do; shown when it is not ok.

    """

    what: str
    ok: bool
    found: str
    advice: str


@click.command(epilog=EPILOG)
@click.option(
    "--archive-connections",
    metavar="N",
    type=click.IntRange(1, 64),
    help="Also find out whether N connections to the archive at once are safe.  This WRITES small test files there, which "
    "stay.",
)
@click.pass_obj
def doctor(target: Target, archive_connections: int | None) -> int:
    """Check configuration, database, disk, neighbours and workers; exit code 0 when all is well, else 1."""
    settings = target.settings()
    findings = list(_examine(settings))
    if archive_connections:
        findings.append(
            _look(
                f"{archive_connections} archive connections",
                lambda: probe_archive(settings, archive_connections),
                "keep [archiveinterface] connections below that; 1 is safe with every archive",
            )
        )
    screen.show_table(("", "what", "found"), [(_mark(finding), finding.what, _told(finding)) for finding in findings])
    return Exit.OK if all(finding.ok for finding in findings) else Exit.NO


def _mark(finding: Finding) -> Text:
    return Text("OK", style="green") if finding.ok else Text("FAIL", style="bold red")


def _told(finding: Finding) -> str:
    line = finding.found.replace("\n", "; ")
    return line if finding.ok else f"{line.rstrip('.')}. To do: {finding.advice}."


def _look(what: str, check: Callable[[], str], remedy: remedies.Remedy | str) -> Finding:
    try:
        return Finding(what=what, ok=True, found=check(), advice="")
    except FAULTS as fault:
        advice = remedy if isinstance(remedy, str) else remedy(fault)
        return Finding(what=what, ok=False, found=str(fault) or type(fault).__name__, advice=advice)


def _examine(settings: Settings) -> Iterator[Finding]:
    yield _look("configuration", lambda: _configuration(settings), "")
    service = app.compose(settings)
    yield _look("database", _database, remedies.database(settings))
    schema = _look("schema", _schema, remedies.database(settings))
    yield schema
    if schema.ok:
        yield _look("writing", _takes_changes, remedies.database(settings, remedies.UNLOCK))
    landing = settings.ingest.volume_path
    room = remedies.landing_zone(settings)
    yield _look("landing zone", lambda: _writable(landing, settings.ingest.keep_free), room)
    numbers = settings.uniqueid.url
    yield _look("uniqueid", lambda: _neighbour("uniqueid", numbers), remedies.neighbour("uniqueid", "url"))
    yield _look("policy", lambda: _policy(service), remedies.policy(settings))
    yield _look("archive", lambda: _archive(service), remedies.archive(settings))
    catalogue = settings.metadata.ingest_url
    yield _look("metadata", lambda: _neighbour("metadata", catalogue), remedies.neighbour("metadata", "ingest_url"))
    if settings.standalone is None:
        yield _look("broker", _broker, "start it, or mend [celery] broker_url; uploads are accepted meanwhile")
        yield _look("workers", _workers, "start some: `celery -A pacifica.ingest.tasks worker`")


def _configuration(settings: Settings) -> str:
    file = Path(places.CONFIG_FILE)
    source = str(file) if file.is_file() else f"defaults and environment ({file} is not there)"
    return f"{source}, standalone in {settings.standalone}" if settings.standalone else source


def _database() -> str:
    ensure_there()
    IngestState.database_connect()
    IngestState.database_close()
    return "answers"


def _schema() -> str:
    ensure_there()
    found = "{}.{}".format(*IngestStateSystem.get_version())
    if not IngestStateSystem.is_safe():
        msg = f"version {found} is not safe to use"
        raise UnsafeSchema(msg)
    return f"version {found}"


def _takes_changes() -> str:
    """Change no row, as a writer: that needs the lock of SQLite, and a server that takes no changes refuses it."""
    IngestStateSystem.update(value=0).where(IngestStateSystem.part == "").execute()
    return "the database takes changes"


def _writable(folder: Path, keep_free_bytes: int = 0) -> str:
    """Write a file durably, and look at the space."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"doctor")
        file.flush()
        os.fsync(file.fileno())
    free = shutil.disk_usage(folder).free
    if free <= keep_free_bytes:
        msg = f"{folder} has {size(free)} left, and {size(keep_free_bytes)} are to be kept free"
        raise NoSpace(msg)
    return f"{folder} can be written, {size(free)} free"


def _neighbour(name: str, url: str) -> str:
    if url.startswith("local:"):
        return "local"
    # Behind a proxy the service may have a path of its own; the documented URLs end in that of the call.
    parts = urlsplit(url.removesuffix("/ingest"))
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=ANSWER_S)
    try:
        connection.request("GET", f"{parts.path}/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as fault:
        reason = f"GET {masked(url)}: {fault}"
        raise NeighbourDown(name, reason) from fault
    finally:
        connection.close()
    if status >= TROUBLE:
        reason = f"GET {masked(url)} answered {status}"
        raise NeighbourDown(name, reason)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or kind.default_port} answers"


def _policy(service: app.Service) -> str:
    url = service.settings.policy.ingest_url
    if url.startswith("local:"):
        # A rule file that cannot be read speaks up when it is asked anything.
        keys = ("submitter", "project", "instrument")
        asked: list[dict[str, object]] = [
            {"destinationTable": f"Transactions.{key}", "value": "doctor"} for key in keys
        ]
        with suppress(PolicyRefused):
            service.neighbours.policy.permit(asked, "doctor")
        rules = service.settings.rule_file
        return f"local, {rules}" if rules and rules.exists() else "local, without rules"
    return _neighbour("policy", url)


def _archive(service: app.Service) -> str:
    url = service.settings.archiveinterface.url
    archive = service.neighbours.archive
    if not isinstance(archive, FolderArchive):
        return _neighbour("archive", url)
    # The database knows the marker.
    ensure_there()
    # First: the folder of an archive that is not mounted must not be made.
    marker = archive.inspect()
    return f"{_writable(app.archive_folder(url))}, {marker or 'no marker yet'}"


def _broker() -> str:
    with celery_app.connection_for_write() as connection:
        try:
            connection.connect()
        except (ImportError, *connection.connection_errors, *connection.channel_errors) as fault:
            raise NeighbourDown("broker", str(fault)) from fault
        return f"{connection.as_uri()} answers"


def _workers() -> str:
    with celery_app.connection_for_write() as connection:
        try:
            connection.connect()
            found = celery_app.control.ping(timeout=PING_S, connection=connection)
        except (ImportError, *connection.connection_errors, *connection.channel_errors) as fault:
            raise NeighbourDown("broker", str(fault)) from fault
    if not found:
        msg = f"No worker answered within {PING_S:g} s."
        raise Unavailable(msg)
    return ", ".join(sorted(name for reply in found for name in reply))
