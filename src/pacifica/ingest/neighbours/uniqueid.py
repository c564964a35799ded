"""Number ranges from the UniqueID service.  Fulfils `ports.Ids`.

Source: `GET /getid?range=N&mode=M`, measured on pacifica-uniqueid 0.5.1.
"""

import random
import time
from http import HTTPStatus
from typing import Final

from pacifica.ingest.neighbours.http import TIMEOUTS, Answer, Client, Timeouts
from pacifica.ingest.ports import IdMode

__all__ = ["HttpIds"]

#: On SQLite it answers 500 to most of the requests that other processes make at the same time.
_TRIES: Final = 5
#: The longest wait before the second try, in seconds; doubled for each further one.
_PAUSE_S: Final = 0.1


class HttpIds:
    """`ports.Ids` over HTTP; one call at a time, because the service gives one range to several callers at once."""

    def __init__(self, url: str, *, timeouts: Timeouts = TIMEOUTS) -> None:
        """Ask the service at `url`."""
        self._client = Client("uniqueid", url, connections=1, timeouts=timeouts)

    def reserve(self, mode: IdMode, count: int) -> range:
        """See `ports.Ids.reserve`."""
        if count < 1:
            msg = f"a range of {count} numbers cannot be reserved"
            raise ValueError(msg)
        answer = self._ask(f"/getid?range={count}&mode={mode.value}")
        start, end = answer.field("startIndex"), answer.field("endIndex")
        if answer.status != HTTPStatus.OK or type(start) is not int or start < 1 or end != start + count - 1:
            raise self._client.down(answer)
        return range(start, start + count)

    def _ask(self, path: str) -> Answer:
        """Asking again is harmless: a range that nobody took is a gap."""
        answer = self._client.ask("GET", path)
        for doublings in range(_TRIES - 1):
            if answer.status != HTTPStatus.INTERNAL_SERVER_ERROR:
                break
            time.sleep(random.uniform(0, _PAUSE_S * 2**doublings))
            answer = self._client.ask("GET", path)
        return answer
