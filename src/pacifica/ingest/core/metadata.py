"""The metadata document of a bundle or a move, as a value.

A document is a JSON list of objects, each with a `destinationTable`; those of table `Files` name the files.
Not the check against the bytes (`pipeline`) and not the HTTP call (`neighbours.metadata`).  Any floor may import this.

Source: the Metadata service's `PUT /ingest`, measured on pacifica-metadata 0.13.0.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import BadMetadata, BadPath, PolicyRefused
from pacifica.ingest.core.paths import canonical, clip, entry_path

__all__ = ["MIMETYPES", "SUBMISSION", "Document", "Entry", "FileEntry", "Registration", "submission"]

Entry = dict[str, Any]
#: A document ready for the catalogue.
Registration = list[Entry]

#: What every document says: who submits, for which project, from which instrument.
SUBMISSION = ("submitter", "project", "instrument")

MAX_TEXT = 255
MAX_FAULTS = 1000
#: What no database keeps in a text: NUL, and lone surrogates.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
#: The years 1 and 9999 in unix time; Metadata knows no others.
FIRST_TIME_S, LAST_TIME_S = -62_135_596_800, 253_402_300_799
#: `multipart/` is missing on purpose: Metadata refuses it.
MIMETYPES = tuple(
    f"{kind}/" for kind in ("application", "audio", "font", "example", "image", "message", "model", "text", "video")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file as the metadata names it.

    Attributes:
        seq: its place among the files of the document, from 0.
        at: its index in the document, for messages.
        path: canonical path below `data/`.
        size_bytes: length, or None when the document does not give one (a fault that the check reports).
        digest: what the bytes must hash to, or None when it cannot be read (a fault as well).
        source: for moves, where the file lies now; else empty.

    """

    seq: int
    at: int
    path: str
    size_bytes: int | None
    digest: Digest | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A metadata document that could be read.

    Attributes:
        entries: the list as it was sent; not changed by anybody.
        files: the entries of table `Files`, in the document's order.
        faults: what the catalogue would refuse, one sentence each.

    """

    entries: Sequence[Entry]
    files: Sequence[FileEntry]
    faults: Sequence[str]

    @classmethod
    def parse(cls, text: bytes, members: Container[str] = ()) -> "Document":
        """Read a document.

        Args:
            text: JSON in UTF-8, with or without a byte order mark.
            members: canonical paths in the bundle; see `paths.entry_path`.

        Raises:
            BadMetadata: no JSON, not a list of objects with a `destinationTable`, a file without a usable path, or
                a `Transactions._id`, which only the service may give.  Not retryable.

        """
        try:
            loaded = json.loads(text.decode("utf-8-sig"), parse_constant=_no_constant, parse_float=_finite)
        except (ValueError, RecursionError) as fault:
            raise BadMetadata([f"The metadata is not JSON: {fault}"]) from fault
        return cls.of(loaded, members)

    @classmethod
    def of(cls, loaded: object, members: Container[str] = ()) -> "Document":
        """Check the shape of a decoded document; see `parse`."""
        if not isinstance(loaded, list):
            raise BadMetadata([f"The metadata must be a list of objects, not {_kind(loaded)}."])
        shape = list(_shape_faults(loaded))
        if shape:
            raise BadMetadata(shape[:MAX_FAULTS])
        files, paths = _read_files(loaded, members)
        if paths:
            raise BadMetadata(paths[:MAX_FAULTS])
        return cls(entries=loaded, files=files, faults=tuple(_faults(loaded, files))[:MAX_FAULTS])

    def registration(self, job_id: int, file_ids: Mapping[int, int] | None = None) -> Registration:
        """The document as the catalogue takes it.

        Args:
            job_id: becomes `Transactions._id`.
            file_ids: place of a file → its archive id; None before ids are known (for Policy).

        Returns:
            a list that shares nothing with this document: files with `_id`, a `subdir` below `data/` and a bare
            `hashsum`, then the transaction's id.

        """
        listed = [_copied(entry) for entry in self.entries]
        for file in self.files:
            listed[file.at] |= _registered(self.entries[file.at], file)
            if file_ids is not None:
                listed[file.at]["_id"] = file_ids[file.seq]
        return [*listed, {"destinationTable": "Transactions._id", "value": job_id}]


def submission(entries: Sequence[Entry]) -> dict[str, str]:
    """What a document says for each of `SUBMISSION`, as text; the first entry counts, as for Policy and the catalogue.

    Raises:
        PolicyRefused: one of them is missing, empty, or neither a number nor a string.  Not retryable.

    """
    values = {key: _first(entries, f"Transactions.{key}") for key in SUBMISSION}
    missing = [f"Transactions.{key}" for key, value in values.items() if not value]
    if missing:
        reason = f"{', '.join(missing)} must be given, as a text or a number."
        raise PolicyRefused(reason)
    return values


def _first(entries: Sequence[Entry], table: str) -> str:
    value = next((entry.get("value") for entry in entries if entry["destinationTable"] == table), None)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _copied(entry: Entry) -> Entry:
    # Nearly all values are plain; for the others JSON is the shortest deep copy.
    return {
        key: json.loads(json.dumps(value)) if isinstance(value, dict | list) else value for key, value in entry.items()
    }


def _registered(entry: Entry, file: FileEntry) -> Entry:
    changed = {"subdir": _folder(entry, file)}
    if file.digest is not None:
        changed |= {"hashtype": file.digest.algorithm, "hashsum": file.digest.value}
    return changed


def _folder(entry: Entry, file: FileEntry) -> str:
    """The subdir below `data/`, so that `canonical` of it and the name is the file's path again."""
    subdir = str(entry.get("subdir", ""))
    if canonical(f"{subdir}/{entry['name']}") != file.path:
        subdir = clip(subdir)
    return "/".join(part for part in subdir.split("/") if part not in {"", "."})


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = f"{text} is too large for a number"
        raise ValueError(msg)
    return value


def _no_constant(name: str) -> None:
    msg = f"{name} is no JSON number"
    raise ValueError(msg)


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", str: "a string", type(None): "null", bool: "a boolean", list: "a list"}
    return names.get(type(value), "a number")


def _shape_faults(loaded: Sequence[object]) -> Iterator[str]:
    for at, entry in enumerate(loaded):
        if not isinstance(entry, dict):
            yield f"[{at}]: expected an object, got {_kind(entry)}"
        elif not isinstance(entry.get("destinationTable"), str):
            yield f"[{at}].destinationTable: expected a string, got {_kind(entry.get('destinationTable'))}"
        elif entry["destinationTable"] == "Transactions._id":
            yield f"[{at}]: Transactions._id is given by the service; take it out"


def _read_files(entries: Sequence[Entry], members: Container[str]) -> tuple[list[FileEntry], list[str]]:
    files: list[FileEntry] = []
    faults: list[str] = []
    for at, entry in enumerate(entries):
        if entry["destinationTable"] != "Files":
            continue
        try:
            files.append(_read_file(len(files), at, entry, members))
        except (BadPath, TypeError) as fault:
            faults.append(f"[{at}]: {fault}")
    return files, faults


def _read_file(seq: int, at: int, entry: Entry, members: Container[str]) -> FileEntry:
    subdir, name = entry.get("subdir", ""), entry.get("name")
    if not isinstance(subdir, str) or not isinstance(name, str):
        msg = "a file needs a `name` and a `subdir`, both strings"
        raise TypeError(msg)
    source = entry.get("source", "")
    return FileEntry(
        seq=seq,
        at=at,
        path=entry_path(subdir, name, members),
        size_bytes=_size(entry.get("size")),
        digest=_digest(entry),
        source=source if isinstance(source, str) else "",
    )


def _size(value: object) -> int | None:
    """Metadata takes whole numbers, also written as text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, str) and not re.fullmatch(r"\d{1,19}", value, re.ASCII):
        return None
    return int(value) if int(value) >= 0 else None


def _digest(entry: Entry) -> Digest | None:
    try:
        return Digest.parse(entry.get("hashtype"), entry.get("hashsum"))
    except ValueError:
        return None


def _faults(entries: Sequence[Entry], files: Sequence[FileEntry]) -> Iterator[str]:
    """What the Metadata service answers 500 to, found before a byte is sent."""
    for file in files:
        for fault in _file_faults(entries[file.at], file):
            yield f"[{file.at}] {file.path!r}: {fault}"
    for path, count in Counter(file.path for file in files).items():
        if count > 1:
            yield f"{path!r} is named {count} times"
    yield from _key_value_faults(entries)


def _file_faults(entry: Entry, file: FileEntry) -> Iterator[str]:
    if file.size_bytes is None:
        yield f"size {entry.get('size')!r} is not a whole number of bytes"
    if file.digest is None:
        try:
            Digest.parse(entry.get("hashtype"), entry.get("hashsum"))
        except ValueError as fault:
            yield str(fault)
    mimetype = entry.get("mimetype")
    if not isinstance(mimetype, str) or not mimetype.startswith(MIMETYPES):
        yield f"mimetype {mimetype!r} does not begin with one of {', '.join(MIMETYPES)}"
    yield from _text_faults("name", entry["name"])
    yield from _text_faults("subdir", _folder(entry, file))
    if isinstance(mimetype, str):
        yield from _text_faults("mimetype", mimetype)
    for key in ("mtime", "ctime"):
        if not _is_time(entry.get(key)):
            yield f"{key} {entry.get(key)!r} is not a time"


def _is_time(value: object) -> bool:
    """Metadata reads many texts, of which only what is surely no time is refused here, and unix time in whole seconds."""
    if isinstance(value, str):
        return any(letter.isdigit() for letter in value)
    return isinstance(value, int) and not isinstance(value, bool) and FIRST_TIME_S <= value <= LAST_TIME_S


def _text_faults(key: str, value: object) -> Iterator[str]:
    if not isinstance(value, str | int | float):
        yield f"{key} must be a string, not {_kind(value)}"
        return
    if len(str(value)) > MAX_TEXT:
        yield f"{key} is longer than {MAX_TEXT} characters"
    if UNSTORABLE.search(str(value)):
        yield f"{key} contains a NUL character or broken text"


def _key_value_faults(entries: Sequence[Entry]) -> Iterator[str]:
    seen: set[tuple[str, ...]] = set()
    for at, entry in enumerate(entries):
        table = entry["destinationTable"]
        if table not in {"TransactionKeyValue", "FileKeyValue"}:
            continue
        if table == "FileKeyValue" and not isinstance(entry.get("file_id"), int | str):
            yield f"[{at}].file_id: expected the id of a file that is already registered"
        for key in ("key", "value"):
            for fault in _text_faults(key, entry.get(key)):
                yield f"[{at}]: {fault}"
        pair = (table, str(entry.get("file_id")), str(entry.get("key")), str(entry.get("value")))
        if pair in seen:
            yield f"[{at}]: the pair {pair[2]!r}, {pair[3]!r} is given twice"
        seen.add(pair)
