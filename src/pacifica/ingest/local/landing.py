"""Many parcels on their way to the disk at once, and what became of each.

Files of a window are made, written and synced by several threads, as each waits for the disk.  What the threads do with
one parcel is `objects`; who is told of it is the shipment of `ports.Archive`.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from pathlib import Path

from pacifica.ingest.core.errors import IdTaken
from pacifica.ingest.disk import Holders
from pacifica.ingest.local.objects import SMALL, Objects, Piece, Steps, together
from pacifica.ingest.ports import Parcel, Progress, Shipment

__all__ = ["BACKLOG", "SHARE", "Landing"]

#: Small parcels that one thread stores together, see `together`.  Each holds a descriptor then, 128 with all threads: some
#: systems give a process no more than 256.
SHARE = 16
#: Those that one thread moves: fewer, as their bytes mostly are on the disk already, and each waits for it by itself.
MOVED_SHARE = 8
#: Shares and long parcels that are on their way at most.
BACKLOG = 16


class Landing:
    """Parcels of one shipment on their way to the disk.

    Attributes:
        fault: the first one.
        folders: where the others landed; their names are not durable yet.

    """

    def __init__(self, objects: Objects, pool: Executor, shipment: Shipment, holders: Holders) -> None:
        """Let the `pool` make objects of what `holders` hold, and tell the shipment."""
        self.fault: Exception | None = None
        self.folders: set[Path] = set()
        self._objects = objects
        self._pool = pool
        self._shipment = shipment
        self._holders = holders
        self._prepared: set[Path] = set()
        self._share: list[tuple[Parcel, Steps]] = []
        self._waiting: deque[tuple[Sequence[Parcel], Future[list[Path | Exception]]]] = deque()

    def store(self, parcel: Parcel, progress: Progress) -> None:
        """Begin to store the bytes of a parcel; those of a long one are copied by this thread."""
        piece = Piece(self._holders.of(parcel.holder), parcel.offset, parcel.size_bytes)
        self._begin(parcel)
        if parcel.size_bytes < SMALL:
            self._gather(parcel, self._objects.store(parcel.file_id, parcel.path, piece), SHARE)
            progress(parcel.size_bytes)
        elif self._objects.path(parcel.file_id).exists():
            self._end([parcel], [IdTaken(parcel.file_id, parcel.path)])
        else:
            handle = self._objects.write(parcel.file_id, piece, progress)
            self._hand_over([(parcel, self._objects.keep(parcel.file_id, parcel.path, handle))])

    def hold(self, parcel: Parcel) -> None:
        """Begin to let an id hold a source; a long one in this thread, as copying it needs others."""
        self._begin(parcel)
        hold = self._objects.hold(parcel.file_id, parcel.holder)
        if parcel.size_bytes < SMALL:
            self._gather(parcel, hold, MOVED_SHARE)
        else:
            self._end([parcel], together([hold]))

    def settle(self, keep: int = 0) -> None:
        """Wait until so many are left, and tell the shipment what became of the others."""
        try:
            if not keep:
                self._hand_over_share()
        finally:
            while len(self._waiting) > keep:
                parcels, landed = self._waiting.popleft()
                self._end(parcels, landed.result())

    def _begin(self, parcel: Parcel) -> None:
        """Say so, and make the folder before threads need it."""
        self._shipment.begun.append(parcel)
        folder = self._objects.folder(parcel.file_id)
        if folder not in self._prepared:
            self._objects.make_folder(folder)
            self._prepared.add(folder)

    def _gather(self, parcel: Parcel, work: Steps, share: int) -> None:
        self._share.append((parcel, work))
        if len(self._share) == share:
            self._hand_over_share()

    def _hand_over_share(self) -> None:
        share, self._share = self._share, []
        if share:
            self._hand_over(share)

    def _hand_over(self, share: Sequence[tuple[Parcel, Steps]]) -> None:
        landed = self._pool.submit(together, [work for _, work in share])
        self._waiting.append(([parcel for parcel, _ in share], landed))

    def _end(self, parcels: Sequence[Parcel], outcomes: Sequence[Path | Exception]) -> None:
        for parcel, outcome in zip(parcels, outcomes, strict=True):
            if isinstance(outcome, Path):
                self.folders.add(outcome)
                self._shipment.stored.append(parcel)
                continue
            self.fault = self.fault or outcome
            if isinstance(outcome, IdTaken):
                self._shipment.taken.append(parcel)
