"""The metadata document: what is read, what is refused, and what the catalogue gets."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica.ingest.core.digests import ALGORITHMS, Digest
from pacifica.ingest.core.errors import BadMetadata, PolicyRefused
from pacifica.ingest.core.files import FileEntry
from pacifica.ingest.core.metadata import MAX_FAULTS, MIMETYPES, SUBMISSION, Document, submission
from pacifica.ingest.core.paths import canonical
from pacifica.ingest.core.strict_json import MAX_OBJECTS

Entry = dict[str, Any]

SHA1 = hashlib.sha1(b"").hexdigest()
HEAD: list[Entry] = [
    {"destinationTable": "Transactions.submitter", "value": 10},
    {"destinationTable": "Transactions.project", "value": "1234a"},
    {"destinationTable": "Transactions.instrument", "value": 54},
]
OMITTED = object()


def file(**changes: object) -> Entry:
    """Return a file entry without fault, changed; OMITTED takes a key out."""
    entry = {
        "destinationTable": "Files",
        "name": "x.txt",
        "subdir": "a/b",
        "size": 0,
        "mimetype": "text/plain",
        "mtime": "2018-01-25T16:54:50",
        "ctime": 1_516_899_290,
        "hashtype": "sha1",
        "hashsum": SHA1,
    }
    return {key: value for key, value in {**entry, **changes}.items() if value is not OMITTED}


def pair(**changes: object) -> Entry:
    """Return a key-value pair of the transaction, changed."""
    entry = {"destinationTable": "TransactionKeyValue", "key": "Tag", "value": "Blah"}
    return {key: value for key, value in {**entry, **changes}.items() if value is not OMITTED}


def read(*entries: object, members: frozenset[str] = frozenset()) -> Document:
    """Read a document of these entries from its text."""
    return Document.parse(json.dumps([*HEAD, *entries]).encode(), members)


def refusal(text: str | bytes) -> tuple[str, ...]:
    """Return the faults of a document that cannot be read."""
    with pytest.raises(BadMetadata) as caught:
        Document.parse(text.encode() if isinstance(text, str) else text)
    return caught.value.faults


# What is read.


def test_a_document_without_fault_is_read_as_it_is() -> None:
    document = read(file(), pair())
    assert document.faults == ()
    assert list(document.entries) == [*HEAD, file(), pair()]
    assert list(document.files) == [
        FileEntry(seq=0, at=3, path="a/b/x.txt", size_bytes=0, digest=Digest(algorithm="sha1", value=SHA1), source="")
    ]


def test_files_are_numbered_in_their_order_and_keep_their_place() -> None:
    document = read(pair(), file(name="1"), {"destinationTable": "Unknown"}, file(name="2", source="/srv/2"))
    assert [(one.seq, one.at, one.path, one.source) for one in document.files] == [
        (0, 4, "a/b/1", ""),
        (1, 6, "a/b/2", "/srv/2"),
    ]


def test_a_document_may_have_no_files_and_tables_that_nobody_knows() -> None:
    document = read({"destinationTable": "Instruments.new", "value": {"deep": [1]}})
    assert (list(document.files), document.faults) == ([], ())


def test_a_byte_order_mark_is_passed_over() -> None:
    assert Document.parse(b"\xef\xbb\xbf" + json.dumps(HEAD).encode()).faults == ()


def test_the_first_value_of_a_table_counts() -> None:
    assert submission([*HEAD, {"destinationTable": "Transactions.submitter", "value": 11}])["submitter"] == "10"


@pytest.mark.parametrize(
    "change",
    [
        {"size": "0"},
        {"hashsum": f"sha1:{SHA1}"},
        {"hashsum": SHA1.upper(), "hashtype": "SHA1"},
        {"mtime": "Tue Nov 29 14:09:05 PST 2016"},
        {"mtime": "2016-11-29T14:09:05.123456+00:00"},
        {"mtime": 0},
        {"ctime": -1},
        {"subdir": "data/" + "s" * 255},
        {"subdir": OMITTED},
        {"name": "n" * 255},
        {"anything": {"else": [1, None]}},
        {"_id": 7},
        *({"mimetype": f"{kind}x"} for kind in MIMETYPES),
        *(
            {"hashtype": name, "hashsum": hashlib.new(name, b"").hexdigest()}
            for name in sorted(ALGORITHMS)
        ),
    ],
)  # fmt: skip
def test_what_the_catalogue_takes_is_no_fault(change: Entry) -> None:
    assert read(file(**change)).faults == ()


# What cannot be read.


@pytest.mark.usefixtures("stack_alone")
@pytest.mark.parametrize(
    "text",
    [
        "", "[", "{]", "[1,]", "nope", b"\xff\xfe[]", b"\xe9",
        b'[{"a":"\xed\xa0\x80"}]', "[" * 100_000, '{"a":' * 100_000, "'[]'", "[1]x", '["\n"]', '["\\x"]', "[01]", "[+1]", "[.5]",
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    (fault,) = refusal(text)
    assert fault.startswith("The metadata is not JSON: ")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{}", "an object"),
        ("null", "null"),
        ("5", "a number"),
        ("1.5", "a number"),
        ('"[]"', "a string"),
        ("true", "a boolean"),
    ],
)
def test_what_is_not_a_list_is_refused(text: str, kind: str) -> None:
    assert refusal(text) == (f"The metadata must be a list of objects, not {kind}.",)


def test_all_faults_of_shape_are_told_with_their_place() -> None:
    entries = [1, None, [], "x", {}, {"destinationTable": None}, {"destinationTable": 5}, HEAD[0]]
    assert refusal(json.dumps(entries)) == (
        "[0]: expected an object, got 1",
        "[1]: expected an object, got null",
        "[2]: expected an object, got a list",
        '[3]: expected an object, got "x"',
        "[4].destinationTable: expected a string, got null",
        "[5].destinationTable: expected a string, got null",
        "[6].destinationTable: expected a string, got 5",
    )


@pytest.mark.parametrize("value", [5, "5", None])
def test_an_own_transaction_id_is_refused(value: object) -> None:
    (fault,) = refusal(json.dumps([{"destinationTable": "Transactions._id", "value": value}]))
    assert fault.startswith("[0]: Transactions._id is given by the service")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": OMITTED}, ".name: expected a string, got null"),
        ({"name": 5}, ".name: expected a string, got 5"),
        ({"subdir": None}, ".subdir: expected a string, got null"),
        ({"subdir": ["a"]}, ".subdir: expected a string, got a list"),
        ({"name": ""}, "no name"),
        ({"name": "x/"}, "no name"),
        ({"name": ".."}, r"'..'"),
        ({"subdir": "../a"}, r"'..'"),
        ({"subdir": "a/../../b"}, r"'..'"),
        ({"name": "x\0"}, "control characters"),
        ({"subdir": "a\nb"}, "control characters"),
        ({"name": "\ud800"}, ".name: broken text"),
    ],
)
def test_a_file_without_a_usable_path_is_refused(change: Entry, reason: str) -> None:
    (fault,) = refusal(json.dumps([*HEAD, file(**change)]))
    assert fault.startswith("[3]")
    assert reason in fault


def test_no_more_faults_are_told_than_a_person_could_want() -> None:
    assert len(refusal(json.dumps([1] * 5000))) == MAX_FAULTS
    assert len(refusal(json.dumps([file(name="")] * 5000))) == MAX_FAULTS
    assert len(read(*[file(mimetype="")] * 5000).faults) == MAX_FAULTS


@pytest.mark.parametrize(
    ("thousands", "passes", "reason"),
    [(MAX_OBJECTS // 1000 + 1, 1, "opening braces"), (MAX_OBJECTS // 1000, 2, "destinationTable")],
    ids=["too many objects", "as many as are taken"],
)
def test_a_document_that_nobody_can_mean_costs_no_more_than_a_look(thousands: int, passes: int, reason: str) -> None:
    """It is counted before anything is decoded, and not decoded behind as many faults as are told."""
    begun = decoded = 0

    def pieces() -> Iterator[bytes]:
        nonlocal begun, decoded
        begun += 1
        yield b"["
        for _ in range(thousands):
            decoded += begun == 2
            yield b"{}," * 1000

    with pytest.raises(BadMetadata, match=reason):
        Document.read(pieces)
    assert begun == passes
    assert decoded < 10


# What the catalogue would refuse.


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mimetype": OMITTED}, "mimetype: expected a string that begins with application/ or .*, got null"),
        ({"mimetype": "text"}, 'mimetype: expected a string that begins .*, got "text"'),
        ({"mimetype": "Text/plain"}, 'mimetype: expected a string that begins .*, got "Text/plain"'),
        ({"mimetype": "multipart/mixed"}, "mimetype: expected a string that begins "),
        ({"mimetype": ["text/plain"]}, "mimetype: expected a string that begins .*, got a list"),
        ({"mimetype": "text/" + "x" * 251}, "mimetype: expected at most 255 characters, got 256"),
        ({"mimetype": "text/\0"}, "mimetype: expected a text without NUL"),
        ({"hashsum": SHA1[1:]}, "hashsum: expected 40 hexadecimal digits of sha1, got "),
        ({"hashsum": OMITTED}, "hashsum: expected 40 hexadecimal digits of sha1, got null"),
        ({"hashtype": OMITTED}, "hashtype: expected md5 or .*, got null"),
        ({"hashtype": "sha512_256", "hashsum": "0" * 64}, 'hashtype: .*, got "sha512_256"'),
        ({"hashtype": "shake_128"}, 'hashtype: .*, got "shake_128"'),
        ({"size": "4 kB"}, 'size: expected an integer, got "4 kB"'),
        ({"size": OMITTED}, "size: expected an integer, got null"),
        ({"size": -1}, f"size: expected an integer from 0 to {2**63 - 1}, got -1"),
        ({"size": 2**63}, f"size: expected an integer from 0 to {2**63 - 1}, got {2**63}"),
        ({"size": "9" * 19}, 'size: expected an integer, got "9{19}"'),
        ({"size": "-1"}, 'size: expected an integer, got "-1"'),
        ({"size": ""}, 'size: expected an integer, got ""'),
        ({"size": "٣"}, 'size: expected an integer, got "٣"'),
        ({"size": 1.0}, r"size: expected an integer, got 1\.0"),
        ({"size": True}, "size: expected an integer, got true"),
        ({"size": [1]}, "size: expected an integer, got a list"),
        ({"mtime": OMITTED}, "mtime: expected a time, got null"),
        ({"ctime": OMITTED}, "ctime: expected a time, got null"),
        ({"mtime": ""}, 'mtime: expected a time, got ""'),
        ({"mtime": "now"}, 'mtime: expected a time, got "now"'),
        ({"mtime": True}, "mtime: expected a time, got true"),
        ({"mtime": 1.5}, "mtime: expected a time, got 1.5"),
        ({"mtime": 10**15}, "mtime: expected a time, got 10{15}"),
        ({"ctime": -(10**15)}, "ctime: expected a time, got -10{15}"),
        ({"ctime": {}}, "ctime: expected a time, got an object"),
        ({"name": "n" * 256}, "name: expected at most 255 characters, got 256"),
        ({"subdir": "s" * 256}, "subdir: expected at most 255 characters, got 256"),
        ({"subdir": "/".join("s" * 256)}, "subdir: expected at most 255 characters"),
    ],
)
def test_what_the_catalogue_would_refuse_in_a_file_is_a_fault(change: Entry, reason: str) -> None:
    (fault,) = read(file(**change)).faults
    # The name of the file follows, for people who never see the document.
    assert re.fullmatch(rf"\[3\]\.{reason}.* \(of \".*\"\)", fault)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([pair(key="k" * 256)], "[3].key: expected at most 255 characters, got 256"),
        ([pair(value="v" * 256)], "[3].value: expected at most 255 characters, got 256"),
        ([pair(key="k\0")], "[3].key: expected a text without NUL"),
        ([pair(value=OMITTED)], "[3].value: expected a string, got null"),
        ([pair(key=["k"])], "[3].key: expected a string, got a list"),
        ([pair(), pair()], '[4]: the pair "Tag", "Blah" is given twice'),
        ([pair(value="5"), pair(value=5)], '[4]: the pair "Tag", "5" is given twice'),
        ([pair(destinationTable="FileKeyValue")], "[3].file_id: expected the id of a file"),
        ([pair(destinationTable="FileKeyValue", file_id=[1])], "[3].file_id: expected the id of a file"),
        ([pair(destinationTable="FileKeyValue", file_id=1)] * 2, "[4]: the pair"),
        ([file(), file()], '"a/b/x.txt" is named 2 times'),
        ([file(subdir="e\u0301"), file(subdir="/é/.")], '"é/x.txt" is named 2 times'),
        ([file(subdir="data"), file(subdir="")], '"x.txt" is named 2 times'),
    ],
)
def test_what_the_catalogue_would_refuse_in_a_document_is_a_fault(entries: list[Entry], reason: str) -> None:
    (fault,) = read(*entries).faults
    assert reason in fault


@pytest.mark.parametrize(
    "entries",
    [
        [pair(), pair(value="Other"), pair(key="Other")],
        [pair(destinationTable="FileKeyValue", file_id=1), pair(destinationTable="FileKeyValue", file_id="2"), pair()],
        [pair(value=5), pair(value=5.5)],
    ],
)
def test_pairs_that_differ_are_no_fault(entries: list[Entry]) -> None:
    assert read(*entries).faults == ()


@pytest.mark.parametrize("table", [entry["destinationTable"] for entry in HEAD])
@pytest.mark.parametrize("value", [OMITTED, None, {}, [1], "", " ", True])
def test_submitter_project_and_instrument_are_needed_and_the_first_of_each_counts(table: str, value: object) -> None:
    first = {"destinationTable": table} if value is OMITTED else {"destinationTable": table, "value": value}
    for entries in ([first, *HEAD], [entry for entry in HEAD if entry["destinationTable"] != table]):
        with pytest.raises(PolicyRefused, match=rf"^{table} must be given"):
            submission(entries)


def test_a_submission_is_told_as_text() -> None:
    assert submission(HEAD) == {key: str(entry["value"]) for key, entry in zip(SUBMISSION, HEAD, strict=True)}


def test_all_faults_are_told_at_once() -> None:
    faults = Document.of([file(mimetype="", mtime=None, size=None), pair(key=None)]).faults
    assert len(faults) == 3 + 1


# What the catalogue gets.


def test_the_catalogue_gets_ids_clean_folders_and_bare_digests() -> None:
    document = read(
        pair(),
        file(subdir="data//a/./b/", hashsum=f"SHA1:{SHA1.upper()}", hashtype="SHA1", extra=1),
        file(subdir="/tmp", _id=99),
    )
    assert list(document.registration(7, {0: 100, 1: 200})) == [
        *HEAD,
        pair(),
        file(extra=1, _id=100),
        file(subdir="tmp", _id=200),
        {"destinationTable": "Transactions._id", "value": 7},
    ]


def test_before_ids_are_known_files_have_none() -> None:
    assert list(read(file()).registration(7)) == [*HEAD, file(), {"destinationTable": "Transactions._id", "value": 7}]


def test_a_digest_that_cannot_be_read_stays_as_it_was_sent() -> None:
    assert list(read(file(hashsum="?")).registration(7))[3] == file(hashsum="?")


@pytest.mark.parametrize(
    ("subdir", "members", "path", "registered"),
    [
        ("data", frozenset[str](), "x.txt", ""),
        ("data", frozenset({"data/x.txt"}), "data/x.txt", "data"),
        ("data/data", frozenset[str](), "data/x.txt", "data"),
        ("./data", frozenset[str](), "data/x.txt", "data"),
        ("/data/", frozenset[str](), "data/x.txt", "data"),
        (".", frozenset[str](), "x.txt", ""),
    ],
)
def test_the_registered_folder_is_the_one_in_which_the_file_was_found(
    subdir: str, members: frozenset[str], path: str, registered: str
) -> None:
    document = read(file(subdir=subdir), members=members)
    assert document.files[0].path == path
    assert list(document.registration(7))[3]["subdir"] == registered


folders = st.lists(st.sampled_from(["data", "a", "e\u0301", "é", ".", ""]), max_size=4).map("/".join)


@given(folders, st.sampled_from(["x", "./x", "data/x", "e\u0301"]), st.booleans())
def test_a_registered_file_has_its_path_again(subdir: str, name: str, literal: bool) -> None:  # noqa: FBT001 (drawn)
    members = frozenset({canonical(f"{subdir}/{name}")}) if literal else frozenset[str]()
    document = read(file(subdir=subdir, name=name), members=members)
    entry = list(document.registration(7))[3]
    assert canonical(f"{entry['subdir']}/{entry['name']}") == document.files[0].path


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def spoil(value: object) -> None:
    """Empty every list and object within a value."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            spoil(inner)
        value.clear()


@given(st.dictionaries(st.text(max_size=5), values, max_size=3))
def test_a_registration_shares_nothing_with_the_document_or_another_registration(extra: Entry) -> None:
    sent = [*copy.deepcopy(HEAD), pair(extra=extra), file(extra=extra), {"destinationTable": "Other", "value": [extra]}]
    before = copy.deepcopy(sent)
    document = Document.of(sent)
    first, second = list(document.registration(7)), list(document.registration(7))
    assert first == second
    spoil(first)
    assert sent == before
    assert second == list(document.registration(7))


@given(values)
def test_any_file_of_json_is_registered_as_json_or_refused_with_reasons(value: object) -> None:
    for changes in ({"name": value}, {"subdir": value}, {"size": value, "mtime": value}, {"hashsum": value}):
        text = json.dumps([file(**changes), pair(key=value, value=value)]).encode()
        try:
            registration = list(Document.parse(text).registration(1))
        except BadMetadata:
            assert refusal(text)
        else:
            assert json.loads(json.dumps(registration)) == registration


@given(values)
def test_any_json_is_read_or_refused(value: object) -> None:
    if isinstance(value, list) and all(isinstance(entry, dict) and "destinationTable" in entry for entry in value):
        return
    assert refusal(json.dumps(value))
    assert refusal(json.dumps([value]))
