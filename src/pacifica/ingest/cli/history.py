"""The history of a job for people: a wait that is repeated is one line, and all moments are of this machine's clock."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pacifica.ingest.cli.text import local_time, summary
from pacifica.ingest.ports import Event

__all__ = ["history"]

_WAIT = re.compile(r"until (?P<until>\S+ \S+) UTC: (?P<reason>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wait:
    """A run of waits for the same reason, with nothing between them but new attempts.

    Attributes:
        since: when the first began, aware UTC.
        until: when the last one ends, aware UTC.
        reason: of each of them.
        count: of waits.

    """

    since: datetime
    until: datetime
    reason: str
    count: int = 1

    def told(self) -> str:
        """For people."""
        often = f"{self.count} times, " if self.count > 1 else ""
        return f"{often}until {local_time(self.until)}: {self.reason}"


def history(events: Iterable[Event], reason: str = "") -> list[tuple[str, str, str]]:
    """Lines of a table, oldest first: when, what, and about it.

    Args:
        events: of one job.
        reason: is shown beside them; an event that tells the same tells only its beginning.

    """
    kept: list[Event | _Wait] = []
    for event in events:
        wait = _as_wait(event)
        match kept[-2:], wait:
            case [_Wait() as before, Event(name="claimed")], _Wait() if before.reason == wait.reason:
                kept[-2:] = [replace(before, until=wait.until, count=before.count + 1)]
            case _:
                kept.append(wait or event)
    return [
        (local_time(one.since), "waiting", one.told())
        if isinstance(one, _Wait)
        else (local_time(one.at), one.name, summary(one.text) if _tells(one, reason) else one.text)
        for one in kept
    ]


def _tells(event: Event, reason: str) -> bool:
    """Whether this is how the job came to its reason: the step stands before it, and its end may be cut."""
    return reason.startswith(event.text.partition(": ")[2])


def _as_wait(event: Event) -> _Wait | None:
    match = _WAIT.fullmatch(event.text) if event.name == "waiting" else None
    if match is None:
        return None
    until = datetime.fromisoformat(match["until"]).replace(tzinfo=UTC)
    return _Wait(since=event.at, until=until, reason=match["reason"])
