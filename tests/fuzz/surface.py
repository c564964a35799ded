"""Hostile HTTP against a started standalone service, over real sockets.

Each connection sends one request or several behind each other, made of whole and malformed ones and changed at random, and
then nothing more.  `judge` looks at what comes back.  What a connection sends depends on seed and number alone; which
connections run at the same time does not.
"""

import json
import random
import re
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.raw_http import Wire, chunks, head
from tests.acceptance.stage import Standalone, bundle
from tests.fuzz.result import MEMORY_MIB, Result
from tests.harness import request
from tests.harness.waiting import until
from tests.hostile.malformed_http import REFUSED

__all__ = ["Answered", "fuzz_http", "hostile", "judge"]

#: Connections at once, most requests on one, most changes of one request.
AT_ONCE, PIPELINED, CHANGES = 16, 6, 4
#: How long a connection may take, in seconds: what is sent is there at once, but the disk is shared with others.
SLOWEST_S = 10.0
#: By how much the memory may grow behind the first tenth of a round, in MiB.
GROWTH_MIB = 32
#: Inputs of which many would only cost time, in bytes: one in a hundred is longer.
LONG_BYTES = 20_000
#: Between two lines about the progress, in seconds.
TOLD_S = 30.0

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [!-~ ]*\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^`|~0-9A-Za-z-]+): ([!-~][ -~]*)?\r\n")
_KEYS = {"status", "message", "code", "traceback", "version"}
_CONTINUE, _OK, _ERROR, _SERVER_ERROR, _UNAVAILABLE = 100, 200, 400, 500, 503

#: What somebody may have meant to send.
WHOLE = [
    head("GET", "/"),
    head("HEAD", "/"),
    head("OPTIONS", "*"),
    head("GET", "/openapi.json"),
    head("GET", "/get_state?job_id=999999999"),
    head("GET", "/get_state?job_id=%00x", "X-Http-Authed-User: me"),
    head("DELETE", "/upload?a=b", "Connection: close"),
    head("POST", "/move", "Content-Type: application/json", "Content-Length: 2") + b"[]",
    head("POST", "/upload", "Content-Length: 1", "Idempotency-Key: abc") + b"a",
    head("POST", "/upload", "Content-Length: 1", "Repr-Digest: sha-256=:AAAA:") + b"a",
    head("POST", "/upload", "Transfer-Encoding: chunked") + chunks(b"abcdef" * 9, 7, b"0\r\nA: b\r\n\r\n"),
    head("POST", "/upload", "Transfer-Encoding: chunked", "Expect: 100-continue") + chunks(b"abc", 2),
]
#: Accepted as they are, so each costs a job: they are few.
BUNDLE = bundle({"a.txt": b"alpha"})
UPLOAD = head("POST", "/upload", f"Content-Length: {len(BUNDLE)}") + BUNDLE
MALFORMED = [sent for sent, _ in REFUSED.values()]
SHORT = [sent for sent in MALFORMED if len(sent) < LONG_BYTES]
TOKENS = [
    *[b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"\x0b", b"\x7f", b"\xff", b"_", b":", b";", b",", b"+", b"-", b"%"],
    *[b"HTTP/1.1", b"HTTP/1.0", b"GET / HTTP/1.1\r\n", b"POST /upload HTTP/1.1\r\n", b"0\r\n\r\n", b"f" * 17, b"0x1"],
    *[b"Host: x\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n"],
    *[b"Content_Length: 1\r\n", b"X-Http-Authed-User: a,b\r\n", b"Connection: close\r\n", b"%0d%0a", b"../", b"[{}]"],
]


@dataclass(slots=True)
class Answered:
    """What came back, added up.

    Attributes:
        statuses: status → how many.
        jobs: numbers of the jobs that were accepted.
        slowest_s: the longest time of a connection.
        faults: what must not be.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    jobs: set[int] = field(default_factory=set)
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)


def hostile(seed: int, number: int) -> bytes:
    """What a connection sends."""
    chance = random.Random(f"{seed} {number}")
    return b"".join(_request(chance) for _ in range(chance.randint(1, PIPELINED)))


def _request(chance: random.Random) -> bytes:
    kind = chance.random()
    sent = chance.choice([UPLOAD, *MALFORMED] if kind < 0.01 else WHOLE if kind < 0.5 else SHORT)
    # Some stay as they are, so that others are read behind them.
    for _ in range(chance.randint(0, CHANGES)):
        sent = _changed(sent, chance)
    return sent


def _changed(sent: bytes, chance: random.Random) -> bytes:
    at, end = sorted(chance.randrange(len(sent) + 1) for _ in range(2))
    end = min(end, at + chance.choice([1, 2, 8, 40]))
    cut = sent[at:end]
    instead = [
        b"",
        chance.choice(TOKENS),
        chance.choice(TOKENS) + cut,
        chance.randbytes(len(cut)),
        cut * chance.choice([2, 3, 50]),
        cut.swapcase(),
        chance.choice([*WHOLE, *SHORT])[at:end],
    ]
    return sent[:at] + chance.choice(instead) + sent[end:]


def judge(sent: bytes, received: bytes) -> Iterator[tuple[int, object]]:
    """Status and JSON of each answer of a connection; that of a HEAD is None.

    Raises:
        AssertionError: something else than well-formed answers that may be given.

    """
    rest = received
    assert rest or not sent.strip(b"\r\n"), "no answer"
    while rest:
        line = _STATUS.match(rest)
        assert line, f"no status line: {rest[:80]!r}"
        fields, rest = _fields(rest[line.end() :])
        status = int(line[1])
        if status == _CONTINUE:
            assert b"100-continue" in sent.lower(), "100 and nobody asked"
            continue
        assert b"content-length" in fields, fields
        length = int(fields[b"content-length"])
        if length and b"HEAD" in sent and (not rest or rest.startswith(b"HTTP/1.1 ")):
            yield status, None
            continue
        assert len(rest) >= length, "the answer is cut"
        body, rest = rest[:length], rest[length:]
        yield status, _json(status, fields, body)


def _fields(text: bytes) -> tuple[dict[bytes, bytes], bytes]:
    fields: dict[bytes, bytes] = {}
    while not text.startswith(b"\r\n"):
        match = _FIELD.match(text)
        assert match, f"no header: {text[:80]!r}"
        fields[match[1].lower()] = match[2] or b""
        text = text[match.end() :]
    return fields, text.removeprefix(b"\r\n")


def _json(status: int, fields: dict[bytes, bytes], body: bytes) -> object:
    assert status in {_OK, _UNAVAILABLE} or _ERROR <= status < _SERVER_ERROR, f"{status}: {body!r}"
    assert fields[b"content-type"].startswith(b"application/"), fields
    found = json.loads(body)
    if status != _OK:
        assert set(found) == _KEYS, found
        assert found["traceback"] == "", found
        assert found["message"].replace("\n", "").isprintable(), found
    return found


def fuzz_http(requests: int, seed: int, folder: Path, *, seconds: int = 0, tell: bool = False) -> Result:
    """Send until so many requests were answered, or for so long; what was found is kept in `folder`."""
    answered, lock, began = Answered(), threading.Lock(), time.monotonic()
    with Standalone(folder / f"http-{seed}") as service:
        memory = _Memory(service.pid)

        def until_enough(first: int) -> None:
            number = first
            while sum(answered.statuses.values()) < requests and not answered.faults:
                if seconds and time.monotonic() - began > seconds:
                    return
                sent = hostile(seed, number)
                found = _Connection(service.url, sent)
                with lock:
                    found.add_to(answered, number)
                    memory.look(sum(answered.statuses.values()) / requests)
                    if found.fault:
                        (folder / f"found-http-{seed}-{number}").write_bytes(sent)
                number += AT_ONCE

        with ThreadPoolExecutor(AT_ONCE) as pool:
            rounds = [pool.submit(until_enough, first) for first in range(AT_ONCE)]
            while tell and not all(one.done() for one in rounds):
                wait(rounds, timeout=TOLD_S)
                print(f"http: {_told(answered)}, {memory.now_mib} MiB", file=sys.stderr)  # noqa: T201 (a command)
            for one in rounds:
                one.result()
        _judge_service(service, answered, memory)
    return Result(
        target="http",
        inputs=sum(answered.statuses.values()),
        seconds=round(time.monotonic() - began),
        memory_mib=memory.most_mib,
        found="\n".join(answered.faults),
    )


def _told(answered: Answered) -> str:
    counts = ", ".join(f"{status}: {count:,}" for status, count in sorted(answered.statuses.copy().items()))
    return f"{counts}; slowest connection {answered.slowest_s:.2f} s"


class _Connection:
    """One connection: what was sent, and what came back of it."""

    def __init__(self, url: str, sent: bytes) -> None:
        self.fault = ""
        self.answers: list[tuple[int, object]] = []
        began = time.monotonic()
        try:
            with Wire(url) as wire:
                # Who is refused early may be hung up on while it sends.
                with suppress(ConnectionError):
                    wire.send(sent).finish()
                received = wire.rest()
            self.answers = list(judge(sent, received))
        except (AssertionError, ValueError, LookupError, OSError) as fault:
            self.fault = f"{type(fault).__name__}: {fault}"
        self.took_s = time.monotonic() - began
        if self.took_s > SLOWEST_S and not self.fault:
            self.fault = f"it took {self.took_s:.1f} s"

    def add_to(self, answered: Answered, number: int) -> None:
        answered.slowest_s = max(answered.slowest_s, self.took_s)
        for status, found in self.answers:
            answered.statuses[status] += 1
            if status == _OK and isinstance(found, dict) and "job_id" in found and "state" in found:
                answered.jobs.add(int(found["job_id"]))
        if self.fault:
            answered.faults.append(f"connection {number}: {self.fault}")


class _Memory:
    """What a process has in memory, in MiB; not known where there is no /proc."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._warm_mib = 0
        self.now_mib = self.most_mib = self._read("VmHWM")
        self._looked = time.monotonic()

    def look(self, done: float) -> None:
        """Look once a second; `done` tells how much of the round is over."""
        if time.monotonic() - self._looked < 1 and done < 1:
            return
        self._looked = time.monotonic()
        self.now_mib, self.most_mib = self._read("VmRSS"), self._read("VmHWM")
        if not self._warm_mib and done > 0.1:
            self._warm_mib = self.most_mib

    @property
    def growth_mib(self) -> int:
        """Since the first tenth."""
        return self.most_mib - (self._warm_mib or self.most_mib)

    def _read(self, what: str) -> int:
        with suppress(OSError):
            found = re.search(rf"^{what}:\s+(\d+) kB", self._status.read_text(), re.MULTILINE)
            return int(found[1]) // 1024 if found else 0
        return 0


def _judge_service(service: Standalone, answered: Answered, memory: _Memory) -> None:
    """What must hold when the round is over."""
    began = time.monotonic()
    status = request("GET", f"{service.url}/").status
    took_s = time.monotonic() - began
    if status != _OK or took_s > 1:
        answered.faults.append(f"GET / afterwards: {status} after {took_s:.1f} s")
    if not answered.faults:
        with suppress(AssertionError):
            until(lambda: _jobs(service) == answered.jobs, "only accepted jobs to be there")
        strange = sorted(_jobs(service) ^ answered.jobs)
        if strange:
            answered.faults.append(f"jobs that nobody was told of, or that are not there: {strange[:20]}")
    if "Traceback" in service.log.read_text(errors="replace"):
        answered.faults.append(f"a traceback in {service.log}")
    if memory.most_mib > MEMORY_MIB or memory.growth_mib > GROWTH_MIB:
        answered.faults.append(f"memory: {memory.most_mib} MiB, {memory.growth_mib} MiB more than at the beginning")


def _jobs(service: Standalone) -> set[int]:
    with closing(sqlite3.connect(service.home / "ingest.sqlite3")) as database:
        return {number for (number,) in database.execute("SELECT id FROM ingeststate")}
