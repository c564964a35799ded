"""Files that already lie on a shared file system, moved into the archive.

A step of `pipeline`.  The archive consumes the source, so nothing can be sent again: what became of an unclear move is
found out from what is left on both sides, also under ids that were given up.  Sources are looked at by `source`.

Source: the job protocol in `docs/architecture.md`, "Move".
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pacifica.ingest.core.errors import ArchiveMismatch, FaultyBundle, IdTaken, Stopping, Unavailable
from pacifica.ingest.core.files import FileEntry
from pacifica.ingest.deposit import SILENCE_S, Depot, windows
from pacifica.ingest.ports import Clock, Parcel, Shipment, SourceFile
from pacifica.ingest.source import Place, Sources, UnfitSource
from pacifica.ingest.work import Work

__all__ = ["STILL_S", "Relocation"]

#: An archive that copies may pause that long, in seconds, before its copy counts as cut off.
STILL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocation:
    """Moves sources into the archive.

    Attributes:
        depot: the archive with its bookkeeping.
        sources: looks at sources.
        min_hash: the weakest hash type that is taken; empty: any.
        clock: tells how long a part stands still.
        still_s: a part that does not grow for that long, in seconds, is given up.

    """

    depot: Depot
    sources: Sources
    min_hash: str
    clock: Clock
    still_s: float = STILL_S

    def units(self, entry: FileEntry) -> int:
        """How much one file advances the work: it is checked, and then archived as `deposit` does."""
        return (entry.size_bytes or 0) + self.depot.units(entry)

    def settle(self, entries: Sequence[FileEntry], known: Mapping[int, SourceFile], work: Work) -> list[FileEntry]:
        """Bring to an end what an earlier attempt began.

        Args:
            entries: the files.
            known: place → what an earlier attempt checked.
            work: told what was settled.

        Returns:
            the files that are still to be moved, under ids that nothing was begun with.

        Raises:
            ArchiveMismatch: it cannot be told yet what became of a file; retryable.

        """
        store = self.depot.store
        archived, begun = store.file_ids(work.job_id), store.intents(work.job_id)
        given_up = store.given_up(work.job_id)
        left: list[FileEntry] = []
        for entry in entries:
            if entry.seq in archived:
                work.advance(self.units(entry))
                continue
            older = [_parcel(entry, file_id) for file_id in given_up.get(entry.seq, ())]
            if entry.seq in begun:
                is_moved = self._finish(entry, [_parcel(entry, begun[entry.seq]), *older], known[entry.seq], work)
            else:
                is_moved = bool(older) and self._find(entry, older, known[entry.seq], work)
            if is_moved:
                work.advance(entry.size_bytes or 0)
            else:
                left.append(entry)
        return left

    def check(self, entries: Sequence[FileEntry], known: Mapping[int, SourceFile], work: Work) -> list[SourceFile]:
        """Look at every source before the first is consumed.

        Args:
            entries: the files that are to be moved.
            known: place → what an earlier attempt checked.
            work: told what was read.

        Returns:
            what each of them is.

        Raises:
            FaultyBundle: all faults at once; not retryable.
            Unavailable: sources that were there before cannot be seen here; retryable.

        """
        faults: list[str] = []
        sources: list[SourceFile] = []
        places: dict[Place, FileEntry] = {}
        lasting = False
        for entry in entries:
            try:
                sources.append(self._examine(entry, places, work))
            except UnfitSource as fault:
                faults.append(f"{entry.path!r}: source {entry.source!r} {fault.reason}")
                lasting = lasting or not (fault.is_gone and entry.seq in known)
        if lasting:
            raise FaultyBundle(faults)
        if faults:
            reason = f"{faults[0]}, and was there before. Is its file system mounted here?"
            raise Unavailable(reason)
        return sources

    def _examine(self, entry: FileEntry, places: dict[Place, FileEntry], work: Work) -> SourceFile:
        weakness = entry.digest.weakness(self.min_hash) if entry.digest else None
        if weakness:
            reason = f"has a digest that is not taken: {weakness} ([ingest] min_hash)"
            raise UnfitSource(reason)
        # A file that lies on tape is silent until it was fetched.
        with work.patience(SILENCE_S):
            status, place = self.sources.examine(entry, work.advance)
        other = places.setdefault(place, entry)
        if other is not entry:
            reason = f"is that of {other.path!r}, too: {other.source!r}"
            raise UnfitSource(reason)
        return SourceFile(seq=entry.seq, device=status.st_dev, inode=status.st_ino)

    def move(self, entries: Sequence[FileEntry], sources: Sequence[SourceFile], work: Work) -> None:
        """Move checked files.

        Raises:
            Unavailable: retryable; `settle` goes on from there.

        """
        store = self.depot.store
        store.note_sources(work.claim, sources)
        known = {source.seq: source for source in sources}
        numbers = self.depot.numbers(len(entries), work)
        for window in windows(entries):
            chosen = self.depot.intend(window, numbers, work)
            parcels = [_parcel(entry, chosen[entry.seq]) for entry in window]
            try:
                self._ensure_unused(parcels, work)
                for entry, parcel in zip(window, parcels, strict=True):
                    self._ensure_untouched(entry, parcel, known[entry.seq], work)
            except (Unavailable, Stopping):
                self.depot.let_go(chosen.values(), work)
                raise
            self._adopt(parcels, work, untouched=True)

    # --- what an earlier attempt began

    def _finish(self, entry: FileEntry, parcels: Sequence[Parcel], source: SourceFile, work: Work) -> bool:
        """Bring to an end what was begun with one file, as far as both sides tell what became of it.

        Args:
            entry: the file.
            parcels: what was intended last, then what was given up before.
            source: what was checked.
            work: told what was settled.

        Returns:
            False when the last id was given up, too.

        """
        parcel, *older = parcels
        there = self._size(parcel, work)
        flaw = self._flaw(parcel, there, work)
        change = self._change(entry, source, work)
        if change and flaw:
            if self._take_back(older, work):
                return True
            reason = f"{flaw}, and its source {entry.source!r} {change}"
            raise ArchiveMismatch(parcel.file_id, parcel.path, reason)
        if change:
            self._flush(work)
            self.depot.store.archived(work.claim, [parcel.file_id])
            work.advance(self.depot.units(entry))
        elif there is None or not flaw:
            # When both have it, the archive ended between copying and removing: these are our bytes, it may go on.
            self._adopt([parcel], work, untouched=False)
        else:
            self._give_up(parcel, there, flaw, source, work)
            return False
        return True

    def _find(self, entry: FileEntry, older: Sequence[Parcel], source: SourceFile, work: Work) -> bool:
        """Look for a file whose id was given up, when its source is not there to be moved."""
        return bool(self._change(entry, source, work)) and self._take_back(older, work)

    def _give_up(self, parcel: Parcel, there: int, flaw: str, source: SourceFile, work: Work) -> None:
        """Give up an id that holds only a part, as the archive was cut off while it copied.

        An archive that is slow may yet end it and remove the source: then it is taken back.

        Raises:
            ArchiveMismatch: it grew less than `still_s` ago, or that is not known yet; retryable.

        """
        if self._may_grow(source, there):
            self.depot.store.note_part(work.claim, source.seq, there)
            reason = f"{flaw}, and its source {str(parcel.holder)!r} is still there"
            raise ArchiveMismatch(parcel.file_id, parcel.path, reason)
        self.depot.store.abandon(work.claim, [parcel.file_id])

    def _may_grow(self, source: SourceFile, there: int) -> bool:
        if source.partial_bytes is None or source.partial_since is None or there > source.partial_bytes:
            return True
        stood_s = (self.clock.now() - source.partial_since).total_seconds()
        # One that shrank is none that an archive copies.  Less than no time: a clock that jumped back must not hold a job.
        return there == source.partial_bytes and 0 <= stood_s < self.still_s

    def _take_back(self, older: Sequence[Parcel], work: Work) -> bool:
        """Take an id back that holds the whole file, as a request of an earlier attempt came to its end after all."""
        for parcel in older:
            if not self._flaw(parcel, self._size(parcel, work), work):
                self._flush(work)
                self.depot.store.take_back(work.claim, parcel.file_id)
                work.advance(1 + parcel.size_bytes)
                return True
        return False

    # --- both sides

    def _size(self, parcel: Parcel, work: Work) -> int | None:
        with work.patience(SILENCE_S):
            return self.depot.archive.size(parcel.file_id)

    def _flaw(self, parcel: Parcel, there: int | None, work: Work) -> str:
        """Why what lies under an id is not the whole file; empty when it is.  However little is read back otherwise."""
        if there is None:
            return "the archive does not have it"
        if there != parcel.size_bytes:
            return f"it has {there} bytes there instead of {parcel.size_bytes}"
        try:
            self.depot.compare(parcel, work, lambda _: work.advance())
        except ArchiveMismatch as fault:
            return fault.reason
        return ""

    def _change(self, entry: FileEntry, source: SourceFile, work: Work) -> str:
        """Why a source is not the file that was checked; empty when it is."""
        try:
            with work.patience(SILENCE_S):
                self.sources.ensure_same(entry, source, lambda _: work.advance())
        except UnfitSource as fault:
            return fault.reason
        return ""

    def _ensure_unused(self, parcels: Sequence[Parcel], work: Work) -> None:
        """Before the archive is asked for the first time: what is in the way now is not ours, and another id will do."""
        file_ids = [parcel.file_id for parcel in parcels]
        with work.patience(SILENCE_S), closing(self.depot.archive.sizes(file_ids)) as sizes:
            for parcel, size in zip(parcels, sizes, strict=True):
                if size is not None:
                    raise IdTaken(parcel.file_id, parcel.path)
                work.advance()

    def _ensure_untouched(self, entry: FileEntry, parcel: Parcel, source: SourceFile, work: Work) -> None:
        change = self._change(entry, source, work)
        if change:
            reason = f"the source {change} now"
            raise ArchiveMismatch(parcel.file_id, parcel.path, reason)

    def _adopt(self, parcels: Sequence[Parcel], work: Work, *, untouched: bool) -> None:
        """Let the archive take sources, and record those that it took.

        A worker that stood still before it, while another moved the files and ended the job, would move what lies there
        by now: so the claim is asked for last.

        Args:
            parcels: the sources and their ids.
            work: told what was taken and read back.
            untouched: whether no earlier attempt asked for any of them.

        """
        shipment = Shipment()
        try:
            with work.patience(SILENCE_S):
                self.depot.archive.adopt_all(parcels, lambda: self.depot.store.beat(work.claim), work.advance, shipment)
        except (Unavailable, Stopping):
            left = [parcel for parcel in parcels if parcel not in shipment.begun] if untouched else []
            # Unless an older request under the same id was faster.
            taken = [parcel for parcel in shipment.taken if self._flaw(parcel, self._size(parcel, work), work)]
            self.depot.let_go([parcel.file_id for parcel in (*taken, *left)], work)
            self._confirm(shipment.stored, work)
            raise
        self._confirm(shipment.stored, work)

    def _confirm(self, parcels: Sequence[Parcel], work: Work) -> None:
        """Read back what was moved, at least its length: nobody else has it any more."""
        self.depot.confirm(parcels, work, "size" if self.depot.verify == "none" else self.depot.verify)

    def _flush(self, work: Work) -> None:
        with work.patience(SILENCE_S):
            self.depot.archive.flush()


def _parcel(entry: FileEntry, file_id: int) -> Parcel:
    if entry.digest is None or entry.size_bytes is None:  # pragma: no cover (the check refuses such a file)
        raise AssertionError(entry.path)
    return Parcel(
        file_id=file_id,
        path=entry.path,
        holder=Path(entry.source),
        offset=0,
        size_bytes=entry.size_bytes,
        digest=entry.digest,
    )
