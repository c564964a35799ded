"""Accepting: from the first byte of a request to a job that no crash can lose.

The order is the promise: the file is durable before the row says READY, the row is committed before the answer, and the
hint to the workers comes last, as it may be lost.  Knows ports and core only; `rest` calls it.
"""

import hashlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from pacifica.ingest.admission import Admission
from pacifica.ingest.core.digests import Announcement, Proof
from pacifica.ingest.core.errors import (
    ClaimLost,
    Conflict,
    DatabaseDown,
    KeyReused,
    LengthMismatch,
    NeighbourDown,
    TooLarge,
    Unavailable,
    Unconfirmed,
)
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Kind
from pacifica.ingest.ports import Clock, IdMode, Ids, JobStore, Queue, Receipt, RequestMark, Staging, Upload

__all__ = ["Body", "Intake"]

logger = logging.getLogger(__name__)

#: An upload shows that it lives this often, in seconds.
SIGN_OF_LIFE_S = 5.0
#: How long, in seconds, the commit of an upload may take, and how much longer for each byte: a slow disk syncs a large body
#: for hours.
COMMIT_SILENCE_S = 600.0
COMMIT_SILENCE_PER_BYTE_S = 1e-7
#: A database that went away while it committed an upload is asked again for so long, with such pauses, in seconds.
UNCONFIRMED_S = 30.0
ASK_AGAIN_S = 2.0
#: How many ids are tried when others had taken them.
ID_TRIES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A request body that arrives.

    Attributes:
        chunks: the bytes, as they come; ends early when the connection is cut.
        length: Content-Length in bytes, or None when the body is chunked.
        digests: what the client says that the bytes hash to.

    """

    chunks: Iterable[bytes | memoryview]
    length: int | None
    digests: Sequence[Announcement] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Berth:
    """Where an upload lands, and whose it is."""

    job_id: int
    kind: Kind
    owner: str
    landing_zone: str


class Intake:
    """Turns request bodies into jobs."""

    def __init__(
        self,
        *,
        store: JobStore,
        staging: Staging,
        ids: Ids,
        queue: Queue,
        clock: Clock,
        pause: Callable[[float], object],
        max_bytes: int,
        admission: Admission | None = None,
    ) -> None:
        """Work with these.

        Args:
            store: where jobs are kept.
            staging: where bodies are kept.
            ids: gives their numbers.
            queue: is told of jobs.
            clock: for signs of life.
            pause: waits for some seconds; returns true when this process is to end.
            max_bytes: limits a body; 0 is no limit.
            admission: limits how many are received at once; without one nothing does.

        """
        self._store = store
        self._staging = staging
        self._ids = ids
        self._queue = queue
        self._clock = clock
        self._pause = pause
        self._max_bytes = max_bytes
        self._admission = admission or Admission()

    def accept(self, kind: Kind, user: str, body: Body, key: str = "") -> Job:
        """Receive a body and make a job of it.

        Args:
            kind: what the body is.
            user: who sent it.
            body: the bytes.
            key: the client's `Idempotency-Key`; a request that is sent again with it is the same job.

        Returns:
            the job, READY and durable; that of the first request with this key, whatever became of it since.

        Raises:
            TooLarge, LengthMismatch, DigestMismatch, KeyReused: not retryable; nothing is kept.
            Busy, TooManyUploads, NoSpace, NeighbourDown, DatabaseDown: retryable; nothing is kept.
            Unconfirmed: the job is READY, or fails and says that it is to be sent again; nobody knows which.

        """
        with self._admission.upload(user):
            return self._accept(kind, user, body, key)

    def _accept(self, kind: Kind, user: str, body: Body, key: str) -> Job:
        self._limit(body.length or 0)
        landing_zone = self._staging.admit(body.length)
        fingerprint = _Fingerprint(kind, user, key) if key else None
        berth, upload = self._begin(kind, user, landing_zone)
        with _Heart(berth.job_id, self._clock, lambda: self._show_life(berth)) as heart:
            try:
                receipt = self._receive(upload, berth, fingerprint.of(body) if fingerprint else body, heart)
            except Conflict:
                # A file of that name is there already, and it is not ours to discard.
                self._forget(berth)
                raise
            except BaseException:
                self._drop(berth)
                raise
            return self._commit(berth, receipt, fingerprint.mark() if fingerprint else None)

    def hint(self, job: Job) -> None:
        """Tell the workers; a hint that is lost is sent again by the sweep."""
        try:
            self._queue.send(job)
        except NeighbourDown as fault:
            logger.warning(
                "hint lost, the sweep will send it again", extra={"job_id": job.job_id, "reason": str(fault)}
            )

    def _begin(self, kind: Kind, user: str, landing_zone: str) -> tuple[_Berth, Upload]:
        """Take an id and a place for it; UniqueID may give one number to two callers, the row decides."""
        owner = uuid.uuid4().hex
        for _ in range(ID_TRIES):
            job_id = self._ids.reserve(IdMode.JOB, 1).start
            berth = _Berth(job_id=job_id, kind=kind, owner=owner, landing_zone=landing_zone)
            if not self._store.open(job_id, kind, user, owner, landing_zone):
                continue
            try:
                return berth, self._staging.begin(job_id, kind, landing_zone)
            except Conflict as fault:
                logger.warning("another number is taken", extra={"job_id": job_id, "reason": str(fault)})
                self._forget(berth)
            except BaseException:
                self._drop(berth)
                raise
        reason = f"{ID_TRIES} numbers in a row were taken already"
        raise NeighbourDown("uniqueid", reason)

    def _receive(self, upload: Upload, berth: _Berth, body: Body, heart: "_Heart") -> Receipt:
        proof = Proof(body.digests)
        try:
            found = self._write(upload, berth, proof.of(body.chunks))
            if body.length is not None and found != body.length:
                raise LengthMismatch(body.length, found)
            proof.verify()
            heart.start(COMMIT_SILENCE_S + COMMIT_SILENCE_PER_BYTE_S * found)
            return upload.commit()
        finally:
            upload.close()

    def _write(self, upload: Upload, berth: _Berth, chunks: Iterable[bytes | memoryview]) -> int:
        found = 0
        shown = self._clock.monotonic()
        for chunk in chunks:
            found += len(chunk)
            self._limit(found)
            with self._admission.turn:
                upload.write(chunk)
            if self._clock.monotonic() - shown > SIGN_OF_LIFE_S:
                self._show_life(berth)
                shown = self._clock.monotonic()
        return found

    def _show_life(self, berth: _Berth) -> None:
        """A database that is away for a moment must not end hours of uploading; the next sign may reach it."""
        try:
            self._store.receiving(berth.job_id, berth.owner)
        except Unavailable as fault:
            about = {"job_id": berth.job_id, "reason": str(fault)}
            logger.warning("an upload cannot show that it lives", extra=about)

    def _limit(self, size_bytes: int) -> None:
        if self._max_bytes and size_bytes > self._max_bytes:
            raise TooLarge(self._max_bytes)

    def _commit(self, berth: _Berth, receipt: Receipt, mark: RequestMark | None) -> Job:
        try:
            job = self._confirm(berth, receipt, mark)
        except (ClaimLost, KeyReused):
            # Nothing else says that it was not committed: after any other error the file stays, and recovery removes it
            # if the job is not READY.
            self._drop(berth)
            raise
        if job.job_id != berth.job_id:
            self._drop(berth)
        logger.info("accepted", extra={"job_id": job.job_id, "size_bytes": receipt.size_bytes, "user": job.user})
        return job

    def _confirm(self, berth: _Berth, receipt: Receipt, mark: RequestMark | None) -> Job:
        """Commit; a database that goes away meanwhile may have done it, so it is asked again."""
        until = self._clock.monotonic() + UNCONFIRMED_S
        while True:
            try:
                return self._store.accept(berth.job_id, berth.owner, receipt, mark)
            except DatabaseDown as fault:
                about = {"job_id": berth.job_id, "reason": str(fault)}
                logger.warning("whether an upload is accepted is not known", extra=about)
                if self._clock.monotonic() >= until or self._pause(ASK_AGAIN_S):
                    raise Unconfirmed(berth.job_id) from fault

    def _drop(self, berth: _Berth) -> None:
        """Leave nothing behind; the file goes first, as what the row names is found again."""
        try:
            self._staging.discard(berth.job_id, berth.kind, berth.landing_zone)
        except (OSError, Unavailable) as fault:
            about = {"job_id": berth.job_id, "reason": str(fault)}
            logger.warning("the file of a refused upload stays until the sweep", extra=about)
        else:
            self._forget(berth)

    def _forget(self, berth: _Berth) -> None:
        try:
            self._store.refuse(berth.job_id, berth.owner)
        except Unavailable:
            logger.warning("a refused upload stays listed until the sweep", extra={"job_id": berth.job_id})


class _Heart:
    """Shows that an upload lives while it is committed: a thread of its own, from `start` to the end of the block.

    While bytes arrive they show it.  A disk that hangs does not beat for ever: the upload is given up when it showed nothing
    but beats for as long as it was given.
    """

    def __init__(self, job_id: int, clock: Clock, show: Callable[[], None]) -> None:
        """Beat by calling `show`, which raises `ClaimLost` when there is no use in it any more."""
        self._clock = clock
        self._show = show
        self._until = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heart of upload {job_id}", daemon=True)
        self._is_started = False

    def __enter__(self) -> Self:
        """Nothing beats yet."""
        return self

    def start(self, patience_s: float) -> None:
        """Beat for that long, in seconds, or until the end."""
        self._until = self._clock.monotonic() + patience_s
        self._is_started = True
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._over.set()
        if self._is_started:
            self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(SIGN_OF_LIFE_S) and self._clock.monotonic() <= self._until:
            try:
                self._show()
            except ClaimLost:
                return


class _Fingerprint:
    """Computes by what a request that is sent again is known."""

    def __init__(self, kind: Kind, user: str, key: str) -> None:
        # Keys of two users are two keys, and a user may have any length.
        self._key = hashlib.sha256(f"{user}\0{key}".encode()).hexdigest()
        self._kind = kind
        self._found = hashlib.sha256()

    def of(self, body: Body) -> Body:
        """The body, which is told to this while it is read."""
        return replace(body, chunks=self._told(body))

    def mark(self) -> RequestMark:
        """What was told."""
        return RequestMark(key=self._key, fingerprint=f"{self._kind}:{self._found.hexdigest()}")

    def _told(self, body: Body) -> Iterator[bytes | memoryview]:
        for chunk in body.chunks:
            self._found.update(chunk)
            yield chunk
