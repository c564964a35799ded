"""A short round of fuzzing, with a seed; `make fuzz` is the long one."""

from pathlib import Path

import pytest

from tests.fuzz import targets
from tests.fuzz.__main__ import fuzz
from tests.fuzz.surface import WHOLE, fuzz_http, hostile, judge

pytestmark = pytest.mark.timeout(600)

INPUTS = 25_000
REQUESTS = 3_000


@pytest.mark.parametrize("target", targets.TARGETS)
def test_nothing_is_found_in_so_many_inputs(target: str, tmp_path: Path) -> None:
    result = fuzz(target, INPUTS, 1, tmp_path)
    assert not result.found, result.found
    assert result.inputs >= INPUTS


def test_nothing_is_found_in_so_many_requests(tmp_path: Path) -> None:
    result = fuzz_http(REQUESTS, 1, tmp_path)
    assert not result.found, result.found
    assert result.inputs >= REQUESTS


def test_what_a_connection_sends_depends_on_seed_and_number() -> None:
    assert hostile(1, 7) == hostile(1, 7) != hostile(1, 8) != hostile(2, 8)


GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    "received",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\r\n",
        GOOD.replace(b"{}", b"<>"),
        GOOD.replace(b"200 OK", b"500 Error"),
        GOOD.replace(b"200 OK", b"400 Bad Request"),
        GOOD.replace(b"200 OK", b"100 Continue"),
        GOOD.replace(b": 2", b":2"),
    ],
)
def test_an_answer_that_is_none_is_a_finding(received: bytes) -> None:
    assert list(judge(WHOLE[0], GOOD + GOOD)) == [(200, {}), (200, {})]
    with pytest.raises((AssertionError, ValueError)):
        list(judge(WHOLE[0], received))


def test_too_much_memory_is_a_finding(tmp_path: Path) -> None:
    assert "limit: 20Mb" in fuzz("tar", INPUTS, 1, tmp_path, memory_mib=20).found


def test_a_bundle_that_others_see_otherwise_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "theirs", lambda _: ({}, None))
    with pytest.raises(AssertionError):
        targets.tar(targets.SEEDS["tar"]()[1])


def test_mended_headers_are_read() -> None:
    """Most of what is tried gets past the first checksum, or the round would try nothing."""
    whole = bytearray(targets.SEEDS["tar"]()[2])
    whole[5] ^= 1
    assert targets.mended(bytes(whole), targets.random.Random(1)) != bytes(whole)
