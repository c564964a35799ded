"""Sizes as people write them in a configuration file.

Any floor may import this.
"""

import re
from fractions import Fraction

__all__ = ["SIZE_UNITS", "parse_size"]

#: Unit → bytes.  A capital B counts in thousands, a small b in 1024s.  Source: documentation of pacifica-ingest 0.4.1.
SIZE_UNITS = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "b": 1, "Kb": 2**10, "Mb": 2**20, "Gb": 2**30, "Tb": 2**40,
}  # fmt: skip


def parse_size(size: str) -> int:
    """Read a size.

    Args:
        size: a number and a unit, as `4 Mb`; the space may be left out.

    Returns:
        bytes, rounded down.

    Raises:
        ValueError: not a number and one of `SIZE_UNITS`; not retryable.

    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", size, re.ASCII)
    if match is None or match[2] not in SIZE_UNITS:
        msg = f"{size!r} is not a size such as '4 Mb'; the units are {', '.join(SIZE_UNITS)}"
        raise ValueError(msg)
    return int(Fraction(match[1]) * SIZE_UNITS[match[2]])
