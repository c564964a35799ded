"""Policy out of a rule file, or none but the completeness of the metadata.

Fulfils `ports.Policy`; chosen by `[policy] ingest_url = local:` with an optional path.  The file is TOML, and says who may
submit for which project with which instrument::

    [[allow]]
    submitter = ["10", "11"]
    project = "1234a"
    instrument = "*"

A document is allowed when one of the rules matches all three of its values.  Each of the three keys must be there: a
value, a list of values, or `"*"` for all.  Values are compared as text, `10` equals `"10"`.  A file without rules allows
nothing.
"""

import threading
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pacifica.ingest.core.errors import NeighbourDown, PolicyRefused
from pacifica.ingest.core.metadata import SUBMISSION, Registration, submission

__all__ = ["LocalPolicy"]

_ALL = "*"

#: The values that each of `SUBMISSION` may have.
Rule = Mapping[str, frozenset[str]]


class LocalPolicy:
    """`ports.Policy` by a rule file, which is read again when it was changed."""

    def __init__(self, rules: Path | None, *, is_optional: bool = False) -> None:
        """Judge by a file.

        Args:
            rules: the file; with None, every document that names all three is allowed.
            is_optional: as long as nobody saw the file, the same holds without it.

        """
        self._file = rules
        self._is_optional = is_optional
        self._lock = threading.Lock()
        self._read_at: tuple[int, int, int] | None = None
        self._rules: Sequence[Rule] = ()

    def permit(self, document: Registration, user: str) -> None:  # noqa: ARG002 (the port tells it; rules do not use it)
        """See `ports.Policy.permit`.

        Raises:
            NeighbourDown: the rule file is missing or broken; retryable, as somebody may be mending it.

        """
        values = submission(document)
        rules = self._current(self._file) if self._file else None
        if rules is not None and not any(_matches(rule, values) for rule in rules):
            said = ", ".join(f"{key} {value!r}" for key, value in values.items())
            reason = f"No rule allows {said}."
            raise PolicyRefused(reason)

    def _current(self, file: Path) -> Sequence[Rule] | None:
        """The rules; None where there need not be any."""
        with self._lock:
            try:
                found = file.stat()
                self._is_optional = False
                stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
                if stamp != self._read_at:
                    self._rules = _read(file.read_bytes())
                    self._read_at = stamp
            except (OSError, ValueError) as fault:
                if self._is_optional and isinstance(fault, FileNotFoundError):
                    return None
                # What was read before is not used any more: it may allow what the new file takes away.
                self._read_at = None
                reason = f"{file}: {fault}"
                raise NeighbourDown("policy", reason) from fault
            return self._rules


def _is_value(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _text(value: object) -> str:
    return str(value).strip()


def _matches(rule: Rule, values: Mapping[str, str]) -> bool:
    return all(_ALL in rule[key] or values[key] in rule[key] for key in SUBMISSION)


def _read(text: bytes) -> list[Rule]:
    """Read a rule file.  Raises `ValueError` with the fault for anything that is not clearly a rule."""
    loaded = tomllib.loads(text.decode("utf-8-sig"))
    rules = loaded.pop("allow", [])
    if loaded:
        msg = f"{', '.join(loaded)} is not known here; rules begin with [[allow]]"
        raise ValueError(msg)
    if not isinstance(rules, list):
        msg = "a rule begins with [[allow]], with two brackets"
        raise ValueError(msg)  # noqa: TRY004 (a fault of the file, not of a caller)
    return [_rule(number, rule) for number, rule in enumerate(rules, start=1)]


def _rule(number: int, rule: object) -> Rule:
    if not isinstance(rule, dict) or set(rule) != set(SUBMISSION):
        msg = f"rule {number} must have exactly the keys {', '.join(SUBMISSION)}"
        raise ValueError(msg)
    return {key: _allowed(f"rule {number}, {key}", rule[key]) for key in SUBMISSION}


def _allowed(where: str, given: object) -> frozenset[str]:
    values = given if isinstance(given, list) else [given]
    if not all(_is_value(value) and _text(value) for value in values):
        msg = f"{where}: expected texts or whole numbers, got {given!r}"
        raise ValueError(msg)
    return frozenset(_text(value) for value in values)
