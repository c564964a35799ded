"""Digests that come in headers: `Repr-Digest` and `Content-Digest`.

The body of a POST is the whole representation, so both say the same of it.  Algorithms that we do not know say nothing;
what cannot be read is refused, as a client that sends a digest wants it looked at.  Knows neither CherryPy nor jobs.

Source: RFC 9530 (Digest Fields), RFC 9651 (Structured Field Values for HTTP).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import http_sf

from pacifica.ingest.core.digests import ALGORITHMS, Announcement, Digest
from pacifica.ingest.core.errors import BadRequest

__all__ = ["announced"]

_FIELDS: Final = ("Repr-Digest", "Content-Digest")
#: Their names in a field; those of the registry that are deprecated are not taken.
_NAMES: Final = {"sha-256": "sha256", "sha-512": "sha512"}


def announced(environ: Mapping[str, Any]) -> tuple[Announcement, ...]:
    """All digests that a request announces.

    Args:
        environ: the WSGI environment; several lines of a header are joined in it.

    Raises:
        BadRequest: a field is no dictionary, or has no digest where one belongs; not retryable.

    """
    return tuple(said for field in _FIELDS for said in _read(field, _value(environ, field)))


def _value(environ: Mapping[str, Any], field: str) -> bytes:
    return str(environ.get(f"HTTP_{field.upper().replace('-', '_')}", "")).encode("latin-1", "replace")


def _read(field: str, value: bytes) -> Iterator[Announcement]:
    def refuse_twice(name: str, _where: str) -> None:
        # The standard takes the last; the first was said as well.
        if name in _NAMES:
            raise _refusal(field, f"{name} comes twice")

    try:
        members: Any = http_sf.parse(value, tltype="dictionary", on_duplicate_key=refuse_twice)
    except ValueError as fault:
        raise _refusal(field, str(fault)) from fault
    for name, algorithm in _NAMES.items():
        # A bare item comes as a pair, with its parameters.
        if name in members:
            yield Announcement(field=field, digest=_digest(field, name, algorithm, members[name][0]))


def _digest(field: str, name: str, algorithm: str, found: object) -> Digest:
    length = ALGORITHMS[algorithm].hex_digits // 2
    if not isinstance(found, bytes) or len(found) != length:
        raise _refusal(field, f"{name} is no digest of {length} bytes")
    return Digest(algorithm=algorithm, value=found.hex())


def _refusal(field: str, reason: str) -> BadRequest:
    return BadRequest(f"{field}: expected a dictionary as sha-256=:BASE64:, but {ascii(reason[:200])[1:-1]}.")
