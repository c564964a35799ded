"""What `ports.Policy` promises, on every adapter."""

import pytest

from pacifica.ingest.core.errors import PolicyRefused
from pacifica.ingest.core.metadata import Document, Registration
from pacifica.ingest.ports import Policy
from tests.harness import ALLOWED, ALLOWED_TOO, REFUSED, UNKNOWN, Submission

FILE = {
    "destinationTable": "Files",
    "name": "a.txt",
    "subdir": "data/b",
    "size": 0,
    "mimetype": "text/plain",
    "mtime": "2024-01-01T00:00:00",
    "ctime": "2024-01-01T00:00:00",
    "hashtype": "md5",
    "hashsum": "d41d8cd98f00b204e9800998ecf8427e",
}


def document(who: Submission) -> Registration:
    return Document.of([*who.document(), FILE]).registration(7)


@pytest.mark.parametrize("who", [ALLOWED, ALLOWED_TOO], ids=lambda who: who.login)
def test_who_belongs_to_project_and_instrument_may_submit(policy: Policy, who: Submission) -> None:
    policy.permit(document(who), who.login)


def test_asking_twice_gives_the_same_answer(policy: Policy) -> None:
    for _ in range(2):
        policy.permit(document(ALLOWED), ALLOWED.login)
        with pytest.raises(PolicyRefused):
            policy.permit(document(REFUSED), REFUSED.login)


@pytest.mark.parametrize("who", [REFUSED, UNKNOWN], ids=["no member", "unknown"])
def test_anybody_else_is_refused_with_a_reason(policy: Policy, who: Submission) -> None:
    with pytest.raises(PolicyRefused) as refusal:
        policy.permit(document(who), who.login)
    assert len(refusal.value.reason) > 20
    assert "Traceback" not in refusal.value.reason


@pytest.mark.parametrize("user", ["zoë", "花子", "dmlb2001@EXAMPLE.ORG", "a b"])
def test_any_printable_name_of_a_user_is_taken(policy: Policy, user: str) -> None:
    policy.permit(document(ALLOWED), user)
