"""Foreign text on a terminal, and figures for people.

Names of files and reasons come from senders: none of their characters may move the cursor or forge a line.
"""

from datetime import UTC, datetime

__all__ = ["local_time", "printable", "rate", "size"]

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
_STEP = 1000


def printable(text: str) -> str:
    """The text with every character escaped that a terminal would not show as it is."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def size(size_bytes: float) -> str:
    """A number of bytes, short: `1.5 MB`, in powers of 1000 as in the configuration."""
    value = float(size_bytes)
    for unit in _UNITS:
        if value < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def rate(size_bytes: float, seconds: float) -> str:
    """Throughput: `105.3 MB/s`."""
    return f"{size(size_bytes / max(seconds, 1e-6))}/s"


def local_time(moment: datetime) -> str:
    """A moment as this machine's clock shows it: `2026-11-24 08:15:02`."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone().isoformat(sep=" ", timespec="seconds")[:19]
