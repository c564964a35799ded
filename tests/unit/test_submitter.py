"""Whether who submits is who sent it, for each way to know."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest

from pacifica.ingest.core.errors import NeighbourDown, PolicyRefused
from pacifica.ingest.core.states import Step
from pacifica.ingest.submitter import SubmitterPolicy
from pacifica.ingest.testing import BundleBuilder, Faults, MemoryCatalogue, MemoryPolicy
from tests.unit.floor import Floor

PEOPLE = {"dmlb2001": {"10"}, "twice": {"10", "11"}, "30": {"31"}}
DOWN = NeighbourDown("metadata", "away")


class Desk:
    """A policy that allows all, behind the comparison."""

    def __init__(
        self, mode: Literal["off", "warn", "on"], people: Mapping[str, set[str]] | None, faults: Faults | None = None
    ) -> None:
        self.inner = MemoryPolicy()
        self.catalogue = MemoryCatalogue(faults)
        self.catalogue.people = people
        self.policy = SubmitterPolicy(self.inner, self.catalogue, mode)

    def ask(self, submitter: object, user: str) -> bool:
        """Whether it is allowed."""
        try:
            self.policy.permit(BundleBuilder(submitter=submitter).document(), user)
        except PolicyRefused as fault:
            said = str(fault)
        else:
            assert len(self.inner.asked) == 1
            return True
        assert self.inner.asked == []
        assert repr(str(submitter)) in said
        assert repr(user) in said
        return False


@pytest.mark.parametrize(
    ("people", "submitter", "user", "allowed"),
    [
        # A catalogue that knows persons: the login decides, whatever it looks like.
        (PEOPLE, "10", "dmlb2001", True),
        (PEOPLE, 10, "dmlb2001", True),
        (PEOPLE, "11", "dmlb2001", False),
        (PEOPLE, "dmlb2001", "dmlb2001", False),
        (PEOPLE, "11", "twice", True),
        (PEOPLE, "31", "30", True),
        (PEOPLE, "30", "30", False),
        # A user whom it does not know may be named by the id itself.
        (PEOPLE, "10", "10", True),
        (PEOPLE, "10", "11", False),
        (PEOPLE, "10", "anonymous", False),
        # A catalogue without persons.
        (None, "10", "10", True),
        (None, 10, "10", True),
        (None, "dmlb2001", "dmlb2001", True),
        (None, "10", "dmlb2001", False),
        (None, "dmlb2001", "DMLB2001", False),
    ],
)
def test_the_submitter_is_the_user(
    people: Mapping[str, set[str]] | None, submitter: object, user: str, *, allowed: bool
) -> None:
    assert Desk("on", people).ask(submitter, user) is allowed


@pytest.mark.parametrize("mode", ["off", "warn"])
def test_who_is_somebody_else_may_submit_unless_it_is_enforced(
    mode: Literal["off", "warn"], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert Desk(mode, PEOPLE).ask("11", "dmlb2001")
    assert [record.user for record in caplog.records] == (["dmlb2001"] if mode == "warn" else [])


def test_a_match_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert Desk("warn", PEOPLE).ask("10", "dmlb2001")
    assert caplog.records == []


@pytest.mark.parametrize("mode", ["off", "warn", "on"])
def test_a_catalogue_that_is_away_is_waited_for_only_where_it_matters(
    mode: Literal["off", "warn", "on"], caplog: pytest.LogCaptureFixture
) -> None:
    faults = Faults()
    faults.fail("catalogue.people_of", error=DOWN)
    desk = Desk(mode, PEOPLE, faults)
    if mode == "on":
        with pytest.raises(NeighbourDown):
            desk.ask("11", "dmlb2001")
        assert desk.ask("10", "dmlb2001")
    else:
        assert desk.ask("11", "dmlb2001")
        assert len(caplog.records) == (mode == "warn")


def test_the_judgement_of_policy_is_asked_for_as_before() -> None:
    desk = Desk("on", None)
    desk.inner.refusal = "not this project"
    with pytest.raises(PolicyRefused, match="not this project"):
        desk.policy.permit(BundleBuilder(submitter="10").document(), "10")


@pytest.mark.parametrize(("user", "ends"), [("10", "done"), ("11", "failed")])
def test_a_job_of_somebody_else_fails_at_the_step_of_policy(tmp_path: Path, user: str, ends: str) -> None:
    floor = Floor(tmp_path, enforce_submitter="on")
    job = floor.upload(user=user)
    floor.run(job)
    if ends == "done":
        floor.assert_done(job)
    else:
        floor.assert_failed(job, Step.POLICY, "'10'")
        assert floor.archive.objects == {}
