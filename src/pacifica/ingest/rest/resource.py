"""The documented addresses, as classes for CherryPy's dispatch by method.

Each is a few lines: what a request means is decided in `intake` and `store`.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import cherrypy
from cherrypy import dispatch

from pacifica.ingest.app import Service, current
from pacifica.ingest.core.errors import BadRequest, NoSuchJob, TooLarge, Unavailable, Unconfirmed, UntrustedPeer
from pacifica.ingest.core.jobs import Status
from pacifica.ingest.core.states import Kind, State, Step
from pacifica.ingest.core.wire import status_body
from pacifica.ingest.intake import Body
from pacifica.ingest.rest import openapi
from pacifica.ingest.rest.answer import json_bytes, refusals
from pacifica.ingest.rest.body import receive
from pacifica.ingest.rest.discretion import for_clients
from pacifica.ingest.rest.field import announced
from pacifica.ingest.rest.identity import user_of
from pacifica.ingest.rest.pace import Pace

__all__ = ["Addresses", "RestIngestState", "RestMove", "RestUpload", "Root", "told"]

logger = logging.getLogger(__name__)

_JOB_ID = re.compile(r"[0-9]{1,19}")
_KEY = re.compile(r'"(?P<quoted>[!#-~]{1,255})"|(?P<plain>[!#-~]{1,255})')


@cherrypy.expose
class RestUpload:
    """`/upload` and `/ingest`: takes a bundle."""

    def POST(self) -> bytes:  # noqa: N802 (CherryPy's dispatch)
        """Make a job of the request's body; the answer is the job."""
        with refusals():
            return _accept(Kind.INGEST, _body())


@cherrypy.expose
class RestMove:
    """`/move`: takes a metadata document whose files have a `source`."""

    def POST(self) -> bytes:  # noqa: N802 (CherryPy's dispatch)
        """Make a job of the request's body; the answer is the job.  What is wrong in it is found by the job."""
        with refusals():
            limit = current().settings.ingest.max_metadata_size
            return _accept(Kind.MOVE, _limited(_body(), limit))


@cherrypy.expose
class RestIngestState:
    """`/get_state`: tells of a job."""

    def GET(self, job_id: object = "") -> bytes:  # noqa: N802 (CherryPy's dispatch)
        """The job of a number that is given in the query or as a part of the path."""
        with refusals():
            service, number = current(), _number(job_id)
            if service.settings.ingest.own_jobs_only:
                # Who asks comes first: what cannot be told for sure is refused, whether there is such a job or not.
                user = _user(service)
                if service.store.job(number).user != user:
                    raise NoSuchJob(number)
            return _told(service, number)


@cherrypy.expose
class OpenApi:
    """`/openapi.json`: describes the addresses to programs."""

    def GET(self) -> bytes:  # noqa: N802 (CherryPy's dispatch)
        """The document."""
        return json_bytes(openapi.document())


@cherrypy.expose
class Root:
    """`/`: says that the service runs."""

    def __init__(self) -> None:
        """Hang the other addresses below."""
        self.ingest = self.upload = RestUpload()
        self.move = RestMove()
        self.get_state = RestIngestState()
        # CherryPy finds `/openapi.json` by this name.
        self.openapi_json = OpenApi()

    def GET(self) -> bytes:  # noqa: N802 (CherryPy's dispatch)
        """The documented message."""
        return json_bytes({"message": "Pacifica Ingest Up and Running"})


class Addresses(dispatch.MethodDispatcher):  # type: ignore[misc]  # CherryPy has no types
    """Finds the class of an address; what is no address is unknown to every method."""

    def find_handler(self, path: str) -> tuple[object, list[str]]:
        """The class, and the parts of the path that it gets as arguments."""
        resource, rest = super().find_handler(path)
        if rest and not isinstance(resource, RestIngestState):
            return None, []
        return resource, rest


def _body() -> Body:
    environ = cherrypy.serving.request.wsgi_environ
    return replace(receive(environ, Pace.of(current().settings)), digests=announced(environ))


def _accept(kind: Kind, body: Body) -> bytes:
    service = current()
    key = _key(cherrypy.serving.request.headers.get("Idempotency-Key"))
    try:
        job = service.intake.accept(kind, _user(service), body, key)
    except Unconfirmed as fault:
        cherrypy.serving.response.status = fault.status
        return json_bytes(status_body(_new(fault.job_id, datetime.now(UTC))))
    # After the answer is sent: a slow broker delays nobody.
    cherrypy.serving.request.hooks.attach("on_end_request", partial(service.intake.hint, job))
    try:
        return _told(service, job.job_id)
    except Unavailable:
        # The bundle is safe: a client that was told otherwise would send it twice.
        return json_bytes(status_body(_new(job.job_id, job.not_before)))


def _user(service: Service) -> str:
    try:
        return user_of(cherrypy.serving.request.wsgi_environ, service.settings.ingest)
    except UntrustedPeer as fault:
        logger.warning("a user is named by a peer that is no trusted proxy", extra={"peer": fault.peer})
        raise


def told(job_id: int) -> bytes:
    """What `/get_state` tells of a job to anybody; `shortcut` asks for it.

    Raises:
        IngestError: as the store does.

    """
    return json.dumps(_shown(current(), job_id)).encode("ascii")


def _told(service: Service, job_id: int) -> bytes:
    return json_bytes(_shown(service, job_id))


def _shown(service: Service, job_id: int) -> Mapping[str, object]:
    status = service.store.status(job_id)
    return status_body(replace(status, reason=for_clients(status.reason, service.settings)))


def _new(job_id: int, now: datetime) -> Status:
    """What a job looks like when it was just accepted."""
    return Status(
        job_id=job_id,
        state=State.OK,
        step=Step.UPLOADING,
        percent=100.0,
        reason="",
        complete=False,
        created=now,
        updated=now,
    )


def _number(job_id: object) -> int:
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        msg = f"job_id: expected one number of at most 19 digits, got {str(job_id)[:40]!r}"
        raise BadRequest(msg)
    return int(job_id)


def _key(header: str | None) -> str:
    """The key of a request that may be sent again; quotes, which the draft wants, make no difference."""
    if header is None:
        return ""
    match = _KEY.fullmatch(header)
    if not match:
        msg = "Idempotency-Key: expected 1 to 255 visible ASCII characters, in quotes or without."
        raise BadRequest(msg)
    return match["quoted"] or match["plain"]


def _limited(body: Body, limit: int) -> Body:
    if body.length is not None and body.length > limit:
        raise TooLarge(limit)
    return replace(body, chunks=_counted(body, limit))


def _counted(body: Body, limit: int) -> Iterator[bytes | memoryview]:
    found = 0
    for chunk in body.chunks:
        found += len(chunk)
        if found > limit:
            raise TooLarge(limit)
        yield chunk
