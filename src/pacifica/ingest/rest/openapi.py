"""The documented addresses as an OpenAPI 3.1 document, served at `/openapi.json`.

It says what `docs/http.md` says, for programs.  A test sends what it describes, and what it does not, to the service.
"""

from typing import Any

from pacifica.ingest import __version__
from pacifica.ingest.core.states import State, Step

__all__ = ["document"]

_JOB_ID = {"type": "integer", "minimum": 0, "maximum": 10**19 - 1}
_JOB = {
    "type": "object",
    "required": ["job_id", "state", "task", "task_percent", "complete", "created", "updated", "exception"],
    "properties": {
        "job_id": {"type": "integer", "minimum": 1, "description": "The job's number, and the transaction's."},
        "state": {"enum": [str(state) for state in State]},
        "task": {"enum": [str(step) for step in Step], "description": "The step."},
        "task_percent": {"type": "string", "pattern": r"^\d{1,3}\.\d{1,2}$", "description": "0 to 100, as text."},
        "complete": {"type": "boolean", "description": "The job ended, either way: stop polling."},
        "created": {"$ref": "#/components/schemas/Moment"},
        "updated": {"$ref": "#/components/schemas/Moment"},
        "exception": {"type": "string", "description": "Why it failed, one fault a line; else empty."},
    },
}
_ERROR = {
    "type": "object",
    "required": ["status", "message", "code", "traceback", "version"],
    "properties": {
        "status": {"type": "string", "pattern": r"^[45]\d\d "},
        "message": {"type": "string", "description": "For people."},
        "code": {"type": "string", "pattern": "^[a-z_]+$", "description": "For programs; a stable word."},
        "traceback": {"const": ""},
        "version": {"type": "string"},
    },
}
_ERRORS = {
    "400": "The request cannot be understood, or its body was cut off or changed on the way.",
    "403": "A user is named by somebody who is no proxy of this service.",
    "404": "There is no such job.",
    "408": "It came too slowly.",
    "409": "A file of that number lies in the landing zone already; an operator has to look.",
    "411": "Neither Content-Length nor chunks.",
    "413": "More bytes than the service takes.",
    "414": "The request line is longer than the service takes.",
    "422": "The Idempotency-Key came with another body before.",
    "429": "As many uploads of this user as are taken at once are under way; Retry-After says when to try again.",
    "500": "A fault of the service; its log has the details.",
    "503": "Something is away for now; Retry-After says when to try again.",
    "507": "The disk is full; Retry-After says when to try again.",
}
#: Whatever the address is: the head may be at fault.
_ANYWHERE = ("400", "408", "413", "414")
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key of the same user gets the same job: makes it safe to send again.",
    "schema": {"type": "string", "pattern": '^("[!#-~]{1,255}"|[!#-~]{1,255})$'},
}
_DIGESTS = [
    {
        "name": name,
        "in": "header",
        "description": "What the body hashes to (RFC 9530); sha-256 and sha-512 are verified before it is accepted.",
        "schema": {"type": "string", "examples": ["sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"]},
    }
    for name in ("Repr-Digest", "Content-Digest")
]


def document() -> dict[str, Any]:
    """The document, as a JSON value."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pacifica Ingest",
            "version": __version__,
            "description": "Takes bundles of files, and tells what became of them. A 200 is a promise: the bundle is safe.",
            "license": {"name": "LGPL-3.0-only", "identifier": "LGPL-3.0-only"},
        },
        "paths": {
            "/": {"get": _get("running", "Whether the service runs.", _answer("It does.", _message()))},
            "/upload": {"post": _post("upload", "Take a bundle.", "application/octet-stream", {})},
            "/ingest": {"post": _post("ingest", "The same as /upload.", "application/octet-stream", {})},
            "/move": {
                "post": _post(
                    "move",
                    "Take files that lie on a shared file system already; the body is the metadata document.",
                    "application/json",
                    {"type": "array", "items": {"type": "object"}},
                )
            },
            "/get_state": {"get": _state("getState", "query")},
            "/get_state/{job_id}": {"get": _state("getStateOf", "path")},
            "/openapi.json": {"get": _get("openapi", "This document.", _answer("It.", {"type": "object"}))},
        },
        "components": {
            "schemas": {
                "Job": _JOB,
                "Error": _ERROR,
                "Moment": {
                    "type": "string",
                    "pattern": r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$",
                    "description": "UTC, without a zone.",
                },
            },
            "responses": {code: _answer(text, _ref("Error"), *_headers(code)) for code, text in _ERRORS.items()},
        },
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _message() -> dict[str, Any]:
    return {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}}


def _headers(code: str) -> list[str]:
    return ["Retry-After"] if code in {"429", "503", "507"} else []


def _answer(text: str, schema: dict[str, Any], *headers: str) -> dict[str, Any]:
    found: dict[str, Any] = {"description": text, "content": {"application/json": {"schema": schema}}}
    if headers:
        found["headers"] = {name: {"schema": {"type": "integer"}, "description": "Seconds."} for name in headers}
    return found


def _get(name: str, text: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {"operationId": name, "summary": text, "responses": {"200": answer, **_errors(*_ANYWHERE)}}


def _errors(*codes: str) -> dict[str, Any]:
    return {code: {"$ref": f"#/components/responses/{code}"} for code in codes}


def _post(name: str, text: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": text,
        "parameters": [_KEY, *_DIGESTS],
        "requestBody": {"required": True, "content": {kind: {"schema": schema}}},
        "responses": {
            "200": _answer("The job: the bundle is on disk, and the job in the database.", _ref("Job")),
            "202": _answer(
                "The job, of which nobody knows yet whether it was accepted: ask for it later.", _ref("Job")
            ),
            **_errors(*_ANYWHERE, "403", "409", "411", "422", "429", "500", "503", "507"),
        },
    }


def _state(name: str, place: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": "What became of a job.",
        "parameters": [{"name": "job_id", "in": place, "required": True, "schema": _JOB_ID}],
        "responses": {"200": _answer("The job.", _ref("Job")), **_errors(*_ANYWHERE, "403", "404", "500", "503")},
    }
