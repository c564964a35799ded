"""Answers: JSON for what went well and for what went wrong.

Every error has the documented shape with an empty traceback; traces go to the log.  Not the addresses (`resource`).
"""

import html
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import cherrypy
from cherrypy import _cprequest

from pacifica.ingest.app import current
from pacifica.ingest.core.errors import ClaimLost, IngestError, Unavailable
from pacifica.ingest.core.text import printable
from pacifica.ingest.core.wire import error_body
from pacifica.ingest.rest.discretion import for_clients

__all__ = ["Refusal", "Request", "error_json", "error_page_default", "json_bytes", "refusals"]

logger = logging.getLogger(__name__)

#: When to come again, in seconds, if waiting may help.
RETRY_AFTER_S = 10

#: Codes whose word is not that of the HTTP status.
_WORDS = {"408": "too_slow", "413": "too_large", "500": "internal_error"}
_INTERNAL = "The service failed at this request by a fault of its own; its log has the details."
_GIVEN_UP = (
    "The upload was given up: it stood still for too long, or an operator ended it. Nothing was kept; send it again."
)


def json_bytes(body: Mapping[str, object]) -> bytes:
    """A JSON answer; sets its Content-Type."""
    cherrypy.serving.response.headers["Content-Type"] = "application/json"
    return json.dumps(body).encode("ascii")


def error_json(status: str, message: str, code: str | None = None) -> bytes:
    """The body of an error.

    Args:
        status: as `404 Not Found`.
        message: for people.
        code: for programs; the words of the status when None.

    """
    number, _, phrase = status.partition(" ")
    word = code or _WORDS.get(number) or re.sub(r"[^a-z]+", "_", phrase.lower())
    return json.dumps(error_body(status, message, word, cherrypy.__version__)).encode("ascii")


def error_page_default(**kwargs: str) -> bytes:
    """The documented error page: JSON, whatever went wrong.

    Args:
        kwargs: `status`, `message`, `traceback` and `version`, as CherryPy gives them; the traceback is not told.

    """
    cherrypy.serving.response.headers["Content-Type"] = "application/json"
    # CherryPy escapes the message, as it thinks of HTML, and shows an address as it was meant.
    return error_json(kwargs.get("status", ""), printable(html.unescape(kwargs.get("message", ""))))


class Refusal(cherrypy.HTTPError):  # type: ignore[misc]  # CherryPy has no types
    """An error of ours on its way to the client."""

    def __init__(self, fault: IngestError) -> None:
        """Tell `fault`; one that is no business of clients is logged, and told in general."""
        self._fault = fault
        own = fault.status == 500  # noqa: PLR2004 (the HTTP status)
        if own:
            logger.error("request failed", exc_info=fault)
        super().__init__(fault.status, _INTERNAL if own else for_clients(str(fault), current().settings))

    def set_response(self) -> None:
        """Make the answer; called by CherryPy."""
        super().set_response()
        response = cherrypy.serving.response
        response.body = error_json(f"{self.code} {self.reason}", self._message, self._fault.code)
        response.headers.pop("Content-Length", None)
        if self._fault.retryable:
            response.headers["Retry-After"] = str(RETRY_AFTER_S)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn errors of ours into answers."""
    try:
        yield
    except ClaimLost as fault:
        raise Refusal(Unavailable(_GIVEN_UP)) from fault
    except IngestError as fault:
        raise Refusal(fault) from fault


class Request(_cprequest.Request):  # type: ignore[misc]  # CherryPy has no types
    """A CherryPy request as this service needs it, whatever the CherryPy file says."""

    #: Bodies are read by `body`, in any Content-Type.
    process_request_body = False
    show_tracebacks = False
    #: Also for what fails before the configuration of the address is known.
    error_page = {"default": error_page_default}  # noqa: RUF012 (copied by CherryPy for each request)

    def process_headers(self) -> None:
        """Read the headers; those that cannot be decoded are the sender's fault."""
        try:
            super().process_headers()
        except (LookupError, ValueError) as fault:
            raise cherrypy.HTTPError(400, "A header cannot be decoded.") from fault
