"""The documented addresses, as classes for CherryPy's dispatch by method.

Each is a few lines: what a request means is decided in `intake` and `store`.
"""

import re
from collections.abc import Iterator
from functools import partial

import cherrypy
from cherrypy import dispatch

from pacifica.ingest.app import Service, current
from pacifica.ingest.core.errors import BadRequest, TooLarge, Unavailable
from pacifica.ingest.core.jobs import Job, Status
from pacifica.ingest.core.states import Kind, State, Step
from pacifica.ingest.core.wire import status_body
from pacifica.ingest.intake import Body
from pacifica.ingest.rest.answer import json_bytes, refusals
from pacifica.ingest.rest.body import receive

__all__ = ["Addresses", "RestIngestState", "RestMove", "RestUpload", "Root"]

#: The largest document of a move that is taken, in bytes: about 150,000 files.  It is read into memory later.
MOVE_BYTES = 64 * 1024 * 1024

_JOB_ID = re.compile(r"[0-9]{1,19}")
_KEY = re.compile(r'"(?P<quoted>[!#-~]{1,255})"|(?P<plain>[!#-~]{1,255})')


@cherrypy.expose
class RestUpload:
    """`/upload` and `/ingest`: takes a bundle."""

    def POST(self) -> bytes:  # noqa: N802 (CherryPy's dispatch)
        """Make a job of the request's body; the answer is the job."""
        with refusals():
            return _accept(Kind.INGEST, receive(cherrypy.serving.request.wsgi_environ))


@cherrypy.expose
class RestMove:
    """`/move`: takes a metadata document whose files have a `source`."""

    def POST(self) -> bytes:  # noqa: N802 (CherryPy's dispatch)
        """Make a job of the request's body; the answer is the job.  What is wrong in it is found by the job."""
        with refusals():
            return _accept(Kind.MOVE, _limited(receive(cherrypy.serving.request.wsgi_environ), MOVE_BYTES))


@cherrypy.expose
class RestIngestState:
    """`/get_state`: tells of a job."""

    def GET(self, job_id: object = "") -> bytes:  # noqa: N802 (CherryPy's dispatch)
        """The job of a number that is given in the query or as a part of the path."""
        with refusals():
            return _told(current(), _number(job_id))


@cherrypy.expose
class Root:
    """`/`: says that the service runs."""

    def __init__(self) -> None:
        """Hang the other addresses below."""
        self.ingest = self.upload = RestUpload()
        self.move = RestMove()
        self.get_state = RestIngestState()

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


def _accept(kind: Kind, body: Body) -> bytes:
    service = current()
    ingest = service.settings.ingest
    headers = cherrypy.serving.request.headers
    user = headers.get(ingest.auth_header) or ingest.default_user
    job = service.intake.accept(kind, user, body, _key(headers.get("Idempotency-Key")))
    # After the answer is sent: a slow broker delays nobody.
    cherrypy.serving.request.hooks.attach("on_end_request", partial(service.intake.hint, job))
    try:
        return _told(service, job.job_id)
    except Unavailable:
        # The bundle is safe: a client that was told otherwise would send it twice.
        return json_bytes(status_body(_accepted(job)))


def _told(service: Service, job_id: int) -> bytes:
    return json_bytes(status_body(service.store.status(job_id)))


def _accepted(job: Job) -> Status:
    """What a job looks like when it was just accepted."""
    return Status(
        job_id=job.job_id,
        state=State.OK,
        step=Step.UPLOADING,
        percent=100.0,
        reason="",
        complete=False,
        created=job.not_before,
        updated=job.not_before,
    )


def _number(job_id: object) -> int:
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        msg = f"job_id: expected one number, got {str(job_id)[:40]!r}"
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
    return Body(chunks=_counted(body, limit), length=body.length)


def _counted(body: Body, limit: int) -> Iterator[bytes | memoryview]:
    found = 0
    for chunk in body.chunks:
        found += len(chunk)
        if found > limit:
            raise TooLarge(limit)
        yield chunk
