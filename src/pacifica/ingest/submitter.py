"""Whether who submits is who sent it.

The document of a bundle says who submits, by the id of a person; the request says who sent it, by the name that a proxy
authenticated.  Policy compares neither.  Fulfils `ports.Policy`: `app` puts it before the real one when the operator wants
it (`[ingest] enforce_submitter`).

A catalogue that knows persons says which of them have the name as their login, and the submitter must be one of those.  A
name that nobody has there, and any name where the catalogue knows no persons, must be the id itself.
"""

import logging
from typing import Literal

from pacifica.ingest.core.errors import PolicyRefused, Unavailable
from pacifica.ingest.core.metadata import Registration, submission
from pacifica.ingest.ports import Catalogue, Policy

__all__ = ["Enforcement", "SubmitterPolicy"]

logger = logging.getLogger(__name__)

Enforcement = Literal["off", "warn", "on"]


class SubmitterPolicy:
    """`ports.Policy` that compares, and then asks another one."""

    def __init__(self, policy: Policy, catalogue: Catalogue, mode: Enforcement) -> None:
        """Compare by `catalogue`, then ask `policy`."""
        self._policy = policy
        self._catalogue = catalogue
        self._mode = mode

    def permit(self, document: Registration, user: str) -> None:
        """See `ports.Policy.permit`.

        Raises:
            PolicyRefused: also when somebody else submits, and that is enforced.
            NeighbourDown: also when that cannot be known for now, and is enforced; retryable.

        """
        if self._mode == "on":
            self._compare(document, user)
        elif self._mode == "warn":
            try:
                self._compare(document, user)
            except (PolicyRefused, Unavailable) as fault:
                logger.warning("enforce_submitter would stop a job", extra={"user": user, "reason": str(fault)})
        self._policy.permit(document, user)

    def _compare(self, document: Registration, user: str) -> None:
        submitter = submission(document)["submitter"]
        allowed = self._catalogue.people_of(user) or {user}
        if submitter not in allowed:
            reason = f"The submitter {submitter!r} is not the user {user!r} who sent this ([ingest] enforce_submitter)."
            raise PolicyRefused(reason)
