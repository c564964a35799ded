"""One spelling for a path, whoever tells it."""

from __future__ import annotations

import posixpath
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pacifica.ingest.core.errors import BadPath
from pacifica.ingest.core.paths import METADATA, canonical, clip, entry_path, is_metadata, member_path

# Few letters, so that special parts are frequent: accents whole and in parts, control characters, a lone surrogate.
ODD = st.text("ad./é\u0301e\u1e69 \\\n\x7f\x9b\ud800", max_size=20)
PARTS = st.sampled_from(["data", "a", "b.txt", "é", "e\u0301", "..a", ". ", "data.", "", "."]) | st.text(max_size=5)
PATHS = ODD | st.lists(PARTS, max_size=6).map("/".join)


@given(PATHS)
def test_canonical_has_one_spelling(path: str) -> None:
    try:
        found = canonical(path)
    except BadPath:
        return
    assert canonical(found) == found
    assert unicodedata.is_normalized("NFC", found)
    assert not {"", ".", ".."} & set(found.split("/"))


@given(PATHS, PATHS)
def test_two_halves_of_a_path_may_be_brought_to_their_spelling_apart(first: str, second: str) -> None:
    try:
        halves = f"{canonical(first)}/{canonical(second)}"
    except BadPath:
        return
    assert canonical(f"{first}/{second}") == halves


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        ("/", "empty"),
        ("./.", "empty"),
        ("..", r"'\.\.'"),
        ("a/../b", r"'\.\.'"),
        ("a/..", r"'\.\.'"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\x7f", "control"),
        ("a\x85", "control"),
        ("a\ud800", "broken text"),
    ],
)
def test_a_path_that_cannot_be_stored_is_refused(path: str, reason: str) -> None:
    for function in (canonical, lambda path: member_path(f"data/{path}"), lambda path: entry_path(path, "x/..")):
        with pytest.raises(BadPath):
            function(path)
    with pytest.raises(BadPath, match=reason):
        canonical(path)


@pytest.mark.parametrize("path", ["...", "a..", "..a", "a b", " ", "-", "~", "a\\..\\b", "C:", "\u202e"])
def test_a_path_that_only_looks_dangerous_is_kept(path: str) -> None:
    assert canonical(path) == path
    assert member_path(f"data/{path}") == path


@pytest.mark.parametrize(
    ("path", "clipped"),
    [
        ("data/a", "a"),
        ("data", ""),
        ("data/data/a", "data/a"),
        ("data//a/b", "a/b"),
        ("/data/a", "data/a"),
        ("./data/a", "./data/a"),
        ("database/a", "database/a"),
        ("a/data/b/", "a/data/b"),
        ("", ""),
    ],
)
def test_clip_drops_the_first_data_and_empty_parts(path: str, clipped: str) -> None:
    assert clip(path) == clipped


@given(st.text("dat/.x", max_size=12) | PATHS)
@example("a")
@example("data/")
@example("a/.b")
def test_the_quick_way_for_plain_names_gives_what_the_rules_give(path: str) -> None:
    try:
        wanted = canonical(f"./data/{path}")
    except BadPath:
        wanted = "data"
    if wanted == "data":
        with pytest.raises(BadPath):
            member_path(f"data/{path}")
    else:
        assert f"data/{member_path(f'data/{path}')}" == wanted


@pytest.mark.parametrize(
    "name", ["/data/a", "//data/a", "a", "data", "data/", "data/.", "Data/a", "../data/a", METADATA]
)
def test_a_member_that_is_not_below_data_is_refused(name: str) -> None:
    with pytest.raises(BadPath):
        member_path(name)


@pytest.mark.parametrize("name", ["a/", "", ".", "/", "a/."])
def test_an_entry_needs_a_name(name: str) -> None:
    with pytest.raises(BadPath, match="no name"):
        entry_path("folder", name)


def test_metadata_is_known_however_it_is_spelled() -> None:
    assert all(map(is_metadata, ["metadata.txt", "./metadata.txt", ".//./metadata.txt"]))
    assert not any(map(is_metadata, ["/metadata.txt", "data/metadata.txt", "Metadata.txt", "../metadata.txt", ""]))


# Bundle and metadata as clients tell them.

TYPED = st.lists(PARTS, min_size=1, max_size=5).map("/".join)


def told_by_the_uploader(member: str) -> tuple[str, str]:
    """Return subdir and name: the member's folder without its first `data` and without empty parts, and its last part."""
    folder, name = posixpath.split(member)
    parts = folder.split("/")
    return "/".join(part for part in parts[parts[0] == "data" :] if part), name


@given(typed=TYPED, prefix=st.sampled_from(["", "prefix/", "data/", "/"]))
@example(typed="/tmp/x", prefix="")
@example(typed="./x", prefix="")
@example(typed="data/x", prefix="")
@example(typed="data/data/x", prefix="data/")
@example(typed="/data/x", prefix="")
@example(typed="./data/x", prefix="")
def test_a_file_of_the_uploader_is_found_in_its_bundle(typed: str, prefix: str) -> None:
    member = f"data/{prefix}{typed}"
    try:
        path = member_path(member)
    except BadPath:
        return
    assume(member[-1] != "/" and not member.endswith("/."))
    assert entry_path(*told_by_the_uploader(member), {path}) == path


@given(st.sets(TYPED, max_size=6))
def test_all_files_of_the_uploader_are_told_apart(typed: set[str]) -> None:
    members = {}
    for name in sorted(typed):
        try:
            members.setdefault(member_path(f"data/{name}"), f"data/{name}")
        except BadPath:
            continue
    members = {path: name for path, name in members.items() if name[-1] != "/" and not name.endswith("/.")}
    assert [entry_path(*told_by_the_uploader(name), members) for name in members.values()] == list(members)


@pytest.mark.parametrize(
    ("subdir", "name", "member"),
    [
        ("", "x", "data/x"),
        ("a/b", "x", "data/a/b/x"),
        ("data", "x", "data/x"),
        ("data/a/b/", "x", "data/a/b/x"),
        ("data//a/b", "x", "data/a/b/x"),
        ("a//b/", "x", "data/a/b/x"),
        ("/tmp", "x", "data//tmp/x"),
        ("./a", "x", "data/./a/x"),
        (".", "x", "data/x"),
        ("data/data", "x", "data/data/x"),
        ("/data", "x", "data//data/x"),
        ("./data", "x", "data/./data/x"),
        ("e\u0301", "x", "data/é/x"),
        ("", "a/x", "data/a/x"),
        ("", "data", "data/data"),
    ],
)
def test_a_file_of_other_clients_is_found_in_its_bundle(subdir: str, name: str, member: str) -> None:
    path = member_path(member)
    assert entry_path(subdir, name) == path
    assert entry_path(subdir, name, {path}) == path


def test_what_is_in_the_bundle_decides_whether_data_is_the_root_or_a_folder() -> None:
    assert entry_path("data/a", "x", {"a/x"}) == "a/x"
    assert entry_path("data/a", "x", {"data/a/x"}) == "data/a/x"
    assert entry_path("data/a", "x", {"b"}) == "a/x"
