"""Parcels for the archive in a folder, and what lies in it afterwards."""

from collections.abc import Iterable
from pathlib import Path

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import Stopping
from pacifica.ingest.local.root import MARKER
from pacifica.ingest.ports import Parcel

__all__ = ["everything", "ids", "ignore", "parcel", "stop"]


def ignore(_count: int) -> None:
    pass


def stop(_count: int) -> None:
    raise Stopping


def ids(parcels: Iterable[Parcel]) -> list[int]:
    return [one.file_id for one in parcels]


def parcel(file_id: int, holder: Path, size: int | None = None, offset: int = 0) -> Parcel:
    length = holder.stat().st_size - offset if size is None else size
    digest = Digest(algorithm="sha256", value="0" * 64)
    return Parcel(file_id=file_id, path="a/b", holder=holder, offset=offset, size_bytes=length, digest=digest)


def everything(folder: Path) -> set[str]:
    """All but the marker."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(MARKER))
    return {path.relative_to(folder).as_posix() for path in files}
