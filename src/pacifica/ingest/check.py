"""The check before bytes: everything that is wrong with a bundle, found before anything is sent.

A step of `pipeline`.  Not a check of the metadata document for itself; that is `core.metadata`.

Source: the archive and the catalogue have no undo, so what one of them would refuse is refused here.
"""

from collections.abc import Iterator

from pacifica.ingest.bundle import Bundle, Member
from pacifica.ingest.core.errors import FaultyBundle
from pacifica.ingest.core.files import FileEntry
from pacifica.ingest.core.metadata import Document
from pacifica.ingest.core.states import Step
from pacifica.ingest.work import Work

__all__ = ["check_bundle", "check_catalogue"]


def check_bundle(bundle: Bundle, document: Document, work: Work, chunk_bytes: int, min_hash: str) -> None:
    """Compare every file with what the metadata says of it.

    Args:
        bundle: the staged bundle.
        document: its metadata.
        work: told one unit for each byte read and each file.
        chunk_bytes: how much is read at a time.
        min_hash: the weakest hash type that is taken; empty: any.

    Raises:
        FaultyBundle: all faults at once; under the step in which 0.4.1 would have failed.  Not retryable.

    """
    faults: list[str] = []
    for entry in document.files:
        weakness = entry.digest.weakness(min_hash) if entry.digest else None
        if weakness:
            faults.append(f"{entry.path!r}: {weakness} ([ingest] min_hash)")
        faults += _file_faults(bundle, entry, work, chunk_bytes)
    unnamed = bundle.members.keys() - set(document.files.paths)
    others = [f"{path!r} is in the bundle, but the metadata does not name it" for path in sorted(unnamed)]
    if faults:
        raise FaultyBundle([*faults, *others, *document.faults])
    check_catalogue(document, work, others)


def check_catalogue(document: Document, work: Work, others: list[str] | None = None) -> None:
    """Refuse what the catalogue would refuse, with `others` that belong to the same step; raises as `check_bundle`."""
    faults = [*(others or []), *document.faults]
    if faults:
        work.begin(Step.INGEST_METADATA)
        raise FaultyBundle(faults)


def _file_faults(bundle: Bundle, entry: FileEntry, work: Work, chunk_bytes: int) -> Iterator[str]:
    work.advance(1)
    if entry.path not in bundle.members:
        yield f"{entry.path!r} is named by the metadata, but it is not in the bundle"
        return
    member = bundle.members[entry.path]
    if entry.size_bytes is not None and entry.size_bytes != member.size:
        yield f"{entry.path!r} has {member.size} bytes, the metadata says {entry.size_bytes}"
    elif entry.digest is not None:
        found = _hexdigest(bundle, member, entry, work, chunk_bytes)
        if found != entry.digest.value:
            yield f"{entry.path!r}: {entry.digest.algorithm} is {found}, the metadata says {entry.digest.value}"


def _hexdigest(bundle: Bundle, member: Member, entry: FileEntry, work: Work, chunk_bytes: int) -> str:
    hasher = entry.digest.start() if entry.digest else None
    if hasher is None:  # pragma: no cover (the caller asks only for entries with a digest)
        raise AssertionError
    for chunk in bundle.chunks(member, chunk_bytes):
        hasher.update(chunk)
        work.advance(len(chunk))
    return hasher.hexdigest()
