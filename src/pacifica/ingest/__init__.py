"""Pacifica Ingest: the upload service for science data.

The flow of a bundle: `rest` → `intake` → `queue` → `pipeline` → `neighbours` or `local`; `recovery` picks up what a
crash left.  Start with `pipeline`.
"""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("pacifica-ingest")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0"
