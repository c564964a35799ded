"""The two documented entries of the command line; `python -m pacifica.ingest` is the server."""

import sys
from collections.abc import Sequence

from pacifica.ingest.cli.admin import admin
from pacifica.ingest.cli.exits import run
from pacifica.ingest.cli.server import server

__all__ = ["cmd", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server, `pacifica-ingest`.

    Args:
        argv: options; those of the process when None.

    Returns:
        an exit code, see `cli`.

    """
    return run(server, argv, "pacifica-ingest")


def cmd(argv: Sequence[str] | None = None) -> int:
    """Run an administrator's command, `pacifica-ingest-cmd`; as `main`."""
    return run(admin, argv, "pacifica-ingest-cmd")


if __name__ == "__main__":
    sys.exit(main())
