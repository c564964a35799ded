"""The metadata document of a bundle or a move, as a value.

A document is a JSON list of objects, each with a `destinationTable`; those of table `Files` name the files.
Not the check against the bytes (`pipeline`) and not the HTTP call (`neighbours.metadata`).  Any floor may import this.

Source: the Metadata service's `PUT /ingest`, measured on pacifica-metadata 0.13.0.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self, TypeGuard

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import BadMetadata, BadPath, PolicyRefused
from pacifica.ingest.core.files import FileEntry, Files
from pacifica.ingest.core.paths import canonical, clip, entry_path
from pacifica.ingest.core.strict_json import Elements, Flaw, NotAList, ensure_bounded, flaws, is_plain, shown

__all__ = ["MIMETYPES", "SUBMISSION", "Document", "Entry", "Registration", "submission"]

Entry = dict[str, Any]
#: A document ready for the catalogue.
Registration = Collection[Entry]

#: What every document says: who submits, for which project, from which instrument.
SUBMISSION = ("submitter", "project", "instrument")

MAX_TEXT = 255
MAX_FAULTS = 1000
MAX_SIZE = 2**63 - 1
#: The years 1 and 9999 in unix time; Metadata knows no others.
FIRST_TIME_S, LAST_TIME_S = -62_135_596_800, 253_402_300_799
#: `multipart/` is missing on purpose: Metadata refuses it.
MIMETYPES = tuple(
    f"{kind}/" for kind in ("application", "audio", "font", "example", "image", "message", "model", "text", "video")
)

_PAIRS = {"TransactionKeyValue", "FileKeyValue"}
_DIGIT = re.compile(r"\d")
_DIGITS = re.compile(r"\d{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A metadata document that could be read.

    Attributes:
        entries: the list as it was sent, decoded anew each time it is iterated: whoever asks may change what he gets.
        files: the entries of table `Files`, in the document's order.
        faults: what the catalogue would refuse, one sentence each.

    """

    entries: Collection[Entry]
    files: Files
    faults: Sequence[str]

    @classmethod
    def read(cls, pieces: Callable[[], Iterable[bytes]], members: Container[str] = ()) -> Self:
        """Read a document of any length, entry by entry.

        Args:
            pieces: begins to read the text, JSON in UTF-8 with or without a byte order mark, cut anywhere; called again
                whenever the entries are asked for.
            members: canonical paths in the bundle; see `paths.entry_path`.

        Raises:
            BadMetadata: no JSON, not a list of objects with a `destinationTable`, a file without a usable path, or
                a `Transactions._id`, which only the service may give; with all other faults of the document, up to
                `MAX_FAULTS`.  Not retryable.

        """
        elements = Elements(pieces())
        reading = _Reading(members)
        try:
            ensure_bounded(pieces())
            for entry in elements:
                reading.read(entry, broken=elements.broken)
                if reading.is_hopeless:
                    break
        except NotAList as other:
            raise BadMetadata([f"The metadata must be a list of objects, not {_kind(other.value)}."]) from other
        except ValueError as fault:
            raise BadMetadata([f"The metadata is not JSON: {fault}"]) from fault
        return cls(entries=_Entries(pieces, reading.count), files=reading.files, faults=reading.faults())

    @classmethod
    def parse(cls, text: bytes, members: Container[str] = ()) -> Self:
        """As `read`, of a text that is in memory."""
        return cls.read(lambda: [text], members)

    @classmethod
    def of(cls, loaded: object, members: Container[str] = ()) -> Self:
        """As `read`, of a decoded document, which is not kept."""
        return cls.parse(json.dumps(loaded).encode("ascii"), members)

    def registration(self, job_id: int, file_ids: Mapping[int, int] | None = None) -> Registration:
        """The document as the catalogue takes it.

        Args:
            job_id: becomes `Transactions._id`.
            file_ids: place of a file → its archive id; None before ids are known (for Policy).

        Returns:
            entries that are made anew each time: files with `_id`, a `subdir` below `data/` and a bare `hashsum`, then the
            transaction's id.

        """
        return _Registered(self, job_id, file_ids)


class _Entries(Collection[Entry]):
    """The entries of a text that was read before."""

    def __init__(self, pieces: Callable[[], Iterable[bytes]], count: int) -> None:
        self._pieces = pieces
        self._count = count

    def __iter__(self) -> Iterator[Entry]:
        return iter(Elements(self._pieces()))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, entry: object) -> bool:
        return any(entry == other for other in self)


class _Registered(Collection[Entry]):
    """See `Document.registration`."""

    def __init__(self, document: Document, job_id: int, file_ids: Mapping[int, int] | None) -> None:
        self._document = document
        self._job_id = job_id
        self._file_ids = file_ids

    def __iter__(self) -> Iterator[Entry]:
        files = iter(self._document.files)
        file = next(files, None)
        for at, entry in enumerate(self._document.entries):
            if file is not None and file.at == at:
                entry["subdir"] = _folder(entry, file)
                if file.digest is not None:
                    entry |= {"hashtype": file.digest.algorithm, "hashsum": file.digest.value}
                if self._file_ids is not None:
                    entry["_id"] = self._file_ids[file.seq]
                file = next(files, None)
            yield entry
        yield {"destinationTable": "Transactions._id", "value": self._job_id}

    def __len__(self) -> int:
        return len(self._document.entries) + 1

    def __contains__(self, entry: object) -> bool:
        return any(entry == other for other in self)


def submission(entries: Iterable[Entry]) -> dict[str, str]:
    """What a document says for each of `SUBMISSION`, as text; the first entry counts, as for Policy and the catalogue.

    Raises:
        PolicyRefused: one of them is missing, empty, or neither a number nor a string.  Not retryable.

    """
    values: dict[str, str] = dict.fromkeys(SUBMISSION, "")
    wanted = {f"Transactions.{key}": key for key in SUBMISSION}
    for entry in entries:
        key = wanted.pop(entry["destinationTable"], None)
        if key is not None:
            values[key] = _text(entry.get("value"))
        if not wanted:
            break
    missing = [f"Transactions.{key}" for key, value in values.items() if not value]
    if missing:
        reason = f"{', '.join(missing)} must be given, as a text or a number."
        raise PolicyRefused(reason)
    return values


def _text(value: object) -> str:
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _folder(entry: Entry, file: FileEntry) -> str:
    """The subdir below `data/`, so that `canonical` of it and the name is the file's path again."""
    subdir = str(entry.get("subdir", ""))
    if not subdir or file.path == f"{subdir}/{entry['name']}":
        return subdir
    if canonical(f"{subdir}/{entry['name']}") != file.path:
        subdir = clip(subdir)
    return "/".join(part for part in subdir.split("/") if part not in {"", "."})


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", str: "a string", type(None): "null", bool: "a boolean", list: "a list"}
    return names.get(type(value), "a number")


class _Reading:
    """One pass over a document, which gathers files and faults."""

    def __init__(self, members: Container[str]) -> None:
        self.files = Files()
        #: How many entries were read.
        self.count = 0
        self._members = members
        #: Faults with which nobody can tell what is meant, and those for which the catalogue would refuse the document.
        self._shape: list[str] = []
        self._refused: list[str] = []
        self._pairs: set[tuple[str, ...]] = set()

    @property
    def is_hopeless(self) -> bool:
        """Whether there are as many faults as are told, and `faults` will raise: to read on would only cost time."""
        return len(self._shape) == MAX_FAULTS

    def read(self, entry: object, *, broken: bool) -> None:
        """Read the next entry; see `Elements.broken`."""
        at = self.count
        self.count += 1
        faults = list(_shape_faults(at, entry, broken=broken))
        if faults or not isinstance(entry, dict):
            _note(self._shape, faults)
            return
        if entry["destinationTable"] == "Files":
            self._read_file(at, entry)
        elif entry["destinationTable"] in _PAIRS:
            _note(self._refused, _pair_faults(at, entry, self._pairs))

    def faults(self) -> tuple[str, ...]:
        """What the catalogue would refuse.

        Raises:
            BadMetadata: all faults, when there are some of the other kind.

        """
        if len(set(self.files.paths)) != len(self.files):
            named = Counter(self.files.paths)
            _note(
                self._refused, (f"{shown(path)} is named {count} times" for path, count in named.items() if count > 1)
            )
        if self._shape:
            raise BadMetadata([*self._shape, *self._refused][:MAX_FAULTS])
        return tuple(self._refused)

    def _read_file(self, at: int, entry: Entry) -> None:
        source = entry.get("source", "")
        try:
            path = entry_path(entry.get("subdir", ""), entry["name"], self._members)
        except BadPath as fault:
            _note(self._shape, [f"[{at}]: {shown(fault.path)}: {fault.reason}"])
            return
        file = self.files.add(
            at=at,
            path=path,
            size_bytes=_size(entry.get("size")),
            digest=_digest(entry),
            source=source if isinstance(source, str) else "",
        )
        faults = list(_file_faults(entry, file))
        if faults:
            _note(self._refused, [f"[{at}].{fault} (of {shown(path)})" for fault in faults])


def _note(faults: list[str], more: Iterable[str]) -> None:
    """Add faults, but no more than a person could want."""
    faults.extend(islice(more, MAX_FAULTS - len(faults)))


def _shape_faults(at: int, entry: object, *, broken: bool) -> Iterator[str]:
    if isinstance(entry, Flaw):
        yield f"[{at}]: {entry.reason}"
    elif not isinstance(entry, dict):
        yield f"[{at}]: expected an object, got {shown(entry)}"
    else:
        if broken or not is_plain(entry):
            yield from flaws(entry, f"[{at}]", broken=broken)
        table = entry.get("destinationTable")
        if table == "Transactions._id":
            yield f"[{at}]: Transactions._id is given by the service; take it out"
        for key in ("name", "subdir") if table == "Files" else ("destinationTable",):
            value = entry.get(key, "" if key == "subdir" else None)
            # The reason for a flaw was told.
            if not isinstance(value, str | Flaw):
                yield f"[{at}].{key}: expected a string, got {shown(value)}"


def _size(value: object) -> int | None:
    """Metadata takes whole numbers, also written as text."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    return value if _is_integer(value) and 0 <= value <= MAX_SIZE else None


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _digest(entry: Entry) -> Digest | None:
    try:
        return Digest.parse(entry.get("hashtype"), entry.get("hashsum"))
    except ValueError:
        return None


def _file_faults(entry: Entry, file: FileEntry) -> Iterator[str]:
    """What the Metadata service answers 500 to, found before a byte is sent; each begins with the key."""
    if file.size_bytes is None:
        size = entry.get("size")
        kind = f"an integer from 0 to {MAX_SIZE}" if _is_integer(size) else "an integer"
        yield f"size: expected {kind}, got {shown(size)}"
    if file.digest is None:
        try:
            Digest.parse(entry.get("hashtype"), entry.get("hashsum"))
        except ValueError as fault:
            yield str(fault)
    mimetype = entry.get("mimetype")
    if not isinstance(mimetype, str) or not mimetype.startswith(MIMETYPES):
        yield f"mimetype: expected a string that begins with {' or '.join(MIMETYPES)}, got {shown(mimetype)}"
    elif not _is_storable(mimetype):
        yield f"mimetype: {_unstorable(mimetype)}"
    for key, text in (("name", entry["name"]), ("subdir", _folder(entry, file))):
        if len(text) > MAX_TEXT:
            yield f"{key}: {_unstorable(text)}"
    for key in ("mtime", "ctime"):
        if not _is_time(entry.get(key)):
            yield f"{key}: expected a time, got {shown(entry.get(key))}"


def _is_time(value: object) -> bool:
    """Metadata reads many texts, of which only what is surely no time is refused here, and unix time in whole seconds."""
    if isinstance(value, str):
        return _DIGIT.search(value) is not None
    return _is_integer(value) and FIRST_TIME_S <= value <= LAST_TIME_S


def _is_storable(text: str) -> bool:
    return len(text) <= MAX_TEXT and "\0" not in text


def _unstorable(text: str) -> str:
    if len(text) > MAX_TEXT:
        return f"expected at most {MAX_TEXT} characters, got {len(text)}"
    return "expected a text without NUL characters"


def _pair_faults(at: int, entry: Entry, seen: set[tuple[str, ...]]) -> Iterator[str]:
    table, file_id = entry["destinationTable"], entry.get("file_id")
    if table == "FileKeyValue" and not isinstance(file_id, int | str):
        yield f"[{at}].file_id: expected the id of a file that is already registered, got {shown(file_id)}"
    for key in ("key", "value"):
        value = entry.get(key)
        if not isinstance(value, str | int | float):
            yield f"[{at}].{key}: expected a string, got {shown(value)}"
        elif not _is_storable(str(value)):
            yield f"[{at}].{key}: {_unstorable(str(value))}"
    pair = (table, str(file_id), str(entry.get("key")), str(entry.get("value")))
    if pair in seen:
        yield f"[{at}]: the pair {shown(pair[2])}, {shown(pair[3])} is given twice"
    seen.add(pair)
