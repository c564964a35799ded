"""A bundle means the same to us and to other tar programs, or it is refused."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pacifica.ingest.bundle import Bundle
from pacifica.ingest.core.errors import BadBundle
from pacifica.ingest.core.paths import canonical
from tests.hostile.raw_tar import BLOCK, END, header, long_name, member, pax, sealed
from tests.hostile.readers import Files, ensure_gnu_agrees, ours, theirs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "GNU": tarfile.GNU_FORMAT, "PAX": tarfile.PAX_FORMAT}
#: GNU tar is always here; bsdtar is taken where it is.
PROGRAMS = ["tar", *(["bsdtar"] if shutil.which("bsdtar") else [])]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Give all examples of a property one file."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "1.tar"


def info(name: str, content: bytes, mtime: float = 0.0) -> tarfile.TarInfo:
    """Return a description of a regular file."""
    one = tarfile.TarInfo(name)
    one.size = len(content)
    one.mtime = mtime
    return one


# What `tarfile` writes.

letters = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/")
parts = st.text(letters, min_size=1, max_size=60).filter(lambda part: part not in {".", ".."})
names = st.lists(parts, min_size=1, max_size=5).map("/".join)
bodies = st.binary(max_size=1500)
files = st.dictionaries(names.map(lambda name: unicodedata.normalize("NFC", name)), bodies, max_size=8)
times = st.floats(0, 2**40) | st.integers(-(2**40), 2**40)


@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
@settings(deadline=None)
@given(files=files, metadata=bodies, mtime=times)
@example(files={"a": b"1"}, metadata=b"[]", mtime=1e-7)
@example(files={"x" * 250: b"1", "d/" * 120 + "x": b"2"}, metadata=b"[]", mtime=-1)
def test_what_tarfile_writes_is_indexed_as_it_is(
    place: Path, tar_format: int, files: Files, metadata: bytes, mtime: float
) -> None:
    with tarfile.open(place, "w", format=tar_format) as tar:
        try:
            for name, content in files.items():
                tar.addfile(info(f"data/{name}", content, mtime), io.BytesIO(content))
            tar.addfile(info("metadata.txt", metadata), io.BytesIO(metadata))
        except ValueError:
            # Only ustar cannot spell every name and time.
            assert tar_format == tarfile.USTAR_FORMAT
            return
    assert ours(place) == (files, metadata)
    with Bundle.open(place) as bundle, tarfile.open(place) as tar:
        assert [one.mtime for one in bundle] == [one.mtime for one in tar][:-1]


def test_a_bundle_as_the_uploader_streams_it(place: Path) -> None:
    typed = ["a.txt", "/tmp/x", "./b/c", "data/d", "é" * 80 + "/e", "long/" * 40 + "f", "dir//g"]
    content = {name: os.urandom(900) for name in typed}
    metadata = b'[{"destinationTable":"Files"}]' * 500
    with place.open("wb") as file, tarfile.open(fileobj=file, mode="w|") as tar:
        for name in typed:
            tar.addfile(info(f"data/{name}", content[name], 1_500_000_000.25), io.BytesIO(content[name]))
        tar.addfile(info("metadata.txt", metadata), io.BytesIO(metadata))
    assert place.stat().st_size % 10_240 == 0
    assert ours(place) == ({canonical(f"./{name}"): body for name, body in content.items()}, metadata)


# What tar programs write.


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a folder with files that need every kind of name."""
    folder = tmp_path / "tree"
    for name, content in TREE.items():
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "metadata.txt").write_bytes(b"[]")
    return folder


TREE: Files = {
    "a": b"",
    "b/c": b"1" * 513,
    "b/with space": b"2" * 512,
    "é/ü": b"3",
    "n" * 120: b"4",
    "/".join(["folder"] * 25) + "/x": b"5" * 20_000,
}
SHORT = ["a", "b"]


def pack(program: str, tree: Path, *options: str) -> Path:
    """Run a tar program in the tree; options come last."""
    path = tree.parent / "1.tar"
    command = [program, "--format=gnu", "-cf", path, "-C", tree, *options]
    if any(option.startswith("--format") for option in options):
        del command[1]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return path


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("tar_format", ["gnu", "oldgnu", "pax", "ustar", "v7"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_what_tar_writes_is_indexed_as_it_is(tree: Path, program: str, tar_format: str, prefix: str) -> None:
    if program == "bsdtar" and tar_format == "oldgnu":
        tar_format = "gnutar"
    chosen = (
        list(TREE) if tar_format in {"gnu", "oldgnu", "gnutar", "pax"} else [name for name in TREE if len(name) < 90]
    )
    given_names = [f"{prefix}data/{name}" for name in chosen]
    path = pack(program, tree, f"--format={tar_format}", f"{prefix}metadata.txt", *given_names)
    assert ours(path) == ({name: TREE[name] for name in chosen}, b"[]")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("tar_format", ["gnu", "pax", "ustar", "v7"])
def test_whole_folders_are_indexed_without_the_folders(tree: Path, program: str, tar_format: str) -> None:
    shutil.rmtree(tree / "data" / "folder")
    (tree / "data" / ("n" * 120)).unlink()
    (tree / "data" / "empty").mkdir()
    path = pack(program, tree, f"--format={tar_format}", "data", "metadata.txt")
    assert ours(path)[0] == {name: body for name, body in TREE.items() if len(name) < 90}


def add_symlink(folder: Path) -> None:
    (folder / "link").symlink_to("a")


def add_hard_link(folder: Path) -> None:
    (folder / "link").hardlink_to(folder / "a")


def add_fifo(folder: Path) -> None:
    os.mkfifo(folder / "fifo")


def add_holes(folder: Path) -> None:
    (folder / "holes").write_bytes(b"1")
    os.truncate(folder / "holes", 10 << 20)


@pytest.mark.parametrize("tar_format", ["gnu", "pax"])
@pytest.mark.parametrize(
    ("add", "options", "reason"),
    [
        (add_symlink, [], "symbolic link"),
        (add_hard_link, [], "hard link"),
        (add_fifo, [], "FIFO"),
        (add_holes, ["--sparse"], "sparse"),
        (add_holes, ["--sparse", "--sparse-version=0.1"], "sparse"),
        (add_holes, ["--sparse", "--sparse-version=0.0"], "sparse"),
        (lambda _: None, ["--incremental"], "incremental"),
    ],
)
def test_what_gnu_tar_adds_to_plain_files_is_refused(
    tree: Path, tar_format: str, add: Callable[[Path], None], options: list[str], reason: str
) -> None:
    add(tree / "data")
    path = pack("tar", tree, f"--format={tar_format}", *options, "data")
    with pytest.raises(BadBundle, match=reason):
        Bundle.open(path)


@pytest.mark.parametrize(("tar_format", "reason"), [("gnu", "volume label"), ("pax", "multi-volume")])
def test_a_labelled_archive_is_refused(tree: Path, tar_format: str, reason: str) -> None:
    path = pack("tar", tree, f"--format={tar_format}", "--label=mine", "data/a")
    with pytest.raises(BadBundle, match=reason):
        Bundle.open(path)


@pytest.mark.parametrize("tar_format", ["gnu", "pax"])
def test_a_volume_of_several_is_refused(tree: Path, tar_format: str) -> None:
    large = tree / "data" / "large"
    large.write_bytes(os.urandom(150_000))
    volumes = [tree.parent / f"{number}.tar" for number in range(2)]
    files = [f"--file={volume}" for volume in volumes]
    command = ["tar", f"--format={tar_format}", "-c", "--multi-volume", "--tape-length=100", "-C", str(tree)]
    subprocess.run([*command, *files, "data/large"], check=True, capture_output=True, timeout=60)
    for volume in volumes:
        with pytest.raises(BadBundle):
            Bundle.open(volume)


def test_two_archives_one_behind_the_other_are_refused(tree: Path) -> None:
    path = pack("tar", tree, "data/a")
    path.write_bytes(path.read_bytes() + pack("tar", tree, "data/b").read_bytes())
    with pytest.raises(BadBundle, match="more bytes follow"):
        Bundle.open(path)


def test_an_appended_newer_version_is_refused(tree: Path) -> None:
    path = pack("tar", tree, "data/a")
    subprocess.run(["tar", "-rf", path, "-C", tree, "data/a"], check=True, timeout=60)
    with pytest.raises(BadBundle, match="two members"):
        Bundle.open(path)


# Bundles that were tampered with.

SEEDS = [
    member(b"data/a", b"1" * 600) + member(b"data/b/", kind=b"5") + member(b"metadata.txt", b"[]") + END,
    pax({b"path": b"data/long", b"size": b"3", b"mtime": b"1.5"}) + member(b"data/a", b"123") + member(b"data/b") + END,
    pax({b"comment": b"none"}, b"g")
    + long_name(b"data/" + b"n" * 600)
    + member(b"data/n", b"1", magic=b"ustar  \0")
    + END,
    header(b"a/b", fields={345: b"data"}) + member(b"data/c", b"\0" * 512 + member(b"data/inner", b"2")) + END,
    member(b"data/v7/", kind=b"\0", magic=bytes(8)) + member(b"data/v7/a", b"1", b"\0", magic=bytes(8)) + END,
]
#: Offsets in a header at which something interesting begins.
PLACES = [0, 5, 100, 108, 116, 124, 130, 134, 136, 148, 156, 157, 257, 263, 265, 297, 329, 337, 345, 500]
TEXTS = [
    b"", b"\0", b" ", b"/", b"../", b"0", b"1", b"2", b"5", b"7", b"S", b"x", b"g", b"L", b"K", b"data/", b"metadata.txt\0",
    b"\xff" * 12, b"\x80" + b"\0" * 10 + b"\1", b"00000000000\0", b"00000001000\0", b"77777777777\0", b"ustar\x0000",
    b"ustar  \0", b"\xc3\xa9", b"17 path=data/abc\n", b"9 size=0\n", b"12 size=512\n", b"-1", b"1_0", b"+7", b"0o7",
]  # fmt: skip


def tampered(body: bytes, chance: random.Random) -> bytes:
    """Change a tar somewhere, most often so that its checksums are right again."""
    new = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        block = chance.randrange(max(1, len(new) // BLOCK)) * BLOCK
        kind = chance.random()
        if kind < 0.6:
            at = block + chance.choice(PLACES)
            text = chance.choice(TEXTS)
            new[at : at + len(text)] = text
        elif kind < 0.75:
            new[chance.randrange(len(new))] = chance.randrange(256)
        elif kind < 0.85:
            new[block:block] = new[block : block + chance.randint(1, 3) * BLOCK]
        elif kind < 0.95:
            del new[block : block + BLOCK]
        else:
            del new[chance.randrange(len(new)) :]
        if len(new) < BLOCK:
            new += bytes(BLOCK)
        if chance.random() < 0.9 and any(new[block : block + BLOCK]) and len(new) >= block + BLOCK:
            new[block : block + BLOCK] = sealed(new[block : block + BLOCK])
    return bytes(new)


@settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow])
@given(body=st.sampled_from(SEEDS), chance=st.randoms(use_true_random=False))
def test_a_tampered_bundle_is_refused_or_means_the_same_to_tarfile(
    place: Path, body: bytes, chance: random.Random
) -> None:
    place.write_bytes(tampered(body, chance))
    try:
        found = ours(place)
    except BadBundle:
        return
    assert found == theirs(place)


@pytest.mark.parametrize("seed", range(4))
def test_a_tampered_bundle_is_refused_or_means_the_same_to_gnu_tar(place: Path, seed: int) -> None:
    chance = random.Random(seed)
    accepted = 0
    for _ in range(500):
        place.write_bytes(tampered(chance.choice(SEEDS), chance))
        try:
            found = ours(place)
        except BadBundle:
            continue
        ensure_gnu_agrees(place, found)
        accepted += 1
    assert accepted > 50


@pytest.mark.parametrize(
    "others",
    [({"b": b"1"}, b"[]"), ({"a": b"2"}, b"[]"), ({"a": b"12"}, b"[]"), ({}, b"[]"), ({"a": b"1"}, None)],
    ids=["name", "content", "length", "one less", "no metadata"],
)
def test_a_bundle_that_gnu_tar_sees_otherwise_is_found(place: Path, others: tuple[Files, bytes | None]) -> None:
    place.write_bytes(member(b"data/a", b"1") + member(b"metadata.txt", b"[]") + END)
    ensure_gnu_agrees(place, ({"a": b"1"}, b"[]"))
    with pytest.raises(AssertionError):
        ensure_gnu_agrees(place, others)


@pytest.mark.parametrize("body", SEEDS)
def test_what_is_tampered_with_is_right_to_begin_with(place: Path, body: bytes) -> None:
    place.write_bytes(body)
    assert ours(place) == theirs(place)
    ensure_gnu_agrees(place, ours(place))
    assert ours(place)[0]
