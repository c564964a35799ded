"""Making a bundle of files: the sender's side, for the demo and for tests.

The tar is written while the files are read, so memory stays flat and each file is read once; `metadata.txt` comes last, as
the digests are known only then.  Not a client: it sends nothing.
"""

import hashlib
import io
import json
import mimetypes
import tarfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pacifica.ingest.core.errors import BadPath
from pacifica.ingest.core.metadata import MIMETYPES, Entry
from pacifica.ingest.core.paths import METADATA, canonical

__all__ = ["files_below", "pack"]

HASHTYPE = "sha256"
ANY_MIMETYPE = "application/octet-stream"
#: Bytes written at a time.
CHUNK_BYTES = 2**20


def pack(
    files: Mapping[str, Path],
    target: BinaryIO,
    *,
    submitter: str,
    project: str,
    instrument: str,
    key_values: Mapping[str, str] | None = None,
) -> list[Entry]:
    """Write a bundle.

    Args:
        files: path in the bundle, below `data/` → the file; see `files_below`.
        target: written from where it stands; need not be seekable.
        submitter: id of the person who submits.
        project: id of the project.
        instrument: id of the instrument.
        key_values: what else is to be known of the transaction.

    Returns:
        the metadata document, which is in the bundle too.

    Raises:
        BadPath: a path that the service would refuse; not retryable.
        OSError: a file cannot be read, or became shorter meanwhile.

    """
    document: list[Entry] = [
        {"destinationTable": "Transactions.submitter", "value": submitter},
        {"destinationTable": "Transactions.project", "value": project},
        {"destinationTable": "Transactions.instrument", "value": instrument},
    ]
    for key, value in (key_values or {}).items():
        document.append({"destinationTable": "TransactionKeyValue", "key": key, "value": value})
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK_BYTES) as tar:
        document.extend(_add(tar, path, file) for path, file in files.items())
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        tar.addfile(_header(METADATA, len(text), int(datetime.now(UTC).timestamp())), io.BytesIO(text))
    return document


def files_below(folder: Path) -> dict[str, Path]:
    """The files of a folder and its subfolders by their path in it, sorted: what `pack` takes.

    Raises:
        BadPath: something that is neither a file nor a folder, such as a link; nothing is left out silently.

    """
    return {file.relative_to(folder).as_posix(): file for file in sorted(_walk(folder))}


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise BadPath(str(path), "only plain files and folders can be packed: take it away, or put a copy there")
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _add(tar: tarfile.TarFile, path: str, file: Path) -> Entry:
    path = canonical(path)
    with file.open("rb") as opened:
        found = file.stat()
        reader = _Hashing(opened)
        tar.addfile(_header(f"data/{path}", found.st_size, int(found.st_mtime)), reader)
    folder, _, name = path.rpartition("/")
    return {
        "destinationTable": "Files",
        "name": name,
        "subdir": folder,
        "size": found.st_size,
        "mimetype": _mimetype(name),
        "mtime": _time_text(found.st_mtime),
        "ctime": _time_text(found.st_ctime),
        "hashsum": reader.hasher.hexdigest(),
        "hashtype": HASHTYPE,
    }


def _header(name: str, size: int, mtime: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size = size
    header.mtime = mtime
    return header


class _Hashing(io.RawIOBase):
    """A file that digests what is read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hasher = hashlib.new(HASHTYPE)

    def read(self, size: int = -1) -> bytes:
        """Read, and digest."""
        chunk = self._file.read(size)
        self.hasher.update(chunk)
        return chunk


def _mimetype(name: str) -> str:
    """The type by the name; what is compressed, unknown or unknown to the catalogue is `application/octet-stream`."""
    guess, compression = mimetypes.guess_type(name)
    known = guess is not None and compression is None and guess.startswith(MIMETYPES)
    return guess if known and guess is not None else ANY_MIMETYPE


def _time_text(seconds: float) -> str:
    """Naive UTC in ISO form, as clients write it."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
