"""Log lines for people: one line a record, what belongs to it as `key=value` at its end.

Called once by every process of ours that has no log of its own; never on import.
"""

import logging
import sys

from pacifica.ingest.cli.text import printable

__all__ = ["Lines", "configure"]

#: What every record has; the rest came as `extra`.
_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Lines(logging.Formatter):
    """Time, level, module, message, then the extra fields.  Control characters are escaped, but for those of a trace."""

    def __init__(self) -> None:
        """Use the local time."""
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (overrides)
        """Format all but the trace."""
        extra = (f"{key}={_value(value)}" for key, value in vars(record).items() if key not in _USUAL)
        return printable(" ".join([super().formatMessage(record), *extra]))


def configure(level: int = logging.INFO) -> None:
    """Log to stderr: this package from `level` on, everything else from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("pacifica.ingest").setLevel(level)


def _value(value: object) -> str:
    text = str(value)
    return repr(text) if " " in text or not text else text
