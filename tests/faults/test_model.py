"""The job protocol under seeded random schedules: its model, and the service on the doubles, which must do the same.

The long round: `python -m tests.faults.model --schedules 1000000 --seed 1`.
"""

from collections.abc import Iterator
from itertools import islice

import pytest

from tests.faults.model import rounds, sql
from tests.faults.model.mutants import MUTANTS
from tests.faults.model.play import ANY, INSIDE, LOOKING, PAUSES, SOME, How, Step, shrink
from tests.faults.model.rounds import Tally, Violation
from tests.faults.model.rule import Rule

#: Schedules of the short round, and how many of them the service plays too, which takes three times as long.
SCHEDULES, ON_SERVICE = 100_000, 30_000
#: How many of them the service plays with its real job store; they take about 20 s.
ON_SQL = 200
#: A rule that is missing is noticed within so many schedules.
SEEDS = range(20_000)
#: The service is tried with so many of the schedules with which the model goes wrong.
TRIES = 30
#: A call that does nothing but end a failed attempt is rare; each way must be seen this often with the others.
OFTEN = 10


@pytest.fixture(scope="module")
def tally() -> Tally:
    """One short round for all tests."""
    return rounds.tour(0, SCHEDULES, ON_SERVICE)


@pytest.mark.timeout(1800)
def test_nothing_is_lost_stuck_doubled_or_unlisted_whatever_goes_wrong(tally: Tally) -> None:
    assert (tally.schedules["model"], tally.schedules["service"]) == (SCHEDULES, ON_SERVICE)
    for violation in tally.violations[:1]:
        pytest.fail(rounds.told(violation))


@pytest.mark.timeout(1800)
def test_every_call_goes_wrong_in_every_way(tally: Tally) -> None:
    rare = {"catalogue.lookup", "jobs.note_part", "jobs.receiving", "jobs.release"}
    rare |= {"jobs.removed", "jobs.take_back", "jobs.unhinted"}
    calls = {call for call, _ in tally.happened if call} - PAUSES - INSIDE - LOOKING - rare
    assert len(calls) > 25, calls
    assert [(call, way) for call in calls for way in SOME.get(call, ANY) if tally.happened[call, way] < OFTEN] == []
    assert {how for _, how in tally.happened} >= set(How)


def test_a_seed_is_always_the_same_schedule() -> None:
    assert rounds.model(47).trace == rounds.model(47).trace
    assert rounds.service(47).trace == rounds.model(47).trace


@pytest.mark.parametrize("rule", Rule)
def test_the_judge_notices_a_rule_that_is_missing_in_the_model_and_in_the_service(rule: Rule) -> None:
    seeds: Iterator[int] = islice(rounds.reds(rule, rounds.model, SEEDS), TRIES)
    noticed = next(rounds.reds(rule, rounds.service, seeds), None)
    assert noticed is not None, f"without it, nothing goes wrong: {rule}"
    # It is the missing rule that is noticed, and nothing else.
    assert rounds.model(noticed).wrong == []


@pytest.mark.timeout(600)
def test_the_real_job_store_makes_the_same_calls_and_ends_alike() -> None:
    for seed, imagined, real in rounds.on_sql(range(ON_SQL)):
        assert (seed, real.wrong) == (seed, [])
        assert (seed, list(rounds.compare(imagined, real))) == (seed, [])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rule", sql.MUTANTS)
def test_the_judge_notices_a_rule_that_is_missing_in_the_real_job_store(rule: Rule) -> None:
    seeds = islice(rounds.reds(rule, rounds.model, SEEDS), TRIES)
    assert any(real.wrong for _, _, real in rounds.on_sql(seeds, sql.MUTANTS[rule])), rule


def test_every_rule_can_be_taken_away_from_the_service() -> None:
    assert set(MUTANTS) == set(Rule)


def test_the_service_without_a_rule_is_not_the_model() -> None:
    seed = next(rounds.reds(Rule.READ_BACK, rounds.service, SEEDS))
    assert list(rounds.compare(rounds.model(seed), rounds.service(seed, Rule.READ_BACK))) != []


def test_a_violation_is_told_with_its_fewest_steps() -> None:
    seed = next(rounds.reds(Rule.LOOK_UP, rounds.model, SEEDS))
    steps = rounds.model(seed).steps
    fewest = shrink(steps, lambda tried: bool(rounds.model(seed, Rule.LOOK_UP, tried).wrong))
    assert 0 < len(fewest) < len(steps)
    assert any(step.who and step.what is not How.OK for step in fewest), fewest
    for place in range(len(fewest)):
        assert not rounds.model(seed, Rule.LOOK_UP, fewest[:place] + fewest[place + 1 :]).wrong


def test_steps_that_cannot_be_taken_are_passed_over() -> None:
    steps = [Step("worker7", How.OK), Step("server0 heart", How.OK), Step("", "thaw", 3), Step("", "lose", 3)]
    played = rounds.model(1, steps=steps)
    assert (played.steps, played.wrong) == ([], [])


def test_a_violation_names_its_seed_and_its_steps() -> None:
    told = rounds.told(Violation(seed=47, side="model", faults=("lost: nothing of it is true",)))
    assert told.startswith("seed 47, model: Plan(seed=47")
    assert "lost: nothing of it is true" in told
