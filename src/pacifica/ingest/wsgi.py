"""The documented WSGI entry: `uwsgi --http-socket :8066 --master --module pacifica.ingest.wsgi`.

Importing reads the configuration and opens nothing.  The first request of each process looks at the database, or uWSGI
right after it forked the process; from then on a thread sweeps in the background.
"""

import logging
import re
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pacifica.ingest import app, rest
from pacifica.ingest.cli import logs
from pacifica.ingest.config import load_settings
from pacifica.ingest.core.errors import IngestError
from pacifica.ingest.orm import prepare_schema
from pacifica.ingest.rest.answer import error_json, refusals
from pacifica.ingest.rest.body import uwsgi
from pacifica.ingest.transactions import retried

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["application"]

logger = logging.getLogger(__name__)

_PROTOCOL = re.compile(r"HTTP/[0-9]\.[0-9]")


class _Process:
    """What each process does once, before it takes requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready = False

    def prepare(self) -> None:
        """Check the schema, and begin to sweep; raises as long as the database is not as it should be."""
        with self._lock:
            if self._ready:
                return
            service = app.current()
            retried(atomic=False)(prepare_schema)()
            threading.Thread(target=service.recovery.run, args=(threading.Event(),), name="sweep", daemon=True).start()
            self._ready = True

    def answer(self) -> None:
        """Prepare; a failure is the answer to the request."""
        with refusals():
            self.prepare()

    def after_fork(self) -> None:
        """Prepare; after a failure each request tries again."""
        try:
            self.prepare()
        except IngestError as fault:
            logger.warning("the service is not ready yet", extra={"reason": str(fault)})


class _Sane:
    """Refuses what CherryPy trips over, and the built-in server never lets through: uWSGI reads a request line leniently.

    Not every version but 1.1 and 1.0: a proxy that speaks `uwsgi` tells that of its client, such as HTTP/2.0.
    """

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        # uWSGI leaves out what it did not find.
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if path.startswith("/") and _PROTOCOL.fullmatch(environ.get("SERVER_PROTOCOL", "")):
            return self._app(environ, start_response)
        status = "400 Bad Request"
        start_response(status, [("Content-Type", "application/json"), ("Connection", "close")])
        return [error_json(status, "Expected a request line 'METHOD /address HTTP/1.1'.")]


_process = _Process()

#: The WSGI application; the documented name.
application = rest.configure(load_settings(), shortcut=False)
application.wsgiapp.pipeline.append(("sane", _Sane))
# A hook, which the shortcut would go around.
application.merge({"/": {"hooks.before_request_body": _process.answer}})

_server = uwsgi()
if _server:
    if not logging.getLogger().handlers:
        logs.configure()
    vars(_server)["post_fork_hook"] = _process.after_fork
