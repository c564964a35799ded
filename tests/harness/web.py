"""HTTP as a test sees it: one request, one answer, no proxy.

What it is: `request`, and the `opener` under it.

What it is not: a client with retries or a session; a test wants to see every answer.

Who may call it: the harness and any test.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import urllib.error
import urllib.request
from typing import Any

__all__ = ["Reply", "opener", "request"]

_WAIT_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer, whatever its status.

    Attributes:
        status: The status code.
        headers: Names in lower case.
        body: All bytes.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Decode the body."""
        return json.loads(self.body)


def request(
    method: str,
    url: str,
    body: bytes | None = None,
    *,
    headers: dict[str, str] | None = None,
    wait_s: float = _WAIT_S,
) -> Reply:
    """Send one HTTP request and return the answer; an error status is an answer, too.

    Args:
        method: GET, PUT, ….
        url: Absolute address.
        body: Bytes to send.
        headers: More headers.
        wait_s: Socket timeout in seconds.

    Raises:
        OSError: No answer at all.
    """
    asked = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        answer = opener().open(asked, timeout=wait_s)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        lower = {key.lower(): value for key, value in answer.headers.items()}
        return Reply(status=answer.status, headers=lower, body=answer.read())


@functools.cache
def opener() -> urllib.request.OpenerDirector:
    """Return an HTTP opener that ignores proxies: all servers are on the loopback."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
