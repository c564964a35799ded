"""What lies in a landing zone.

Who may call it: every test.
"""

from pathlib import Path

from pacifica.ingest.staging import MARKER

__all__ = ["landed"]


def landed(folder: Path) -> list[Path]:
    """Everything there, finished or not, without the landing zone's own marker; nothing when there is no folder."""
    there = folder.iterdir() if folder.exists() else ()
    return sorted(path for path in there if not path.name.startswith(MARKER))
