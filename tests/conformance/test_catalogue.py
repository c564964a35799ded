"""What `ports.Catalogue` promises, on every adapter."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from pacifica.ingest.core.errors import Conflict
from pacifica.ingest.core.metadata import Document
from pacifica.ingest.local.catalogue import LocalCatalogue
from pacifica.ingest.ports import Catalogue, RegisteredFile
from pacifica.ingest.testing import MemoryCatalogue
from tests.conformance.conftest import PAGE_FILES
from tests.harness import ALLOWED

Number = Callable[[], int]
DIGEST = hashlib.sha1(b"").hexdigest()


def entry(name: str, subdir: str = "", **more: Any) -> dict[str, Any]:
    return {
        "destinationTable": "Files",
        "name": name,
        "subdir": subdir,
        "size": 3,
        "mimetype": "text/plain",
        "mtime": "2024-01-01T00:00:00",
        "ctime": "Tue Nov 29 14:09:05 PST 2016",
        "hashtype": "sha1",
        "hashsum": DIGEST,
        **more,
    }


class Transaction:
    """A document with ids of its own, and what the catalogue should know of it afterwards."""

    def __init__(self, number: Number, *entries: dict[str, Any]) -> None:
        document = Document.of([*ALLOWED.document(), *entries])
        assert not document.faults
        self.job_id = number()
        # Ids fall while places rise: the order of the answer must be the ids'.
        ids = sorted((number() for _ in document.files), reverse=True)
        self.ids = {file.seq: file_id for file, file_id in zip(document.files, ids, strict=True)}
        self.registration = document.registration(self.job_id, self.ids)
        self.files = sorted(
            (
                RegisteredFile(
                    file_id=self.ids[file.seq],
                    path=file.path,
                    size_bytes=file.size_bytes or 0,
                    digest=str(file.digest),
                )
                for file in document.files
            ),
            key=lambda file: file.file_id,
        )


@pytest.mark.parametrize(
    "login", [ALLOWED.login, ALLOWED.login.upper(), "nobody", "%", "a&_id=10", "ü", "ü".encode().decode("latin-1")]
)
def test_persons_are_told_by_login_where_persons_are_kept(catalogue: Catalogue, login: str) -> None:
    if isinstance(catalogue, MemoryCatalogue):
        catalogue.people = {ALLOWED.login: [str(ALLOWED.submitter)], ALLOWED.login.upper(): [str(ALLOWED.submitter)]}
    if isinstance(catalogue, LocalCatalogue):
        assert catalogue.people_of(login) is None
    else:
        assert catalogue.people_of(login) == ({str(ALLOWED.submitter)} if login.lower() == ALLOWED.login else set())


def test_an_unknown_transaction_is_none(catalogue: Catalogue, number: Number) -> None:
    assert catalogue.lookup(number()) is None


@pytest.mark.parametrize("count", [0, 1, PAGE_FILES - 1, PAGE_FILES, PAGE_FILES + 1, 2 * PAGE_FILES, 10])
def test_what_is_registered_is_found_sorted_by_id(catalogue: Catalogue, number: Number, count: int) -> None:
    sent = Transaction(number, *(entry(f"{at}.txt", f"sub/{at}", size=at) for at in range(count)))
    catalogue.register(sent.job_id, sent.registration)
    assert catalogue.lookup(sent.job_id) == sent.files


@pytest.mark.parametrize(
    "subdir", ["", "a/b", "data", "data/a", "data/data/a", "./data/a", "/data/a", "/tmp/x", "a//b"]
)
def test_a_path_comes_back_as_the_document_had_it(catalogue: Catalogue, number: Number, subdir: str) -> None:
    sent = Transaction(number, entry("f.txt", subdir))
    catalogue.register(sent.job_id, sent.registration)
    assert catalogue.lookup(sent.job_id) == sent.files


@pytest.mark.parametrize("name", ["\u00fc.txt", "u\u0308.txt", "日本.txt", 'it\'s %41 "quoted" \\.txt', "🧪"])
def test_a_name_comes_back_as_the_document_had_it(catalogue: Catalogue, number: Number, name: str) -> None:
    sent = Transaction(number, entry(name))
    catalogue.register(sent.job_id, sent.registration)
    assert catalogue.lookup(sent.job_id) == sent.files


def test_a_digest_comes_back_in_lower_case(catalogue: Catalogue, number: Number) -> None:
    sent = Transaction(number, entry("f.txt", hashsum=f"sha1:{DIGEST.upper()}"))
    catalogue.register(sent.job_id, sent.registration)
    assert [file.digest for file in catalogue.lookup(sent.job_id) or ()] == [f"sha1:{DIGEST}"]


def test_key_values_are_taken(catalogue: Catalogue, number: Number) -> None:
    pairs = ({"destinationTable": "TransactionKeyValue", "key": "Tag", "value": f"v{at}"} for at in range(3))
    sent = Transaction(number, *pairs, entry("f.txt"))
    catalogue.register(sent.job_id, sent.registration)
    assert catalogue.lookup(sent.job_id) == sent.files


def test_the_same_transaction_again_conflicts_and_changes_nothing(catalogue: Catalogue, number: Number) -> None:
    first, second = Transaction(number, entry("1.txt")), Transaction(number, entry("2.txt"))
    catalogue.register(first.job_id, first.registration)
    registration = Document.of([*ALLOWED.document(), entry("2.txt")]).registration(first.job_id, second.ids)
    for again in (first.registration, registration):
        with pytest.raises(Conflict):
            catalogue.register(first.job_id, again)
    assert catalogue.lookup(first.job_id) == first.files


@pytest.mark.parametrize("files", [1, 200])
def test_taken_file_ids_conflict_and_nothing_is_registered(catalogue: Catalogue, number: Number, files: int) -> None:
    entries = [entry(f"{at}.txt") for at in range(files)]
    first = Transaction(number, *entries)
    catalogue.register(first.job_id, first.registration)
    other = number()
    registration = Document.of([*ALLOWED.document(), *entries]).registration(other, first.ids)
    with pytest.raises(Conflict):
        catalogue.register(other, registration)
    assert catalogue.lookup(other) is None
    assert catalogue.lookup(first.job_id) == first.files


def test_ids_that_any_transaction_has_are_told_from_others(catalogue: Catalogue, number: Number) -> None:
    first, second = Transaction(number, entry("a"), entry("b")), Transaction(number, entry("c"))
    for transaction in (first, second):
        catalogue.register(transaction.job_id, transaction.registration)
    ids = [*first.ids.values(), *second.ids.values()]
    assert catalogue.registered([*ids, number(), number()]) == set(ids)
    assert catalogue.registered([number()]) == catalogue.registered([]) == set()
