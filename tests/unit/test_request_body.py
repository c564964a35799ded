"""The body of a request to the built-in server, while the server stops."""

from collections.abc import Callable

import pytest

from pacifica.ingest.core.errors import Unavailable
from pacifica.ingest.rest.body import SocketBody

READS = 3


class FastSender:
    """There is always more to read, also when the connection is cut."""

    def readinto1(self, buffer: memoryview, /) -> int:
        return len(buffer)

    def readline(self, _size: int, /) -> bytes:
        return b"fffffff\r\n"


def cut_after(reads: int) -> Callable[[], bool]:
    answers = iter([False] * reads)
    return lambda: next(answers, True)


@pytest.mark.parametrize("how", ["counted", "chunked"])
def test_who_sends_fast_is_cut_when_the_server_stops(how: str) -> None:
    body = SocketBody(FastSender(), lambda: None, lambda: True, cut_after(READS), empty=False)
    pieces = body.counted(1 << 40) if how == "counted" else body.chunked()
    for _ in range(READS):
        next(pieces)
    with pytest.raises(Unavailable, match="server stops"):
        next(pieces)
    assert not body.ended
