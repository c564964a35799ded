"""The words on the wire, which clients compare letter by letter."""

from __future__ import annotations

import inspect
import re

import pytest

from pacifica.ingest.core import states
from pacifica.ingest.core.states import Kind, Phase, State, Step


def test_the_wire_words_are_the_documented_ones() -> None:
    assert list(State) == ["OK", "FAILED"]
    assert list(Step) == [
        "UPLOADING",
        "open tar",
        "load metadata",
        "Policy Validation",
        "ingest files",
        "move files",
        "ingest metadata",
    ]


@pytest.mark.parametrize(
    ("kind", "suffix", "step"), [(Kind.INGEST, ".tar", "ingest files"), (Kind.MOVE, ".json", "move files")]
)
def test_each_kind_has_its_staged_file_and_its_step(kind: Kind, suffix: str, step: str) -> None:
    assert kind.suffix == suffix
    assert kind.files_step == step


@pytest.mark.parametrize("words", [State, Step, Kind, Phase])
def test_every_word_is_explained(words: type) -> None:
    members = re.findall(r"(#: .*\n)?    ([A-Z_]+) = \"", inspect.getsource(words))
    assert [name for _, name in members] == list(words.__members__)
    assert all(comment for comment, _ in members)


def test_what_is_public_is_named() -> None:
    assert set(states.__all__) == {"State", "Step", "Kind", "Phase"}
