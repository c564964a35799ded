"""Header blocks of a tar, and the extended headers in front of some of them, as values.

A strict subset is read, and everything on which readers disagree is refused: what is read here is what any other tar
program reads.  Accepted are ustar, PAX (path, size, mtime), GNU long names and headers from before ustar, for regular
files and folders.

Not a reader of files: `bundle` finds the blocks and gives them to this module.  Any floor may import this.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format" and
"GNU Extensions to the Archive Format".
"""

import math
import re
from typing import Final, NamedTuple, NoReturn
from zlib import adler32

from pacifica.ingest.core.errors import BadBundle
from pacifica.ingest.core.mistaken import no_tar

__all__ = ["BLOCK", "EXTENSIONS", "NOTHING", "Entry", "Extension", "Header", "is_end", "padded", "refuse"]

#: Length of a header; contents are padded to a multiple of it, in bytes.
BLOCK: Final = 512
#: Kinds of headers that tell something about the member that follows.
EXTENSIONS: Final = frozenset({b"x", b"g", b"L", b"K"})

# Fields of a header block.
_NAME: Final = slice(0, 100)
_MODE: Final = slice(100, 108)
_USER: Final = slice(108, 116)
_GROUP: Final = slice(116, 124)
_SIZE: Final = slice(124, 136)
_MTIME: Final = slice(136, 148)
_CHECKSUM: Final = slice(148, 156)
_KIND: Final = slice(156, 157)
_MAGIC: Final = slice(257, 263)
_DEVICE: Final = slice(329, 345)
_MAJOR: Final = slice(329, 337)
_MINOR: Final = slice(337, 345)
_PREFIX: Final = slice(345, 500)

_POSIX: Final = b"ustar\0"
_BEFORE_USTAR: Final = bytes(6)
_MAGICS: Final = frozenset({_POSIX, b"ustar ", _BEFORE_USTAR})
_FOLDER: Final = b"5"
#: Before ustar a folder was a file whose name ended in a slash.
_OLD_FILE: Final = b"\0"
_FILES: Final = frozenset({b"0", _OLD_FILE})
_REFUSED: Final = {
    b"1": "a hard link; send the file itself",
    b"2": "a symbolic link; send the file itself",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"S": "a sparse file; pack it without --sparse",
    b"M": "a part of a multi-volume archive",
    b"V": "a volume label",
    b"D": "an incremental dump",
}

_SLASH: Final = "a file whose name ends in a slash"

# What may stand in front of one member; more is a quarrel about its name.
_STACKS: Final = frozenset({b"x", b"L", b"K", b"KL", b"LK"})
_PAX_USED: Final = frozenset({b"path", b"size", b"mtime"})
_PAX_REFUSED: Final = (
    b"GNU.sparse.", b"GNU.volume.", b"GNU.dumpdir", b"SCHILY.realsize", b"SCHILY.offset", b"SUN.holesdata",
)  # fmt: skip

# The numbers from mode to checksum as every writer of today spells them; other spellings take the slow way.
_USUAL: Final = re.compile(rb"(?:[0-7]{7}[ \0]){3}([0-7]{11})[ \0]([0-7]{11})[ \0]([0-7]{6})\0 ")
_NO_DEVICE: Final = frozenset({bytes(16), b"0000000\0" * 2})
_OCTAL: Final = re.compile(rb" *([0-7]+)[ \0]*")
_RECORD: Final = re.compile(rb"([1-9][0-9]{0,8}) ([^=]+)=")
_PAX_SIZE: Final = re.compile(rb"[0-9]{1,19}")
_PAX_MTIME: Final = re.compile(rb"-?[0-9]{1,30}(?:\.[0-9]{0,30})?(?:e[+-]?[0-9]{1,3})?")

_SHOWN: Final = 200


class Header(NamedTuple):
    """One header block; all its numbers are sound, its name is not looked at yet.

    Attributes:
        block: the 512 bytes.
        kind: the type flag, one byte.
        size: length of what follows, in bytes, not negative.
        mtime: seconds since 1970.

    """

    block: bytes
    kind: bytes
    size: int
    mtime: int

    @classmethod
    def read(cls, block: bytes, offset: int) -> "Header":
        """Read a block.

        Args:
            block: 512 bytes, not all of them zero.
            offset: where it lies in the file, for messages.

        Raises:
            BadBundle: it is no header.  Not retryable.

        """
        usual = _USUAL.match(block, _MODE.start)
        if usual and block[_DEVICE] in _NO_DEVICE:
            size, mtime, checksum = int(usual[1], 8), int(usual[2], 8), int(usual[3], 8)
        else:
            size, mtime, checksum = _unusual(block, offset)
        if checksum != _checksum(block) and checksum != _signed_checksum(block):
            _refuse_broken("the checksum is wrong", block, offset)
        if block[_MAGIC] not in _MAGICS:
            _refuse_broken("an unknown kind of tar header", block, offset)
        return cls(block, block[_KIND], size, mtime)

    def name(self) -> str:
        """The member's name as this block has it.

        Raises:
            BadBundle: it is not UTF-8, or means different things to different readers.  Not retryable.

        """
        raw = self.block[_NAME].partition(b"\0")[0]
        if self.block[_PREFIX.start]:
            if self.block[_MAGIC] != _POSIX:
                # GNU keeps the times of incremental dumps here, and some readers take them for a folder.
                self.refuse("a header of an incremental dump")
            raw = self.block[_PREFIX].partition(b"\0")[0] + b"/" + raw
        return _text(raw)

    def refuse(self, reason: str) -> NoReturn:
        """Raise BadBundle, naming the member as far as this block does."""
        refuse(reason, _header_name(self.block))


class Extension(NamedTuple):
    """What extended headers said about the member that follows; None where they said nothing.

    Attributes:
        kinds: type flags of these headers, in their order.
        name: the member's name, in place of the header's.
        size: its length in bytes, in place of the header's.
        mtime: seconds since 1970, in place of the header's.

    """

    kinds: bytes
    name: str | None = None
    size: int | None = None
    mtime: float | None = None

    def extended(self, header: Header, body: bytes) -> "Extension":
        """Add one more extended header.

        Args:
            header: its kind is one of `EXTENSIONS`.
            body: what follows it.

        Raises:
            BadBundle: it is broken, is one too many, or tells what readers disagree on.  Not retryable.

        """
        kinds = self.kinds + header.kind
        if header.kind == b"g" and not self.kinds:
            # A header for all members that follow: comments are fine, one name or size for all of them is not.
            if _records(header, body):
                header.refuse("a global header with a path, size or mtime for every member")
            return self
        if kinds not in _STACKS:
            header.refuse("several extended headers for one member")
        if header.kind == b"x":
            return _pax(header, body)
        if header.kind == b"K":
            # The target of a link.  The link itself is refused by its own header, which has the member's name.
            return self._replace(kinds=kinds)
        return Extension(kinds, name=_text(body.rstrip(b"\0")))


NOTHING: Final = Extension(b"")


class Entry(NamedTuple):
    """A member as header and extended headers tell it together.

    Attributes:
        name: as the tar spells it, not checked.
        size: length in bytes; 0 for a folder.
        mtime: seconds since 1970.
        is_file: whether it is a file, else a folder.

    """

    name: str
    size: int
    mtime: float
    is_file: bool

    @classmethod
    def of(cls, header: Header, extension: Extension) -> "Entry":
        """Bring both together.

        Raises:
            BadBundle: neither a regular file nor a folder.  Not retryable.

        """
        name = header.name() if extension.name is None else extension.name
        size = header.size if extension.size is None else extension.size
        mtime = header.mtime if extension.mtime is None else extension.mtime
        is_file = _is_file(header.kind, name, size)
        if header.kind == _OLD_FILE and not is_file and (extension.kinds or header.block[_MAGIC] != _BEFORE_USTAR):
            # Where a name has several parts or spellings, readers disagree on whose slash makes it a folder.
            refuse(_SLASH, name)
        return cls(name, size, mtime, is_file)


def is_end(block: bytes) -> bool:
    """Whether a block ends the archive: it is all zeros, or cut off by the end of the file."""
    return len(block) < BLOCK or not (block[0] or block.strip(b"\0"))


def padded(size: int) -> int:
    """How many bytes in the file `size` bytes of contents take."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


def refuse(reason: str, name: str | None = None) -> NoReturn:
    """Raise BadBundle; a very long name is cut."""
    raise BadBundle(reason, name if name is None or len(name) <= _SHOWN else f"{name[:_SHOWN]}…")


def _unusual(block: bytes, offset: int) -> tuple[int, int, int]:
    """Size, mtime and checksum, however they are spelled."""
    try:
        # Not used, but readers that do use them take a header for broken when these are no numbers.
        for field in (_MODE, _USER, _GROUP, _MAJOR, _MINOR):
            _number_or_blank(block[field])
        # GNU leaves out the size of a volume label, which is refused by its kind.
        size = 0 if block[_KIND] == b"V" else _number(block[_SIZE])
        mtime, checksum = _number_or_blank(block[_MTIME]), _number(block[_CHECKSUM])
    except ValueError:
        _refuse_broken("a header field is no number", block, offset)
    if size < 0:
        # The one way to send a reader backwards, and round for ever.
        _refuse_broken("a negative size", block, offset)
    return size, mtime, checksum


def _number_or_blank(field: bytes) -> int:
    """Some writers leave blank what they do not know."""
    return _number(field) if field.strip(b" \0") else 0


def _number(field: bytes) -> int:
    """A number in octal, or in GNU's base 256, where the first byte is a mark and 255 means negative."""
    if field[0] == 0x80:  # noqa: PLR2004 (the mark)
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:  # noqa: PLR2004 (the mark)
        return int.from_bytes(field, "big", signed=True)
    octal = _OCTAL.fullmatch(field)
    if octal is None:
        msg = "not octal"
        raise ValueError(msg)
    return int(octal[1], 8)


def _checksum(block: bytes) -> int:
    """Sum of the header's bytes, the checksum's own field taken as spaces.

    `sum` needs 3 µs, more than all other work on a header.  From 0, the lower half of Adler-32 is the sum modulo
    65,521, and no piece here can reach that (178 · 255 = 45,390).
    """
    return (
        (adler32(block[:148], 0) & 0xFFFF)
        + (adler32(block[156:334], 0) & 0xFFFF)
        + (adler32(block[334:], 0) & 0xFFFF)
        + 8 * 32
    )


def _signed_checksum(block: bytes) -> int:
    """The same with signed bytes, as some old writers have it."""
    high = sum(byte > 0x7F for byte in block[:148] + block[156:])  # noqa: PLR2004 (the sign bit)
    return _checksum(block) - 256 * high


def _is_file(kind: bytes, name: str, size: int) -> bool:
    """Whether it is a file, else a folder; raises BadBundle for what is neither."""
    if kind in _FILES and name[-1:] != "/":
        return True
    if kind == _FOLDER or (kind == _OLD_FILE and not size):
        if size:
            # Some readers skip these bytes, and others read them as headers.
            refuse("a folder with contents", name)
        return False
    if kind in _FILES:
        refuse(_SLASH, name)
    return refuse(_REFUSED.get(kind, f"of unknown type {kind!r}"), name)


def _pax(header: Header, body: bytes) -> Extension:
    values = _records(header, body)
    name, size, mtime = values.get(b"path"), values.get(b"size"), values.get(b"mtime")
    if size is not None and not _PAX_SIZE.fullmatch(size):
        header.refuse("the size in the extended header is no number")
    if mtime is not None and not (_PAX_MTIME.fullmatch(mtime) and math.isfinite(float(mtime))):
        header.refuse("the mtime in the extended header is no number")
    return Extension(
        b"x",
        None if name is None else _text(name),
        None if size is None else int(size),
        None if mtime is None else float(mtime),
    )


def _records(header: Header, body: bytes) -> dict[bytes, bytes]:
    """Those records of a PAX header that we use.  A record is `length key=value` and a line feed."""
    used: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        record = _RECORD.match(body, at)
        # The shortest record ends behind its key, so that `at` always moves.
        stop = at + int(record[1]) if record else 0
        if record is None or not record.end() < stop <= len(body) or body[stop - 1] != ord("\n"):
            header.refuse("a broken extended header")
        key = record[2]
        if key in used:
            header.refuse(f"an extended header gives {key.decode()} twice")
        if key in _PAX_USED:
            used[key] = body[record.end() : stop - 1]
        elif key.startswith(_PAX_REFUSED):
            header.refuse("a sparse file, or a part of a multi-volume archive or incremental dump")
        at = stop
    return used


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        refuse("the name is not UTF-8", _shown(raw))


def _refuse_broken(reason: str, block: bytes, offset: int) -> NoReturn:
    """A header that is none: at the start of the file it means that the file is no tar."""
    if offset == 0:
        refuse(no_tar(block, reason))
    refuse(f"in the header at byte {offset}: {reason}", _header_name(block))


def _header_name(block: bytes) -> str:
    """What the name field holds, for an error."""
    return _shown(block[_NAME].partition(b"\0")[0])


def _shown(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
