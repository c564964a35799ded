"""What came in place of a bundle or a document, told by its first bytes: for messages alone.

Nothing is accepted or refused by this; whoever found a body bad asks, to say what is to be sent.  Any floor may import
this.

Source: RFC 1952 (gzip), RFC 8878 (zstd), RFC 7578 (forms), the formats of bzip2, xz and zip; `curl -d @FILE`, which leaves
out line ends and zeros.
"""

import re
from typing import Final

__all__ = ["LOOK_BYTES", "no_document", "no_tar"]

#: How much of the beginning is looked at, in bytes: a header of a tar.
LOOK_BYTES: Final = 512

_COMPRESSED: Final = {
    "gzip": rb"\x1f\x8b",
    "bzip2": rb"BZh[1-9]",
    "xz": rb"\xfd7zXZ\0",
    "zstd": rb"\x28\xb5\x2f\xfd",
    "zip": rb"PK\x03\x04",
}
_FORM: Final = re.compile(rb"--.*\nContent-Disposition:", re.DOTALL | re.IGNORECASE)
_JSON: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*[\[{]\s*[\[\]{}\"]")
_USTAR: Final = slice(257, 262)


def no_tar(start: bytes, reason: str) -> str:
    """What is wrong with a file that is no tar.

    Args:
        start: its first `LOOK_BYTES` bytes; fewer when it has no more.
        reason: why it is none.

    """
    if not start:
        return "not a tar file but empty"
    if name := _compression(start):
        return f"not a tar file but compressed with {name}: send an uncompressed tar"
    if _FORM.match(start):
        return _form("not a tar file", "bundle", "bundle.tar")
    if _JSON.match(start):
        return "not a tar file but JSON: is /move meant?"
    # A header of a tar has zeros behind its name.
    hint = "" if b"\0" in start else "; if curl sent it, use --data-binary, as -d changes a file"
    return f"not a tar file: {reason}{hint}"


def no_document(start: bytes) -> str:
    """What the beginning of a document shows to be something else than JSON; empty when it may be JSON.

    Args:
        start: its first `LOOK_BYTES` bytes; fewer when it has no more.

    """
    not_json = "The metadata is not JSON"
    if not start:
        return f"{not_json} but empty."
    if name := _compression(start):
        return f"{not_json} but compressed with {name}: send it uncompressed."
    if _FORM.match(start):
        return _form(not_json, "document", "metadata.json") + "."
    # JSON has no zeros, so this is none, whatever else stands there.
    if start[_USTAR] == b"ustar" and b"\0" in start:
        return f"{not_json} but a tar file: is /upload meant?"
    return ""


def _compression(start: bytes) -> str | None:
    return next((name for name, magic in _COMPRESSED.items() if re.match(magic, start)), None)


def _form(instead: str, what: str, example: str) -> str:
    return f"{instead} but a multipart form: send the {what} itself as the body (curl --data-binary @{example})"
