"""The log of a process that has none of its own: lines on stderr.

Called once by every process of ours, but for Celery's workers (`tasks`); never on import.
"""

import logging
import sys

from pacifica.ingest.journal import Lines

__all__ = ["configure"]


def configure(level: int = logging.INFO) -> None:
    """Log to stderr: this package from `level` on, everything else from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("pacifica.ingest").setLevel(level)
