"""Digests as values: which algorithms are taken, how strong each is, and how a metadata entry writes one.

Not a reader of files (`bundle`, `staging`).  Any floor may import this.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from pacifica.ingest.core.errors import DigestMismatch
from pacifica.ingest.core.strict_json import shown

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["ALGORITHMS", "Algorithm", "Announcement", "Digest", "Proof", "allowed", "digested"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What is known of an algorithm.

    Attributes:
        hex_digits: length of a digest.
        strength_bits: the work to make two files with one digest is 2 to the power of this, as far as is known in 2026.

    """

    hex_digits: int
    strength_bits: int


#: Every algorithm here has a fixed digest length and a plain attribute in `hashlib`, which the Metadata service needs.
#: md5 and sha1 are broken: collisions are a matter of seconds for the one and of money for the other.
ALGORITHMS: Final = {
    "md5": Algorithm(hex_digits=32, strength_bits=18),
    "sha1": Algorithm(hex_digits=40, strength_bits=61),
    "sha224": Algorithm(hex_digits=56, strength_bits=112),
    "sha256": Algorithm(hex_digits=64, strength_bits=128),
    "sha384": Algorithm(hex_digits=96, strength_bits=192),
    "sha512": Algorithm(hex_digits=128, strength_bits=256),
    "sha3_224": Algorithm(hex_digits=56, strength_bits=112),
    "sha3_256": Algorithm(hex_digits=64, strength_bits=128),
    "sha3_384": Algorithm(hex_digits=96, strength_bits=192),
    "sha3_512": Algorithm(hex_digits=128, strength_bits=256),
    "blake2s": Algorithm(hex_digits=64, strength_bits=128),
    "blake2b": Algorithm(hex_digits=128, strength_bits=256),
}

_HEX: Final = re.compile("[0-9a-f]+")


def allowed(min_hash: str) -> list[str]:
    """The algorithms that are no weaker than `min_hash`, one of `ALGORITHMS`; all of them when it is empty."""
    least = ALGORITHMS[min_hash].strength_bits if min_hash else 0
    return [name for name, algorithm in ALGORITHMS.items() if algorithm.strength_bits >= least]


class Digest(NamedTuple):
    """A named digest.

    Attributes:
        algorithm: one of `ALGORITHMS`, lower case.
        value: hexadecimal, lower case.

    """

    algorithm: str
    value: str

    @classmethod
    def parse(cls, algorithm: object, value: object) -> "Digest":
        """Read `hashtype` and `hashsum` of a metadata entry.

        Upper case is taken, and a prefix such as `sha1:` before the value, as 0.4.1 does.

        Raises:
            ValueError: unknown algorithm, or a value that is no digest of it; not retryable.

        """
        name = algorithm.lower() if isinstance(algorithm, str) else ""
        known = ALGORITHMS.get(name)
        if known is None:
            msg = f"hashtype: expected {' or '.join(ALGORITHMS)}, got {shown(algorithm)}"
            raise ValueError(msg)
        text = value.lower() if isinstance(value, str) else ""
        if len(text) != known.hex_digits:
            text = text.removeprefix(f"{name}:")
        if len(text) != known.hex_digits or not _HEX.fullmatch(text):
            msg = f"hashsum: expected {known.hex_digits} hexadecimal digits of {name}, got {shown(value)}"
            raise ValueError(msg)
        return cls(algorithm=name, value=text)

    def weakness(self, min_hash: str) -> str | None:
        """Why this is not taken where `min_hash` is the weakest that is; None when it is."""
        good = allowed(min_hash)
        return None if self.algorithm in good else f"{self.algorithm} is too weak, allowed are {', '.join(good)}"

    def start(self) -> "_Hash":
        """A fresh hash object of this algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def __str__(self) -> str:
        """Algorithm and value, as `sha256:9f86…`."""
        return f"{self.algorithm}:{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A digest that came with a body.

    Attributes:
        field: the header that told it.
        digest: of the whole body.

    """

    field: str
    digest: Digest


def digested(
    pieces: Iterable[bytes | memoryview], algorithm: str, progress: Callable[[int], object], most_bytes: int | None
) -> tuple[str, int]:
    """Digest and length of what comes, up to the piece that makes it longer than it may be.

    Args:
        pieces: the bytes, in order.
        algorithm: one of `ALGORITHMS`.
        progress: told the length of each piece, in bytes.
        most_bytes: what is longer is not read to its end; None: any length.

    Returns:
        hexadecimal digest, and length in bytes; of what is too long, a length that is more than allowed.

    """
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    length = 0
    for piece in pieces:
        length += len(piece)
        if most_bytes is not None and length > most_bytes:
            break
        hasher.update(piece)
        progress(len(piece))
    return hasher.hexdigest(), length


class Proof:
    """Hashes a body while it is read, once for each algorithm that was announced; where none was, it costs nothing."""

    def __init__(self, announcements: Iterable[Announcement]) -> None:
        """Nothing was read yet."""
        self._announcements = tuple(announcements)
        self._found = {said.digest.algorithm: said.digest.start() for said in self._announcements}

    def of(self, chunks: Iterable[bytes | memoryview]) -> Iterable[bytes | memoryview]:
        """The same chunks, which are hashed when they are taken."""
        return self._hashed(chunks) if self._found else chunks

    def verify(self) -> None:
        """Return when all that was announced is true of what was read.

        Raises:
            DigestMismatch: the first that is not; not retryable.

        """
        for said in self._announcements:
            found = self._found[said.digest.algorithm].hexdigest()
            if found != said.digest.value:
                raise DigestMismatch(said.field, said.digest.algorithm, said.digest.value, found)

    def _hashed(self, chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for chunk in chunks:
            for running in self._found.values():
                running.update(chunk)
            yield chunk
