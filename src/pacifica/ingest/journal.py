"""Log lines for people: one line a record, what belongs to it as `key=value` at its end.

Not what is logged, and not where to: `cli` and `tasks` set their handlers up with it.
"""

import logging
from typing import Any

from pacifica.ingest.core.text import masked, printable

__all__ = ["Lines"]

#: What every record has; the rest came as `extra`.
_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Lines(logging.Formatter):
    """Time, level, module, message, then the extra fields.

    Control characters are escaped, passwords in URLs are masked.  A trace has several lines; they are indented, so that no
    text in it can pass for a record.
    """

    def __init__(self, form: str = "%(asctime)s %(levelname)-7s %(name)s: %(message)s") -> None:
        """Begin lines as `form` says, in the local time."""
        super().__init__(form)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (overrides)
        """Format all but the trace."""
        # What others attach to records is not for lines.
        fields = vars(record) if record.name.startswith("pacifica.") else {}
        extra = (f"{key}={_value(value)}" for key, value in fields.items() if key not in _USUAL)
        return printable(masked(" ".join([super().formatMessage(record), *extra])))

    def formatException(self, ei: Any) -> str:  # noqa: N802, ANN401 (overrides)
        """Format a trace."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 (overrides)
        """Format a stack."""
        return _indented(super().formatStack(stack_info))


def _indented(trace: str) -> str:
    return "\n".join(f"  {printable(masked(line))}" for line in trace.splitlines())


def _value(value: object) -> str:
    text = str(value)
    return repr(text) if " " in text or not text else text
