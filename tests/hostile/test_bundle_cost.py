"""What indexing and reading a bundle costs: linear in members, nothing in bytes."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

from pacifica.ingest.bundle import Bundle
from pacifica.ingest.core.errors import BadBundle
from tests.hostile.raw_tar import BLOCK, END, header, member, pax


def many(folder: Path, count: int) -> Path:
    """Write a bundle with many small members, every other one with a PAX header."""
    path = folder / f"{count}.tar"
    extended = pax({b"mtime": b"1500000000.5"})
    with path.open("wb") as file:
        for number in range(count):
            file.write(extended * (number % 2) + member(b"data/%d/%d" % (number % 100, number), b"1"))
        file.write(END)
    return path


def one_large(folder: Path, size: int) -> Path:
    """Write a bundle with one member of zeros that take no place on the disk."""
    path = folder / f"{size}.tar"
    path.write_bytes(header(b"data/large", fields={124: b"\x80" + size.to_bytes(11, "big")}))
    os.truncate(path, BLOCK + size + len(END))
    return path


def seconds(path: Path) -> float:
    """Return the least processor time of a few tries."""
    times = []
    for _ in range(3):
        start = time.process_time()
        Bundle.open(path).close()
        times.append(time.process_time() - start)
    return min(times)


def peak_bytes(path: Path) -> int:
    """Return how much memory opening takes, and reading the first 64 MiB of the first member."""
    tracemalloc.start()
    try:
        with Bundle.open(path) as bundle:
            first = bundle.members[next(iter(bundle.members))]
            for _ in zip(bundle.chunks(first), range(64), strict=False):
                pass
            return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_time_grows_linearly_with_members(tmp_path: Path) -> None:
    assert seconds(many(tmp_path, 100_000)) < 8 * seconds(many(tmp_path, 25_000))


def test_memory_is_a_few_hundred_bytes_a_member(tmp_path: Path) -> None:
    growth = peak_bytes(many(tmp_path, 40_000)) - peak_bytes(many(tmp_path, 20_000))
    assert growth < 20_000 * 400


def test_memory_does_not_grow_with_bytes(tmp_path: Path) -> None:
    small = peak_bytes(one_large(tmp_path, 64 << 20))
    assert peak_bytes(one_large(tmp_path, 64 << 30)) < small + (1 << 20)


def test_few_bytes_that_ask_for_much_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "1.tar"
    path.write_bytes(pax({b"size": b"9" * 18}) + header(fields={124: b"\x80" + b"\x7f" * 11}))
    assert path.stat().st_size < 2048
    tracemalloc.start()
    try:
        with pytest.raises(BadBundle):
            Bundle.open(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
