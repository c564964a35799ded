"""Foreign text on its way to a terminal, a log or a client.

Names of files and reasons come from senders: none of their characters may move a cursor or forge a line.  Addresses come
from operators, and may carry a password.  Any floor may import this.
"""

import re
from typing import Final

__all__ = ["masked", "printable"]

_WORD: Final = re.compile(r"\S+")


def printable(text: str) -> str:
    """The text with every character escaped that a terminal would not show as it is."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def masked(text: str) -> str:
    """The text with user and password of every URL in it masked."""
    return _WORD.sub(_masked_word, text) if "://" in text else text


def _masked_word(match: re.Match[str]) -> str:
    scheme, mark, rest = match[0].partition("://")
    # Up to the last @: a password may have any character, when somebody forgot to encode it.
    _, at, place = rest.rpartition("@")
    return f"{scheme}://***@{place}" if mark and at else match[0]
