"""Hints to workers, over Celery.

The one home of the Celery application; `tasks` puts the documented tasks on it.  The database is the truth: a hint that
is lost is sent again by the sweep, and one that arrives twice finds the job claimed.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from celery import Celery

from pacifica.ingest.config import load_settings
from pacifica.ingest.core.errors import NeighbourDown
from pacifica.ingest.core.jobs import Job
from pacifica.ingest.core.states import Kind
from pacifica.ingest.ports import Clock

__all__ = ["TASKS", "CeleryQueue", "celery_app"]

logger = logging.getLogger(__name__)

#: Which task carries which kind of job.  Source: documentation of pacifica-ingest 0.4.1.
TASKS = {Kind.INGEST: "pacifica.ingest.tasks.ingest", Kind.MOVE: "pacifica.ingest.tasks.move"}

#: How long, in seconds, a broker may take for one answer, and a sender for its turn.
BROKER_WAIT_S = 3
#: A broker that failed is left alone for that long, in seconds, so that it does not hold up the server's threads.
REST_S = 10.0
#: A child of a worker has that long, in seconds, to start: on a busy machine Celery's 4 s kill one after the other.
CHILD_START_S = 60.0
#: A fault within that time, in seconds, was no silence.
QUICK_S = 0.5

#: How hints are sent: within `BROKER_WAIT_S` or not at all.  Workers read with the defaults, which wait for a broker.
_SENDING = {
    "max_retries": 0,
    # RabbitMQ
    "read_timeout": BROKER_WAIT_S,
    "write_timeout": BROKER_WAIT_S,
    # Redis
    "socket_timeout": BROKER_WAIT_S,
    "socket_connect_timeout": BROKER_WAIT_S,
}


def _configuration() -> Mapping[str, object]:
    """Read when Celery first needs it, so that importing reads nothing."""
    return {
        "broker_url": load_settings().celery.broker_url,
        "broker_connection_retry_on_startup": True,
        # A worker outlives any outage of its broker.
        "broker_connection_max_retries": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        # Job states are in the database.
        "result_backend": "disabled://",
        "task_ignore_result": True,
        # The claim is what makes work happen once, so a message is done with as soon as it is read.
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "worker_proc_alive_timeout": CHILD_START_S,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
    }


def _make_app() -> Celery:
    app = Celery("pacifica.ingest", set_as_current=False)
    app.add_defaults(_configuration)
    return app


celery_app = _make_app()


class CeleryQueue:
    """`ports.Queue` over the broker of `[celery] broker_url`.

    All threads share one connection and take turns.  A broker that fails, or does not answer in time, costs one of them
    `BROKER_WAIT_S`; then the queue rests.
    """

    def __init__(self, clock: Clock) -> None:
        """Send nothing yet; connects with the first hint."""
        self._clock = clock
        self._rests_until = clock.monotonic()
        self._turn = threading.Lock()
        self._connection: Any = None

    def send(self, job: Job) -> None:
        """See `ports.Queue.send`."""
        with self._my_turn():
            if self._clock.monotonic() < self._rests_until:
                raise NeighbourDown("broker", "it failed a moment ago")
            try:
                self._publish(job)
            except Exception as fault:  # each broker's library has errors of its own, down to KeyError
                self._rests_until = self._clock.monotonic() + REST_S
                raise NeighbourDown("broker", str(fault)) from fault

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=BROKER_WAIT_S):
            raise NeighbourDown("broker", "it does not answer")
        try:
            yield
        finally:
            self._turn.release()

    def _publish(self, job: Job) -> None:
        """Send, and at once again when that failed quickly: an idle connection dies when its broker restarts."""
        began = self._clock.monotonic()
        try:
            self._send(job)
        except Exception:
            if self._clock.monotonic() - began > QUICK_S:
                raise
            self._send(job)

    def _send(self, job: Job) -> None:
        if self._connection is None:
            # Opened by the first message.
            self._connection = celery_app.connection_for_write(
                connect_timeout=BROKER_WAIT_S, transport_options=_SENDING
            )
        try:
            celery_app.send_task(
                TASKS[job.kind],
                args=(job.job_id, job.path, job.user),
                connection=self._connection,
                retry=False,
                ignore_result=True,
            )
        except BaseException:
            # Closing it in order would wait for the broker again.
            self._connection.collect()
            raise
