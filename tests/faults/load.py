"""Clients that load a site, and remember what they sent and what they were told.

What it is: `order`, which makes one request of a seed and a number; `Client`, whose threads send one after the other and
wait a while for each job, as uploaders do; `faults`, which judges what became of it all.

What it is not: a test.  What it remembers is for `tests.faults.oracle`.

Who may call it: the fault rounds.
"""

import hashlib
import http.client
import itertools
import json
import random
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from pacifica.ingest.testing import BundleBuilder
from tests.faults.oracle import Evidence, Fault, Sent, judge
from tests.harness.ports import LOOPBACK

__all__ = ["Client", "Order", "faults", "order"]

#: Bytes of a file: usually, and of one that is meant to be cut in the middle.
SMALL_BYTES = 30_000
LARGE_BYTES = 1_000_000
#: In how many pieces a slow sender sends, and its pause between them, in seconds.
PIECES = 20
PIECE_PAUSE_S = 0.03
#: A client asks for its job this often, in seconds, and this many times at most; then it goes on with the next bundle.
ASK_EVERY_S = 0.15
ASKS = 14
#: A server that is not there is tried again after that time, in seconds.
AGAIN_S = 0.05
#: The longest wait for an answer, in seconds.
ANSWER_S = 30.0
#: Answers that name a job: an accepted one, and one of which it is not known yet.
TOLD = {HTTPStatus.OK, HTTPStatus.ACCEPTED}
#: In place of a status: the server was away until the client had to stop.
UNSENT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request as it is to be sent.

    Attributes:
        address: `/upload` or `/move`.
        body: all bytes.
        files: path → `sha256:hex`.
        sources: of a move: path → bytes of the source file.
        fails: as of `Sent`.
        cut: how many bytes are sent before the client breaks off; None when it does not.
        slow: whether the sender pauses between pieces.
        key: its `Idempotency-Key`; such a request is sent again until it is answered.  Empty: it is sent once.
    """

    address: str
    body: bytes
    files: Mapping[str, str]
    sources: Mapping[Path, bytes]
    fails: str
    cut: int | None
    slow: bool
    key: str


def order(seed: int, number: int, incoming: Path | None = None) -> Order:
    """The request of a number; no two are equal.

    Args:
        seed: of the round.
        number: of the request.
        incoming: where sources of moves are to lie; None: no moves.
    """
    chance = random.Random(f"{seed}/{number}")
    contents = _contents(chance, number)
    if incoming is not None and chance.random() < 0.2:
        return _move(seed, number, contents, incoming)
    faulty = chance.random() < 0.05
    body = _bundle(contents, faulty=faulty)
    return Order(
        address="/upload",
        body=body,
        files=_digests(contents),
        sources={},
        fails="sha256 is" if faulty else "",
        cut=chance.randrange(len(body)) if chance.random() < 0.05 else None,
        slow=chance.random() < 0.2,
        key=_key(seed, number),
    )


def _key(seed: int, number: int) -> str:
    """A key for every other request."""
    return f"{seed}/{number}" if number % 2 else ""


def _contents(chance: random.Random, number: int) -> dict[str, bytes]:
    """One to six files; the first is never empty, so that no two requests send equal files."""
    large = chance.random() < 0.1
    sizes = [64 + chance.randrange(LARGE_BYTES if large else SMALL_BYTES)]
    sizes += [chance.choice([0, chance.randrange(SMALL_BYTES)]) for _ in range(chance.randrange(6))]
    return {f"run{number}/{place}.dat": chance.randbytes(size) for place, size in enumerate(sizes)}


def _bundle(contents: Mapping[str, bytes], *, faulty: bool) -> bytes:
    builder = BundleBuilder()
    for path, content in contents.items():
        wrong = {"hashsum": "0" * 64} if faulty and path.endswith("/0.dat") else {}
        builder.add(path, content, **wrong)
    return builder.build()


def _move(seed: int, number: int, contents: Mapping[str, bytes], incoming: Path) -> Order:
    builder = BundleBuilder()
    sources: dict[Path, bytes] = {}
    for place, (path, content) in enumerate(contents.items()):
        source = incoming / f"{number}.{place}"
        sources[source] = content
        builder.entry(path, content, source=str(source))
    body = json.dumps(builder.document()).encode()
    return Order(
        address="/move",
        body=body,
        files=_digests(contents),
        sources=sources,
        fails="",
        cut=None,
        slow=False,
        key=_key(seed, number),
    )


def _digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {path: _digest(content) for path, content in contents.items()}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Client:
    """Threads that send; a context manager, stopped at the end.

    Attributes:
        sent: what was sent so far.
        moved: sources of moves → `sha256:hex`.
    """

    def __init__(self, port: int, seed: int, *, threads: int = 8, incoming: Path | None = None) -> None:
        """Send nothing yet.

        Args:
            port: of the server, or of a proxy before it.
            seed: of the requests.
            threads: how many send at once.
            incoming: where sources of moves are put; None: no moves.
        """
        self.sent: list[Sent] = []
        self.moved: dict[Path, str] = {}
        self._port = port
        self._seed = seed
        self._incoming = incoming
        self._numbers = itertools.count(1)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send_all, daemon=True) for _ in range(threads)]
        self._faults: list[BaseException] = []

    def __enter__(self) -> Self:
        """Begin to send."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; what was begun is ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._faults:
            raise self._faults[0]

    def _send_all(self) -> None:
        try:
            while not self._stop.is_set():
                self._send(order(self._seed, next(self._numbers), self._incoming))
        except BaseException as fault:  # noqa: BLE001 (told by the thread that waits)
            self._faults.append(fault)

    def _send(self, wanted: Order) -> None:
        for source, content in wanted.sources.items():
            source.write_bytes(content)
            self.moved[source] = _digest(content)
        status, job_id = self._post(wanted)
        if status == UNSENT:
            return
        if status is None and wanted.key:
            status, job_id = self._insist(wanted)
        files, body = wanted.files, _digest(wanted.body)
        self.sent.append(Sent(files=files, body=body, status=status, job_id=job_id, fails=wanted.fails))
        if job_id is not None:
            self._wait(job_id)

    def _insist(self, wanted: Order) -> tuple[int | None, int | None]:
        """Send again what got no answer: whether the first was accepted or not, it is one job."""
        while not self._stop.is_set():
            status, job_id = self._post(replace(wanted, cut=None))
            if status in TOLD:
                return status, job_id
        return None, None

    def _post(self, wanted: Order) -> tuple[int | None, int | None]:
        """Status and job; no status when no answer came."""
        with closing(http.client.HTTPConnection(LOOPBACK, self._port, timeout=ANSWER_S)) as connection:
            while not self._connected(connection):
                if self._stop.wait(AGAIN_S):
                    return UNSENT, None
            try:
                return self._exchange(connection, wanted)
            except (OSError, http.client.HTTPException, ValueError):
                return None, None

    @staticmethod
    def _connected(connection: http.client.HTTPConnection) -> bool:
        try:
            connection.connect()
        except OSError:
            return False
        return True

    def _exchange(self, connection: http.client.HTTPConnection, wanted: Order) -> tuple[int | None, int | None]:
        connection.putrequest("POST", wanted.address)
        connection.putheader("Content-Type", "application/octet-stream")
        connection.putheader("Content-Length", str(len(wanted.body)))
        if wanted.key:
            connection.putheader("Idempotency-Key", wanted.key)
        connection.endheaders()
        body = memoryview(wanted.body)[: wanted.cut]
        step = max(1, len(body) // PIECES) if wanted.slow else max(1, len(body))
        for start in range(0, len(body), step):
            connection.send(body[start : start + step])
            if wanted.slow:
                self._stop.wait(PIECE_PAUSE_S)
        if wanted.cut is not None:
            return None, None
        with connection.getresponse() as answer:
            content = answer.read()
            return answer.status, int(json.loads(content)["job_id"]) if answer.status in TOLD else None

    def _wait(self, job_id: int) -> None:
        """Wait for a job as uploaders do, but not for long: it bounds how much is under way."""
        for _ in range(ASKS):
            if self._stop.wait(ASK_EVERY_S) or self._is_over(job_id):
                return

    def _is_over(self, job_id: int) -> bool:
        try:
            with closing(http.client.HTTPConnection(LOOPBACK, self._port, timeout=ANSWER_S)) as connection:
                connection.request("GET", f"/get_state?job_id={job_id}")
                answer = connection.getresponse()
                return bool(json.loads(answer.read()).get("complete"))
        except (OSError, http.client.HTTPException, ValueError):
            return False


def faults(client: Client, evidence: Evidence) -> list[tuple[Fault, str]]:
    """What the oracle finds, and what only the client can know.

    Args:
        client: stopped.
        evidence: of the site that it loaded, with `client.sent`.
    """
    registered = {file.digest for _, files in evidence.transactions for file in files}
    known = {sent.job_id for sent in evidence.sent}
    gone = [source for source, digest in client.moved.items() if digest not in registered and not source.exists()]
    made_up = [job_id for job_id, _ in evidence.transactions if job_id not in known]
    return [
        *judge(evidence),
        *((Fault.LOST, f"the source {source.name} is gone, and not registered") for source in gone),
        *((Fault.UNLISTED, f"transaction {job_id} is nothing that was sent") for job_id in made_up),
    ]
