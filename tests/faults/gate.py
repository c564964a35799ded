"""A gate on the way of a job: it holds whoever asks for permission, until the test lets it go on.

What it is: `Gate`, a rule file of the local Policy that is a pipe.  Whoever reads it waits, alive and with a beating heart.

Who may call it: the fault rounds.
"""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["Gate"]

#: Everybody may submit everything.
RULES = '[[allow]]\nsubmitter = "*"\nproject = "*"\ninstrument = "*"\n'


class Gate:
    """Holds one job at a time.

    Attributes:
        rules: the rule file.
    """

    def __init__(self, rules: Path) -> None:
        """Be open."""
        self.rules = rules
        self._writer: int | None = None
        rules.write_text(RULES)

    def close(self) -> None:
        """Hold who comes from now on."""
        # Kept under another name: a full disk takes no new file.
        self.rules.rename(self._kept)
        os.mkfifo(self.rules)

    def reached(self) -> bool:
        """Whether somebody waits."""
        if self._writer is None:
            with suppress(OSError):  # nobody reads
                self._writer = os.open(self.rules, os.O_WRONLY | os.O_NONBLOCK)
        return self._writer is not None

    def open(self, told: str = RULES) -> None:
        """Let who waits go on, with these rules, and everybody after that, with those that allow everything."""
        assert self._writer is not None, "nobody waits"
        self._kept.rename(self.rules)
        os.write(self._writer, told.encode())
        os.close(self._writer)
        self._writer = None

    @property
    def _kept(self) -> Path:
        return self.rules.with_suffix(".kept")
