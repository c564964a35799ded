"""The legal moves of a job, and how long it waits."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacifica.ingest.core.jobs import LONGEST_DELAY_S, MOVES, SHORTEST_DELAY_S, Claim, Job, retry_delay_s
from pacifica.ingest.core.states import Kind, Phase

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


def test_a_job_is_changed_by_replacing_it() -> None:
    now = datetime.now(UTC)
    job = Job(
        job_id=1, kind=Kind.MOVE, phase=Phase.READY, epoch=0, worker="", heartbeat=0, attempt=0, not_before=now,
        failing=None, lost_owners=0, waiting_for="", frozen=False, user="me", path="1.json", size_bytes=2,
    )  # fmt: skip
    claim = Claim(job=dataclasses.replace(job, epoch=1), epoch=1)
    assert claim.job_id == job.job_id
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.epoch = 2  # type: ignore[misc]  # it is frozen: that is the test
