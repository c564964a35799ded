"""Digests as values: which algorithms are taken, and how a metadata entry writes one.

Not a reader of files (`bundle`, `staging`).  Any floor may import this.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["ALGORITHMS", "Digest"]

#: Every algorithm here has a fixed digest length and a plain attribute in `hashlib`, which the Metadata service needs.
ALGORITHMS = frozenset({
    "md5", "sha1", "sha224", "sha256", "sha384", "sha512",
    "sha3_224", "sha3_256", "sha3_384", "sha3_512", "blake2b", "blake2s",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
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
        if not isinstance(algorithm, str) or algorithm.lower() not in ALGORITHMS:
            msg = f"hashtype {algorithm!r} is not one of {', '.join(sorted(ALGORITHMS))}"
            raise ValueError(msg)
        name = algorithm.lower()
        text = value.lower().removeprefix(f"{name}:") if isinstance(value, str) else ""
        length = hashlib.new(name).digest_size * 2
        if len(text) != length or not set(text) <= set("0123456789abcdef"):
            msg = f"hashsum {value!r} is not a {name} digest of {length} hexadecimal digits"
            raise ValueError(msg)
        return cls(algorithm=name, value=text)

    def start(self) -> "_Hash":
        """A fresh hash object of this algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def __str__(self) -> str:
        """Algorithm and value, as `sha256:9f86…`."""
        return f"{self.algorithm}:{self.value}"
