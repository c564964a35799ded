"""What is fuzzed.  A target takes bytes, and raises when the code under test does what it must not do."""

import json
import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pacifica.ingest.bundle import Bundle, Limits
from pacifica.ingest.core.errors import BadBundle, BadMetadata
from pacifica.ingest.core.metadata import Document
from pacifica.ingest.testing import BundleBuilder
from tests.hostile.raw_tar import BLOCK, END, long_name, member, pax, sealed
from tests.hostile.readers import Files, ensure_gnu_agrees, theirs

__all__ = ["SEEDS", "TARGETS", "compare_with_gnu", "mended"]

#: Small, so that inputs reach them.
LIMITS = Limits(members=100, name_length=300, extended_bytes=8192, metadata_bytes=8192)
#: What a person is told must fit on a screen.
LONGEST_MESSAGE = 40_000


def _ours(path: Path) -> tuple[Files, bytes | None] | None:
    """The bundle as we see it; None when it is refused."""
    try:
        with Bundle.open(path, LIMITS) as bundle:
            members = {one.path: b"".join(bundle.chunks(one, 700)) for one in bundle}
            try:
                return members, b"".join(bundle.metadata())
            except BadMetadata:
                return members, None
    except BadBundle as fault:
        _readable(fault)
        return None


def _readable(fault: Exception) -> None:
    text = str(fault)
    assert text.replace("\n", "").isprintable(), text
    assert 10 < len(text) < LONGEST_MESSAGE, text[:100]


_MEMORY = Path("/dev/shm")
_folder = tempfile.TemporaryDirectory(prefix="pacifica-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)
_path = Path(_folder.name) / "1.tar"


def tar(data: bytes) -> None:
    """A bundle means the same to us and to `tarfile`, or it is refused."""
    _path.write_bytes(data)
    found = _ours(_path)
    if found is not None:
        assert found == theirs(_path)


def compare_with_gnu(data: bytes) -> bool:
    """The same with GNU tar, which takes a thousand times as long; returns whether the bundle was accepted.

    Raises:
        AssertionError: GNU tar sees something else.
    """
    _path.write_bytes(data)
    found = _ours(_path)
    if found is not None:
        ensure_gnu_agrees(_path, found)
    return found is not None


def metadata(data: bytes) -> None:
    """A document is refused with words, or it is one that the standard library reads as we do, and can be passed on."""
    try:
        document = Document.parse(data)
    except BadMetadata as fault:
        _readable(fault)
        return
    assert list(document.entries) == json.loads(data)
    at = len(data) * (sum(data) % 97) // 97
    cut = Document.read(lambda: [data[:at], data[at:]])
    assert (cut.files, cut.faults) == (document.files, document.faults)
    for fault in document.faults:
        assert str(fault).isprintable(), fault
    if not document.faults:
        json.dumps([*document.registration(1)]).encode("ascii")


TARGETS: Mapping[str, Callable[[bytes], None]] = {"tar": tar, "metadata": metadata}


def mended(data: bytes, chance: random.Random) -> bytes:
    """The bytes with the checksums of most headers right: without that, hardly an input gets past the first header."""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
    for place, block in enumerate(blocks):
        if len(block) == BLOCK and block[257:262] == b"ustar" and chance.random() < 0.95:
            blocks[place] = sealed(block)
    return b"".join(blocks)


def _tars() -> list[bytes]:
    whole = BundleBuilder().add("a/b.txt", b"alpha").add("c", b"")
    return [
        END,
        whole.build(),
        member(b"data/a", b"1") + member(b"metadata.txt", b"[]") + END,
        pax({b"path": b"data/long/" + b"x" * 90, b"size": b"3", b"mtime": b"1.5"}) + member(b"data/b", b"abc") + END,
        long_name(b"data/" + b"y" * 120) + member(b"data/yyy", b"z", magic=b"ustar  \0") + END,
        member(b"data/folder/", b"", b"5") + member(b"data/folder/f", b"q" * 700) + END,
    ]


def _documents() -> list[bytes]:
    whole: list[Any] = BundleBuilder().add("a/b.txt", b"alpha").add("c", b"").document()
    return [
        b"[]",
        json.dumps(whole).encode(),
        json.dumps(whole[:3], indent=1).encode(),
        b'[{"destinationTable": "Files"}]',
    ]


#: Target → inputs to begin with.
SEEDS: Mapping[str, Callable[[], list[bytes]]] = {"tar": _tars, "metadata": _documents}
