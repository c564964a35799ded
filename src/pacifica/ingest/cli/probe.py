"""Finds out whether an archive stands several connections at once; part of `doctor`.

The POSIX backend of the Archive Interface shares one open file between its threads: it stores wrong bytes, and answers
201.  So many small objects are stored at once and read back, each under a number of its own.
"""

import hashlib
import secrets
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pacifica.ingest import app
from pacifica.ingest.config import Settings
from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import ArchiveMismatch, IngestError, NeighbourDown
from pacifica.ingest.ports import Archive, IdMode, Parcel

__all__ = ["probe_archive"]

#: Objects stored for each connection; with fewer, an unsafe archive may look safe.
ROUNDS = 16
#: Their sizes, in bytes, in turn.
SIZES = (1, 4_096, 100_000, 1_000_000)


def probe_archive(settings: Settings, connections: int) -> str:
    """Store and read back from `connections` threads.

    Returns:
        what was found, with the ids of the objects that stay in the archive.

    Raises:
        ArchiveMismatch, NeighbourDown: it is not safe, or the archive is away.

    """
    section = settings.archiveinterface.model_copy(update={"connections": connections})
    neighbours = app.compose(settings.model_copy(update={"archiveinterface": section})).neighbours
    ids = neighbours.ids.reserve(IdMode.FILE, connections * ROUNDS)
    if neighbours.archive.size(ids.start) is not None:
        reason = f"it gave the number {ids.start}, which the archive has already"
        raise NeighbourDown("uniqueid", reason)
    with tempfile.TemporaryDirectory(prefix="pacifica-doctor-") as folder:
        parcels = [_parcel(file_id, Path(folder)) for file_id in ids]
        with ThreadPoolExecutor(connections) as threads:
            faults = [fault for fault in threads.map(partial(_round_trip, neighbours.archive), parcels) if fault]
    left = f"test files {ids.start} to {ids.stop - 1} stay in the archive"
    if faults:
        raise _worst(faults, parcels, left)
    return f"{len(parcels)} files came back whole; {left}"


def _parcel(file_id: int, folder: Path) -> Parcel:
    content = secrets.token_bytes(SIZES[file_id % len(SIZES)])
    holder = folder / str(file_id)
    holder.write_bytes(content)
    digest = Digest(algorithm="sha256", value=hashlib.sha256(content).hexdigest())
    return Parcel(file_id=file_id, path=holder.name, holder=holder, offset=0, size_bytes=len(content), digest=digest)


def _round_trip(archive: Archive, parcel: Parcel) -> IngestError | None:
    """The fault, if there is one."""
    try:
        archive.store(parcel, _unheard)
        archive.flush()
        found, size_bytes = archive.digest(
            parcel.file_id, parcel.digest.algorithm, _unheard, most_bytes=parcel.size_bytes
        )
    except IngestError as fault:
        return fault
    if (found, size_bytes) == (parcel.digest.value, parcel.size_bytes):
        return None
    return ArchiveMismatch(parcel.file_id, parcel.path, "other bytes than were sent")


def _worst(faults: Sequence[IngestError], parcels: Sequence[Parcel], left: str) -> IngestError:
    wrong = [fault for fault in faults if isinstance(fault, ArchiveMismatch)]
    reason = (
        f"{len(faults)} of {len(parcels)} files failed, {len(wrong)} of them with wrong bytes after a good answer; "
        f"the first: {(wrong or faults)[0]}; {left}"
    )
    return NeighbourDown("archive", reason)


def _unheard(size_bytes: int) -> None:
    """Nobody waits for progress."""
