"""The judgement of the Policy service.  Fulfils `ports.Policy`.

Source: `POST /ingest`, measured on pacifica-policy 0.8.3.
"""

from http import HTTPStatus

from pacifica.ingest.core.errors import PolicyRefused, Refused
from pacifica.ingest.core.metadata import Registration
from pacifica.ingest.neighbours.http import TIMEOUTS, Client, Timeouts

__all__ = ["HttpPolicy"]


class HttpPolicy:
    """`ports.Policy` over HTTP."""

    def __init__(self, url: str, auth_header: str, *, timeouts: Timeouts = TIMEOUTS) -> None:
        """Post documents to `url`, with the user in the header `auth_header`."""
        self._client = Client("policy", url, connections=4, timeouts=timeouts)
        self._auth_header = auth_header

    def permit(self, document: Registration, user: str) -> None:
        """See `ports.Policy.permit`.

        Raises:
            Refused: the document is longer than the service takes; not retryable.
            NeighbourDown: any other answer.  A 500 may mean trouble or a document of odd shape: nobody can tell.

        """
        if not user.isprintable():
            reason = f"The name of the user, {user!r}, has characters that no HTTP header can carry."
            raise PolicyRefused(reason)
        answer = self._client.ask_list("POST", "", document, headers={self._auth_header: _header(user)})
        if answer.status == HTTPStatus.OK and answer.field("status") == "success":
            return
        if answer.status == HTTPStatus.PRECONDITION_FAILED:
            raise PolicyRefused(answer.words() or "Policy refuses, and does not say why.")
        if answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            msg = "The metadata is longer than Policy takes: send fewer files in one bundle."
            raise Refused(msg)
        raise self._client.down(answer)


def _header(text: str) -> str:
    """A name as it came in, when it came in a header; any other as UTF-8.  The HTTP client writes Latin-1."""
    return text if max(text, default="") <= "\xff" else text.encode().decode("latin-1")
