"""One claim while it is being worked on: its heart, its patience and its progress."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacifica.ingest.core.errors import ClaimLost, DatabaseDown, Stopping
from pacifica.ingest.core.jobs import Claim
from pacifica.ingest.core.states import Kind, Step
from pacifica.ingest.local.pool import GRACE_S
from pacifica.ingest.ports import Receipt
from pacifica.ingest.testing import Faults, ManualClock
from pacifica.ingest.work import FINISHING_S, Work
from tests.harness.waiting import until
from tests.unit.floor import Store

#: Short, as the heart waits in real time: it beats every 5 ms here.
LEASE_S = 0.03


def test_a_stop_waits_for_less_than_a_pool_gives_its_workers() -> None:
    assert FINISHING_S < GRACE_S


class WatchedClock(ManualClock):
    """A clock that counts how often a heart looks at it."""

    looks = 0

    def monotonic(self) -> float:
        if threading.current_thread() is not threading.main_thread():
            self.looks += 1
        return super().monotonic()


class Bench:
    """A claimed job and the work on it."""

    def __init__(self) -> None:
        self.clock = WatchedClock()
        self.faults = Faults()
        self.store = Store(self.clock, self.faults)
        self.store.open(5, Kind.INGEST, "dmlb2001", "upload")
        self.store.accept(5, "upload", Receipt(path=Path("/5.tar"), size_bytes=1))
        self.claim = self._claim()
        self.is_stopping = False
        self.work = Work(
            self.claim, store=self.store, clock=self.clock, lease_s=LEASE_S, stopping=lambda: self.is_stopping
        )

    def _claim(self) -> Claim:
        claim = self.store.claim(5, "worker")
        assert claim is not None
        return claim

    @property
    def beats(self) -> int:
        return self.faults.calls.count("jobs.beat")

    def heart_beats(self) -> None:
        """Wait for two beats: the first may have begun before."""
        before = self.beats
        until(lambda: self.beats >= before + 2, "the heart to beat")

    def heart_stands_still(self) -> None:
        """Wait until the heart looked at the clock often and did not beat."""
        self._looks()
        before = self.beats
        self._looks()
        assert self.beats == before

    def _looks(self) -> None:
        before = self.clock.looks
        until(lambda: self.clock.looks >= before + 3, "the heart to look at the clock")


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.work:
        yield bench


# --- the heart


def test_the_heart_beats_until_the_work_ends() -> None:
    bench = Bench()
    with bench.work:
        bench.heart_beats()
    assert not any("heart" in thread.name for thread in threading.enumerate())


def test_work_that_shows_nothing_for_a_lease_has_no_heartbeat(bench: Bench) -> None:
    bench.clock.advance(LEASE_S + 0.001)
    bench.heart_stands_still()
    bench.work.advance()
    bench.heart_beats()


def test_the_heart_beats_while_work_has_patience_and_no_longer(bench: Bench) -> None:
    with bench.work.patience(300):
        bench.clock.advance(300)
        bench.heart_beats()
        bench.clock.advance(1)
        bench.heart_stands_still()


def test_patience_holds_after_a_sign_of_progress(bench: Bench) -> None:
    with bench.work.patience(300):
        bench.clock.advance(200)
        bench.work.advance(1)
        bench.clock.advance(200)
        bench.heart_beats()


@pytest.mark.parametrize("error", [None, ValueError])
def test_patience_ends_with_the_call(bench: Bench, error: type[Exception] | None) -> None:
    def call() -> None:
        with bench.work.patience(300):
            if error is not None:
                raise error

    if error is None:
        call()
    else:
        with pytest.raises(error):
            call()
    bench.clock.advance(LEASE_S + 0.001)
    bench.heart_stands_still()


def test_the_time_of_day_is_nothing_to_the_heart(bench: Bench) -> None:
    bench.clock.jump(1e6)
    bench.heart_beats()
    bench.clock.jump(-2e6)
    bench.heart_beats()


def test_a_heart_outlives_a_database_that_is_away(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.faults.fail("jobs.beat", error=DatabaseDown("away"), times=3)
    until(lambda: "heartbeat was not written" in caplog.text, "a beat to fail")
    before = bench.store.job(5).heartbeat
    until(lambda: bench.store.job(5).heartbeat > before, "the heart to beat again")


def test_a_lost_claim_is_noticed_by_the_heart_and_ends_the_work(bench: Bench) -> None:
    assert bench.store.take_over(bench.store.job(5))
    until(lambda: not any("heart" in thread.name for thread in threading.enumerate()), "the heart to stop")
    with pytest.raises(ClaimLost):
        bench.work.advance(1)
    assert bench.store.told == []


# --- progress


def test_a_step_is_told_at_once(bench: Bench) -> None:
    bench.work.begin(Step.OPEN_TAR)
    bench.work.begin(Step.LOAD_METADATA)
    assert bench.store.told == [(Step.OPEN_TAR, 0), (Step.LOAD_METADATA, 0)]
    assert bench.work.step is Step.LOAD_METADATA


def test_progress_is_told_once_a_second(bench: Bench) -> None:
    bench.work.begin(Step.INGEST_FILES, 1000)
    for _ in range(40):
        bench.clock.advance(0.25)
        bench.work.advance(10)
    assert bench.store.told == [(Step.INGEST_FILES, percent) for percent in range(0, 41, 4)]


def test_progress_starts_again_with_every_step(bench: Bench) -> None:
    bench.work.begin(Step.INGEST_FILES, 10)
    bench.work.advance(10)
    bench.work.begin(Step.INGEST_METADATA, 4)
    bench.clock.advance(1)
    bench.work.advance(1)
    assert bench.store.told[-1] == (Step.INGEST_METADATA, 25)


def test_percent_is_never_more_than_100_and_0_without_a_total(bench: Bench) -> None:
    for total, percent in [(10, 100), (0, 0)]:
        bench.work.begin(Step.INGEST_FILES, total)
        bench.clock.advance(1)
        bench.work.advance(11)
        assert bench.store.told[-1] == (Step.INGEST_FILES, percent)


def test_a_database_that_is_away_does_not_stop_the_work(bench: Bench) -> None:
    bench.faults.fail("jobs.report", error=DatabaseDown("away"), times=2)
    bench.work.begin(Step.INGEST_FILES, 10)
    bench.clock.advance(1)
    bench.work.advance(1)
    bench.clock.advance(1)
    bench.work.advance(1)
    assert bench.store.told == [(Step.INGEST_FILES, 20)]


def test_a_lost_claim_ends_the_work_with_its_next_report(bench: Bench) -> None:
    bench.faults.fail("jobs.beat", error=DatabaseDown("away"), times=10**6)
    assert bench.store.take_over(bench.store.job(5))
    with pytest.raises(ClaimLost):
        bench.work.begin(Step.OPEN_TAR)


def test_a_process_that_is_to_end_ends_the_work(bench: Bench) -> None:
    bench.is_stopping = True
    with pytest.raises(Stopping):
        bench.work.advance(1)
    with pytest.raises(Stopping):
        bench.work.begin(Step.OPEN_TAR)
    assert bench.store.told == []
