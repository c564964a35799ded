"""Figures and texts for people."""

from datetime import UTC, datetime

__all__ = ["clock", "counted", "local_time", "rate", "size", "summary"]

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
_STEP = 1000


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


def counted(number: int, what: str) -> str:
    """`1 day`, `2 days`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def summary(text: str) -> str:
    """The first line, and how many more there are: `'a' is a symbolic link … and 4 more`."""
    first, *others = text.split("\n")
    return f"{first} … and {len(others)} more" if others else first


def local_time(moment: datetime) -> str:
    """A moment as this machine's clock shows it: `2026-11-24 08:15:02`."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone().isoformat(sep=" ", timespec="seconds")[:19]


def clock() -> str:
    """The zone that `local_time` shows, as `UTC` or `UTC+01:00`."""
    offset = datetime.now(UTC).astimezone().isoformat()[-6:]
    return "UTC" if offset == "+00:00" else f"UTC{offset}"
