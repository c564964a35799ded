"""Registration of a transaction with the catalogue, exactly once.

A step of `pipeline`.

Source: the job protocol in `docs/architecture.md`: the map file → id is frozen before the catalogue is asked, and an
unclear answer is settled by looking the transaction up.
"""

from collections.abc import Mapping

from pacifica.ingest.core.errors import Conflict, Unavailable
from pacifica.ingest.core.metadata import Document
from pacifica.ingest.ports import Catalogue, JobStore, RegisteredFile
from pacifica.ingest.work import Work

__all__ = ["register"]

#: How long, in seconds, the catalogue may be silent, and how much longer for each file (measured: 2.4 ms).
SILENCE_S = 120.0
SILENCE_PER_FILE_S = 0.05


def register(document: Document, work: Work, *, store: JobStore, catalogue: Catalogue) -> None:
    """Register a job whose files are all archived.

    Raises:
        Conflict: the catalogue has something else under our ids; not retryable.
        Unavailable: no clear answer; retryable.
        Refused: the catalogue refuses the document; not retryable.

    """
    file_ids = store.file_ids(work.job_id)
    expected = _expected(document, file_ids)
    with work.patience(SILENCE_S + SILENCE_PER_FILE_S * len(expected)):
        if work.job.frozen and _is_registered(work.job_id, expected, catalogue):
            return
        store.freeze(work.claim, len(expected))
        try:
            catalogue.register(work.job_id, document.registration(work.job_id, file_ids))
        except (Conflict, Unavailable):
            if not _is_registered(work.job_id, expected, catalogue):
                raise


def _expected(document: Document, file_ids: Mapping[int, int]) -> list[RegisteredFile]:
    files = [
        RegisteredFile(
            file_id=file_ids[file.seq], path=file.path, size_bytes=file.size_bytes or 0, digest=str(file.digest)
        )
        for file in document.files
    ]
    return sorted(files, key=lambda file: file.file_id)


def _is_registered(job_id: int, expected: list[RegisteredFile], catalogue: Catalogue) -> bool:
    """Whether the catalogue has exactly this transaction; False when it has none of that number."""
    found = catalogue.lookup(job_id)
    if found is None:
        return False
    if found != expected:
        differing = {file.file_id for file in set(found) ^ set(expected)}
        shown = ", ".join(str(file_id) for file_id in sorted(differing)[:10])
        msg = (
            f"Transaction {job_id} is registered with other files ({len(found)} there, {len(expected)} here; "
            f"ids that differ: {shown}). Bundle and archived files are kept; an operator has to look at it."
        )
        raise Conflict(msg)
    return True
