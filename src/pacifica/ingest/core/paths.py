"""One canonical path for a file, however the bundle and the metadata spell it.

A file is called `data/a/b` in the tar and `subdir: a, name: b` in the metadata, and real clients add `./`, doubled
slashes, a second `data/` and decomposed accents.  Both sides are brought to the same text here, relative to `data/`,
so that finding a member is one look into a dict.

Pure string rules: no disk, no `os.path` (a bundle made on Windows means the same everywhere).  Not the place for
paths of the server, such as the sources of a move.  Any floor may import this.
"""

import re
import unicodedata
from collections.abc import Container
from typing import Final

from pacifica.ingest.core.errors import BadPath

__all__ = ["METADATA", "canonical", "clip", "entry_path", "is_metadata", "member_path"]

#: The canonical path of the one member that is not below `data/`.
METADATA: Final = "metadata.txt"

_ROOT: Final = "data"
# C0, DEL and C1 could hide a name in a log or a terminal; a lone surrogate can be written nowhere.
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def clip(path: str) -> str:
    """Drop the first part when it is `data`, and empty parts: the documented `get_clipped`.

    Nothing is refused and `.` stays, as documented; `canonical` is the strict one.

    Args:
        path: parts joined by `/`.

    Returns:
        the same path below `data/`; empty for `data` itself.

    """
    parts = path.split("/")
    if parts[0] == _ROOT:
        del parts[0]
    return "/".join(part for part in parts if part)


def canonical(path: str) -> str:
    """Bring a path to its one spelling: Unicode NFC, no empty parts, no `.` parts, no slash at either end.

    Args:
        path: parts joined by `/`.

    Raises:
        BadPath: nothing is left, a `..` part, a control character or a lone surrogate.  Not retryable.

    Source: Unicode Standard Annex 15 (NFC).

    """
    if _FORBIDDEN.search(path):
        raise BadPath(path, "control characters and broken text are not allowed in a path")
    parts = [part for part in unicodedata.normalize("NFC", path).split("/") if part not in {"", "."}]
    if ".." in parts:
        raise BadPath(path, "'..' is not allowed in a path")
    if not parts:
        raise BadPath(path, "the path is empty")
    return "/".join(parts)


def member_path(name: str) -> str:
    """Canonical path, relative to `data/`, of a member of a bundle.

    Args:
        name: as the tar spells it: `data/a/b`, `./data/a/b`, `data//tmp/x`.

    Returns:
        `a/b`; only the first `data` is dropped.

    Raises:
        BadPath: absolute, not below `data/` (metadata can name no such file), or as for `canonical`.  Not retryable.

    """
    if name.startswith("data/") and _is_plain(name):
        return name[len(_ROOT) + 1 :]
    if name.startswith("/"):
        raise BadPath(name, "absolute names are not allowed")
    root, _, path = canonical(name).partition("/")
    if root != _ROOT or not path:
        raise BadPath(name, f"not below {_ROOT}/")
    return path


def is_metadata(name: str) -> bool:
    """Whether a member of a bundle is its `metadata.txt`, however the tar spells that."""
    try:
        return not name.startswith("/") and canonical(name) == METADATA
    except BadPath:
        return False


def entry_path(subdir: str, name: str, members: Container[str] = ()) -> str:
    """Canonical path, relative to `data/`, of a file entry of the metadata.

    A subdir that starts with `data` is told in two ways: with the root, and without it for a folder that has this
    name (pacifica-uploader writes `data` for `data/data/x`).  What is in the bundle decides; where that cannot, the
    root is meant, as in 0.4.1.  `./data` and `/data` are never the root.

    Args:
        subdir: the folder; may be empty, absolute (as a person typed it) or start with `data/`.
        name: the file's name.
        members: canonical paths in the bundle.

    Raises:
        BadPath: the name is empty, `.` or ends in a slash, or as for `canonical`.  Not retryable.

    """
    path = f"{subdir}/{name}"
    if path[0] not in "/." and not path.startswith("data/") and _is_plain(path):
        return path
    if name.rpartition("/")[2] in {"", "."}:
        raise BadPath(path, "the file has no name")
    whole = canonical(path)
    return whole if whole in members or not path.startswith(f"{_ROOT}/") else canonical(clip(path))


def _is_plain(path: str) -> bool:
    """Whether a path has one spelling already, but for its beginning; true for nearly all, and quick (0.3 µs against 2)."""
    return path.isascii() and path.isprintable() and "//" not in path and "/." not in path and path[-1] != "/"
