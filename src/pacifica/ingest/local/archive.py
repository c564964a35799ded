"""The archive as a folder.  Fulfils `ports.Archive`; chosen by `[archiveinterface] url = file:///folder`.

One object is the concern of `objects`, many at once of `landing`.  Nothing is read or written unless the folder has its
marker, see `root`.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from pacifica.ingest.core.errors import NeighbourDown
from pacifica.ingest.disk import Holders, fsync_folder, space
from pacifica.ingest.local.landing import BACKLOG, Landing
from pacifica.ingest.local.objects import Objects, age_s, remove, together
from pacifica.ingest.local.root import Memory, ProcessMemory, Root
from pacifica.ingest.ports import Parcel, Progress, Shipment

__all__ = ["FolderArchive"]

#: Files that are made durable at once; one disk gains nothing by more.
THREADS = 8
#: Files that are moved at once; a crash leaves all of them to be looked at.
MOVED = 64
#: A temporary file that was not written for that long, in seconds, belongs to a dead process.
STALE_S = 86_400.0


class FolderArchive:
    """`ports.Archive` in one folder, which is made when it is missing.

    Processes may share the folder, and threads may share one of these: each flushes what it stored itself.  It owns threads:
    make it after a fork, not before.
    """

    def __init__(self, folder: Path, memory: Memory | None = None) -> None:
        """Keep everything below `folder`; `memory` knows the marker that it has if it was used before."""
        self._folder = folder.absolute()
        self._root = Root(self._folder, memory or ProcessMemory())
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="archive")
        self._objects = Objects(self._folder, self._pool)
        self._mine = _Loose()

    def size(self, file_id: int) -> int | None:
        """See `ports.Archive.size`."""
        with self._there(), suppress(FileNotFoundError):
            return self._objects.path(file_id).stat().st_size
        return None

    def sizes(self, file_ids: Sequence[int]) -> Generator[int | None, None, None]:
        """See `ports.Archive.sizes`."""
        return (self.size(file_id) for file_id in file_ids)

    def store(self, parcel: Parcel, progress: Progress) -> None:
        """See `ports.Archive.store`.

        Raises:
            IdTaken: the id holds something already, which stays as it is; retryable.
            NoSpace, NeighbourDown: retryable.

        """
        self.ship([parcel], progress, Shipment())

    def ship(self, parcels: Sequence[Parcel], progress: Progress, shipment: Shipment) -> None:
        """See `ports.Archive.ship`; raises as `store`, when nothing is on its way any more."""
        with self._there(), Holders() as holders:
            landing = Landing(self._objects, self._pool, shipment, holders)
            try:
                for parcel in parcels:
                    landing.settle(BACKLOG - 1)
                    if landing.fault is not None:
                        break
                    landing.store(parcel, progress)
            finally:
                landing.settle()
                self._mine.folders |= landing.folders
            if landing.fault is not None:
                raise landing.fault

    def adopt(self, file_id: int, source: Path) -> None:
        """See `ports.Archive.adopt`; durable when it returns.

        Called again after a crash it ends what it had begun: a source that is the object, or equals it, is removed, and so is
        what the crash left half written.

        Raises:
            IdTaken: the id holds something else, which stays as it is, and so does the source; retryable.
            NoSpace, NeighbourDown: retryable.

        """
        with self._there():
            self._objects.make_folder(self._objects.folder(file_id))
            (landed,) = together([self._objects.hold(file_id, source)])
            if isinstance(landed, Exception):
                raise landed
            self._objects.sync_folders({landed})
            remove(source)
            fsync_folder(source.parent)

    def adopt_all(
        self, parcels: Sequence[Parcel], ready: Callable[[], object], progress: Progress, shipment: Shipment
    ) -> None:
        """See `ports.Archive.adopt_all`; raises as `adopt`."""
        left = deque(parcels)
        with self._there(), Holders() as holders:
            while left:
                ready()
                held = Shipment()
                landing = Landing(self._objects, self._pool, held, holders)
                try:
                    for _ in range(min(MOVED, len(left))):
                        parcel = left.popleft()
                        shipment.begun.append(parcel)
                        landing.hold(parcel)
                        if landing.fault is not None:
                            break
                finally:
                    landing.settle()
                    shipment.taken += held.taken
                self._objects.sync_folders(landing.folders)
                for parcel in held.stored:
                    remove(parcel.holder)
                for folder in {parcel.holder.parent for parcel in held.stored}:
                    fsync_folder(folder)
                shipment.stored += held.stored
                if landing.fault is not None:
                    raise landing.fault
                progress(sum(parcel.size_bytes for parcel in held.stored))

    def digest(
        self, file_id: int, algorithm: str, progress: Progress, *, most_bytes: int | None = None
    ) -> tuple[str, int]:
        """See `ports.Archive.digest`."""
        with self._there():
            return self._objects.digest(file_id, algorithm, progress, most_bytes)

    def digests(self, parcels: Sequence[Parcel], progress: Progress) -> Generator[tuple[str, int], None, None]:
        """See `ports.Archive.digests`."""
        with self._there():
            for parcel in parcels:
                algorithm = parcel.digest.algorithm
                yield self._objects.digest(parcel.file_id, algorithm, progress, parcel.size_bytes)

    def remove(self, file_id: int) -> bool:
        """See `ports.Archive.remove`.

        Raises:
            NeighbourDown: also when a temporary file is so young that somebody may be writing it; retryable.

        """
        final = self._objects.path(file_id)
        with self._there():
            found = [*self._objects.unfinished(file_id), *([final] if final.exists() else [])]
            for path in found:
                if path != final and age_s(path) < STALE_S:
                    reason = f"{path} was written less than a day ago"
                    raise NeighbourDown("archive", reason)
                remove(path)
            if found:
                fsync_folder(final.parent)
        return bool(found)

    def flush(self) -> None:
        """See `ports.Archive.flush`."""
        with self._there():
            self._objects.sync_folders(self._mine.folders)
            self._mine.folders = set()

    def inspect(self) -> str:
        """The name of the marker, empty when the archive was never used.  Writes nothing.

        Raises:
            NeighbourDown: the archive is not here; the reason says what to do; retryable.
            DatabaseDown: retryable.

        """
        with _told():
            return self._root.inspect()

    def location(self, file_id: int) -> str:
        """See `ports.Archive.location`: the path of the object."""
        return str(self._objects.path(file_id))

    def clean_up(self, *, older_than_s: float = STALE_S) -> int:
        """Remove temporary files that a crash left behind.

        Args:
            older_than_s: spares younger ones, as another process may be writing them; 0 when there is surely none.

        Returns:
            how many were removed.

        """
        removed = 0
        for temp in self._objects.all_unfinished():
            with suppress(FileNotFoundError):
                if age_s(temp) >= older_than_s:
                    remove(temp)
                    removed += 1
        return removed

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Do something with the archive, if it is here."""
        with _told():
            self._root.require()
            yield


class _Loose(threading.local):
    """Folders in which a thread stored something, whose names are not durable yet."""

    def __init__(self) -> None:
        self.folders: set[Path] = set()


@contextmanager
def _told() -> Iterator[None]:
    """Tell faults of the file system as ours."""
    try:
        with space("the archive"):
            yield
    except OSError as fault:
        raise NeighbourDown("archive", str(fault)) from fault
