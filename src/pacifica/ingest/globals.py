"""The documented module of two names: where the configuration files are.

Not the settings (`config`).  Both names are read from the environment when they are asked for, not at import, so that a
command line option can still change them.
"""

import os
from pathlib import Path

__all__ = ["CHERRYPY_CONFIG", "CONFIG_FILE"]

#: Path of the INI file: INGEST_CONFIG, or `.pacifica-ingest/config.ini` in the home folder.
CONFIG_FILE: str
#: Path of the CherryPy file: INGEST_CPCONFIG, or `.pacifica-ingest/cpconfig.ini` in the home folder.
CHERRYPY_CONFIG: str

_FILES = {"CONFIG_FILE": ("INGEST_CONFIG", "config.ini"), "CHERRYPY_CONFIG": ("INGEST_CPCONFIG", "cpconfig.ini")}


def __getattr__(name: str) -> str:
    """Look a documented name up."""
    if name not in _FILES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    variable, file = _FILES[name]
    return os.environ.get(variable) or str(Path.home() / ".pacifica-ingest" / file)
