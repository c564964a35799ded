"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica.ingest.core.sizes import SIZE_UNITS, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4 Mb", 4 << 20),
        ("4 MB", 4_000_000),
        ("4Mb", 4 << 20),
        ("  1.5 Kb ", 1536),
        ("1 B", 1),
        ("1 b", 1),
        ("1 KB", 1000),
        ("1 GB", 10**9),
        ("1 TB", 10**12),
        ("1 Gb", 1 << 30),
        ("1 Tb", 1 << 40),
        ("0 B", 0),
        ("1.9 B", 1),
        ("0.1 KB", 100),
        ("1.1 TB", 1_100_000_000_000),
        ("9007199254740993 B", 2**53 + 1),
    ],
)
def test_a_size_is_read_to_the_byte(text: str, size: int) -> None:
    assert parse_size(text) == size


@given(st.integers(0, 2**70), st.sampled_from(sorted(SIZE_UNITS)), st.sampled_from(["", " ", "\t"]))
def test_whole_numbers_are_exact_at_any_size(number: int, unit: str, space: str) -> None:
    assert parse_size(f"{number}{space}{unit}") == number * SIZE_UNITS[unit]


@pytest.mark.parametrize(
    "text",
    ["", "4", "Mb", "4 mb", "4 MiB", "-1 B", "+1 B", "1e3 B", "1. B", ".5 B", "1 2 B", "1,5 Kb", "٣ B", "4 Mb x"],
)
def test_anything_else_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(ValueError, match="the units are B, KB"):
        parse_size(text)
