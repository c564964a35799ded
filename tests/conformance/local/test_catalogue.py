"""What is special to the local catalogue; what it shares with others is in `../test_catalogue`."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacifica.ingest import database, orm
from pacifica.ingest.core.errors import BadMetadata, Conflict
from pacifica.ingest.core.metadata import Document, Registration
from pacifica.ingest.local.catalogue import BATCH, LocalCatalogue
from pacifica.ingest.ports import RegisteredFile
from pacifica.ingest.tables import CatalogueFile, CatalogueTransaction

DIGEST = hashlib.sha256(b"").hexdigest()
HEAD = [{"destinationTable": f"Transactions.{key}", "value": key} for key in ("submitter", "project", "instrument")]


@pytest.fixture(autouse=True, params=["sqlite", "postgresql", "mariadb"])
def on_each_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    name = request.param
    url = (
        f"sqlite:///{tmp_path / 'files.sqlite3'}" if name == "sqlite" else request.getfixturevalue(name).new_database()
    )
    before = database.DB.obj
    database.use_database(url)
    orm.OrmSync.update_tables()
    yield
    database.DB.close_all()
    database.DB.initialize(before)


def entry(name: str, subdir: str = "", **more: Any) -> dict[str, Any]:
    return {
        "destinationTable": "Files",
        "name": name,
        "subdir": subdir,
        "size": 0,
        "hashtype": "sha256",
        "hashsum": DIGEST,
        "mimetype": "text/plain",
        "mtime": "2020-01-01T00:00:00",
        "ctime": "2020-01-01T00:00:00",
    } | more


def document(files: int, first_id: int = 1) -> Registration:
    parsed = Document.of([*HEAD, *(entry(f"f{number}", "a/b") for number in range(files))])
    return parsed.registration(9, {seq: first_id + seq for seq in range(files)})


@pytest.mark.parametrize("files", [0, 1, BATCH, BATCH + 1, 3 * BATCH + 7])
def test_every_file_is_kept_whatever_their_number(files: int) -> None:
    catalogue = LocalCatalogue()
    catalogue.register(9, document(files))
    expected = [
        RegisteredFile(file_id=1 + number, path=f"a/b/f{number}", size_bytes=0, digest=f"sha256:{DIGEST}")
        for number in range(files)
    ]
    assert catalogue.lookup(9) == expected


def test_a_file_id_that_is_taken_late_in_the_document_leaves_nothing() -> None:
    catalogue = LocalCatalogue()
    catalogue.register(1, document(1, first_id=2 * BATCH))
    with pytest.raises(Conflict):
        catalogue.register(2, document(2 * BATCH + 5))
    assert catalogue.lookup(2) is None
    assert CatalogueFile.select().count() == 1


def test_what_is_no_file_is_kept_with_the_transaction() -> None:
    pair = {"destinationTable": "TransactionKeyValue", "key": "sample", "value": "Ä-12"}
    LocalCatalogue().register(9, [*HEAD, pair])
    kept = CatalogueTransaction.get()
    assert (kept.submitter, kept.project, kept.instrument) == ("submitter", "project", "instrument")
    assert json.loads(kept.entries) == [*HEAD, pair]


def test_a_folder_with_the_name_of_the_root_is_told_apart_from_the_root() -> None:
    loaded = [*HEAD, entry("x", "data")]
    parsed = Document.of(loaded, {"data/x"})
    LocalCatalogue().register(9, parsed.registration(9, {0: 1}))
    found = LocalCatalogue().lookup(9)
    assert found is not None
    assert [file.path for file in found] == ["data/x"]


def test_a_name_that_the_database_cannot_hold_is_refused_or_kept_whole() -> None:
    name = "x" * 256
    try:
        LocalCatalogue().register(9, [*HEAD, entry(name, _id=1)])
    except BadMetadata:
        assert LocalCatalogue().lookup(9) is None
    else:
        (found,) = LocalCatalogue().lookup(9) or ()
        assert found.path == name


@pytest.mark.parametrize("key", ["_id", "name", "size", "hashtype", "hashsum", "mimetype", "mtime", "ctime"])
def test_a_file_that_lacks_something_is_refused_and_nothing_is_kept(key: str) -> None:
    broken = entry("f", _id=1)
    del broken[key]
    with pytest.raises(BadMetadata, match=key):
        LocalCatalogue().register(9, [*HEAD, broken])
    assert LocalCatalogue().lookup(9) is None
