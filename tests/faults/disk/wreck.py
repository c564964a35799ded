"""What lies on the disk of a standalone service after a power cut, judged before anything is started on it.

What it is: `faults`, quick enough to be asked about hundreds of moments: what was accepted is there, and every staged file is
named by some job, so that it will be removed.  What recovery then makes of such a disk is for
`tests.faults.oracle`, which takes seconds.

Who may call it: the fault rounds.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from pacifica.ingest.staging import MARKER
from tests.faults.disk.powercut import Disk
from tests.faults.oracle import Sent

__all__ = ["faults"]

DATABASE = "ingest.sqlite3"
#: The database and its two kinds of log; what else SQLite keeps beside them is for live processes only.
PARTS = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-journal")

Tree = Mapping[str, bytearray | None]


def faults(disk: Disk, accepted: Sequence[Sent], scratch: Path) -> list[str]:
    """All that is wrong.

    Args:
        disk: of the folder of the service.
        accepted: the uploads that were answered 200 before the cut.
        scratch: an empty folder, and empty again afterwards.
    """
    tree = disk.tree()
    try:
        for part in PARTS:
            content = tree.get(part)
            if content is not None:
                (scratch / part).write_bytes(content)
        with closing(sqlite3.connect(scratch / DATABASE)) as database:
            return list(_faults(database, tree, accepted))
    except sqlite3.DatabaseError as fault:
        return [f"the database cannot be read: {fault}"]
    finally:
        for path in scratch.iterdir():
            path.unlink()


def _faults(database: sqlite3.Connection, tree: Tree, accepted: Sequence[Sent]) -> Iterator[str]:
    (whole,) = database.execute("PRAGMA integrity_check").fetchone()
    if whole != "ok":
        yield f"the database is damaged: {whole}"
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    if "ingest_catalogue_file" not in tables:
        yield from (f"job {sent.job_id} was accepted, and there are no tables" for sent in accepted)
        return
    jobs = {row[0]: row[1:] for row in database.execute("SELECT job_id, phase, path, kind FROM ingest_job")}
    for sent in accepted:
        yield from _accepted(sent, jobs, tree)
    yield from _staged(jobs, tree)
    yield from _done(database, {job_id for job_id, (phase, *_) in jobs.items() if phase == "done"}, tree)


def _accepted(sent: Sent, jobs: Mapping[int, tuple[str, str, str]], tree: Tree) -> Iterator[str]:
    if sent.job_id is None or sent.job_id not in jobs:
        yield f"job {sent.job_id} was accepted, and the database does not know it"
        return
    phase, path, kind = jobs[sent.job_id]
    if phase in {"ready", "running"}:
        staged = _digest(tree.get(f"staging/{Path(path).name}"))
        if staged != sent.body:
            yield f"job {sent.job_id} is {phase}, and its bundle is {staged} instead of {sent.body}"
        if kind == "move":
            yield from _sources(sent, tree)
    elif phase != "done":
        yield f"job {sent.job_id} was accepted and is {phase}"


def _staged(jobs: Mapping[int, tuple[str, str, str]], tree: Tree) -> Iterator[str]:
    """An upload names its file by its number, later its path does; what neither names lies there for ever."""
    named = {Path(path).name for _, path, _ in jobs.values()}
    arriving = {str(job_id) for job_id, (phase, *_) in jobs.items() if phase == "receiving"}
    for name in [path.removeprefix("staging/") for path in tree if path.startswith("staging/")]:
        if not name.startswith(MARKER) and name not in named and name.partition(".")[0] not in arriving:
            yield f"{name} lies in the landing zone, and no job has it"


def _sources(sent: Sent, tree: Tree) -> Iterator[str]:
    """A file that is moved must be on one side at least, whole."""
    places = {_digest(tree[path]) for path in tree if path.startswith(("archive/", "incoming/"))}
    for path, digest in sent.files.items():
        if digest not in places:
            yield f"{path} of job {sent.job_id} is neither where it was nor in the archive"


def _done(database: sqlite3.Connection, done: set[int], tree: Tree) -> Iterator[str]:
    """What counts as archived must be there, and what is done registered."""
    objects = {path.rpartition("/")[2]: content for path, content in tree.items() if path.startswith("archive/")}
    registered = {job_id for (job_id,) in database.execute("SELECT job_id FROM ingest_catalogue_transaction")}
    yield from (f"job {job_id} is done, and not registered" for job_id in done - registered)
    for file_id, job_id, digest in database.execute("SELECT file_id, job_id, hashsum FROM ingest_catalogue_file"):
        found = _digest(objects.get(str(file_id)))
        if found != f"sha256:{digest}":
            yield f"archive id {file_id} of job {job_id} is registered as {digest}, and the archive has {found}"
    for file_id, job_id in database.execute("SELECT file_id, job_id FROM ingest_archive_id WHERE state = 'archived'"):
        if objects.get(str(file_id)) is None:
            yield f"archive id {file_id} of job {job_id} counts as archived, and the archive does not have it"


def _digest(content: bytearray | None) -> str:
    return "missing" if content is None else f"sha256:{hashlib.sha256(content).hexdigest()}"
