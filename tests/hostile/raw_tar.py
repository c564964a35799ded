"""A tar builder that writes whatever it is told, so that tests can be wrong on purpose.

Not a writer for bundles that are meant to be right: those come from `tarfile` and from tar programs.
"""

from __future__ import annotations

__all__ = ["BLOCK", "END", "header", "long_name", "member", "padding", "pax", "record", "sealed"]

BLOCK = 512
#: Two blocks of zeros end an archive.
END = bytes(2 * BLOCK)

_POSIX = b"ustar\x0000"


def header(
    name: bytes = b"data/a",
    size: int = 0,
    kind: bytes = b"0",
    *,
    magic: bytes = _POSIX,
    fields: dict[int, bytes] | None = None,
) -> bytes:
    """Return one header block with the right checksum; `fields` puts bytes at an offset, last of all."""
    block = bytearray(BLOCK)
    values = {
        0: name,
        100: b"0000644\0" + b"0001750\0" * 2,
        124: b"%011o\0" % size,
        136: b"%011o\0" % 1_500_000_000,
        156: kind,
        257: magic,
        329: b"0000000\0" * 2,
    }
    for offset, value in {**values, **(fields or {})}.items():
        block[offset : offset + len(value)] = value
    assert len(block) == BLOCK
    return sealed(block)


def sealed(block: bytes | bytearray) -> bytes:
    """Return the block with the checksum that its bytes have."""
    new = bytearray(block)
    new[148:156] = b" " * 8
    new[148:156] = b"%06o\0 " % sum(new)
    return bytes(new)


def padding(size: int) -> bytes:
    """Return the zeros that bring `size` bytes to whole blocks."""
    return bytes(-size % BLOCK)


def member(name: bytes = b"data/a", content: bytes = b"", kind: bytes = b"0", *, magic: bytes = _POSIX) -> bytes:
    """Return a header and its contents, padded."""
    return header(name, len(content), kind, magic=magic) + content + padding(len(content))


def record(key: bytes, value: bytes) -> bytes:
    """Return one PAX record, which begins with its own length."""
    bare = len(key) + len(value) + 3
    length = bare + len(str(bare))
    length = bare + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def pax(body: bytes | dict[bytes, bytes], kind: bytes = b"x") -> bytes:
    """Return an extended header; given as bytes, the body may be anything."""
    text = body if isinstance(body, bytes) else b"".join(record(key, value) for key, value in body.items())
    return member(b"data/PaxHeaders/a", text, kind)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """Return a GNU long name."""
    return member(b"././@LongLink", name + b"\0", kind, magic=b"ustar  \0")
