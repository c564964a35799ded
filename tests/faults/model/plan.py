"""What a schedule is about, drawn from its seed: who sends what, and how the service is set up.

Who may call it: everything in this folder.
"""

import random
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

__all__ = ["FOREIGN", "JOBS_FROM", "Client", "Plan", "plan"]

#: What another system archived, at the beginning of the series of ids: id → content.
FOREIGN = {1000: "foreign0", 1001: "foreign1"}
#: Ids of jobs and of files differ, so that a mix-up shows.
JOBS_FROM = 7
#: What an archive keeps that keeps something else: as long as a file, so that its length tells nothing.
SPOILT = "???"
#: The file names of every bundle.
FILES = ("a", "b")


class Client(StrEnum):
    """What a client sends."""

    #: A whole bundle.
    GOOD = "good"
    #: A bundle that Policy refuses.
    REFUSED = "refused"
    #: A bundle with a file that is not what the metadata says.
    FAULTY = "faulty"
    #: The first half of a whole bundle.
    CUT = "cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A schedule's surroundings.

    Attributes:
        seed: of the schedule.
        clients: one upload each.
        keyed: which of them send again, with the same key, what was not answered well.
        moves: which of them send the document of a move.
        window: files of one commit of intents.
        retry_for_s: how long a job may wait for a neighbour.
        by_hints: whether workers act on hints alone, as with Celery, or look for work themselves.
        steps: how long faults may happen.
        fault: how likely a call goes wrong.
        keeps_short: whether an operator often removes what is kept long enough, which is not long.
        calm_uploads: whether nothing goes wrong with uploads, as a bundle that does not arrive tests nothing after it.

    """

    seed: int
    clients: tuple[Client, ...]
    keyed: tuple[bool, ...]
    moves: tuple[bool, ...]
    window: int
    retry_for_s: float
    by_hints: bool
    steps: int
    fault: float
    calm_uploads: bool
    keeps_short: bool


#: Long enough that no wait ends in a failure.
FOR_EVER = 1e9


@lru_cache(maxsize=8)
def plan(seed: int) -> Plan:
    """Draw what the schedule of a seed is about."""
    rng = random.Random(-seed - 1)
    odd = (Client.REFUSED, Client.FAULTY, Client.CUT)
    clients = [Client.GOOD if rng.random() < 0.8 else rng.choice(odd) for _ in range(1 if rng.random() < 0.5 else 2)]
    drawn = Plan(
        seed=seed,
        clients=tuple(clients),
        keyed=tuple(rng.random() < 0.3 for _ in clients),
        moves=tuple(rng.random() < 0.35 for _ in clients),
        window=rng.choice((1, 2)),
        retry_for_s=FOR_EVER if rng.random() < 0.8 else 120.0,
        by_hints=rng.random() < 0.6,
        steps=rng.choice((40, 80, 120)),
        fault=rng.choice((0.05, 0.12, 0.2)),
        calm_uploads=rng.random() < 0.7,
        keeps_short=rng.random() < 0.25,
    )
    # There must be something to remove.
    return replace(drawn, steps=120, fault=0.2) if drawn.keeps_short else drawn


def body_of(number: int) -> str:
    """The name of what a client sends as a whole; its first half is named `body`."""
    return f"body{number}"


def name_of(job_id: int, *, is_move: bool) -> str:
    """The name of a staged file."""
    return f"{job_id}{'.json' if is_move else '.tar'}"


def source_of(number: int, name: str) -> str:
    """Where a file that is to be moved lies."""
    return f"source {number}{name}"


def content_of(number: int, name: str) -> str:
    """The content of a file of a client."""
    return f"c{number}{name}"
