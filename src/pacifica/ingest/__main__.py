"""The two documented entries of the command line; `python -m pacifica.ingest` is the server.

Each imports only what it needs, when it is called: every worker of a standalone service imports this module.
"""

import sys
from collections.abc import Sequence

__all__ = ["cmd", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server, `pacifica-ingest`.

    Args:
        argv: options; those of the process when None.

    Returns:
        an exit code, see `cli`.

    """
    from pacifica.ingest.cli.exits import run  # noqa: PLC0415 (see above)
    from pacifica.ingest.cli.server import server  # noqa: PLC0415

    return run(server, argv, "pacifica-ingest")


def cmd(argv: Sequence[str] | None = None) -> int:
    """Run an administrator's command, `pacifica-ingest-cmd`; as `main`."""
    from pacifica.ingest.cli.admin import admin  # noqa: PLC0415 (see above)
    from pacifica.ingest.cli.exits import run  # noqa: PLC0415

    return run(admin, argv, "pacifica-ingest-cmd")


if __name__ == "__main__":
    sys.exit(main())
