"""One object of the archive in a folder: where it lies, how bytes become it, how they are read back.

The object 1234567 lies at `000/001/234/1234567`: a folder for each billion, million and thousand, and the id as the name.
So no folder has more than 1000 entries for ids below 10^12, and the tree can be read without this program.  Objects are
read-only and never overwritten.  A file lands by temp → fsync → rename in its folder; unfinished ones end in `.part`.

Not the archive: `archive` has many objects at a time, and tells faults of the disk as its own.
"""

import filecmp
import functools
import os
import secrets
import stat
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pacifica.ingest.core.digests import digested
from pacifica.ingest.core.errors import IdTaken, NeighbourDown
from pacifica.ingest.disk import CANNOT, begin_writing_out, fsync_file, fsync_folder, link, publish
from pacifica.ingest.ports import Progress

__all__ = ["SMALL", "Objects", "Piece", "Steps", "age_s", "remove", "together"]

#: Bytes copied or read between two calls of the progress function.
PIECE = 4 * 2**20
#: A long file is written out every so many bytes, so that no single fsync takes longer than an owner may stand still.
SYNC_EVERY = 16 * PIECE
#: A file of fewer bytes is read and written: asking the kernel to copy it takes longer.
SMALL = 64 * 2**10

READ_ONLY = 0o444
_PART = ".part"
_BINARY = getattr(os, "O_BINARY", 0)
#: Where nobody can read at a place (Windows), one thread at a time seeks.
_seeking = threading.Lock()


class Piece(NamedTuple):
    """Bytes of an open file, which other threads may read, too: `size_bytes` of them from `offset`."""

    holder: BinaryIO
    offset: int
    size_bytes: int


#: Work on one object, which pauses where it would wait for the disk; it returns the folder in which that landed.
Steps = Generator[None, None, Path]


def together(works: Sequence[Steps]) -> list[Path | Exception]:
    """Do some works step by step, each step of all before the next one.

    The disk is told of the bytes of all files before the first is waited for, so that one commit of the journal of its file
    system serves many; row 11 of `docs/performance.md` has both ways.

    Returns:
        what each returned, or its fault.

    """
    found: dict[int, Path | Exception] = {}
    while len(found) < len(works):
        for place, work in enumerate(works):
            if place in found:
                continue
            try:
                next(work)
            except StopIteration as end:
                found[place] = end.value
            except Exception as fault:  # noqa: BLE001 (each work for itself; the caller tells)
                found[place] = fault
    return [found[place] for place in range(len(works))]


class Objects:
    """The objects in one folder, each for itself.  What a method made has a durable name after `sync_folders` only."""

    def __init__(self, folder: Path, pool: Executor) -> None:
        """Keep them below `folder`, whose folders the `pool` syncs."""
        self._folder = folder
        self._token = secrets.token_hex(8)
        self._pool = pool
        #: Syncs long files while they are written; not the pool, in which one that has to be copied would wait for another.
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="archive sync")
        self._folder_of = functools.lru_cache(maxsize=1000)(self._folder_of_thousand)

    # --- places

    def path(self, file_id: int) -> Path:
        """Where an object lies, or would."""
        return Path(self._place(file_id))

    def folder(self, file_id: int) -> Path:
        """The folder of that."""
        return self._folder_of(file_id // 1000)

    def _place(self, file_id: int) -> str:
        """`path` as text: making a path takes longer than to open it, and there are a million."""
        return f"{self.folder(file_id)}/{file_id}"

    def _folder_of_thousand(self, number: int) -> Path:
        return self._folder / f"{number // 10**6:03}/{number // 1000 % 1000:03}/{number % 1000:03}"

    def make_folder(self, folder: Path) -> None:
        """Make a folder of objects.  Never that of the archive itself: see `root`."""
        if not folder.parent.is_dir() and folder.parent != self._folder:
            self.make_folder(folder.parent)
        folder.mkdir(exist_ok=True)

    def sync_folders(self, folders: set[Path]) -> None:
        """Make names durable, and those of the folders above, which may be new; all at once."""
        above = {path for folder in folders for path in folder.parents if path.is_relative_to(self._folder)}
        list(self._pool.map(fsync_folder, folders | above))

    def unfinished(self, file_id: int) -> list[Path]:
        """What any process has not finished under an id, or left unfinished."""
        return list(self.folder(file_id).glob(f"{file_id}.*{_PART}"))

    def all_unfinished(self) -> Iterator[Path]:
        """The same under every id."""
        for folder, _, names in os.walk(self._folder):
            yield from (Path(folder, name) for name in names if name.endswith(_PART))

    def _temporary(self, file_id: int) -> str:
        """Beside what it is to become, so that there is one folder to look for what a crash left."""
        return f"{self._place(file_id)}.{self._token}{_PART}"

    # --- bytes become an object

    def store(self, file_id: int, path: str, piece: Piece) -> Steps:
        """Make an object of bytes, which are those of the file `path`, in its folder, which must be there.

        Raises:
            IdTaken: the id holds something already, which stays as it is; retryable.
            NeighbourDown: what an attempt of this process left is in the way; retryable.
            OSError: of the disk; nothing is left then.

        """
        handle = self.write(file_id, piece, lambda _: None)
        return (yield from self.keep(file_id, path, handle))

    def write(self, file_id: int, piece: Piece, progress: Progress) -> int:
        """Copy bytes to the temporary file of an id, for `keep`; returns its open descriptor.  Raises as `store`."""
        temp = self._temporary(file_id)
        try:
            handle = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, READ_ONLY)
        except FileExistsError as fault:
            # The name has a part of ours in it, so this is no one else's; see `FolderArchive.remove`.
            reason = f"{temp} is being written, or was left by an attempt that failed"
            raise NeighbourDown("archive", reason) from fault
        try:
            self._fill(handle, piece, progress)
        except BaseException:
            os.close(handle)
            remove(temp)
            raise
        return handle

    def keep(self, file_id: int, path: str, handle: int) -> Steps:
        """Make what `write` wrote durable and give it its name.  Raises as `store`."""
        final, temp = self._place(file_id), self._temporary(file_id)
        try:
            try:
                yield
                os.fsync(handle)
            finally:
                os.close(handle)
            yield
            publish(temp, final)
        except FileExistsError as fault:
            raise IdTaken(file_id, path) from fault
        except FileNotFoundError as fault:
            # Who has the id now removed what was unfinished under it.
            if os.path.exists(final):  # noqa: PTH110 (it is text here)
                raise IdTaken(file_id, path) from fault
            raise
        finally:
            remove(temp)
        return self.folder(file_id)

    def _fill(self, handle: int, piece: Piece, progress: Progress) -> None:
        """Copy bytes, and write those of a long file out meanwhile."""
        done = synced = 0
        syncing: Future[None] | None = None
        source = piece.holder.fileno()
        try:
            while done < piece.size_bytes:
                count = _copy(source, handle, piece.offset + done, min(PIECE, piece.size_bytes - done))
                if not count:
                    msg = f"{piece.holder.name} ends {piece.size_bytes - done} bytes early"
                    raise OSError(msg)
                done += count
                if done - synced >= SYNC_EVERY:
                    syncing, synced = self._sync(handle, syncing), done
                progress(count)
            # No more than that: the kernel forgets what is on the disk already, and it is to be read back.
            begin_writing_out(handle, synced, done - synced)
        finally:
            if syncing is not None:
                wait([syncing])
        if syncing is not None:
            syncing.result()

    def _sync(self, handle: int, before: "Future[None] | None") -> "Future[None]":
        if before is not None:
            before.result()
        return self._syncer.submit(os.fsync, handle)

    # --- a file becomes an object

    def hold(self, file_id: int, source: Path) -> Steps:
        """Let an id hold the bytes of a source, which stays, in its folder, which must be there.

        Raises:
            IdTaken: the id holds something else already; retryable.
            NeighbourDown: the source is no plain file; retryable.
            OSError: of the disk.

        """
        found = source.lstat()
        if not stat.S_ISREG(found.st_mode):
            reason = f"{source} is no plain file"
            raise NeighbourDown("archive", reason)
        final = self.path(file_id)
        if not final.exists():
            yield from self._take(file_id, source, links=found.st_nlink)
        elif not filecmp.cmp(source, final, shallow=False):
            raise IdTaken(file_id, str(source))
        for temp in self.unfinished(file_id):
            remove(temp)
        return self.folder(file_id)

    def _take(self, file_id: int, source: Path, *, links: int) -> Steps:
        """Let the id hold the bytes of a file.

        A file of another file system or another owner is copied, and so is one with a second name, through which the
        object could be changed later.
        """
        try:
            if links == 1:
                self._rename(source, self.path(file_id))
                return self.folder(file_id)
        except FileExistsError as fault:
            raise IdTaken(file_id, str(source)) from fault
        except OSError as fault:
            if fault.errno not in CANNOT:
                raise
        with source.open("rb", buffering=0) as file:
            return (yield from self.store(file_id, str(source), Piece(file, 0, os.fstat(file.fileno()).st_size)))

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

    # --- read back

    def digest(self, file_id: int, algorithm: str, progress: Progress, most_bytes: int | None) -> tuple[str, int]:
        """Digest and size of an object; of a longer one than `most_bytes` no more is read than shows that.

        Raises:
            NeighbourDown: nothing lies there; retryable.
            OSError: of the disk.

        """
        try:
            handle = os.open(self._place(file_id), os.O_RDONLY | _BINARY)
        except FileNotFoundError as fault:
            reason = f"nothing lies under the id {file_id}"
            raise NeighbourDown("archive", reason) from fault
        try:
            most = PIECE if most_bytes is None else min(PIECE, most_bytes + 1)
            return digested(iter(lambda: os.read(handle, most), b""), algorithm, progress, most_bytes)
        finally:
            os.close(handle)


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
    content = _read_at(source, offset, count)
    done = os.write(target, content)
    while done < len(content):
        done += os.write(target, memoryview(content)[done:])
    return done


def _read_at(source: int, offset: int, count: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(source, count, offset)
    with _seeking:
        os.lseek(source, offset, os.SEEK_SET)
        return os.read(source, count)


def remove(path: str | Path) -> None:
    """Remove a file, also one that is read-only; nothing happens when it is gone."""
    try:
        if os.name == "nt":
            Path(path).chmod(0o600)  # what is read-only cannot be removed there
        os.unlink(path)  # noqa: PTH108 (a text is taken as it is: a million are removed)
    except FileNotFoundError:
        pass


def age_s(path: Path) -> float:
    """How long ago a file was written, in seconds."""
    return time.time() - path.stat().st_mtime
