"""Loopback ports that no other test run on the machine takes.

What it is: `free_port`. Each process claims blocks of ports for itself, so that several
test runs side by side never give out the same one, also while the server on it is down
between a kill and its restart.

What it is not: a promise about programs outside the harness. They are seen when a port
is given, not later.

Who may call it: the harness and any test.
"""

from __future__ import annotations

import atexit
import random
import socket
import threading
from typing import TYPE_CHECKING

from tests.harness.command import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LOOPBACK", "free_port"]

LOOPBACK = "127.0.0.1"

# Below the range from which the kernel takes the local ports of outgoing connections:
# nobody takes the port by chance while a killed server waits for its restart.
_PORTS = range(20000, 32000)
_BLOCK = 40

_claims: list[socket.socket] = []
_lock = threading.Lock()


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on; each one is given once.

    Raises:
        HarnessError: None is left (not retryable).
    """
    with _lock:
        port = next((port for port in _own_ports if _is_free(port)), None)
    if port is None:
        message = f"no free port on {LOOPBACK} between {_PORTS.start} and {_PORTS.stop}"
        raise HarnessError(message)
    return port


def _claimed() -> Iterator[int]:
    """Yield ports of one block after the other, claiming a block before its first port."""
    blocks = list(range(_PORTS.start, _PORTS.stop, _BLOCK))
    # Not the shared generator: pytest-randomly gives it the same seed in every run.
    random.SystemRandom().shuffle(blocks)
    for block in blocks:
        if _claim(block):
            yield from range(block, block + _BLOCK)


def _claim(block: int) -> bool:
    """Claim a block for the life of this process, against all others on the machine.

    The claim is a socket with an abstract name: the kernel gives a name to one owner
    only, and frees it with the process, however that ends.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0pacifica-test-ports-{block}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


@atexit.register
def _release() -> None:
    """Close the claims, so that no warning about them hides a real one."""
    for claim in _claims:
        claim.close()


_own_ports = _claimed()
