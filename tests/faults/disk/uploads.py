"""Uploads of rounds in which disks fail: what to send, and one request with its answer.

What it is: `orders`, whole bundles of a seed; `send`, counted or in chunks; `send_all`, several at once.

What it is not: the load client of `tests.faults.load`, which goes on whatever happens.

Who may call it: the fault rounds.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from pacifica.ingest.testing import BundleBuilder
from tests.acceptance.raw_http import Answer, Wire, chunks, head
from tests.faults.load import Order, order
from tests.faults.oracle import Sent

__all__ = ["CHUNK", "TYPE", "bundle", "bundle_of", "orders", "send", "send_all", "sent"]

#: Bytes of one chunk.
CHUNK = 64 * 1024
TYPE = "Content-Type: application/octet-stream"

T = TypeVar("T")


def orders(seed: int) -> Iterator[Order]:
    """Whole bundles, endless; no two are equal."""
    made = (order(seed, number) for number in itertools.count(1))
    return (one for one in made if not one.fails and one.cut is None)


def bundle(name: str, size_bytes: int) -> Order:
    """A bundle of one file of about that size."""
    return bundle_of("", {name: (name.encode() * (size_bytes // len(name) + 1))[:size_bytes]})


def bundle_of(prefix: str, contents: Mapping[str, bytes]) -> Order:
    """A bundle of these files; `prefix` tells apart those that are equal but for it."""
    builder = BundleBuilder()
    files = {}
    for path, content in contents.items():
        builder.add(f"{prefix}{path}", prefix.encode() + content)
        files[f"{prefix}{path}"] = _digest(prefix.encode() + content)
    return Order(
        address="/upload", body=builder.build(), files=files, sources={}, fails="", cut=None, slow=False, key=""
    )


def send(url: str, wanted: Order, *, chunked: bool = False) -> Answer:
    """One upload; the answer may come before all was sent."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(wanted.body)}"
    with Wire(url) as wire:
        wire.send(head("POST", wanted.address, TYPE, framing))
        # One that is refused at the door is cut off; the answer is there already.
        with suppress(ConnectionError):
            wire.send(chunks(wanted.body, CHUNK) if chunked else wanted.body)
        return wire.answer()


def send_all(wanted: Iterable[Order], act: Callable[[Order], T], at_once: int) -> list[T]:
    """Do something with each, so many at once."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(act, wanted))


def sent(wanted: Order, answer: Answer) -> Sent:
    """What the oracle is told."""
    job_id = int(answer.json()["job_id"]) if answer.status == 200 else None
    return Sent(files=wanted.files, body=_digest(wanted.body), status=answer.status, job_id=job_id)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
