"""The catalogue of transactions and files in the database of this process.

Fulfils `ports.Catalogue`; chosen by `[metadata] ingest_url = local:`.
"""

import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import peewee

from pacifica.ingest.core.errors import BadMetadata, Conflict
from pacifica.ingest.core.metadata import Entry, Registration
from pacifica.ingest.core.paths import canonical
from pacifica.ingest.database import insert, insert_all
from pacifica.ingest.ports import RegisteredFile
from pacifica.ingest.tables import CatalogueFile, CatalogueTransaction
from pacifica.ingest.transactions import retried

__all__ = ["LocalCatalogue"]

#: Rows of one INSERT; below the limits on parameters of every database.
BATCH = 500
#: Key of a file entry → column, and what kind of value it takes.
COLUMNS = {
    "_id": ("file_id", int),
    "name": ("name", str),
    "subdir": ("subdir", str),
    "size": ("size_bytes", int),
    "hashtype": ("hashtype", str),
    "hashsum": ("hashsum", str),
    "mimetype": ("mimetype", str),
    "mtime": ("mtime", str),
    "ctime": ("ctime", str),
}
NAMES = tuple(name for name, _ in COLUMNS.values())


class LocalCatalogue:
    """`ports.Catalogue` on two tables: one row for each transaction, one for each file."""

    def register(self, job_id: int, document: Registration) -> None:
        """See `ports.Catalogue.register`."""
        self._insert(job_id, document)

    @retried(atomic=True)
    def _insert(self, job_id: int, document: Registration) -> None:
        others: list[Entry] = []
        rows = (_row(entry) for entry in _files(document, others))
        try:
            while batch := list(itertools.islice(rows, BATCH)):
                insert_all(CatalogueFile, NAMES, batch, job_id=job_id)
            insert(CatalogueTransaction, **_transaction(job_id, others))
        except peewee.IntegrityError as fault:
            msg = f"Transaction {job_id}, or the id of one of its files, is in the catalogue already."
            raise Conflict(msg) from fault
        except peewee.DataError as fault:
            raise BadMetadata([f"The database does not take the metadata: {fault}"]) from fault

    @retried(atomic=False)
    def lookup(self, job_id: int) -> list[RegisteredFile] | None:
        """See `ports.Catalogue.lookup`."""
        if not CatalogueTransaction.select().where(CatalogueTransaction.job_id == job_id).exists():
            return None
        rows = CatalogueFile.select().where(CatalogueFile.job_id == job_id).order_by(CatalogueFile.file_id)
        return [_registered(row) for row in rows.iterator()]

    @retried(atomic=False)
    def registered(self, file_ids: Collection[int]) -> set[int]:
        """See `ports.Catalogue.registered`."""
        wanted = list(file_ids)
        found: set[int] = set()
        for start in range(0, len(wanted), BATCH):
            batch = CatalogueFile.file_id.in_(wanted[start : start + BATCH])
            rows = CatalogueFile.select(CatalogueFile.file_id).where(batch)
            found.update(row[0] for row in rows.tuples().iterator())
        return found

    def people_of(self, login: str) -> set[str] | None:  # noqa: ARG002 (the port tells it)
        """See `ports.Catalogue.people_of`: no persons are kept."""
        return None


def _transaction(job_id: int, others: Sequence[Entry]) -> dict[str, object]:
    return {
        "job_id": job_id,
        "submitter": _first(others, "submitter"),
        "project": _first(others, "project"),
        "instrument": _first(others, "instrument"),
        "entries": json.dumps(others, ensure_ascii=False),
    }


def _first(entries: Sequence[Entry], key: str) -> str:
    """The first value counts, as in the Metadata service."""
    for entry in entries:
        if entry["destinationTable"] == f"Transactions.{key}" and entry.get("value") is not None:
            return str(entry["value"])
    raise BadMetadata([f"Transactions.{key} is missing"])


def _files(document: Registration, others: list[Entry]) -> Iterator[Entry]:
    """The entries of files; the others are added to a list, so that a long document is read once."""
    for entry in document:
        if entry["destinationTable"] == "Files":
            yield entry
        else:
            others.append(entry)


def _row(entry: Entry) -> list[object]:
    return [
        value if type(value := entry.get(key)) is kind else _converted(entry, key, kind)
        for key, (_, kind) in COLUMNS.items()
    ]


def _converted(entry: Entry, key: str, kind: type) -> object:
    value = entry.get(key)
    fault: Exception | None = None
    if value is not None:
        try:
            return kind(value)
        except (TypeError, ValueError) as other:
            fault = other
    raise BadMetadata([f"{entry.get('name')!r}: {key} {value!r} cannot be registered"]) from fault


def _registered(row: Any) -> RegisteredFile:  # noqa: ANN401 (a peewee row)
    return RegisteredFile(
        file_id=row.file_id,
        path=canonical(f"{row.subdir}/{row.name}"),
        size_bytes=row.size_bytes,
        digest=f"{row.hashtype}:{row.hashsum}",
    )
