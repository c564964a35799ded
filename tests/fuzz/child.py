"""One target under libFuzzer, in a process of its own: `python -m tests.fuzz.child TARGET [options of libFuzzer] CORPUS`.

It ends with an error when an input makes the target raise, takes longer than `-timeout`, or more memory than `-rss_limit_mb`;
the input is kept as libFuzzer says.
"""

import os
import random
import sys

import atheris

# The peak of memory that Linux tells, and libFuzzer goes by, is also that of the process that started this one.  A fork
# begins anew.
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)

with atheris.instrument_imports(include=["pacifica.ingest.bundle", "pacifica.ingest.core"]):
    from tests.fuzz.targets import TARGETS, mended


def main() -> None:
    """Fuzz; does not return."""
    name = sys.argv.pop(1)

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        return mended(atheris.Mutate(data, longest), random.Random(seed))

    custom = {"custom_mutator": mutated} if name == "tar" else {}
    atheris.Setup(sys.argv, TARGETS[name], **custom)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
