"""Bytes into the archive, so that a crash at any moment leaves no object that nobody knows of.

A step of `pipeline`, also used by `relocate` for ids and read-back.

Source: the job protocol in `docs/architecture.md`: an intent is committed before bytes are sent, an id is sent bytes at
most once, and a copy counts only when it was read back.
"""

import logging
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pacifica.ingest.bundle import Bundle
from pacifica.ingest.core.errors import ArchiveMismatch, NeighbourDown, Stopping, Unavailable
from pacifica.ingest.core.files import FileEntry, Files
from pacifica.ingest.ports import Archive, IdMode, Ids, JobStore, Parcel, Progress, Shipment
from pacifica.ingest.work import Work

__all__ = ["SILENCE_S", "Depot", "windows"]

logger = logging.getLogger(__name__)

#: A window of intents: this many files, or as many as have these bytes together.
WINDOW_FILES = 256
WINDOW_BYTES = 64 << 20
#: How many ranges are tried when the archive had their first number already.
RANGE_TRIES = 10
#: How long, in seconds, a call to the archive may be silent.
SILENCE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Depot:
    """The archive with the bookkeeping that makes it safe.

    Attributes:
        store: where intents are committed.
        ids: candidates for archive ids.
        archive: where the bytes go.
        verify: what is read back: `full`, `size` or `none`.

    """

    store: JobStore
    ids: Ids
    archive: Archive
    verify: str

    def deposit(self, bundle: Bundle, holder: Path, files: Files, work: Work) -> None:
        """Archive those files of a checked bundle that are not archived yet.

        Args:
            bundle: the staged bundle; each entry is a member of it.
            holder: its path.
            files: all of them.
            work: told one unit for each byte sent or read back, and for each file.

        Raises:
            Unavailable: retryable; files without a clear answer get another id next time.

        """
        self.store.abandon(work.claim)
        archived = self.store.file_ids(work.job_id)
        for seq in archived:
            work.advance(self.units(files[seq]))
        left = (files[seq] for seq in range(len(files)) if seq not in archived)
        numbers = self.numbers(len(files) - len(archived), work)
        for window in windows(left):
            chosen = self.intend(window, numbers, work)
            self._send([_parcel(bundle, holder, entry, chosen[entry.seq]) for entry in window], work)

    def let_go(self, file_ids: Collection[int], work: Work) -> None:
        """Never use these intents, under which surely nothing of ours lies: what somebody else has there is not garbage."""
        if file_ids:
            self.store.void(work.claim, file_ids)

    def units(self, entry: FileEntry) -> int:
        """How much `deposit` advances the work by one file."""
        return self._passes * (entry.size_bytes or 0) + 1

    def units_of(self, files: Files) -> int:
        """How much it advances by all files."""
        return self._passes * files.total_bytes + len(files)

    def numbers(self, count: int, work: Work) -> Iterator[int]:
        """Candidates for archive ids, about `count` of them; endless, as some may turn out to be taken."""
        while True:
            with work.patience(SILENCE_S):
                free = self._free_range(max(1, count))
            yield from free
            count = 1

    def intend(self, entries: Sequence[FileEntry], numbers: Iterator[int], work: Work) -> dict[int, int]:
        """Commit which file gets which id, before anything is sent; returns place → id."""
        chosen: dict[int, int] = {}
        fruitless = 0
        while waiting := [entry.seq for entry in entries if entry.seq not in chosen]:
            wanted = {seq: next(numbers) for seq in waiting}
            ours = self.store.intend(work.claim, wanted)
            chosen |= {seq: wanted[seq] for seq in ours}
            fruitless = 0 if ours else fruitless + 1
            if fruitless == RANGE_TRIES:
                # A service that was set back would be asked for ever.
                reason = (
                    f"{RANGE_TRIES} times in a row it gave only ids that are known here, up to {max(wanted.values())}"
                )
                raise NeighbourDown("uniqueid", reason)
        return chosen

    @property
    def _passes(self) -> int:
        """How often each byte crosses the network."""
        return 2 if self.verify == "full" else 1

    def compare(self, parcel: Parcel, work: Work, progress: Progress) -> None:
        """Compare length and digest of the archive's copy, and tell `progress` what was read.

        Raises:
            ArchiveMismatch: it differs; retryable under another id.

        """
        with work.patience(SILENCE_S):
            digest, size = self.archive.digest(
                parcel.file_id, parcel.digest.algorithm, progress, most_bytes=parcel.size_bytes
            )
        _compare(parcel, digest, size)

    def _free_range(self, count: int) -> range:
        """A range whose first id is not in use; the service may give out a range that it gave out before."""
        for _ in range(RANGE_TRIES):
            found = self.ids.reserve(IdMode.FILE, count)
            if self.archive.size(found.start) is None:
                return found
            logger.warning("UniqueID gave ids that the archive has already", extra={"first": found.start})
        reason = f"{RANGE_TRIES} ranges in a row are in use in the archive already, up to {found.start}"
        raise NeighbourDown("uniqueid", reason)

    def _send(self, parcels: Sequence[Parcel], work: Work) -> None:
        shipment = Shipment()
        try:
            with work.patience(SILENCE_S):
                self.archive.ship(parcels, work.advance, shipment)
        except (Unavailable, Stopping):
            self.let_go(self._unused(parcels, shipment), work)
            # An archive that refuses one file in a hundred would never let a whole window pass.
            self.confirm(shipment.stored, work, self.verify)
            raise
        self.confirm(shipment.stored, work, self.verify)

    def _unused(self, parcels: Sequence[Parcel], shipment: Shipment) -> list[int]:
        """The ids of a window that surely hold nothing of ours."""
        untouched = [parcel for parcel in parcels if parcel not in shipment.begun]
        return [parcel.file_id for parcel in (*shipment.taken, *untouched)]

    def confirm(self, parcels: Sequence[Parcel], work: Work, verify: str) -> None:
        """Read back what the archive took, as far as `verify` says, and record it.

        Raises:
            ArchiveMismatch: one differs; those before it are recorded; retryable under another id.

        """
        if not parcels:
            return
        with work.patience(SILENCE_S):
            self.archive.flush()
        whole: list[int] = []
        try:
            with work.finishing(), closing(self.verified(parcels, work, verify)) as verified:
                for parcel in verified:
                    whole.append(parcel.file_id)
                    work.advance(1)
        finally:
            # What was read back well is safe, whatever became of the rest.  Recording nothing would end the series of
            # faults, and the job would wait for ever.
            if whole:
                self.store.archived(work.claim, whole)

    def verified(self, parcels: Sequence[Parcel], work: Work, verify: str) -> Generator[Parcel, None, None]:
        """Those whose copy was compared with what was sent, as far as `verify` says; raises as `compare` at the first other."""
        if verify == "none":
            yield from parcels
            return
        with work.patience(SILENCE_S), closing(self._found(parcels, work, verify)) as found:
            for parcel, (digest, size) in zip(parcels, found, strict=True):
                _compare(parcel, digest, size)
                yield parcel

    def _found(
        self, parcels: Sequence[Parcel], work: Work, verify: str
    ) -> Generator[tuple[str, int | None], None, None]:
        """Digest and size of what the archive has; the digest is taken for granted when only sizes are asked for."""
        if verify == "full":
            yield from self.archive.digests(parcels, work.advance)
            return
        with closing(self.archive.sizes([parcel.file_id for parcel in parcels])) as sizes:
            for parcel, size in zip(parcels, sizes, strict=True):
                yield parcel.digest.value, size


def _compare(parcel: Parcel, digest: str, size: int | None) -> None:
    if size is not None and size > parcel.size_bytes:
        reason = f"it has more than {parcel.size_bytes} bytes there"
        raise ArchiveMismatch(parcel.file_id, parcel.path, reason)
    if size != parcel.size_bytes:
        reason = f"it has {size} bytes there instead of {parcel.size_bytes}"
        raise ArchiveMismatch(parcel.file_id, parcel.path, reason)
    if digest != parcel.digest.value:
        reason = f"its {parcel.digest.algorithm} is {digest} there instead of {parcel.digest.value}"
        raise ArchiveMismatch(parcel.file_id, parcel.path, reason)


def _parcel(bundle: Bundle, holder: Path, entry: FileEntry, file_id: int) -> Parcel:
    member = bundle.members[entry.path]
    if entry.digest is None:  # pragma: no cover (the check refuses such a file)
        raise AssertionError(entry.path)
    return Parcel(
        file_id=file_id,
        path=entry.path,
        holder=holder,
        offset=member.offset,
        size_bytes=member.size,
        digest=entry.digest,
    )


def windows(entries: Iterable[FileEntry]) -> Iterator[list[FileEntry]]:
    """Cut the files into runs that are worth one commit of intents."""
    window: list[FileEntry] = []
    size = 0
    for entry in entries:
        window.append(entry)
        size += entry.size_bytes or 0
        if len(window) == WINDOW_FILES or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window
