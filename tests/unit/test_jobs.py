"""The legal moves of a job, and how long it waits."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica.ingest.core.jobs import (
    LONGEST_DELAY_S,
    MOVES,
    SHORTEST_DELAY_S,
    Claim,
    Job,
    Series,
    forced,
    resumed,
    retry_delay_s,
    series_of,
)
from pacifica.ingest.core.states import Kind, Phase, State, Step

LEGAL = {
    ("receiving", "ready"),
    ("receiving", "failed"),
    ("ready", "running"),
    ("ready", "failed"),
    ("running", "ready"),
    ("running", "done"),
    ("running", "failed"),
    ("failed", "ready"),
}

chances = st.floats(0, 1, exclude_max=True)
spans = st.floats(0, 1e9)


def test_these_moves_are_legal_and_no_others() -> None:
    assert {(before, after) for before in Phase for after in MOVES[before]} == LEGAL


def test_every_phase_but_done_leads_to_done() -> None:
    reached = {Phase.DONE}
    for _ in Phase:
        reached |= {phase for phase in Phase if MOVES[phase] & reached}
    assert reached == set(Phase)
    assert not MOVES[Phase.DONE]


@given(spans, chances)
def test_a_wait_is_neither_too_short_nor_too_long(failing_for_s: float, chance: float) -> None:
    assert SHORTEST_DELAY_S <= retry_delay_s(failing_for_s, chance) <= LONGEST_DELAY_S


@given(spans, spans, chances)
def test_waits_grow_with_the_time_of_failing(first_s: float, second_s: float, chance: float) -> None:
    shorter, longer = sorted([first_s, second_s])
    assert retry_delay_s(shorter, chance) <= retry_delay_s(longer, chance)


@pytest.mark.parametrize("failing_for_s", [0.0, 1.0, 10.0, 1e6])
def test_waits_are_spread_from_the_first_on(failing_for_s: float) -> None:
    assert retry_delay_s(failing_for_s, 0.0) == SHORTEST_DELAY_S
    assert retry_delay_s(failing_for_s, 0.99) > retry_delay_s(failing_for_s, 0.75) > SHORTEST_DELAY_S


def test_a_wait_is_as_long_again_on_average() -> None:
    assert retry_delay_s(100.0, 0.5) == 100.0


NOON = datetime(2020, 6, 1, 12, tzinfo=UTC)
moments = st.integers(-(10**6), 10**6).map(lambda seconds: NOON + timedelta(seconds=seconds))
series = st.builds(lambda since, step: Series(since=since, step=step), moments, st.sampled_from(Step))


def a_job(**more: Any) -> Job:
    fields = {
        "job_id": 1, "kind": Kind.MOVE, "phase": Phase.READY, "epoch": 0, "worker": "", "heartbeat": 0, "attempt": 0,
        "not_before": NOON, "failing": None, "lost_owners": 0, "waiting_for": "", "frozen": False, "user": "me",
        "path": "1.json", "landing_zone": "", "size_bytes": 2,
    }  # fmt: skip
    return Job(**fields | more)


@given(series, moments, moments)
def test_a_claim_leaves_as_much_of_a_series_as_was_there_when_the_job_was_due(
    before: Series, due: datetime, now: datetime
) -> None:
    after = resumed(before, due=due, now=now)
    assert after is not None
    assert after.step is before.step
    assert after.since <= now
    if before.since <= due <= now:
        assert now - after.since == due - before.since
    elif now < due:
        assert after.since == min(before.since, now), "a clock that was set back tells nothing of the queue"


def test_a_claim_begins_no_series() -> None:
    assert resumed(None, due=NOON, now=NOON) is None


@given(st.none() | series, st.sampled_from(Step), moments)
def test_a_series_never_begins_in_the_future(before: Series | None, step: Step, now: datetime) -> None:
    after = series_of(a_job(failing=before), step, now)
    assert after.since <= now
    if before is not None and before.since <= now:
        assert after in {before, Series(since=now, step=step)}


paths = st.sampled_from(["", "1.json"])


@given(st.sampled_from(Phase), st.sampled_from(State), paths, st.booleans())
def test_a_forced_end_ends_and_what_is_done_has_no_other_way(
    phase: Phase,
    state: State,
    path: str,
    is_needed: bool,  # noqa: FBT001 (drawn)
) -> None:
    after = forced(a_job(phase=phase, path=path), state, complete=True, is_needed=is_needed)
    assert after in {Phase.DONE, Phase.FAILED}
    if phase is Phase.DONE and not (path and is_needed):
        assert after is Phase.DONE
    else:
        assert (after is Phase.FAILED) == (state is State.FAILED)


@given(st.sampled_from(Phase), paths, st.booleans())
def test_a_forced_live_state_moves_only_what_failed_and_fits_nothing_that_is_over(
    phase: Phase,
    path: str,
    is_needed: bool,  # noqa: FBT001 (drawn)
) -> None:
    after = forced(a_job(phase=phase, path=path), State.OK, complete=False, is_needed=is_needed)
    if phase is Phase.FAILED:
        assert after is (Phase.READY if is_needed else None)
    else:
        assert after is (None if phase is Phase.DONE else phase)


def test_a_job_is_changed_by_replacing_it() -> None:
    job = a_job()
    claim = Claim(job=dataclasses.replace(job, epoch=1), epoch=1)
    assert claim.job_id == job.job_id
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.epoch = 2  # type: ignore[misc]  # it is frozen: that is the test
