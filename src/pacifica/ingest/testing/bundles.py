"""Bundles built in code, whole ones and broken ones.  Files are packed by `packing`."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, Self

from pacifica.ingest.core.metadata import Entry
from pacifica.ingest.core.paths import METADATA

__all__ = ["BundleBuilder"]


class BundleBuilder:
    """Puts a bundle together, member by member and entry by entry.

    A value of `...` leaves a key of an entry out::

        BundleBuilder().add("a/b.txt", b"hello").add("c", b"", size=1, mtime=...).build()
    """

    def __init__(
        self,
        *,
        submitter: Any = "10",  # noqa: ANN401 (JSON)
        project: Any = "1234a",  # noqa: ANN401 (JSON)
        instrument: Any = "54",  # noqa: ANN401 (JSON)
        tar_format: int = tarfile.PAX_FORMAT,
        metadata_first: bool = False,
    ) -> None:
        """Begin with the three entries that every document has; `...` leaves one out."""
        values = {"submitter": submitter, "project": project, "instrument": instrument}
        self._entries: list[Any] = [
            {"destinationTable": f"Transactions.{key}", "value": value}
            for key, value in values.items()
            if value is not ...
        ]
        self._members: list[tuple[tarfile.TarInfo, bytes]] = []
        self._format = tar_format
        self._metadata_first = metadata_first
        self._text: bytes | None = None

    def add(self, path: str, data: bytes = b"", **overrides: Any) -> Self:  # noqa: ANN401 (JSON)
        """Add a file: member `data/path` and its entry."""
        return self.member(f"data/{path}", data).entry(path, data, **overrides)

    def member(self, name: str, data: bytes = b"", **fields: Any) -> Self:  # noqa: ANN401 (of any type)
        """Add a member alone; `fields` are attributes of `tarfile.TarInfo`, such as `type` and `linkname`."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        for key, value in fields.items():
            setattr(header, key, value)
        self._members.append((header, data))
        return self

    def entry(self, path: str, data: bytes = b"", **overrides: Any) -> Self:  # noqa: ANN401 (JSON)
        """Add an entry alone."""
        subdir, _, name = path.rpartition("/")
        entry = {
            "destinationTable": "Files",
            "name": name,
            "subdir": subdir,
            "size": len(data),
            "mimetype": "application/octet-stream",
            "mtime": "2020-01-02T03:04:05",
            "ctime": "2020-01-02T03:04:05",
            "hashsum": hashlib.sha256(data).hexdigest(),
            "hashtype": "sha256",
        } | overrides
        return self.other({key: value for key, value in entry.items() if value is not ...})

    def other(self, entry: Any) -> Self:  # noqa: ANN401 (JSON)
        """Add anything to the metadata document."""
        self._entries.append(entry)
        return self

    def metadata(self, text: bytes) -> Self:
        """Put this into `metadata.txt` instead of the document; empty leaves the member out."""
        self._text = text
        return self

    def document(self) -> list[Entry]:
        """The metadata document, as it stands."""
        return list(self._entries)

    def build(self) -> bytes:
        """The bundle as it stands."""
        text = json.dumps(self._entries, separators=(",", ":")).encode() if self._text is None else self._text
        header = tarfile.TarInfo(METADATA)
        header.size = len(text)
        last = [(header, text)] if text else []
        members = [*last, *self._members] if self._metadata_first else [*self._members, *last]
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=self._format) as tar:
            for member, data in members:
                tar.addfile(member, io.BytesIO(data))
        return target.getvalue()

    def write(self, path: Path) -> Path:
        """Write the bundle to a file; returns its path."""
        path.write_bytes(self.build())
        return path
