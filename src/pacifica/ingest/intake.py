"""Accepting: from the first byte of a request to a job that no crash can lose.

The order is the promise: the file is durable before the row says READY, the row is committed before the answer, and the
hint to the workers comes last, as it may be lost.  Knows ports and core only; `rest` calls it.
"""

import hashlib
import logging
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pacifica.ingest.core.errors import (
    ClaimLost,
    Conflict,
    KeyReused,
    LengthMismatch,
    NeighbourDown,
    TooLarge,
    Unavailable,
)
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Kind
from pacifica.ingest.ports import Clock, IdMode, Ids, JobStore, Queue, Receipt, RequestMark, Staging, Upload

__all__ = ["Body", "Intake"]

logger = logging.getLogger(__name__)

#: An upload shows that it lives this often, in seconds, while bytes arrive.
SIGN_OF_LIFE_S = 5.0
#: How many ids are tried when others had taken them.
ID_TRIES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A request body that arrives.

    Attributes:
        chunks: the bytes, as they come; ends early when the connection is cut.
        length: Content-Length in bytes, or None when the body is chunked.

    """

    chunks: Iterable[bytes | memoryview]
    length: int | None


class Intake:
    """Turns request bodies into jobs."""

    def __init__(
        self, *, store: JobStore, staging: Staging, ids: Ids, queue: Queue, clock: Clock, max_bytes: int
    ) -> None:
        """Work with these; `max_bytes` limits a body, 0 is no limit."""
        self._store = store
        self._staging = staging
        self._ids = ids
        self._queue = queue
        self._clock = clock
        self._max_bytes = max_bytes

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
            TooLarge, LengthMismatch, KeyReused: not retryable; nothing is kept.
            NoSpace, NeighbourDown, DatabaseDown: retryable; nothing is kept.

        """
        self._limit(body.length or 0)
        self._staging.admit(body.length)
        fingerprint = _Fingerprint(kind, user, key) if key else None
        owner = uuid.uuid4().hex
        job_id, upload = self._begin(kind, user, owner)
        try:
            receipt = self._receive(upload, job_id, owner, fingerprint.of(body) if fingerprint else body)
        except Conflict:
            # A file of that name is there already, and it is not ours to discard.
            self._forget(job_id, owner)
            raise
        except BaseException:
            self._drop(job_id, kind, owner)
            raise
        return self._commit(job_id, kind, owner, receipt, fingerprint.mark() if fingerprint else None)

    def hint(self, job: Job) -> None:
        """Tell the workers; a hint that is lost is sent again by the sweep."""
        try:
            self._queue.send(job)
        except NeighbourDown as fault:
            logger.warning(
                "hint lost, the sweep will send it again", extra={"job_id": job.job_id, "reason": str(fault)}
            )

    def _begin(self, kind: Kind, user: str, owner: str) -> tuple[int, Upload]:
        """Take an id and a place for it; UniqueID may give one number to two callers, the row decides."""
        for _ in range(ID_TRIES):
            job_id = self._ids.reserve(IdMode.JOB, 1).start
            if not self._store.open(job_id, kind, user, owner):
                continue
            try:
                return job_id, self._staging.begin(job_id, kind)
            except Conflict as fault:
                logger.warning("another number is taken", extra={"job_id": job_id, "reason": str(fault)})
                self._forget(job_id, owner)
            except BaseException:
                self._drop(job_id, kind, owner)
                raise
        reason = f"{ID_TRIES} numbers in a row were taken already"
        raise NeighbourDown("uniqueid", reason)

    def _receive(self, upload: Upload, job_id: int, owner: str, body: Body) -> Receipt:
        try:
            found = self._write(upload, job_id, owner, body)
            if body.length is not None and found != body.length:
                raise LengthMismatch(body.length, found)
            return upload.commit()
        finally:
            upload.close()

    def _write(self, upload: Upload, job_id: int, owner: str, body: Body) -> int:
        found = 0
        shown = self._clock.monotonic()
        for chunk in body.chunks:
            found += len(chunk)
            self._limit(found)
            upload.write(chunk)
            if self._clock.monotonic() - shown > SIGN_OF_LIFE_S:
                self._show_life(job_id, owner)
                shown = self._clock.monotonic()
        return found

    def _show_life(self, job_id: int, owner: str) -> None:
        """A database that is away for a moment must not end hours of uploading; the next sign may reach it."""
        try:
            self._store.receiving(job_id, owner)
        except Unavailable as fault:
            logger.warning("an upload cannot show that it lives", extra={"job_id": job_id, "reason": str(fault)})

    def _limit(self, size_bytes: int) -> None:
        if self._max_bytes and size_bytes > self._max_bytes:
            raise TooLarge(self._max_bytes)

    def _commit(self, job_id: int, kind: Kind, owner: str, receipt: Receipt, mark: RequestMark | None) -> Job:
        try:
            job = self._store.accept(job_id, owner, receipt, mark)
        except (ClaimLost, KeyReused):
            # Nothing else says that it was not committed: after any other error the file stays, and recovery removes it
            # if the job is not READY.
            self._drop(job_id, kind, owner)
            raise
        if job.job_id != job_id:
            self._drop(job_id, kind, owner)
        logger.info("accepted", extra={"job_id": job.job_id, "size_bytes": receipt.size_bytes, "user": job.user})
        return job

    def _drop(self, job_id: int, kind: Kind, owner: str) -> None:
        """Leave nothing behind; the file goes first, as what the row names is found again."""
        self._staging.discard(job_id, kind)
        self._forget(job_id, owner)

    def _forget(self, job_id: int, owner: str) -> None:
        try:
            self._store.refuse(job_id, owner)
        except Unavailable:
            logger.warning("a refused upload stays listed until the sweep", extra={"job_id": job_id})


class _Fingerprint:
    """Computes by what a request that is sent again is known."""

    def __init__(self, kind: Kind, user: str, key: str) -> None:
        # Keys of two users are two keys, and a user may have any length.
        self._key = hashlib.sha256(f"{user}\0{key}".encode()).hexdigest()
        self._kind = kind
        self._found = hashlib.sha256()

    def of(self, body: Body) -> Body:
        """The body, which is told to this while it is read."""
        return Body(chunks=self._told(body), length=body.length)

    def mark(self) -> RequestMark:
        """What was told."""
        return RequestMark(key=self._key, fingerprint=f"{self._kind}:{self._found.hexdigest()}")

    def _told(self, body: Body) -> Iterator[bytes | memoryview]:
        for chunk in body.chunks:
            self._found.update(chunk)
            yield chunk
