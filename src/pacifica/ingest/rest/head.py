"""The head of a request, strictly: what two readers could take for two things is refused.

Rules only: it gets lines and tells what is wrong with them.  `listener` reads the lines from a connection, and `body`
asks for the lines behind a chunked body.  Knows neither CherryPy nor jobs.

Source: RFC 9110, "Fields", and RFC 9112, "Message" and "Message Body Length".
"""

import re
from typing import Final

__all__ = ["BadHead", "awaited", "ensure_framed", "ensure_request_line", "is_decided", "split_field"]

#: One space between three parts, an address of this server in plain ASCII, and a version that is spoken here.
_REQUEST_LINE: Final = re.compile(rb"(?:[!$%&'*+.^`|~0-9A-Z-]+ /(?!/)[!\"$-~]*|OPTIONS \*) HTTP/1\.[01]\r\n")
_VERSION: Final = re.compile(rb".* HTTP/[0-9](?:\.[0-9])?\r\n", re.DOTALL)
#: No underscore: in WSGI it is the same as a dash.  No control characters but the tabulator.
_FIELD: Final = re.compile(rb"([!#$%&'*+.^`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\r\n")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_LENGTHS: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
#: A client that waits for an answer before it sends the body, and a body whose end only a reader finds.
_NOT_AWAITED: Final = re.compile(rb"\r\n(?:expect|transfer-encoding):", re.IGNORECASE)
#: The last one would win, or the first, depending on who reads.
_ONCE: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})

_SHOWN: Final = 40


class BadHead(ValueError):
    """The head of a request cannot be read for sure; the message says which part."""


def is_decided(found: bytes) -> bool:
    """Whether who reads these first bytes of a connection need not wait for more: the head is whole, or is refused."""
    if b"\r\n\r\n" in found or _BARE_LF.search(found):
        return True
    line, end, _ = found.removeprefix(b"\r\n").partition(b"\r\n")
    return bool(end) and not _REQUEST_LINE.fullmatch(line + end)


def awaited(found: bytes, largest: int) -> int:
    """How long head and body are together, when the body will follow by itself and be read.

    Args:
        found: the first bytes of a connection, decided.
        largest: the longest body that is taken, in bytes; 0 is no limit.

    Returns:
        bytes; 0 when there is no use in waiting for the body.

    """
    head, end, _ = found.partition(b"\r\n\r\n")
    lengths = _LENGTHS.findall(head + b"\r\n")
    if not end or len(lengths) != 1 or _NOT_AWAITED.search(head):
        return 0
    length = int(lengths[0])
    return 0 if largest and length > largest else len(head) + len(end) + length


def ensure_request_line(line: bytes) -> None:
    """Refuse a request line, with its end, that is not one method, one address and HTTP/1.

    Raises:
        BadHead: not retryable.

    """
    if _REQUEST_LINE.fullmatch(line):
        return
    if _VERSION.fullmatch(line) and not line.endswith((b" HTTP/1.0\r\n", b" HTTP/1.1\r\n")):
        msg = "HTTP/1.1 and HTTP/1.0 are spoken here."
        raise BadHead(msg)
    msg = f"Expected a line 'METHOD /address HTTP/1.1' that ends with CRLF, got {line[:_SHOWN]!r}"
    raise BadHead(msg)


def split_field(line: bytes, known: set[bytes]) -> tuple[bytes, bytes]:
    """The name and the value of a header line, with its end.

    Args:
        line: as it came.
        known: names that came before, in lower case; the new one is added.

    Raises:
        BadHead: it can be read in several ways, or may not come twice; not retryable.

    """
    match = _FIELD.fullmatch(line)
    if not match:
        msg = f"Not a header of HTTP/1.1, or one whose name has an underscore: {line[:_SHOWN]!r}"
        raise BadHead(msg)
    name, value = match.groups()
    lower = name.lower()
    if lower in known & _ONCE:
        msg = f"The header {name[:_SHOWN].decode()} came twice."
        raise BadHead(msg)
    known.add(lower)
    return name, value


def ensure_framed(length: bytes | None, encoding: bytes | None, *, is_old: bool) -> None:
    """Refuse a request whose end is not sure.

    Args:
        length: Content-Length.
        encoding: Transfer-Encoding.
        is_old: it came as HTTP/1.0, which knows no chunks.

    Raises:
        BadHead: not retryable.

    """
    if length is not None and not _LENGTH.fullmatch(length):
        msg = f"Content-Length is no number of bytes: {length[:_SHOWN].decode('latin-1')!r}"
        raise BadHead(msg)
    if encoding is None:
        return
    if length is not None:
        msg = "Send Content-Length or Transfer-Encoding, not both."
        raise BadHead(msg)
    if is_old or encoding.lower() != b"chunked":
        shown = encoding[:_SHOWN].decode("latin-1")
        msg = f"Transfer-Encoding {shown!r} cannot be read here; chunked can, in HTTP/1.1."
        raise BadHead(msg)
