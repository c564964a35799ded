"""Reference data: who may upload what, in every `PacificaCore`.

What it is: the submissions that Policy accepts or refuses, and the objects that must be
in Metadata for it to do so.

What it is not: the loading (see `tests.harness.core`).

Who may call it: `tests.harness.core` and tests.
"""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["ADMIN", "ADMIN_GROUP", "ALLOWED", "ALLOWED_TOO", "REFUSED", "UNKNOWN", "Submission", "reference_objects"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Who submits data, for which project, from which instrument.

    Attributes:
        submitter: Number of the user.
        project: Identifier of the project.
        instrument: Number of the instrument.
        login: The user's network name, by which pacifica-cli knows them.
    """

    submitter: int
    project: str
    instrument: int
    login: str

    def document(self) -> list[dict[str, Any]]:
        """Return the three entries of a ``metadata.txt`` that say so."""
        values = {
            "submitter": self.submitter,
            "project": self.project,
            "instrument": self.instrument,
        }
        return [{"destinationTable": f"Transactions.{key}", "value": value} for key, value in values.items()]


#: Policy accepts it: the user is a member of the project, which uses the instrument.
ALLOWED = Submission(submitter=10, project="1234a", instrument=54, login="dmlb2001")
#: Policy accepts it: another user, project and instrument.
ALLOWED_TOO = Submission(submitter=20, project="1235b", instrument=74, login="second")
#: Policy refuses it: all three exist, but the user is no member of that project.
REFUSED = Submission(submitter=10, project="1235b", instrument=74, login="dmlb2001")
#: Policy refuses it: nobody of that number.
UNKNOWN = Submission(submitter=8192, project="1234a", instrument=54, login="nobody")
#: Policy accepts it: members of its admin group may submit for every project.
ADMIN = Submission(submitter=100, project="1235b", instrument=74, login="admin")

#: Number of the group whose members may submit for every project.
ADMIN_GROUP = 42


def reference_objects() -> list[tuple[str, list[dict[str, Any]]]]:
    """Return what Policy must know, in an order in which each thing finds its parts."""
    members = (ALLOWED, ALLOWED_TOO)
    users = (*members, ADMIN)
    member_of: dict[str, Any] = {"relationship": "member_of"}
    return [
        ("institutions", [{"_id": 47, "name": "Test Institute", "association_cd": "UNK"}]),
        (
            "users",
            [
                {
                    "_id": user.submitter,
                    "first_name": user.login.capitalize(),
                    "last_name": "Tester",
                    "network_id": user.login,
                    "email_address": f"{user.login}@example.com",
                }
                for user in users
            ],
        ),
        (
            "projects",
            [
                {
                    "_id": user.project,
                    "title": f"Project {user.project}",
                    "short_name": user.project,
                    "abstract": "Data that tests upload.",
                    "project_type": "test",
                    "submitted_date": "2020-01-02T03:04:05",
                    "accepted_date": "2020-01-03",
                    "actual_start_date": "2020-01-04",
                }
                for user in members
            ],
        ),
        (
            "instruments",
            [
                {
                    "_id": user.instrument,
                    "name": f"Instrument {user.instrument}",
                    "name_short": f"I{user.instrument}",
                    "display_name": f"Instrument {user.instrument}",
                    "active": True,
                }
                for user in members
            ],
        ),
        (
            "groups",
            [{"_id": user.instrument, "name": f"group_{user.instrument}"} for user in members]
            + [{"_id": ADMIN_GROUP, "name": "admin", "is_admin": True}],
        ),
        (
            "institution_user",
            [{"institution": 47, "user": user.submitter} | member_of for user in users],
        ),
        (
            "instrument_user",
            [
                {
                    "instrument": ADMIN.instrument,
                    "user": ADMIN.submitter,
                    "relationship": "custodian",
                }
            ],
        ),
        (
            "instrument_group",
            [{"instrument": user.instrument, "group": user.instrument} for user in members],
        ),
        (
            "project_group",
            [{"project": user.project, "group": user.instrument} for user in members],
        ),
        (
            "project_instrument",
            [
                {
                    "project": user.project,
                    "instrument": user.instrument,
                    "relationship": "upload_required",
                }
                for user in members
            ],
        ),
        (
            "project_user",
            [{"project": user.project, "user": user.submitter} | member_of for user in members],
        ),
        ("user_group", [{"user": ADMIN.submitter, "group": ADMIN_GROUP}]),
    ]
