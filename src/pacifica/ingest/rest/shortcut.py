"""The way around CherryPy for the one question that clients ask again and again: `GET /get_state?job_id=7`.

CherryPy needs several times as long for a request as the database for the answer.  Only the plain question that is answered
with 200 goes this way; everything else, errors too, goes on to CherryPy, whose answer this one resembles to the byte.  Part
of the pipeline of the application (`engine`), when the CherryPy file asks for nothing that would be left out.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import cherrypy
from cherrypy.lib import httputil

__all__ = ["Shortcut", "is_open"]

_QUERY: Final = re.compile(r"job_id=([0-9]{1,19})")
#: Settings of the CherryPy file that say nothing about how a request is answered.
_ABOUT_OTHERS: Final = re.compile(r"server\..*|engine\..*|checker\.on|log\.error_file")


def is_open(settings: Mapping[str, object], addresses: Mapping[str, object]) -> bool:
    """Whether the CherryPy file leaves it open how a request is answered.

    Args:
        settings: its `[global]`.
        addresses: its other sections.

    """
    return not addresses and all(_ABOUT_OTHERS.fullmatch(key) for key in settings)


class Shortcut:
    """A WSGI callable in front of another."""

    def __init__(self, behind: Callable[..., Iterable[bytes]], told: Callable[[int], bytes]) -> None:
        """Answer by `told`, and let `behind` answer what is not plain, and what `told` fails at."""
        self._behind = behind
        self._told = told

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        """Answer a request."""
        number = _number(environ)
        if number is None:
            return self._behind(environ, start_response)
        try:
            body = self._told(number)
        except Exception:  # noqa: BLE001 (CherryPy meets it again, and tells it in its way)
            return self._behind(environ, start_response)
        headers = [
            ("Content-Type", "application/json"),
            ("Server", f"CherryPy/{cherrypy.__version__}"),
            ("Date", _date(int(time.time()))),
            ("Allow", "GET, HEAD"),
            ("Content-Length", str(len(body))),
        ]
        start_response("200 OK", headers)
        return [body]


def _number(environ: Mapping[str, Any]) -> int | None:
    """The job of a plain question."""
    if environ["REQUEST_METHOD"] != "GET" or environ["PATH_INFO"] != "/get_state":
        return None
    match = _QUERY.fullmatch(environ["QUERY_STRING"])
    if not match or environ["SERVER_PROTOCOL"] != "HTTP/1.1" or "HTTP_HOST" not in environ or "HTTP_COOKIE" in environ:
        return None
    # CherryPy decodes such words of a header, and refuses those that it cannot.
    if any("=?" in value for key, value in environ.items() if key.startswith("HTTP_")):
        return None
    return int(match[1])


@lru_cache(maxsize=2)
def _date(now_s: int) -> str:
    text: str = httputil.HTTPDate(now_s)
    return text
