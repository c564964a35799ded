"""What `ports.Ids` promises, on every adapter."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pacifica.ingest.ports import IdMode, Ids


@pytest.mark.parametrize("mode", IdMode)
@pytest.mark.parametrize("count", [1, 2, 1000, 5_000_000])
def test_a_range_has_as_many_numbers_as_asked_for_and_all_are_positive(ids: Ids, mode: IdMode, count: int) -> None:
    found = ids.reserve(mode, count)
    assert (len(found), found.step) == (count, 1)
    assert found.start > 0


@pytest.mark.parametrize("mode", IdMode)
def test_two_calls_give_two_ranges(ids: Ids, mode: IdMode) -> None:
    first, second = ids.reserve(mode, 10), ids.reserve(mode, 10)
    assert not set(first) & set(second)


@pytest.mark.parametrize("count", [0, -1])
def test_an_empty_range_is_nothing_to_ask_for(ids: Ids, count: int) -> None:
    with pytest.raises(ValueError, match="cannot be reserved"):
        ids.reserve(IdMode.FILE, count)


def test_threads_of_one_process_get_different_ranges(ids: Ids) -> None:
    with ThreadPoolExecutor(8) as pool:
        ranges = list(pool.map(lambda _: ids.reserve(IdMode.FILE, 7), range(80)))
    numbers = [number for taken in ranges for number in taken]
    assert len(set(numbers)) == len(numbers) == 560
