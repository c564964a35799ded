"""What of a message is for clients.

Operators read the whole in the log and by `show`; a client needs no map of our disks, no words of the database, and no
password.  Paths that a client named itself, as the sources of a move, are left as they are.  Knows neither CherryPy nor
jobs.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pacifica.ingest import globals as files
from pacifica.ingest.config import Settings
from pacifica.ingest.core.text import masked
from pacifica.ingest.staging import MARKER, STAGED

__all__ = ["for_clients"]

#: What the driver says names hosts and accounts, on several lines.
_DATABASE: Final = re.compile(r"(The database cannot be used now): .*", re.DOTALL)
#: The rest of a path, as messages quote it.
_REST: Final = r"(?P<rest>/[^\s'\",;:()]*)?(?![\w.-])"


def for_clients(text: str, settings: Settings) -> str:
    """A message as a client gets it: our own folders are told by what they are."""
    if not text:
        return text
    text = _DATABASE.sub(r"\1.", masked(text))
    for place, word in _places(settings):
        text = re.sub(re.escape(str(place)) + _REST, partial(_told, settings, word), text)
    return text


def _places(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Our folders and files, the inner before the outer."""
    archive = urlsplit(settings.archiveinterface.url)
    found = {Path(files.CONFIG_FILE): "the configuration file", settings.ingest.volume_path: "the landing zone"}
    if archive.scheme == "file":
        found[Path(url2pathname(archive.path))] = "the archive"
    if settings.rule_file:
        found[settings.rule_file] = "the rule file"
    if settings.standalone:
        found[settings.standalone] = "the folder of the service"
    yield from sorted(found.items(), key=lambda place: len(str(place[0])), reverse=True)


def _told(settings: Settings, word: str, match: re.Match[str]) -> str:
    path = Path(match[0])
    is_staged = path.parent == settings.ingest.volume_path and (
        STAGED.fullmatch(path.name) or path.name.startswith(MARKER)
    )
    is_theirs = any(path.is_relative_to(root) for root in settings.move_roots)
    return match[0] if is_theirs and not is_staged else word + (match["rest"] or "")
