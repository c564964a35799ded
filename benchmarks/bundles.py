"""What is sent: bundles made from a seed, written while they are made.

Long files repeat one mebibyte, which the instant archive can keep as such; files of less than that are random to the
last byte.  No bundle is held in memory, and one that is only sent (`stream`) never lies on a disk.

Who may call it: the rows, and the guard in `tests/growth`.
"""

import hashlib
import json
import random
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["BLOCK", "Shape", "document", "entry", "stream", "total_bytes", "write"]

BLOCK: Final = 1 << 20
_TAR: Final = 512
_END: Final = 10_240
#: Files of one folder.
_FOLDER: Final = 1000
_TIME: Final = 1_577_934_245
_TIME_TEXT: Final = "2020-01-02T03:04:05"
#: Who may upload, as the reference data of `tests.harness` have it.
_SUBMISSION: Final = {"submitter": 10, "project": "1234a", "instrument": 54}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A bundle.

    Attributes:
        files: how many.
        size_bytes: of each.
        seed: what the bytes are made from.
        hashtype: of the digests in the metadata; clients send SHA-1.
    """

    files: int
    size_bytes: int
    seed: int = 1
    hashtype: str = "sha1"

    def __str__(self) -> str:
        """As in a table: 10,000 × 1 KiB."""
        return f"{self.files:,} × {size_text(self.size_bytes)}"


def size_text(size_bytes: int) -> str:
    """Bytes with a unit."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:g} {unit}"
    return f"{size_bytes} B"


def content(source: random.Random, size_bytes: int) -> Iterator[bytes]:
    """The bytes of one file, a mebibyte at a time."""
    block = source.randbytes(min(BLOCK, size_bytes))
    for _ in range(size_bytes // BLOCK):
        yield block
    if size_bytes % BLOCK:
        yield block[: size_bytes % BLOCK]


def entry(number: int, size_bytes: int, hashtype: str, hashsum: str, **more: str) -> dict[str, object]:
    """The entry of one file in the metadata document."""
    return {
        "destinationTable": "Files",
        "name": f"{number:07}.dat",
        "subdir": f"run{number // _FOLDER}",
        "size": size_bytes,
        "mimetype": "application/octet-stream",
        "mtime": _TIME_TEXT,
        "ctime": _TIME_TEXT,
        "hashsum": hashsum,
        "hashtype": hashtype,
    } | more


def document() -> list[dict[str, object]]:
    """The entries that every document begins with."""
    return [{"destinationTable": f"Transactions.{key}", "value": value} for key, value in _SUBMISSION.items()]


def stream(shape: Shape) -> Iterator[bytes]:
    """The bundle, in pieces of a mebibyte at most; the metadata come last, as clients send them."""
    source = random.Random(shape.seed)
    with tempfile.TemporaryFile() as text:
        text.write(json.dumps(document(), separators=(",", ":"))[:-1].encode("ascii"))
        for number in range(shape.files):
            yield _header(f"data/run{number // _FOLDER}/{number:07}.dat", shape.size_bytes)
            hasher = hashlib.new(shape.hashtype, usedforsecurity=False)
            for piece in content(source, shape.size_bytes):
                hasher.update(piece)
                yield piece
            yield bytes(-shape.size_bytes % _TAR)
            found = entry(number, shape.size_bytes, shape.hashtype, hasher.hexdigest())
            text.write(b"," + json.dumps(found, separators=(",", ":")).encode("ascii"))
        text.write(b"]")
        length = text.tell()
        text.seek(0)
        yield _header("metadata.txt", length)
        while piece := text.read(BLOCK):
            yield piece
    yield bytes(-length % _TAR)
    yield bytes(_END)


def total_bytes(shape: Shape) -> int:
    """How long the bundle is, without making its bytes."""
    count = shape.files
    each = len(json.dumps(entry(0, shape.size_bytes, shape.hashtype, ""), separators=(",", ":"))) + 1
    hexdigits = hashlib.new(shape.hashtype, usedforsecurity=False).digest_size * 2
    digits = sum((len(str(first // _FOLDER)) - 1) * min(_FOLDER, count - first) for first in range(0, count, _FOLDER))
    text = len(json.dumps(document(), separators=(",", ":"))) + count * (each + hexdigits) + digits
    padded = shape.size_bytes + -shape.size_bytes % _TAR
    return count * (_TAR + padded) + _TAR + text + -text % _TAR + _END


def write(shape: Shape, folder: Path) -> Path:
    """The bundle as a file in a folder; made once for each shape."""
    name = f"{shape.files}x{shape.size_bytes}-{shape.seed}-{shape.hashtype}.tar"
    path = folder / name
    if not path.exists():
        part = folder / f"{name}.part"
        with part.open("wb", buffering=BLOCK) as file:
            for piece in stream(shape):
                file.write(piece)
        part.rename(path)
    return path


def _header(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    info.mtime = _TIME
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT)
