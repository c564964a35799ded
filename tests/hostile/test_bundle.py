"""What a bundle may be, what is refused, and what reading one costs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import threading
from pathlib import Path

import pytest

from pacifica.ingest.bundle import Bundle, Limits, _File
from pacifica.ingest.core.errors import BadBundle, BadMetadata
from tests.hostile.raw_tar import BLOCK, END, header, long_name, member, padding, pax, record, sealed

METADATA = member(b"metadata.txt", b"[]")
GNU = b"ustar  \0"
V7 = bytes(8)


def written(folder: Path, *parts: bytes) -> Path:
    """Write the parts of a tar into a file."""
    path = folder / "1.tar"
    path.write_bytes(b"".join(parts))
    return path


def contents(path: Path) -> dict[str, bytes]:
    """Read all members of a bundle, by their canonical path."""
    with Bundle.open(path) as bundle:
        return {one.path: b"".join(bundle.chunks(one)) for one in bundle}


def refusal(path: Path, *limits: Limits) -> BadBundle:
    """Return the fault with which a bundle is refused."""
    with pytest.raises(BadBundle) as caught:
        Bundle.open(path, *limits)
    return caught.value


# What is taken.

TAKEN = {
    "ustar": [member(b"data/a", b"1")],
    "ustar with a prefix": [header(b"b/a", 1, fields={345: b"data"}) + b"1" + padding(1)],
    "GNU": [member(b"data/a", b"1", magic=GNU)],
    "before ustar": [member(b"data/a", b"1", b"\0", magic=V7)],
    "a long name": [long_name(b"data/" + b"n" * 300), member(b"data/nnn", b"1", magic=GNU)],
    "a long name and a long link name": [
        long_name(b"x" * 300, b"K"), long_name(b"data/a"), member(b"data/nnn", b"1", magic=GNU),
    ],
    "a PAX path": [pax({b"path": b"data/\xc3\xa9"}), member(b"data/e", b"1")],
    "a PAX size": [pax({b"size": b"1"}), header(b"data/a", 0) + b"1" + padding(1)],
    "a PAX comment for all": [pax({b"comment": b"a=b"}, b"g"), member(b"data/a", b"1")],
    "other PAX records": [pax({b"uname": b"me", b"SCHILY.xattr.user.a": b"\0\n="}), member(b"data/a", b"1")],
    "a size in base 256": [header(b"data/a", fields={124: b"\x80" + bytes(10) + b"\1"}) + b"1" + padding(1)],
    "numbers with spaces": [header(b"data/a", fields={124: b"          1 ", 136: b" " * 12}) + b"1" + padding(1)],
    "a time before 1970": [header(b"data/a", 1, fields={136: b"\xff" * 12}) + b"1" + padding(1)],
    "blank owner and mode": [header(b"data/a", 1, fields={100: b" " * 24}) + b"1" + padding(1)],
    "folders": [member(b"data/", kind=b"5"), member(b"data/b/", kind=b"\0", magic=V7), member(b"data/a", b"1")],
    "a folder without a name": [member(b"./", kind=b"5"), member(b"./data/a", b"1")],
    "a folder outside of data": [member(b"../etc/", kind=b"5"), member(b"data/a", b"1")],
}  # fmt: skip


@pytest.mark.parametrize("parts", TAKEN.values(), ids=TAKEN)
def test_every_accepted_kind_of_header_gives_the_same_bytes(tmp_path: Path, parts: list[bytes]) -> None:
    assert list(contents(written(tmp_path, *parts, END)).values()) == [b"1"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"data/a", "a"),
        (b"./data/a", "a"),
        (b"data//tmp/x", "tmp/x"),
        (b"data/./a//b", "a/b"),
        (b"data/data/a", "data/a"),
        (b"data/metadata.txt", "metadata.txt"),
        (b"data/e\xcc\x81", "é"),
        (b"data/..a/b..", "..a/b.."),
    ],
)
def test_a_member_is_found_under_its_canonical_path(tmp_path: Path, name: bytes, path: str) -> None:
    assert contents(written(tmp_path, member(name, b"1"), END)) == {path: b"1"}


@pytest.mark.parametrize("name", [b"metadata.txt", b"./metadata.txt", b".//metadata.txt"])
@pytest.mark.parametrize("first", [True, False])
def test_metadata_is_found_first_and_last_and_is_no_member(tmp_path: Path, name: bytes, first: bool) -> None:  # noqa: FBT001 (a parameter)
    parts = [member(name, b"[1]"), member(b"data/a", b"1")]
    with Bundle.open(written(tmp_path, *(parts if first else parts[::-1]), END)) as bundle:
        assert b"".join(bundle.metadata()) == b"[1]"
        assert list(bundle.members) == ["a"]


def test_a_bundle_without_metadata_has_none(tmp_path: Path) -> None:
    with (
        Bundle.open(written(tmp_path, member(b"data/a"), END)) as bundle,
        pytest.raises(BadMetadata, match=r"no metadata\.txt"),
    ):
        bundle.metadata()


@pytest.mark.parametrize("end", [b"", bytes(100), bytes(BLOCK), END, bytes(10_240), bytes(3 << 20)])
def test_zeros_of_any_length_may_end_a_bundle(tmp_path: Path, end: bytes) -> None:
    assert contents(written(tmp_path, member(b"data/a", b"1"), end)) == {"a": b"1"}


def test_an_archive_of_nothing_but_its_end_has_no_members(tmp_path: Path) -> None:
    assert contents(written(tmp_path, END)) == {}


def test_the_tars_own_time_is_kept(tmp_path: Path) -> None:
    parts = [
        member(b"data/a"),
        pax({b"mtime": b"1.25"}),
        member(b"data/b"),
        pax({b"mtime": b"-1e-05"}),
        member(b"data/c"),
    ]
    with Bundle.open(written(tmp_path, *parts, END)) as bundle:
        assert [one.mtime for one in bundle] == [1_500_000_000, 1.25, -1e-05]


def test_an_old_checksum_of_signed_bytes_is_taken(tmp_path: Path) -> None:
    block = bytearray(header(b"data/\xc3\xa9"))
    block[148:156] = b"%06o\0 " % (int(block[148:154], 8) - 2 * 256)
    assert contents(written(tmp_path, bytes(block), END)) == {"é": b""}


# What is refused.

HUGE = b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7
REFUSED = {
    "hard link": ([member(kind=b"1")], "hard link"),
    "symbolic link": ([member(kind=b"2")], "symbolic link"),
    "character device": ([member(kind=b"3")], "character device"),
    "block device": ([member(kind=b"4")], "block device"),
    "FIFO": ([member(kind=b"6")], "FIFO"),
    "contiguous file": ([member(kind=b"7")], "unknown type"),
    "GNU sparse": ([member(kind=b"S", magic=GNU)], "sparse"),
    "GNU multi-volume": ([member(kind=b"M", magic=GNU)], "multi-volume"),
    "GNU volume label": ([member(kind=b"V", magic=GNU)], "volume label"),
    "GNU incremental dump": ([member(kind=b"D", magic=GNU)], "incremental"),
    "GNU times in place of a prefix": ([header(magic=GNU, fields={345: b"14123456701\0"})], "incremental"),
    "unknown type": ([member(kind=b"Z")], "unknown type"),
    "Solaris extended header": ([member(kind=b"X")], "unknown type"),
    "PAX sparse 0.0": ([pax({b"GNU.sparse.size": b"1"}), member()], "sparse"),
    "PAX sparse 1.0": ([pax({b"GNU.sparse.major": b"1"}), member()], "sparse"),
    "PAX sparse for all": ([pax({b"GNU.sparse.major": b"1"}, b"g"), member()], "sparse"),
    "PAX multi-volume": ([pax({b"GNU.volume.filename": b"a"}), member()], "multi-volume"),
    "star sparse": ([pax({b"SCHILY.realsize": b"1"}), member()], "sparse"),
    "Solaris holes": ([pax({b"SUN.holesdata": b" 0 1"}), member()], "sparse"),
    "absolute": ([member(b"/data/a")], "absolute"),
    "absolute metadata": ([member(b"/metadata.txt")], "absolute"),
    "up": ([member(b"data/../a")], r"'\.\.'"),
    "up and back": ([member(b"data/b/../../data/a")], r"'\.\.'"),
    "up in a prefix": ([header(b"a", fields={345: b"data/.."})], r"'\.\.'"),
    "up in a PAX path": ([pax({b"path": b"data/../a"}), member()], r"'\.\.'"),
    "up in a long name": ([long_name(b"data/../a"), member(magic=GNU)], r"'\.\.'"),
    "not below data": ([member(b"a")], "not below data/"),
    "nearly below data": ([member(b"database/a")], "not below data/"),
    "data itself": ([member(b"data")], "not below data/"),
    "no name": ([member(b"")], "empty"),
    "no name by PAX": ([pax({b"path": b""}), member()], "empty"),
    "only dots": ([member(b"././.")], "empty"),
    "line feed": ([member(b"data/a\nb")], "control character"),
    "escape": ([member(b"data/\x1b[2J")], "control character"),
    "NUL by PAX": ([pax({b"path": b"data/a\0b"}), member()], "control character"),
    "NUL in a long name": ([long_name(b"data/a\0b"), member(magic=GNU)], "control character"),
    "C1": ([member(b"data/\xc2\x9b")], "control character"),
    "not UTF-8": ([member(b"data/\xe9")], "not UTF-8"),
    "not UTF-8 by PAX": ([pax({b"path": b"data/\xff"}), member()], "not UTF-8"),
    "a surrogate": ([member(b"data/\xed\xb3\xbf")], "not UTF-8"),
    "file that ends in a slash": ([member(b"data/a/")], "slash"),
    "file that ends in a slash by PAX": ([pax({b"path": b"data/a/"}), member()], "slash"),
    "old file, folder by PAX": ([pax({b"path": b"data/a/"}), member(kind=b"\0", magic=V7)], "slash"),
    "old folder by its prefix": ([header(b"", kind=b"\0", fields={345: b"data/a"})], "slash"),
    "old folder with contents": ([member(b"data/a/", b"1", b"\0", magic=V7)], "slash"),
    "folder with contents": ([member(b"data/b", b"1", b"5")], "folder with contents"),
    "folder with contents by PAX": ([pax({b"size": b"512"}), member(b"data/b", kind=b"5") + member()], "folder with"),
    "twice": ([member(), member()], "two members"),
    "twice by doubled slashes": ([member(b"data/b/a"), member(b"data//b/./a")], "two members"),
    "twice by NFC": ([member(b"data/\xc3\xa9"), member(b"data/e\xcc\x81")], "two members"),
    "twice by data": ([member(b"data/a"), member(b"./data/a")], "two members"),
    "metadata twice": ([METADATA, METADATA], "two members"),
    "metadata twice, spelled apart": ([METADATA, member(b"./metadata.txt", b"[]")], "two members"),
    "negative size": ([header(fields={124: b"\xff" * 12})], "negative"),
    "negative size back to itself": ([header(fields={124: b"\xff" * 10 + b"\xfe\0"})], "negative"),
    "octal with a sign": ([header(fields={124: b"-0000001000\0"})], "no number"),
    "hexadecimal": ([header(fields={124: b"0x000000001\0"})], "no number"),
    "no size": ([header(fields={124: b" " * 12})], "no number"),
    "size beyond the file": ([header(size=10**9)], "ends inside"),
    "size beyond 64 bits": ([header(fields={124: HUGE})], "ends inside"),
    "PAX size beyond the file": ([pax({b"size": b"9" * 19}), member()], "ends inside"),
    "PAX size beyond 64 bits": ([pax({b"size": b"9" * 20}), member()], "no number"),
    "negative PAX size": ([pax({b"size": b"-512"}), member()], "no number"),
    "empty PAX size": ([pax({b"size": b""}), member()], "no number"),
    "endless PAX time": ([pax({b"mtime": b"1e999"}), member()], "no number"),
    "PAX time in words": ([pax({b"mtime": b"nan"}), member()], "no number"),
    "long name beyond the file": ([header(size=10**6, kind=b"L", magic=GNU)], "ends inside"),
    "user that is no number": ([header(fields={108: b"nobody\0\0"})], "no number"),
    "device that is no number": ([header(fields={329: b"ttyS0\0\0\0"})], "no number"),
    "wrong checksum": ([METADATA, header()[:-1] + b"\1"], "checksum"),
    "no checksum": ([METADATA, header()[:148] + b" " * 8 + header()[156:]], "no number"),
    "unknown magic": ([METADATA, header(magic=b"cpio..")], "unknown kind"),
    "long name with noise behind it": ([long_name(b"data/ab")[:-500] + b"c" * 500, member(magic=GNU)], "padding"),
    "noise behind a member": ([METADATA, b"noise" * 200], "no number"),
    "noise behind the end": ([METADATA, END, b"noise"], "more bytes follow"),
    "a second archive behind the end": ([METADATA, END, member(), END], "more bytes follow"),
    "one block of zeros inside": ([METADATA, bytes(BLOCK), member()], "more bytes follow"),
    "noise far behind the end": ([METADATA, bytes(5 << 20), b"\1"], "more bytes follow"),
    "end behind an extended header": ([long_name(b"data/a"), END], "without its member"),
    "two PAX headers": ([pax({b"path": b"data/a"}), pax({b"path": b"data/b"}), member()], "several extended"),
    "two long names": ([long_name(b"data/a"), long_name(b"data/b"), member(magic=GNU)], "several extended"),
    "two long link names": ([long_name(b"a", b"K"), long_name(b"b", b"K"), member(magic=GNU)], "several extended"),
    "PAX and a long name": ([pax({b"size": b"0"}), long_name(b"data/b"), member(magic=GNU)], "several extended"),
    "long name and PAX": ([long_name(b"data/b"), pax({b"size": b"0"}), member(magic=GNU)], "several extended"),
    "global header behind PAX": ([pax({b"path": b"data/b"}), pax({}, b"g"), member()], "several extended"),
    "one path for all": ([pax({b"path": b"data/b"}, b"g"), member()], "every member"),
    "one size for all": ([pax({b"size": b"0"}, b"g"), member()], "every member"),
    "a PAX path twice": ([pax(record(b"path", b"data/b") * 2), member()], "twice"),
    "PAX record of length 0": ([pax(b"0 path=data/b\n"), member()], "broken"),
    "PAX record of leading zeros": ([pax(b"00000000000017 path=b\n"), member()], "broken"),
    "PAX record shorter than its key": ([pax(b"3 path=b\n"), member()], "broken"),
    "PAX record longer than the header": ([pax(b"99 path=b\n"), member()], "broken"),
    "PAX record without line feed": ([pax(b"11 path=bcd"), member()], "broken"),
    "PAX record without key": ([pax(b"5 =b\n"), member()], "broken"),
    "PAX header with noise": ([pax(record(b"path", b"data/b") + b"\0\0"), member()], "broken"),
}


@pytest.mark.parametrize(("parts", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_readers_disagree_on_is_refused(tmp_path: Path, parts: list[bytes], reason: str) -> None:
    fault = refusal(written(tmp_path, *parts, END))
    assert re.search(reason, str(fault))
    assert not fault.retryable


@pytest.mark.parametrize("step", [1, 511, 512, 513, 1024, 2048])
@pytest.mark.parametrize("kind", [b"0", b"5", b"x", b"g", b"L", b"K"])
def test_no_header_leads_a_reader_backwards(tmp_path: Path, kind: bytes, step: int) -> None:
    back = (-step).to_bytes(12, "big", signed=True)
    refusal(written(tmp_path, METADATA, header(kind=kind, fields={124: back}), END))
    refusal(written(tmp_path, METADATA, pax({b"size": b"-%d" % step}), header(kind=kind), END))


def test_a_seal_alone_makes_no_header(tmp_path: Path) -> None:
    assert "unknown kind" in str(refusal(written(tmp_path, sealed(b"0" * BLOCK), END)))


CUT = {
    "inside a header": ([METADATA, header()[:400]], "more bytes follow"),
    "inside the contents": ([METADATA, member(content=b"1" * 600)[:-500]], "ends inside"),
    "inside the padding": ([METADATA, member(content=b"1")[:-1]], "ends inside"),
    "inside an extended header": ([METADATA, long_name(b"data/a")[:-511]], "ends inside"),
    "behind a global header": ([METADATA, pax({b"comment": b"1"}, b"g")], "without its member"),
    "behind an extended header": ([METADATA, pax({b"path": b"data/a"})], "without its member"),
}


@pytest.mark.parametrize(("parts", "reason"), CUT.values(), ids=CUT)
def test_a_bundle_that_was_cut_off_is_refused(tmp_path: Path, parts: list[bytes], reason: str) -> None:
    assert re.search(reason, str(refusal(written(tmp_path, *parts))))


TAR = member(content=b"1" * 5000) + END
NO_TAR = {
    "empty": b"",
    "short": b"1" * 100,
    "zeros shorter than a block": bytes(100),
    "text": b"to be or not to be\n" * 100,
    "JSON": b'[{"destinationTable": "Files"}]' * 100,
    "gzip": gzip.compress(os.urandom(1000) + TAR),
    "bzip2": bz2.compress(os.urandom(1000) + TAR),
    "xz": lzma.compress(os.urandom(1000) + TAR),
    "zip": b"PK\3\4" + bytes(1000),
    "cpio": b"070701" + b"0" * 1000,
    "a tar behind a byte": b"\0" + TAR,
}


@pytest.mark.parametrize("body", NO_TAR.values(), ids=NO_TAR)
def test_what_is_no_tar_is_refused_as_a_whole(tmp_path: Path, body: bytes) -> None:
    fault = refusal(written(tmp_path, body))
    assert "not a tar file" in fault.reason
    assert fault.member is None


FORM = (
    b'--------------------------abc\r\nContent-Disposition: form-data; name="file"; filename="bundle.tar"\r\n'
    b"Content-Type: application/x-tar\r\n\r\n" + TAR
)
MISTAKEN = {
    "empty": (b"", "not a tar file but empty"),
    "gzip": (gzip.compress(TAR), "compressed with gzip: send an uncompressed tar"),
    "long gzip": (gzip.compress(os.urandom(1000)), "compressed with gzip"),
    "bzip2": (bz2.compress(TAR), "compressed with bzip2"),
    "xz": (lzma.compress(TAR), "compressed with xz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(1000), "compressed with zstd"),
    "zip": (b"PK\3\4" + bytes(1000), "compressed with zip"),
    "a form": (FORM, "a multipart form: send the bundle itself as the body (curl --data-binary @bundle.tar)"),
    "short JSON": (b' [{"destinationTable": "Files"}]', "but JSON: is /move meant?"),
    "JSON with a mark": (b"\xef\xbb\xbf[\n" + b'{"destinationTable": "Files"},' * 100, "but JSON: is /move meant?"),
    "curl -d": (TAR.translate(None, b"\0\r\n"), "; if curl sent it, use --data-binary, as -d changes a file"),
    "a short curl -d": (header(b"data/a").translate(None, b"\0\r\n"), "header; if curl sent it, use --data-binary"),
    "no text": (b"x" * 150 + bytes(1000), "not a tar file: a header field is no number"),
}


@pytest.mark.parametrize(("body", "told"), MISTAKEN.values(), ids=MISTAKEN)
def test_what_came_in_place_of_a_tar_is_named(tmp_path: Path, body: bytes, told: str) -> None:
    found = refusal(written(tmp_path, body)).reason
    assert told in found
    assert found.isprintable()


def test_a_good_tar_is_not_mistaken_for_what_its_first_name_looks_like(tmp_path: Path) -> None:
    """Only a bad header is looked at more closely."""
    for name in (b"BZh9", b'["x"', b"--\nContent-Disposition: x"):
        assert "not a tar file" not in refusal(written(tmp_path, member(name), END)).reason


def test_a_refusal_names_the_member_and_cuts_a_very_long_name(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, member(b"data/x", kind=b"2"), END)).member == "data/x"
    long = refusal(written(tmp_path, long_name(b"data/" + b"x" * 3000), member(kind=b"2", magic=GNU), END))
    assert long.member is not None
    assert len(long.member) < 300
    bad = refusal(written(tmp_path, member(b"data/\xe9"), END))
    assert bad.member == "data/\\xe9"


def test_neither_a_folder_nor_a_pipe_is_a_bundle(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "regular" in str(refusal(pipe))
    assert "regular" in str(refusal(tmp_path))


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Bundle.open(tmp_path / "1.tar")


def test_a_refused_bundle_is_closed_again(tmp_path: Path) -> None:
    path = written(tmp_path, b"noise")
    free = os.dup(0)
    os.close(free)
    for _ in range(10):
        refusal(path)
    again = os.dup(0)
    os.close(again)
    assert again == free


# Limits.


@pytest.mark.parametrize(
    ("limits", "parts", "reason"),
    [
        (Limits(members=1), [member(b"data/a"), member(b"data/b")], "1 members ([ingest] max_members)"),
        (Limits(members=1), [member(b"data/", kind=b"5"), member(b"data/b")], "more than 1 members"),
        (Limits(name_length=8), [member(b"data/aaaa")], "([ingest] max_name_length)"),
        (Limits(extended_bytes=300), [long_name(b"data/" + b"a" * 300), member(magic=GNU)], "306 bytes"),
        (Limits(extended_bytes=300), [pax({b"comment": b"a" * 300}), member()], "([ingest] max_extended_header)"),
        (Limits(extended_bytes=300), [pax({b"comment": b"a" * 300}, b"g"), member()], "at most 300"),
        (Limits(metadata_bytes=1), [member(b"metadata.txt", b"[]")], "([ingest] max_metadata_size)"),
    ],
)
def test_a_bundle_above_a_limit_is_refused(tmp_path: Path, limits: Limits, parts: list[bytes], reason: str) -> None:
    assert reason in str(refusal(written(tmp_path, *parts, END), limits))


@pytest.mark.parametrize("comes_first", [True, False])
def test_a_bundle_at_its_limits_is_taken(tmp_path: Path, *, comes_first: bool) -> None:
    files = [long_name(b"data/a"), member(magic=GNU)]
    parts = [METADATA, *files] if comes_first else [*files, METADATA]
    limits = Limits(members=1, name_length=12, extended_bytes=7, metadata_bytes=2)
    with Bundle.open(written(tmp_path, *parts, END), limits) as bundle:
        assert len(bundle) == 1


# Reading.


def test_chunks_come_in_order_and_only_the_last_is_shorter(tmp_path: Path) -> None:
    body = os.urandom(2500)
    path = written(
        tmp_path, member(b"data/before", b"-" * 700), member(b"data/a", body), member(b"data/after", b"+"), END
    )
    with Bundle.open(path) as bundle:
        chunks = list(bundle.chunks(bundle.members["a"], 1000))
        assert [len(chunk) for chunk in chunks] == [1000, 1000, 500]
        assert b"".join(chunks) == body
        assert list(bundle.chunks(bundle.members["a"], 1)) == [bytes([byte]) for byte in body]


def test_the_descriptor_and_the_offset_lead_to_the_bytes(tmp_path: Path) -> None:
    with Bundle.open(written(tmp_path, METADATA, member(b"data/a", b"123"), END)) as bundle:
        one = bundle.members["a"]
        assert os.pread(bundle.fileno(), one.size, one.offset) == b"123"


@pytest.mark.parametrize("size", [0, -1])
def test_a_chunk_has_at_least_one_byte(tmp_path: Path, size: int) -> None:
    with Bundle.open(written(tmp_path, member(content=b"1"), END)) as bundle, pytest.raises(ValueError, match="chunk"):
        next(bundle.chunks(bundle.members["a"], size))


def test_a_closed_bundle_is_not_read(tmp_path: Path) -> None:
    bundle = Bundle.open(written(tmp_path, member(content=b"1"), END))
    bundle.close()
    bundle.close()
    with pytest.raises(ValueError, match="closed"):
        next(bundle.chunks(bundle.members["a"]))
    with pytest.raises(ValueError, match="closed"):
        bundle.fileno()


def test_a_bundle_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path, member(content=b"1" * 5000), END)
    with Bundle.open(path) as bundle:
        os.truncate(path, 1024)
        with pytest.raises(BadBundle, match="shorter"):
            list(bundle.chunks(bundle.members["a"], 100))


def test_the_index_is_a_mapping_in_the_order_of_the_archive(tmp_path: Path) -> None:
    with Bundle.open(written(tmp_path, member(b"data/b", b"1"), METADATA, member(b"data/a"), END)) as bundle:
        assert [one.path for one in bundle] == list(bundle.members) == ["b", "a"]
        assert "a" in bundle.members
        assert "metadata.txt" not in bundle.members
        assert bundle.members.get("c") is None
        with pytest.raises(KeyError):
            bundle.members["c"]


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    bodies = {f"{name}": os.urandom(20_000) for name in range(8)}
    path = written(tmp_path, *(member(b"data/" + name.encode(), body) for name, body in bodies.items()), END)
    found: dict[str, bytes] = {}
    with Bundle.open(path) as bundle:

        def read(name: str) -> None:
            found[name] = b"".join(bundle.chunks(bundle.members[name], 97))

        threads = [threading.Thread(target=read, args=[name]) for name in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == bodies


def test_without_pread_the_same_bytes_are_read(tmp_path: Path) -> None:
    file = _File(written(tmp_path, b"0123456789"))
    try:
        assert file.seek_and_read(3, 4) == file.read_at(3, 4) == b"3456"
        assert file.seek_and_read(10, 4) == file.read_at(10, 4) == b""
    finally:
        file.close()
