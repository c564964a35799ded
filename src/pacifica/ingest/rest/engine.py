"""The built-in server's settings, start and end.

`configure` makes the application and may be used alone, as `wsgi` does; `serve` runs it until it is interrupted.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from configparser import Error
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cherrypy
from cherrypy.lib import reprconf

from pacifica.ingest import globals as files
from pacifica.ingest.app import current
from pacifica.ingest.config import Settings
from pacifica.ingest.core.errors import BadConfiguration, Unavailable
from pacifica.ingest.rest.answer import Request
from pacifica.ingest.rest.listener import HEAD_BYTES, Listener
from pacifica.ingest.rest.pace import Pace
from pacifica.ingest.rest.resource import Addresses, Root, told
from pacifica.ingest.rest.shortcut import Shortcut, is_open

__all__ = ["configure", "serve"]

logger = logging.getLogger(__name__)

#: How long, in seconds, requests may go on when the server stops; workers need most of its 10 seconds.
GRACE_S = 2.0
#: Threads that uploads cannot have, and those that they have when nothing limits them.
SPARE_THREADS = 16
UPLOAD_THREADS = 64


class _Warnings(logging.Handler):
    """Passes CherryPy's warnings and errors on to the log of the process; its files get everything."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().handle(record)


_warnings = _Warnings()


def configure(settings: Settings, file: Path | None = None, *, shortcut: bool = True) -> cherrypy.Application:
    """Make the application and mount it; the CherryPy file beats our settings.

    Args:
        settings: of the service.
        file: the CherryPy file, which must be there; when None that of `globals`, which need not.
        shortcut: whether a state may be told around CherryPy, and its hooks.

    Returns:
        the application, a WSGI callable.

    Raises:
        BadConfiguration: the file cannot be read or used; not retryable.

    """
    path = file or Path(files.CHERRYPY_CONFIG)
    with _faults_of(path):
        given = reprconf.Parser.load(str(path)) if file or path.exists() else {}
        general = given.pop("global", {})
        cherrypy.config.update(_defaults(settings) | general)
        application = cherrypy.Application(Root(), "", given)
    # Any other dispatcher, which a file may name, finds nothing here.
    application.merge({"/": {"request.dispatch": Addresses()}})
    application.request_class = Request
    if shortcut and not settings.ingest.own_jobs_only and is_open(general, given):
        application.wsgiapp.pipeline.append(("shortcut", partial(Shortcut, told=told)))
    cherrypy.tree.mount(application)
    log = logging.getLogger("cherrypy")
    log.propagate = False
    log.addHandler(_warnings)
    return application


def _defaults(settings: Settings) -> dict[str, Any]:
    return {
        "server.socket_host": "localhost",
        "server.socket_port": 8066,
        # An upload keeps a thread, and the others are for everybody else.
        "server.thread_pool": _upload_threads(settings) + SPARE_THREADS,
        "server.socket_queue_size": 128,
        "server.socket_timeout": settings.ingest.upload_timeout,
        "server.shutdown_timeout": GRACE_S,
        "server.max_request_header_size": HEAD_BYTES,
        # `intake` knows the limit.
        "server.max_request_body_size": 0,
        "engine.autoreload.on": False,
        "checker.on": False,
        "log.screen": False,
    }


def _upload_threads(settings: Settings) -> int:
    """How many threads uploads may have."""
    return settings.ingest.max_uploads or UPLOAD_THREADS


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (Error, ValueError, TypeError, AttributeError, OSError) as fault:
        reason = fault.args[0] if isinstance(fault, ValueError) and fault.args else fault
        msg = f"{path}: {reason}"
        raise BadConfiguration(msg) from fault


def serve(
    address: str | None = None,
    port: int | None = None,
    *,
    ready: Callable[[str], object] | None = None,
    stopping: Callable[[], object] | None = None,
) -> None:
    """Serve what `configure` mounted, until KeyboardInterrupt.

    Requests that are under way get `GRACE_S` seconds to end, then their connections are cut.

    Args:
        address: where to listen; when None as the CherryPy file says, else `localhost`.
        port: as `address`; 0 takes a free one, and without either it is 8066.
        ready: called with the URL once connections are taken.
        stopping: called when the server begins to stop: requests that wait for something are not to wait any longer.

    Raises:
        Unavailable: the address cannot be used, another process may have it; retryable.
        BadConfiguration: a setting of the server is wrong; not retryable.

    """
    server = _listener(address, port)
    listening: Future[None] = Future()
    thread = threading.Thread(target=_listen, args=(server, listening), name="listener")
    stopped = threading.Event()
    cherrypy.engine.subscribe("exit", stopped.set)
    try:
        thread.start()
        listening.result()
        cherrypy.engine.start()
        if ready:
            ready(_url(server))
        # The pauses let Windows see Ctrl-C.
        while thread.is_alive() and not stopped.wait(1):
            pass
    except KeyboardInterrupt:
        logger.info("the server stops")
    finally:
        if stopping:
            stopping()
        if not listening.cancel():
            # A server that has begun only half of its threads would not end them.
            wait([listening])
        server.stop()
        cherrypy.engine.exit()


def _listener(address: str | None, port: int | None) -> Listener:
    adapter = cherrypy.server
    # We start it ourselves, to know at once what is wrong.
    adapter.unsubscribe()
    host = adapter.socket_host if address is None else address
    # The name may mean ::1 alone, where a client that says 127.0.0.1 finds nobody.
    adapter.socket_host = "127.0.0.1" if host == "localhost" else host
    adapter.socket_port = adapter.socket_port if port is None else port
    settings = current().settings
    try:
        server = Listener(adapter, Pace.of(settings), settings.ingest.max_upload_size)
    except (ValueError, TypeError) as fault:
        msg = f"a [global] server setting of the CherryPy file: {fault}"
        raise BadConfiguration(msg) from fault
    if adapter.thread_pool <= _upload_threads(settings):
        logger.warning(
            "uploads may take all threads, and then nothing else is answered: "
            "set server.thread_pool of the CherryPy file above [ingest] max_uploads",
            extra={"thread_pool": adapter.thread_pool, "uploads": _upload_threads(settings)},
        )
    return server


def _listen(server: Listener, listening: "Future[None]") -> None:
    """Take connections until the server is stopped; in a thread of its own, as a signal interrupts the main one anywhere."""
    host, port = server.bind_addr
    if not listening.set_running_or_notify_cancel():
        return
    try:
        server.prepare()
    except OSError as fault:
        reason = (server.fault or fault).strerror or fault
        unusable = Unavailable(f"Cannot listen at {host}, port {port}: {reason}.")
        unusable.__cause__ = fault
        listening.set_exception(unusable)
    except BaseException as fault:  # noqa: BLE001 (told by the thread that waits)
        listening.set_exception(fault)
    else:
        listening.set_result(None)
        server.serve()


def _url(server: Listener) -> str:
    host, port = server.bind_addr
    scheme = "https" if server.ssl_adapter else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
