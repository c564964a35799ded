"""The archive as a folder.  Fulfils `ports.Archive`; chosen by `[archiveinterface] url = file:///folder`.

The object 1234567 lies at `000/001/234/1234567`: a folder for each billion, million and thousand, and the id as the name.
So no folder has more than 1000 entries for ids below 10^12, and the tree can be read without this program.  Objects are
read-only and never overwritten.  A file lands by temp → fsync → rename in its folder; unfinished ones end in `.part`.
"""

import errno
import filecmp
import hashlib
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pacifica.ingest.core.errors import ArchiveMismatch, NeighbourDown
from pacifica.ingest.disk import fsync_file, fsync_folder, make_folder, space
from pacifica.ingest.ports import Parcel, Progress

__all__ = ["FolderArchive"]

#: Files that are made durable at once; one disk gains nothing by more.
THREADS = 8
#: Files that wait for that at most; each holds a descriptor.
BACKLOG = 64
#: Bytes copied or read between two calls of the progress function.
PIECE = 4 * 2**20
#: A long file is written out every so many bytes, so that no single fsync takes longer than an owner may stand still.
SYNC_EVERY = 16 * PIECE
#: A file of fewer bytes is read and written: asking the kernel to copy it takes longer.
SMALL = 64 * 2**10
#: A temporary file that was not written for that long, in seconds, belongs to a dead process.
STALE_S = 86_400.0

READ_ONLY = 0o444
_PART = ".part"
_BINARY = getattr(os, "O_BINARY", 0)
#: The file system has no hard links or denies this one, or the kernel cannot copy between these two files.
_CANNOT = {errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV}


class FolderArchive:
    """`ports.Archive` in one folder, which is made when it is missing.

    Processes may share the folder, and the threads of one job may share one of these.  It owns threads: make it after a
    fork, not before.
    """

    def __init__(self, folder: Path) -> None:
        """Keep everything below `folder`."""
        self._folder = folder.absolute()
        self._token = secrets.token_hex(8)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="archive")
        self._room = threading.BoundedSemaphore(BACKLOG)
        self._flushing = threading.Lock()
        self._lock = threading.Lock()
        self._landing: list[Future[Path]] = []

    def size(self, file_id: int) -> int | None:
        """See `ports.Archive.size`."""
        with _told():
            for path in self._places(file_id):
                with suppress(FileNotFoundError):
                    return path.stat().st_size
        return None

    def store(self, parcel: Parcel, progress: Progress) -> None:
        """See `ports.Archive.store`.

        Raises:
            ArchiveMismatch: the id holds something already, which stays as it is; retryable.
            NoSpace, NeighbourDown: retryable.

        """
        with _told():
            if self._final(parcel.file_id).exists():
                raise _taken(parcel.file_id, parcel.path)
            handle = self._write(
                parcel.file_id, parcel.path, _Piece(parcel.holder, parcel.offset, parcel.size_bytes), progress
            )
            self._land(parcel.file_id, parcel.path, handle)

    def adopt(self, file_id: int, source: Path) -> None:
        """See `ports.Archive.adopt`; durable when it returns.

        Called again after a crash it ends what it had begun: a source that is the object, or equals it, is removed.

        Raises:
            ArchiveMismatch: the id holds something else, which stays as it is, and so does the source; retryable.
            NoSpace, NeighbourDown: retryable.

        """
        with _told():
            found = source.lstat()
            if not stat.S_ISREG(found.st_mode):
                reason = f"{source} is no plain file"
                raise NeighbourDown("archive", reason)
            final = self._final(file_id)
            if not final.exists():
                self._take(file_id, source, links=found.st_nlink)
            elif not filecmp.cmp(source, final, shallow=False):
                raise _taken(file_id, str(source))
            self._sync_folders({final.parent})
            source.unlink(missing_ok=True)
            fsync_folder(source.parent)

    def digest(self, file_id: int, algorithm: str, progress: Progress) -> tuple[str, int]:
        """See `ports.Archive.digest`."""
        with _told(), os.fdopen(self._open(file_id), "rb", buffering=0) as file:
            hasher = hashlib.new(algorithm, usedforsecurity=False)
            buffer = memoryview(bytearray(min(PIECE, os.fstat(file.fileno()).st_size + 1)))
            size_bytes = 0
            while count := file.readinto(buffer):
                hasher.update(buffer[:count])
                size_bytes += count
                progress(count)
            return hasher.hexdigest(), size_bytes

    def remove(self, file_id: int) -> None:
        """See `ports.Archive.remove`."""
        final = self._final(file_id)
        with _told():
            _remove(final)
            fsync_folder(final.parent)

    def flush(self) -> None:
        """See `ports.Archive.flush`."""
        with self._flushing, _told():
            with self._lock:
                landing, self._landing = self._landing, []
            wait(landing)
            self._sync_folders({landed.result() for landed in landing})

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
                    if time.time() - temp.stat().st_mtime >= older_than_s:
                        _remove(temp)
                        removed += 1
        return removed

    # --- places

    def _final(self, file_id: int) -> Path:
        thousands, millions, billions = (file_id // 10**power for power in (3, 6, 9))
        return self._folder / f"{billions:03}/{millions % 1000:03}/{thousands % 1000:03}/{file_id}"

    def _places(self, file_id: int) -> tuple[Path, Path]:
        """Where an object may be, in the order in which it passes them: landing, and landed."""
        final = self._final(file_id)
        # One folder for both, so that a crash leaves its temporary files beside what they were to become.
        return final.with_name(f"{file_id}.{self._token}{_PART}"), final

    def _open(self, file_id: int) -> int:
        for path in self._places(file_id):
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | _BINARY)
        reason = f"nothing lies under the id {file_id}"
        raise NeighbourDown("archive", reason)

    # --- temp

    def _write(self, file_id: int, path: str, piece: "_Piece", progress: Progress) -> int:
        """Copy bytes to the temporary file of an id; returns its open descriptor."""
        temp, _ = self._places(file_id)
        try:
            handle = self._create(temp)
        except FileExistsError as fault:
            raise _taken(file_id, path) from fault
        try:
            self._fill(handle, piece, progress)
        except BaseException:
            os.close(handle)
            _remove(temp)
            raise
        return handle

    def _create(self, temp: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY
        try:
            return os.open(temp, flags, READ_ONLY)
        except FileNotFoundError:
            self._make(temp.parent)
            return os.open(temp, flags, READ_ONLY)

    def _make(self, folder: Path) -> None:
        """Make a folder of the archive; `flush` makes its name durable, this that of the archive itself."""
        make_folder(self._folder)
        folder.mkdir(parents=True, exist_ok=True)

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

    def _land(self, file_id: int, path: str, handle: int) -> None:
        """Let a thread do the rest: for a small file, waiting for the disk takes ten times as long as copying."""
        self._room.acquire()
        landed = self._pool.submit(self._keep, file_id, path, handle)
        landed.add_done_callback(lambda _: self._room.release())
        with self._lock:
            self._landing.append(landed)

    def _keep(self, file_id: int, path: str, handle: int) -> Path:
        """Make a temporary file durable and give it its name; returns the folder, where the name is not durable yet."""
        temp, final = self._places(file_id)
        try:
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            _publish(temp, final)
        except FileExistsError as fault:
            raise _taken(file_id, path) from fault
        finally:
            _remove(temp)
        return final.parent

    def _sync_folders(self, folders: set[Path]) -> None:
        """Make names durable, and those of the folders above, which may be new; all at once."""
        above = {path for folder in folders for path in folder.parents if path.is_relative_to(self._folder)}
        list(self._pool.map(fsync_folder, folders | above))

    # --- move

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
            raise _taken(file_id, str(source)) from fault
        except OSError as fault:
            if fault.errno not in _CANNOT:
                raise
        whole = _Piece(source, 0, source.stat().st_size)
        self._keep(file_id, str(source), self._write(file_id, str(source), whole, lambda _: None))

    def _rename(self, source: Path, final: Path) -> None:
        self._make(final.parent)
        source.chmod(READ_ONLY)
        fsync_file(source)
        _link(source, final)


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
            if fault.errno not in _CANNOT:
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


def _publish(temp: Path, final: Path) -> None:
    """Give a finished file its name.  Raises `FileExistsError` when that is taken, and changes nothing then."""
    try:
        _link(temp, final)
    except OSError as fault:
        if fault.errno not in _CANNOT:
            raise
        # The file system has no links: nothing better is to be had than to look first.
        if final.exists():
            raise FileExistsError(final) from fault
        temp.rename(final)


def _link(temp: Path, final: Path) -> None:
    """The one step that cannot overwrite, on either system."""
    if os.name == "nt":
        temp.rename(final)
    else:
        os.link(temp, final)


def _remove(temp: Path) -> None:
    with suppress(FileNotFoundError):
        if os.name == "nt":
            temp.chmod(0o600)  # what is read-only cannot be removed there
        temp.unlink()


def _taken(file_id: int, path: str) -> ArchiveMismatch:
    return ArchiveMismatch(file_id, path, "the id holds something else already, which was kept")


@contextmanager
def _told() -> Iterator[None]:
    """Tell faults of the file system as ours."""
    try:
        with space("the archive"):
            yield
    except OSError as fault:
        raise NeighbourDown("archive", str(fault)) from fault
