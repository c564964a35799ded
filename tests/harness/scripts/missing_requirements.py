"""Print the requirements of one installed package that have no installed release.

Runs inside another environment (see `tests.harness.venvs`), with the standard library
and the pip of that environment only. One requirement a line, on standard output.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys


def main(package: str) -> None:
    """Print what `package` asks for and is absent under any version."""
    requirements = importlib.import_module("pip._vendor.packaging.requirements")
    for line in importlib.metadata.requires(package) or []:
        requirement = requirements.Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            print(line)  # noqa: T201 - its standard output is its answer


if __name__ == "__main__":
    main(sys.argv[1])
