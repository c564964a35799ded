"""How `gc` removes garbage: one id that cannot be removed does not stop it, and an archive that is away does."""

from pathlib import Path

import pytest

from pacifica.ingest.cli.gc import AWAY_S, AWAY_TIMES, Removal
from pacifica.ingest.core.errors import DatabaseDown, NeighbourDown
from pacifica.ingest.retention import Retention
from tests.unit.floor import FILES, Floor

DAY_S = 86_400.0
DOWN = NeighbourDown("archive", "no answer")
#: The first id that the doubles give to a file.
FIRST = 1000


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    """With as much garbage as there are files."""
    floor = Floor(tmp_path)
    job = floor.upload()
    floor.faults.fail("catalogue.register", error=ZeroDivisionError())
    floor.run(job)
    floor.store.expire(floor.store.job(job.job_id))
    floor.clock.advance(DAY_S + 1)
    return floor


def removal(floor: Floor, *, wait_s: float = 0.0) -> Removal:
    """With an archive that takes so long for each call."""
    keeper = Retention(
        store=floor.store, staging=floor.staging, archive=floor.archive, catalogue=floor.catalogue, keep_s=DAY_S
    )
    return Removal(keeper, lambda: wait_s * floor.faults.calls.count("archive.remove"))


def test_an_id_that_cannot_be_removed_stays_on_the_list_and_the_others_go(floor: Floor) -> None:
    floor.faults.fail("archive.remove", error=DOWN, at=2)
    first = removal(floor)
    assert len(list(first.lines())) == len(FILES) - 1
    assert first.complaint() == (
        f"archive id {FIRST + 1} could not be removed and stays on the list: archive cannot be used now: no answer."
    )
    second = removal(floor)
    assert list(second.lines()) == [f"archive id {FIRST + 1}: garbage removed"]
    assert not second.faults


def test_an_archive_that_refuses_everything_is_asked_for_everything(floor: Floor) -> None:
    floor.faults.fail("archive.remove", error=DOWN, times=len(FILES))
    tried = removal(floor)
    assert list(tried.lines()) == []
    assert sorted(tried.faults) == list(range(FIRST, FIRST + len(FILES)))
    assert "5 archive ids, the first of them 1000, could not be removed" in tried.complaint()
    assert "away" not in tried.complaint()


def test_an_archive_that_is_silent_is_not_waited_for_once_for_each_id(floor: Floor) -> None:
    floor.faults.fail("archive.remove", error=DOWN, times=len(FILES))
    tried = removal(floor, wait_s=AWAY_S)
    assert list(tried.lines()) == []
    assert len(tried.faults) == AWAY_TIMES
    assert tried.complaint().endswith("The archive seems to be away: the rest was not tried.")


def test_a_database_that_is_away_ends_it_and_what_was_removed_is_found_to_be_gone_later(floor: Floor) -> None:
    floor.faults.fail("jobs.removed", error=DatabaseDown("away"), at=2)
    with pytest.raises(DatabaseDown):
        list(removal(floor).lines())
    again = removal(floor)
    # One was removed before, and one just when the database went away.
    assert len(list(again.lines())) == len(FILES) - 2
    assert floor.archive.objects == {}
    assert set(floor.store.ids.values()) == {"removed"}


@pytest.mark.parametrize("at", range(1, 2 * len(FILES) + 3))
@pytest.mark.parametrize("after", [True, False])
def test_it_can_be_killed_anywhere_and_ends_another_time(floor: Floor, at: int, *, after: bool) -> None:
    floor.faults.fail("*", error=KeyboardInterrupt(), at=at, after=after)
    try:
        list(removal(floor).lines())
    except KeyboardInterrupt:
        assert at <= 2 * len(FILES) + 2
    floor.restart()
    list(removal(floor).lines())
    assert floor.archive.objects == {}
    assert set(floor.store.ids.values()) == {"removed"}


def test_of_two_at_once_both_end_well(floor: Floor) -> None:
    one, other = removal(floor), removal(floor)
    lines = [iter(one.lines()), iter(other.lines())]
    told = [line for _ in range(len(FILES)) for each in lines if (line := next(each, None))]
    assert len(told) == len(FILES)
    assert not one.faults
    assert not other.faults
    assert set(floor.store.ids.values()) == {"removed"}
