"""The archive as a folder.  Fulfils `ports.Archive`; chosen by `[archiveinterface] url = file:///folder`.

The object 1234567 lies at `000/001/234/1234567`: a folder for each billion, million and thousand, and the id as the name.
So no folder has more than 1000 entries for ids below 10^12, and the tree can be read without this program.  Objects are
read-only and never overwritten.  A file lands by temp → fsync → rename in its folder; unfinished ones end in `.part`.
Nothing is read or written unless the folder has its marker, see `root`.
"""

import filecmp
import hashlib
import os
import secrets
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pacifica.ingest.core.errors import IdTaken, NeighbourDown
from pacifica.ingest.disk import CANNOT, fsync_file, fsync_folder, link, publish, space
from pacifica.ingest.local.root import Memory, ProcessMemory, Root
from pacifica.ingest.ports import Parcel, Progress, Shipment

__all__ = ["FolderArchive"]

#: Files that are made durable at once; one disk gains nothing by more.
THREADS = 8
#: Files that are on their way to that at most; each may hold two descriptors.
BACKLOG = 64
#: Bytes copied or read between two calls of the progress function.
PIECE = 4 * 2**20
#: A long file is written out every so many bytes, so that no single fsync takes longer than an owner may stand still.
SYNC_EVERY = 16 * PIECE
#: A file of fewer bytes is stored by another thread, as making one waits for the disk, too.  It is read and written: asking
#: the kernel to copy it takes longer.
SMALL = 64 * 2**10
#: A temporary file that was not written for that long, in seconds, belongs to a dead process.
STALE_S = 86_400.0

READ_ONLY = 0o444
_PART = ".part"
_BINARY = getattr(os, "O_BINARY", 0)


class FolderArchive:
    """`ports.Archive` in one folder, which is made when it is missing.

    Processes may share the folder, and threads may share one of these: each flushes what it stored itself.  It owns threads:
    make it after a fork, not before.
    """

    def __init__(self, folder: Path, memory: Memory | None = None) -> None:
        """Keep everything below `folder`; `memory` knows the marker that it has if it was used before."""
        self._folder = folder.absolute()
        self._root = Root(self._folder, memory or ProcessMemory())
        self._token = secrets.token_hex(8)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="archive")
        self._mine = _Loose()

    def size(self, file_id: int) -> int | None:
        """See `ports.Archive.size`."""
        with self._there(), suppress(FileNotFoundError):
            return self._final(file_id).stat().st_size
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
        landing = _Landing(shipment)
        with self._there():
            try:
                for parcel in parcels:
                    landing.settle(BACKLOG - 1)
                    if landing.fault is not None:
                        break
                    shipment.begun.append(parcel)
                    self._start(parcel, progress, landing)
            finally:
                landing.settle(0)
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
            self._make(self._final(file_id).parent)
            folder = self._hold(file_id, source)
            self._sync_folders({folder})
            _remove(source)
            fsync_folder(source.parent)

    def adopt_all(
        self, parcels: Sequence[Parcel], ready: Callable[[], object], progress: Progress, shipment: Shipment
    ) -> None:
        """See `ports.Archive.adopt_all`; raises as `adopt`."""
        left = deque(parcels)
        with self._there():
            while left:
                ready()
                held = Shipment()
                landing = _Landing(held)
                try:
                    for _ in range(min(BACKLOG, len(left))):
                        parcel = left.popleft()
                        shipment.begun.append(parcel)
                        held.begun.append(parcel)
                        self._start_move(parcel, landing)
                finally:
                    landing.settle(0)
                    shipment.taken += held.taken
                self._sync_folders(landing.folders)
                for parcel in held.stored:
                    _remove(parcel.holder)
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
            return self._digest(file_id, algorithm, progress, most_bytes)

    def digests(self, parcels: Sequence[Parcel], progress: Progress) -> Generator[tuple[str, int], None, None]:
        """See `ports.Archive.digests`."""
        with self._there():
            for parcel in parcels:
                yield self._digest(parcel.file_id, parcel.digest.algorithm, progress, parcel.size_bytes)

    def _digest(self, file_id: int, algorithm: str, progress: Progress, most_bytes: int | None) -> tuple[str, int]:
        try:
            file = self._final(file_id).open("rb", buffering=0)  # closed below
        except FileNotFoundError as fault:
            reason = f"nothing lies under the id {file_id}"
            raise NeighbourDown("archive", reason) from fault
        with file:
            hasher = hashlib.new(algorithm, usedforsecurity=False)
            buffer = memoryview(bytearray(min(PIECE, os.fstat(file.fileno()).st_size + 1)))
            size_bytes = 0
            while count := file.readinto(buffer):
                size_bytes += count
                if most_bytes is not None and size_bytes > most_bytes:
                    break
                hasher.update(buffer[:count])
                progress(count)
            return hasher.hexdigest(), size_bytes

    def remove(self, file_id: int) -> bool:
        """See `ports.Archive.remove`.

        Raises:
            NeighbourDown: also when a temporary file is so young that somebody may be writing it; retryable.

        """
        final = self._final(file_id)
        with self._there():
            found = [*self._temporaries(file_id), *([final] if final.exists() else [])]
            for path in found:
                if path != final and _age_s(path) < STALE_S:
                    reason = f"{path} was written less than a day ago"
                    raise NeighbourDown("archive", reason)
                _remove(path)
            if found:
                fsync_folder(final.parent)
        return bool(found)

    def flush(self) -> None:
        """See `ports.Archive.flush`."""
        with self._there():
            self._sync_folders(self._mine.folders)
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
        return str(self._final(file_id))

    def clean_up(self, *, older_than_s: float = STALE_S) -> int:
        """Remove temporary files that a crash left behind.

        Args:
            older_than_s: spares younger ones, as another process may be writing them; 0 when there is surely none.

        Returns:
            how many were removed.

        """
        removed = 0
        for folder, _, names in os.walk(self._folder):
            for temp in (Path(folder, name) for name in names if name.endswith(_PART)):
                with suppress(FileNotFoundError):
                    if _age_s(temp) >= older_than_s:
                        _remove(temp)
                        removed += 1
        return removed

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Do something with the archive, if it is here."""
        with _told():
            self._root.require()
            yield

    # --- places

    def _final(self, file_id: int) -> Path:
        folders = f"{file_id // 10**9:03}/{file_id // 10**6 % 1000:03}/{file_id // 1000 % 1000:03}"
        # Joined as text: a million paths are made.
        return Path(f"{self._folder}/{folders}/{file_id}")

    def _temporary(self, final: Path) -> Path:
        """Beside what it is to become, so that there is one folder to look for what a crash left."""
        return Path(f"{final}.{self._token}{_PART}")

    def _temporaries(self, file_id: int) -> list[Path]:
        """What any process has not finished under an id, or left unfinished."""
        return list(self._final(file_id).parent.glob(f"{file_id}.*{_PART}"))

    # --- temp

    def _start(self, parcel: Parcel, progress: Progress, landing: "_Landing") -> None:
        """Store a parcel, as far as this thread has to; another one does the rest."""
        piece = _Piece(parcel.holder, parcel.offset, parcel.size_bytes)
        self._prepare(parcel, landing)
        if parcel.size_bytes < SMALL:
            landing.add(parcel, self._pool.submit(self._store, parcel.file_id, parcel.path, piece))
            progress(parcel.size_bytes)
            return
        if self._final(parcel.file_id).exists():
            landing.add(parcel, _failed(IdTaken(parcel.file_id, parcel.path)))
            return
        handle = self._write(parcel.file_id, piece, progress)
        landing.add(parcel, self._pool.submit(self._keep, parcel.file_id, parcel.path, handle))

    def _store(self, file_id: int, path: str, piece: "_Piece") -> Path:
        """Returns the folder, where the name is not durable yet."""
        return self._keep(file_id, path, self._write(file_id, piece, lambda _: None))

    def _write(self, file_id: int, piece: "_Piece", progress: Progress) -> int:
        """Copy bytes to the temporary file of an id; returns its open descriptor."""
        temp = self._temporary(self._final(file_id))
        try:
            handle = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, READ_ONLY)
        except FileExistsError as fault:
            # The name has a part of ours in it, so this is no one else's; see `remove`.
            reason = f"{temp} is being written, or was left by an attempt that failed"
            raise NeighbourDown("archive", reason) from fault
        try:
            self._fill(handle, piece, progress)
        except BaseException:
            os.close(handle)
            _remove(temp)
            raise
        return handle

    def _prepare(self, parcel: Parcel, landing: "_Landing") -> None:
        """Make the folder of a parcel before threads need it."""
        folder = self._final(parcel.file_id).parent
        if folder not in landing.prepared:
            self._make(folder)
            landing.prepared.add(folder)

    def _make(self, folder: Path) -> None:
        """Make a folder of the archive; `flush` makes its name durable.  Never that of the archive itself: see `root`."""
        if not folder.parent.is_dir() and folder.parent != self._folder:
            self._make(folder.parent)
        folder.mkdir(exist_ok=True)

    def _fill(self, handle: int, piece: "_Piece", progress: Progress) -> None:
        """Copy bytes, and write those of a long file out meanwhile."""
        done = synced = 0
        syncing: Future[None] | None = None
        source = os.open(piece.holder, os.O_RDONLY | _BINARY)
        try:
            while done < piece.size_bytes:
                count = _copy(source, handle, piece.offset + done, min(PIECE, piece.size_bytes - done))
                if not count:
                    msg = f"{piece.holder} ends {piece.size_bytes - done} bytes early"
                    raise OSError(msg)
                done += count
                if done - synced >= SYNC_EVERY:
                    syncing, synced = self._sync(handle, syncing), done
                progress(count)
        finally:
            os.close(source)
            if syncing is not None:
                wait([syncing])
        if syncing is not None:
            syncing.result()

    def _sync(self, handle: int, before: "Future[None] | None") -> "Future[None]":
        if before is not None:
            before.result()
        return self._pool.submit(os.fsync, handle)

    # --- fsync and rename

    def _keep(self, file_id: int, path: str, handle: int) -> Path:
        """Make a temporary file durable and give it its name; returns the folder, where the name is not durable yet."""
        final = self._final(file_id)
        temp = self._temporary(final)
        try:
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            publish(temp, final)
        except FileExistsError as fault:
            raise IdTaken(file_id, path) from fault
        except FileNotFoundError as fault:
            # Who has the id now removed what was unfinished under it.
            if final.exists():
                raise IdTaken(file_id, path) from fault
            raise
        finally:
            _remove(temp)
        return final.parent

    def _sync_folders(self, folders: set[Path]) -> None:
        """Make names durable, and those of the folders above, which may be new; all at once."""
        above = {path for folder in folders for path in folder.parents if path.is_relative_to(self._folder)}
        list(self._pool.map(fsync_folder, folders | above))

    # --- move

    def _start_move(self, parcel: Parcel, landing: "_Landing") -> None:
        """Hold a source; a long one in this thread, as it may have to be copied, for which others are needed."""
        self._prepare(parcel, landing)
        move = partial(self._hold, parcel.file_id, parcel.holder)
        landing.add(parcel, self._pool.submit(move) if parcel.size_bytes < SMALL else _done(move))

    def _hold(self, file_id: int, source: Path) -> Path:
        """Let the id hold the bytes of a source, which stays; returns the folder, where the name is not durable yet."""
        found = source.lstat()
        if not stat.S_ISREG(found.st_mode):
            reason = f"{source} is no plain file"
            raise NeighbourDown("archive", reason)
        final = self._final(file_id)
        if not final.exists():
            self._take(file_id, source, links=found.st_nlink)
        elif not filecmp.cmp(source, final, shallow=False):
            raise IdTaken(file_id, str(source))
        for temp in self._temporaries(file_id):
            _remove(temp)
        return final.parent

    def _take(self, file_id: int, source: Path, *, links: int) -> None:
        """Let the id hold the bytes of a file.

        A file of another file system or another owner is copied, and so is one with a second name, through which the
        object could be changed later.
        """
        try:
            if links == 1:
                self._rename(source, self._final(file_id))
                return
        except FileExistsError as fault:
            raise IdTaken(file_id, str(source)) from fault
        except OSError as fault:
            if fault.errno not in CANNOT:
                raise
        whole = _Piece(source, 0, source.stat().st_size)
        self._store(file_id, str(source), whole)

    def _rename(self, source: Path, final: Path) -> None:
        fsync_file(source)  # first: on Windows, what is read-only cannot be synced
        mode = source.stat().st_mode
        source.chmod(READ_ONLY)
        try:
            link(source, final)
        except OSError:
            # It stays the user's file, as it was; unless it has become the object all the same.
            if not (final.exists() and final.samefile(source)):
                source.chmod(stat.S_IMODE(mode))
            raise


class _Loose(threading.local):
    """Folders in which a thread stored something, whose names are not durable yet."""

    def __init__(self) -> None:
        self.folders: set[Path] = set()


class _Landing:
    """Parcels of one shipment on their way to the disk.

    Attributes:
        fault: the first one.
        folders: where the others landed.
        prepared: folders that are there.

    """

    def __init__(self, shipment: Shipment) -> None:
        self.fault: Exception | None = None
        self.folders: set[Path] = set()
        self.prepared: set[Path] = set()
        self._shipment = shipment
        self._waiting: deque[tuple[Parcel, Future[Path]]] = deque()

    def add(self, parcel: Parcel, landed: "Future[Path]") -> None:
        """Wait for one more; what it gives is its folder."""
        self._waiting.append((parcel, landed))

    def settle(self, keep: int) -> None:
        """Wait until so many are left, and tell the shipment what became of the others."""
        while len(self._waiting) > keep:
            parcel, landed = self._waiting.popleft()
            try:
                self.folders.add(landed.result())
            except Exception as fault:  # noqa: BLE001 (raised by the caller, when nothing is on its way any more)
                if isinstance(fault, IdTaken):
                    self._shipment.taken.append(parcel)
                self.fault = self.fault or fault
            else:
                self._shipment.stored.append(parcel)


def _failed(fault: Exception) -> "Future[Path]":
    landed: Future[Path] = Future()
    landed.set_exception(fault)
    return landed


def _done(move: Callable[[], Path]) -> "Future[Path]":
    """What a call in this thread gave."""
    landed: Future[Path] = Future()
    try:
        landed.set_result(move())
    except Exception as fault:  # noqa: BLE001 (told as that of another thread)
        landed.set_exception(fault)
    return landed


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of a file: `size_bytes` of them from `offset`."""

    holder: Path
    offset: int
    size_bytes: int


def _copy(source: int, target: int, offset: int, count: int) -> int:
    """Copy up to `count` bytes, inside the kernel when it can; returns how many, 0 at the end of the source."""
    if count >= SMALL and hasattr(os, "copy_file_range"):
        try:
            copied = os.copy_file_range(source, target, count, offset_src=offset)
        except OSError as fault:
            if fault.errno not in CANNOT:
                raise
        else:
            if copied:
                return copied
    os.lseek(source, offset, os.SEEK_SET)
    with memoryview(os.read(source, count)) as view:
        done = 0
        while done < len(view):
            done += os.write(target, view[done:])
        return done


def _remove(temp: Path) -> None:
    with suppress(FileNotFoundError):
        if os.name == "nt":
            temp.chmod(0o600)  # what is read-only cannot be removed there
        temp.unlink()


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime


@contextmanager
def _told() -> Iterator[None]:
    """Tell faults of the file system as ours."""
    try:
        with space("the archive"):
            yield
    except OSError as fault:
        raise NeighbourDown("archive", str(fault)) from fault
