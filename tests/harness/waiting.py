"""Waiting in tests: for a condition, never for a time."""

import time
from collections.abc import Callable

__all__ = ["END_S", "until"]

#: No wait in a test is longer, in seconds.
END_S = 180.0


def until(condition: Callable[[], object], what: str = "a condition", wait_s: float = END_S) -> None:
    """Return when a condition holds.

    Args:
        condition: asked again and again.
        what: what is waited for, for the message.
        wait_s: seconds after which the test fails.

    """
    deadline = time.monotonic() + wait_s
    pause = 0.01
    while not condition():
        assert time.monotonic() < deadline, f"waited {wait_s:g} s for {what}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
