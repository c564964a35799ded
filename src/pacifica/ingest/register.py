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

__all__ = ["is_recorded", "register"]

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
    if len(file_ids) < len(document.files):
        # A fault of ours; what was frozen, or sent in part, could not be mended any more.
        msg = f"{len(document.files)} files, and ids for {len(file_ids)} of them"
        raise AssertionError(msg)
    with work.patience(SILENCE_S + SILENCE_PER_FILE_S * len(document.files)):
        if work.job.frozen and _is_registered(work.job_id, document, file_ids, catalogue):
            return
        store.freeze(work.claim, len(document.files))
        try:
            catalogue.register(work.job_id, document.registration(work.job_id, file_ids))
        except (Conflict, Unavailable):
            if not _is_registered(work.job_id, document, file_ids, catalogue):
                raise


def is_recorded(work: Work, *, store: JobStore, catalogue: Catalogue) -> bool:
    """Whether a job whose document cannot be read any more is registered, as far as its ids tell.

    Raises:
        Conflict: the catalogue has other files under its number; not retryable.
        Unavailable: retryable.

    """
    expected = set(store.file_ids(work.job_id).values())
    with work.patience(SILENCE_S + SILENCE_PER_FILE_S * len(expected)):
        found = catalogue.lookup(work.job_id)
    if found is None:
        return False
    there = {file.file_id for file in found}
    if there != expected:
        raise _other_files(work.job_id, len(found), len(expected), there ^ expected)
    return True


def _expected(document: Document, file_ids: Mapping[int, int]) -> list[RegisteredFile]:
    files = [
        RegisteredFile(
            file_id=file_ids[file.seq], path=file.path, size_bytes=file.size_bytes or 0, digest=str(file.digest)
        )
        for file in document.files
    ]
    return sorted(files, key=lambda file: file.file_id)


def _is_registered(job_id: int, document: Document, file_ids: Mapping[int, int], catalogue: Catalogue) -> bool:
    """Whether the catalogue has exactly this transaction; False when it has none of that number."""
    found = catalogue.lookup(job_id)
    if found is None:
        return False
    expected = _expected(document, file_ids)
    if found != expected:
        differing = {file.file_id for file in set(found) ^ set(expected)}
        raise _other_files(job_id, len(found), len(expected), differing)
    return True


def _other_files(job_id: int, there: int, here: int, differing: set[int]) -> Conflict:
    shown = ", ".join(str(file_id) for file_id in sorted(differing)[:10])
    return Conflict(
        f"Transaction {job_id} is registered with other files ({there} there, {here} here; "
        f"ids that differ: {shown}). Bundle and archived files are kept; an operator has to look at it."
    )
