"""JSON, strictly: what is taken means one thing, and every flaw is found with its path."""

from __future__ import annotations

import json
import re
from typing import Any
from unittest.mock import Mock, patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pacifica.ingest.core import strict_json
from pacifica.ingest.core.errors import BadMetadata
from pacifica.ingest.core.metadata import Document
from pacifica.ingest.core.strict_json import (
    MAX_DEPTH,
    MAX_NUMBER,
    MAX_OBJECTS,
    MAX_VALUES,
    Elements,
    Flaw,
    decode,
    shown,
)

A_FILE = '{"destinationTable":"Files","name":"x","size":"4 kB","mimetype":"text/plain","mtime":0,"ctime":0,'
A_FILE += '"hashtype":"md5","hashsum":"' + "0" * 32 + '"'

#: Document → its faults, all of them.
DOCUMENTS = {
    '[{"destinationTable":"T","a":1,"a":1}]': ["[0].a: the key is given twice"],
    '[{"destinationTable":"T","destinationTable":"T"}]': ["[0].destinationTable: the key is given twice"],
    '[{"destinationTable":"T","a":1,"\\u0061":2,"a":3}]': ["[0].a: the key is given twice"],
    '[{"destinationTable":"T","x":[{},{"y z":1,"y z":2}]}]': ['[0].x[1]["y z"]: the key is given twice'],
    '[{"destinationTable":"T","a":{"b":1,"b":2},"a":0}]': ["[0].a: the key is given twice"],
    "[NaN]": ["[0]: NaN is no JSON number"],
    '[{"destinationTable":"T","a":NaN,"b":[Infinity,-Infinity]}]': [
        "[0].a: NaN is no JSON number",
        "[0].b[0]: Infinity is no JSON number",
        "[0].b[1]: -Infinity is no JSON number",
    ],
    '[{"destinationTable":"T","a":1e999,"b":-1e999}]': [
        "[0].a: 1e999 is too large for a number",
        "[0].b: -1e999 is too large for a number",
    ],
    f'[{{"destinationTable":"T","a":{"9" * 5000},"b":0.{"1" * 5000}}}]': [
        "[0].a: a number of 5000 characters",
        "[0].b: a number of 5002 characters",
    ],
    r'[{"destinationTable":"T","a":"\ud800"}]': ["[0].a: broken text, a lone surrogate"],
    r'[{"destinationTable":"T","a":["\uDFFF\uD800"]}]': ["[0].a[0]: broken text, a lone surrogate"],
    r'[{"destinationTable":"T","a\udc00":1}]': [r'[0]["a\udc00"]: the key is broken text, a lone surrogate'],
    r'[{"destinationTable":"\udead"}]': ["[0].destinationTable: broken text, a lone surrogate"],
    '[{"destinationTable":"Files","name":"x","name":"y"}]': ["[0].name: the key is given twice"],
    '[{"destinationTable":"Files","name":NaN,"subdir":5}]': [
        "[0].name: NaN is no JSON number",
        "[0].subdir: expected a string, got 5",
    ],
    # Faults of all kinds at once, whatever the step in which each of them alone would be told.
    f'[1,{A_FILE}}},{A_FILE},"a":1,"a":2}},{{"destinationTable":"Files","name":".."}},{{"destinationTable":5}}]': [
        "[0]: expected an object, got 1",
        "[2].a: the key is given twice",
        "[3]: \"/..\": '..' is not allowed in a path",
        "[4].destinationTable: expected a string, got 5",
        '[1].size: expected an integer, got "4 kB" (of "x")',
    ],
}  # fmt: skip


@pytest.mark.parametrize("text", DOCUMENTS, ids=lambda text: text[:60])
def test_every_fault_is_told_at_once_with_its_path(text: str) -> None:
    with pytest.raises(BadMetadata) as caught:
        Document.parse(text.encode())
    assert list(caught.value.faults) == DOCUMENTS[text]


def test_text_beyond_the_basic_plane_is_no_broken_text() -> None:
    text = json.dumps([{"destinationTable": "T", "\N{GRINNING FACE}": "\N{GRINNING FACE}"}])
    assert r"\ud83d" in text
    assert Document.parse(text.encode()).faults == ()


def nested(depth: int) -> bytes:
    """Return a document whose innermost value lies so deep."""
    inner = depth - 2
    return b'[{"destinationTable":"T","a":' + b"[" * inner + b"]" * inner + b"}]"


def test_depth_has_a_limit_with_a_path() -> None:
    assert Document.parse(nested(MAX_DEPTH)).faults == ()
    with pytest.raises(BadMetadata) as caught:
        Document.parse(nested(MAX_DEPTH + 1))
    (fault,) = caught.value.faults
    assert re.fullmatch(rf"\[0\]\.a(\[0\])+: lies more than {MAX_DEPTH} deep", fault)


def test_numbers_have_a_longest() -> None:
    assert decode(b"9" * MAX_NUMBER).value == 10**MAX_NUMBER - 1
    assert decode(b"9" * (MAX_NUMBER + 1)).value == Flaw(f"a number of {MAX_NUMBER + 1} characters")
    # What would take minutes to convert is not converted.
    assert isinstance(decode(b"9" * 10_000_000).value, Flaw)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" + b"{}," * (MAX_OBJECTS + 1), f"more than {MAX_OBJECTS} opening braces"),
        (b"[" * (MAX_VALUES + 1), f"more than {MAX_VALUES} values"),
        (b"[" + b"1," * (MAX_VALUES + 1), f"more than {MAX_VALUES} values"),
    ],
    ids=["objects", "lists", "numbers"],
)
def test_what_would_cost_more_memory_than_a_million_files_is_refused_before_it_is_decoded(
    text: bytes, reason: str
) -> None:
    # It is no JSON, which nobody gets to see.
    with pytest.raises(ValueError, match=reason):
        decode(text)


def test_a_fault_shows_no_more_of_a_value_than_a_line() -> None:
    name = "n" * 1_000_000 + "\n"
    text = json.dumps([{"destinationTable": "Files", "name": name, "size": name}, {"destinationTable": [name]}])
    with pytest.raises(BadMetadata) as caught:
        Document.parse(text.encode())
    assert all(len(fault) < 200 for fault in caught.value.faults)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("4 kB", '"4 kB"'),
        ("é", '"é"'),
        ("a\nb\x9b\u202e", r'"a\nb\u009b\u202e"'),
        (None, "null"),
        (True, "true"),
        ([1], "a list"),
        ({}, "an object"),
    ],
)
def test_values_are_shown_as_json_writes_them(value: object, text: str) -> None:
    assert shown(value) == text


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=10
)


def flaws(text: str | bytes) -> list[str]:
    """Return the flaws of an object as the only one of a document."""
    found = decode(text.encode() if isinstance(text, str) else text)
    return list(strict_json.flaws(found.value, "[0]", broken=found.broken))


@given(st.dictionaries(st.text(), values, max_size=3), st.booleans())
def test_what_json_writes_is_read_as_it_was(value: dict[str, Any], ascii_only: bool) -> None:  # noqa: FBT001 (drawn)
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert decode(text.encode()).value == value
    assert flaws(text) == []


@given(st.text(alphabet='[]{},:"\\0159eE.-+ nulltrueNaNInfinityud8c', max_size=30))  # fmt: skip
def test_what_is_taken_is_what_the_standard_library_takes(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            decode(text.encode())
        return
    found = decode(b"\xef\xbb\xbf" + text.encode())
    whole = {"a": found.value}
    if not list(strict_json.flaws(whole, "[0]", broken=found.broken)):
        assert found.value == expected
        assert json.loads(json.dumps(found.value, allow_nan=False)) == expected


@given(st.text(alphabet='[]{},:"\n159eE.- nultrea', max_size=30), st.integers(1, 30))
@example(" 00", 30)
@example(" 1.", 1)
@example('[{"a": 1}, {"b": nul}]', 30)
@example('\n[\n{"a": 1},\n{"b" 1}]', 3)
def test_a_fault_is_told_at_the_place_where_the_standard_library_sees_it(text: str, piece: int) -> None:
    try:
        json.loads(text)
    except json.JSONDecodeError as fault:
        expected = fault
    else:
        return
    encoded = text.encode()
    with pytest.raises(ValueError, match=r".") as found:
        list(Elements(encoded[start : start + piece] for start in range(0, len(encoded), piece)))
    # From Python 3.13 on it points at the comma before the end.
    if "trailing comma" not in expected.msg:
        assert str(found.value) == str(expected)


@given(
    st.lists(st.one_of(values, st.dictionaries(st.text(alphabet='ab}],{["\\ ', max_size=6), values, max_size=3))),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", ":")]),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_a_list_is_the_same_however_much_of_it_is_decoded_at_once(
    document: list[object], separators: tuple[str, str], run: int, piece: int
) -> None:
    text = json.dumps(document, separators=separators).encode()
    with patch.object(strict_json, "_RUN", run):
        found = list(Elements(text[start : start + piece] for start in range(0, len(text), piece)))
    assert found == document


@pytest.mark.parametrize("number", ["1.5", "-2", "1e9", "1.25E-7", "-0.5e+10"])
def test_a_number_is_whole_wherever_its_text_is_cut(number: str) -> None:
    text = f"[{number}, {number}]".encode()
    for cut in range(1, len(text)):
        assert list(Elements([text[:cut], text[cut:]])) == [json.loads(number)] * 2


def test_what_only_looks_like_the_end_of_an_object_is_tried_once() -> None:
    count = 3000
    decoder = Mock(wraps=strict_json._DECODER)
    with patch.object(strict_json, "_DECODER", decoder):
        assert len(list(Elements([b"[" + b",".join([b'["},",0]'] * count) + b"]"]))) == count
    runs = [call for call in decoder.raw_decode.call_args_list if len(call.args) == 1]
    assert 0 < len(runs) <= count * 9 // strict_json._RUN + 1


@given(
    st.text(st.characters(codec=None, exclude_characters="\0"), max_size=5),
    st.lists(st.sampled_from(["list", "object"]), max_size=5),
)
def test_a_lone_surrogate_is_found_wherever_it_lies_and_nothing_else_is(text: str, around: list[str]) -> None:
    value: object = text
    for kind in around:
        value = [0, value] if kind == "list" else {"k": value}
    try:
        # As a pair, two surrogates are a character.
        text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        path = "[0].a" + "".join("[1]" if kind == "list" else ".k" for kind in reversed(around))
        assert flaws(json.dumps({"a": value})) == [f"{path}: broken text, a lone surrogate"]
    else:
        assert flaws(json.dumps({"a": value})) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), values), max_size=6))
def test_every_key_that_is_given_twice_is_told_once(pairs: list[tuple[str, object]]) -> None:
    keys = [key for key, _ in pairs]
    text = ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs)
    expected = {f"[0].{key}: the key is given twice" for key in keys if keys.count(key) > 1}
    assert set(flaws(f"{{{text}}}")) == expected
    assert len(flaws(f"{{{text}}}")) == len(expected)
