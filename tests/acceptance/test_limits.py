"""The limits of a bundle, as an operator sets them, on a running service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stage import Standalone
from tests.hostile.raw_tar import END, long_name, member

GNU = b"ustar  \0"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    limits = {"INGEST_MAX_MEMBERS": "2", "INGEST_MAX_NAME_LENGTH": "40", "INGEST_MAX_EXTENDED_HEADER": "512 B"}
    with Standalone(tmp_path_factory.mktemp("limits"), **limits) as running:
        yield running


@pytest.mark.parametrize(
    ("members", "key", "name"),
    [
        ([member(b"data/%d" % number) for number in range(3)], "max_members", "data/2"),
        ([member(b"data/" + b"a" * 40)], "max_name_length", "data/aaaa"),
        ([long_name(b"data/" + b"b" * 600), member(magic=GNU)], "max_extended_header", "@LongLink"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bundle_above_a_limit_fails_and_is_told_which_and_where(
    service: Standalone, members: list[bytes], key: str, name: str
) -> None:
    state = service.end(service.post(b"".join([*members, END])))
    assert (state["state"], state["task"]) == ("FAILED", "open tar")
    assert f"([ingest] {key})" in state["exception"]
    assert name in state["exception"]


def test_a_limit_of_nothing_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="max_members"), Standalone(tmp_path, INGEST_MAX_MEMBERS="0"):
        pass
