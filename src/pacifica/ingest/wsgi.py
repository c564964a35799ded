"""The documented WSGI entry: `uwsgi --http-socket :8066 --master --module pacifica.ingest.wsgi`.

Importing reads the configuration and opens nothing.  The first request of each process looks at the database, or uWSGI
right after it forked the process; from then on a thread sweeps in the background.
"""

import logging
import threading

from pacifica.ingest import app, rest
from pacifica.ingest.cli import logs
from pacifica.ingest.config import load_settings
from pacifica.ingest.core.errors import IngestError
from pacifica.ingest.orm import prepare_schema
from pacifica.ingest.rest.answer import refusals
from pacifica.ingest.rest.body import uwsgi
from pacifica.ingest.transactions import retried

__all__ = ["application"]

logger = logging.getLogger(__name__)


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


_process = _Process()

#: The WSGI application; the documented name.
application = rest.configure(load_settings())
application.merge({"/": {"hooks.before_request_body": _process.answer}})

_server = uwsgi()
if _server:
    if not logging.getLogger().handlers:
        logs.configure()
    vars(_server)["post_fork_hook"] = _process.after_fork
