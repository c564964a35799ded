"""What a round of fuzzing found."""

from dataclasses import dataclass

__all__ = ["MEMORY_MIB", "Result"]

#: The most memory that what is fuzzed may have, in MiB.
MEMORY_MIB = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one process did.

    Attributes:
        target: what was fuzzed.
        inputs: how many were tried.
        seconds: how long that took.
        memory_mib: the most that the process had.
        found: what was found, for people, else empty.
    """

    target: str
    inputs: int
    seconds: int
    memory_mib: int
    found: str
