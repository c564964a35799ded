"""Load reference data into the Metadata service with the client that it ships.

Runs inside the neighbours' environment (see `tests.harness.core`). Standard input is
JSON: ``{"url": …, "objects": [[type, [object, …]], …]}``, in the order of loading.
A relation's ``relationship`` is a name there; it is replaced by the identifier that the
service gave it.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def main() -> None:
    """Create every object, in order."""
    job = json.load(sys.stdin)
    client = importlib.import_module("pacifica.metadata.client").PMClient(job["url"])
    names = {item["name"]: item["uuid"] for item in client.get("relationships", {})}
    for kind, objects in job["objects"]:
        client.create(kind, [_resolved(item, names) for item in objects])


def _resolved(item: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    if "relationship" not in item:
        return item
    return item | {"relationship": names[item["relationship"]]}


if __name__ == "__main__":
    main()
