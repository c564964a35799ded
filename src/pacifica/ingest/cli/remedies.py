"""What to do about what `doctor` found: by the settings, and by what went wrong.

A standalone service starts nothing and takes no addresses, so its remedies are others.
"""

from collections.abc import Callable
from urllib.parse import urlsplit
from urllib.request import url2pathname

import peewee

from pacifica.ingest.config import Settings
from pacifica.ingest.core.errors import DatabaseDown, UnsafeSchema

__all__ = ["UNLOCK", "Remedy", "archive", "database", "landing_zone", "neighbour", "policy"]

#: A fault → what to do about it.
Remedy = Callable[[Exception], str]

UNLOCK = "end who keeps it locked (safe, also by kill)"
_MEND_URL = "mend [database] peewee_url"
_WAIT = "jobs wait for it meanwhile"


def database(settings: Settings, otherwise: str = "start it") -> Remedy:
    """For the database; `otherwise` is for what only its server knows."""
    url = settings.database.peewee_url

    def remedy(fault: Exception) -> str:
        if isinstance(fault, UnsafeSchema):
            return "run `pacifica-ingest-cmd dbsync`"
        if isinstance(fault, peewee.ImproperlyConfigured):
            extra = "mysql" if url.startswith("mysql") else "postgresql"
            return f"install its driver: `pip install '.[{extra}]'` in a checkout of the repository"
        if not url.startswith("sqlite"):
            return f"{otherwise}, or {_MEND_URL}"
        file = url2pathname(urlsplit(url).path.removeprefix("/"))
        unlock = UNLOCK if "locked" in str(fault) else f"let this user write {file} and its folder"
        return unlock if settings.standalone else f"{unlock}, or {_MEND_URL}"

    return remedy


def landing_zone(settings: Settings) -> Remedy:
    """For the landing zone."""
    if settings.standalone:
        return _always("make room there, or let this user write there")
    return _always("make room there, let this user write there, or set [ingest] volume_path")


def policy(settings: Settings) -> Remedy:
    """For Policy, or the file of rules in its place."""
    url = settings.policy.ingest_url
    if not url.startswith("local:"):
        return neighbour("policy", "ingest_url")
    return _always(f"mend that file{'' if url == 'local:' else ', or [policy] ingest_url'}; {_WAIT}")


def archive(settings: Settings) -> Remedy:
    """For the archive, or the folder in its place."""
    if not settings.archiveinterface.url.startswith("file:"):
        return neighbour("archiveinterface", "url")
    where = "" if settings.standalone else ", or mend [archiveinterface] url"
    folder = f"mount it, make room there, or let this user write there{where}; {_WAIT}"
    # The database knows which folder is meant.
    known = database(settings)
    return lambda fault: (
        known(fault) if isinstance(fault, DatabaseDown | UnsafeSchema | peewee.PeeweeException) else folder
    )


def neighbour(section: str, key: str) -> Remedy:
    """For a service at an address."""
    return _always(f"start it, or mend [{section}] {key}; {_WAIT}")


def _always(text: str) -> Remedy:
    return lambda _fault: text
