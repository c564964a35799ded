"""Every system call, SQL statement and HTTP call of an ingest and of a move fails once, in each way."""

from collections.abc import Sequence

import pytest

from pacifica.ingest.core.states import Kind
from tests.faults.calls.session import Session, all_jobs, run_all, table
from tests.faults.calls.traps import Call, Way
from tests.harness import PacificaCore

pytestmark = pytest.mark.timeout(900)

#: What a job with local neighbours asks of the system, at least.
SYSTEM_CALLS = {"create", "open", "read", "write", "fsync", "link", "unlink", "mkdir"}
STATEMENTS = {"PRAGMA", "BEGIN", "SELECT", "INSERT", "UPDATE", "COMMIT"}
REQUESTS = {"GET", "HEAD", "POST", "PUT"}
#: What each kind of job asks of the archive for its files.
ARCHIVING = {Kind.INGEST: "send PUT /*", Kind.MOVE: "send PATCH /*"}
#: Fewer calls than this were not counted right.
FEWEST = {Call.SYSTEM: 60, Call.STORAGE: 150, Call.SQL: 100, Call.HTTP: 10}
#: A call on a file of the database has no effect of its own that could be lost.
ROUNDS = [(call, way) for call in Call for way in Way if call is not Call.STORAGE or way in {Way.ERROR, Way.DEATH}]


@pytest.fixture(scope="session")
def sessions(core: PacificaCore, tmp_path_factory: pytest.TempPathFactory) -> list[Session]:
    """All rounds of all jobs."""
    found = run_all(all_jobs(core), tmp_path_factory.mktemp("calls"), is_short=True)
    print(table(found))  # noqa: T201 (shown when a test fails)
    return found


@pytest.mark.parametrize(("call", "way"), ROUNDS, ids=lambda value: value.name.lower())
@pytest.mark.parametrize("kind", Kind)
def test_whichever_call_fails_nothing_is_lost_stuck_doubled_or_unlisted(
    sessions: Sequence[Session], kind: Kind, call: Call, way: Way
) -> None:
    results = [
        result
        for session in sessions
        if session.job.kind is kind
        for result in session.results
        if (result.point.call, result.way) == (call, way)
    ]
    assert results
    wrong = [str(result) for result in results if result.faults]
    assert not wrong, f"seed {sessions[0].seed}\n" + "\n".join(wrong)


def test_a_job_whose_calls_all_succeed_is_done(sessions: Sequence[Session]) -> None:
    assert [session.faults for session in sessions] == [[]] * 8


def test_the_same_job_makes_the_same_calls_again(sessions: Sequence[Session]) -> None:
    assert [session.unlike for session in sessions] == [[]] * 8


def test_every_call_that_a_job_makes_fails_once_in_each_way(sessions: Sequence[Session]) -> None:
    for session in sessions:
        many = session.job.many(is_short=True)  # the command of `tests.faults.calls` tries them all
        for call in session.calls:
            assert session.counted[call] >= (1 if session.job.crashes else FEWEST[call]), session.job
            if call not in many:
                assert len(session.tried(call)) == session.counted[call], session.job
        rounds = {(result.point, result.way) for result in session.results}
        assert len(rounds) == len(session.results) == session.planned, session.job


def test_calls_of_every_kind_are_counted(sessions: Sequence[Session]) -> None:
    for session in sessions:
        if session.job.crashes:
            continue
        words = {call: {label.partition(" ")[0] for label, _ in session.tried(call)} for call in Call}
        if session.job.core:
            assert words[Call.HTTP] >= REQUESTS
            assert ARCHIVING[session.job.kind] in {label for label, _ in session.tried(Call.HTTP)}
        else:
            assert words[Call.SYSTEM] >= SYSTEM_CALLS
            assert words[Call.SQL] >= STATEMENTS
            assert words[Call.STORAGE] >= {"read", "write", "fsync"}
