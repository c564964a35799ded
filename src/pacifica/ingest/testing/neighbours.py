"""Neighbours in memory, which can fail on command.  What they keep is open to the test."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pacifica.ingest.core.errors import Conflict, IdTaken, NeighbourDown, PolicyRefused
from pacifica.ingest.core.metadata import Registration
from pacifica.ingest.core.paths import canonical
from pacifica.ingest.ports import IdMode, Parcel, Progress, RegisteredFile, Shipment
from pacifica.ingest.testing.faults import Double, Faults, can_fail

__all__ = ["MemoryArchive", "MemoryCatalogue", "MemoryIds", "MemoryPolicy"]


class MemoryIds(Double):
    """`ports.Ids`.

    Attributes:
        next_id: the next number of each series; set it back to give a range twice, as the real service does.

    """

    role = "ids"

    def __init__(self, faults: Faults | None = None) -> None:
        """Begin each series at 1."""
        super().__init__(faults)
        self.next_id = dict.fromkeys(IdMode, 1)

    @can_fail
    def reserve(self, mode: IdMode, count: int) -> range:
        """See `ports.Ids.reserve`."""
        if count < 1:
            msg = f"a range of {count} numbers cannot be reserved"
            raise ValueError(msg)
        start = self.next_id[mode]
        self.next_id[mode] += count
        return range(start, start + count)


class MemoryPolicy(Double):
    """`ports.Policy`.

    Attributes:
        refusal: why everything is refused; None allows everything.
        asked: every document and user that it judged.

    """

    role = "policy"

    def __init__(self, faults: Faults | None = None) -> None:
        """Allow everything."""
        super().__init__(faults)
        self.refusal: str | None = None
        self.asked: list[tuple[Registration, str]] = []

    @can_fail
    def permit(self, document: Registration, user: str) -> None:
        """See `ports.Policy.permit`."""
        self.asked.append((list(document), user))
        if self.refusal is not None:
            raise PolicyRefused(self.refusal)


class MemoryArchive(Double):
    """`ports.Archive`; reads holders and sources from the disk.

    Attributes:
        objects: id → bytes.
        sent: how often bytes were sent under an id; more than once is a fault of the caller.
        spoil: what becomes of bytes that are stored; set it to let the archive keep something else.

    """

    role = "archive"

    def __init__(self, faults: Faults | None = None) -> None:
        """Begin empty."""
        super().__init__(faults)
        self.objects: dict[int, bytes] = {}
        self.sent: Counter[int] = Counter()
        self.spoil: Callable[[bytes], bytes] = bytes
        self._loose: set[int] = set()

    @can_fail
    def size(self, file_id: int) -> int | None:
        """See `ports.Archive.size`."""
        return len(self.objects[file_id]) if file_id in self.objects else None

    def sizes(self, file_ids: Sequence[int]) -> Generator[int | None, None, None]:
        """See `ports.Archive.sizes`; each can fail as `size`."""
        return (self.size(file_id) for file_id in file_ids)

    @can_fail
    def store(self, parcel: Parcel, progress: Progress) -> None:
        """See `ports.Archive.store`."""
        self.sent[parcel.file_id] += 1
        self._refuse_taken(parcel.file_id, parcel.path)
        try:
            with parcel.holder.open("rb") as holder:
                holder.seek(parcel.offset)
                found = holder.read(parcel.size_bytes)
        except OSError as fault:
            raise NeighbourDown("archive", str(fault)) from fault
        if len(found) < parcel.size_bytes:
            reason = f"{parcel.holder} ends early"
            raise NeighbourDown("archive", reason)
        progress(len(found))
        self._keep(parcel.file_id, found)

    def ship(self, parcels: Sequence[Parcel], progress: Progress, shipment: Shipment) -> None:
        """See `ports.Archive.ship`; each can fail as `store`."""
        for parcel in parcels:
            shipment.begun.append(parcel)
            try:
                self.store(parcel, progress)
            except IdTaken:
                shipment.taken.append(parcel)
                raise
            shipment.stored.append(parcel)

    @can_fail
    def adopt(self, file_id: int, source: Path) -> None:
        """See `ports.Archive.adopt`; a source that equals what the id holds is removed, as after a cut move."""
        self.sent[file_id] += 1
        try:
            found = source.read_bytes()
        except OSError as fault:
            raise NeighbourDown("archive", str(fault)) from fault
        if self.objects.get(file_id) != found:
            self._refuse_taken(file_id, str(source))
            self._keep(file_id, found)
        source.unlink()

    def adopt_all(
        self, parcels: Sequence[Parcel], ready: Callable[[], object], progress: Progress, shipment: Shipment
    ) -> None:
        """See `ports.Archive.adopt_all`; each can fail as `adopt`."""
        for parcel in parcels:
            ready()
            shipment.begun.append(parcel)
            try:
                self.adopt(parcel.file_id, parcel.holder)
            except IdTaken:
                shipment.taken.append(parcel)
                raise
            shipment.stored.append(parcel)
            progress(parcel.size_bytes)

    @can_fail
    def digest(
        self, file_id: int, algorithm: str, progress: Progress, *, most_bytes: int | None = None
    ) -> tuple[str, int]:
        """See `ports.Archive.digest`."""
        if file_id not in self.objects:
            reason = f"nothing lies under the id {file_id}"
            raise NeighbourDown("archive", reason)
        found = self.objects[file_id]
        if most_bytes is None or len(found) <= most_bytes:
            progress(len(found))
        return hashlib.new(algorithm, found, usedforsecurity=False).hexdigest(), len(found)

    def digests(self, parcels: Sequence[Parcel], progress: Progress) -> Generator[tuple[str, int], None, None]:
        """See `ports.Archive.digests`; each can fail as `digest`."""
        return (
            self.digest(parcel.file_id, parcel.digest.algorithm, progress, most_bytes=parcel.size_bytes)
            for parcel in parcels
        )

    @can_fail
    def remove(self, file_id: int) -> bool:
        """See `ports.Archive.remove`."""
        return self.objects.pop(file_id, None) is not None

    @can_fail
    def flush(self) -> None:
        """See `ports.Archive.flush`."""
        self._loose.clear()

    def location(self, file_id: int) -> str:
        """See `ports.Archive.location`."""
        return f"memory:/{file_id}"

    def lose_power(self) -> None:
        """Forget what was not flushed."""
        with self.lock:
            for file_id in self._loose:
                with suppress(KeyError):
                    del self.objects[file_id]
            self._loose.clear()

    def _refuse_taken(self, file_id: int, path: str) -> None:
        if file_id in self.objects:
            raise IdTaken(file_id, path)

    def _keep(self, file_id: int, found: bytes) -> None:
        self.objects[file_id] = self.spoil(found)
        self._loose.add(file_id)


class MemoryCatalogue(Double):
    """`ports.Catalogue`.

    Attributes:
        transactions: job id → document as it was registered.
        people: login → ids of persons; None keeps no persons.

    """

    role = "catalogue"

    def __init__(self, faults: Faults | None = None) -> None:
        """Begin empty."""
        super().__init__(faults)
        self.transactions: dict[int, Registration] = {}
        self.people: Mapping[str, Collection[str]] | None = None

    @can_fail
    def register(self, job_id: int, document: Registration) -> None:
        """See `ports.Catalogue.register`."""
        known = {file.file_id for other in self.transactions.values() for file in _files(other)}
        new = [file.file_id for file in _files(document)]
        if job_id in self.transactions or known.intersection(new) or len(set(new)) < len(new):
            msg = f"Transaction {job_id}, or the id of one of its files, is in the catalogue already."
            raise Conflict(msg)
        self.transactions[job_id] = list(document)

    @can_fail
    def lookup(self, job_id: int) -> list[RegisteredFile] | None:
        """See `ports.Catalogue.lookup`."""
        if job_id not in self.transactions:
            return None
        return sorted(_files(self.transactions[job_id]), key=lambda file: file.file_id)

    @can_fail
    def registered(self, file_ids: Collection[int]) -> set[int]:
        """See `ports.Catalogue.registered`."""
        known = {file.file_id for other in self.transactions.values() for file in _files(other)}
        return known.intersection(file_ids)

    @can_fail
    def people_of(self, login: str) -> set[str] | None:
        """See `ports.Catalogue.people_of`."""
        return None if self.people is None else set(self.people.get(login, ()))


def _files(document: Registration) -> list[RegisteredFile]:
    return [
        RegisteredFile(
            file_id=int(entry["_id"]),
            path=canonical(f"{entry['subdir']}/{entry['name']}"),
            size_bytes=int(entry["size"]),
            digest=f"{entry['hashtype']}:{entry['hashsum']}",
        )
        for entry in document
        if entry["destinationTable"] == "Files"
    ]
