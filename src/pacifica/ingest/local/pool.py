"""Worker processes that one server owns.

The pool starts them, wakes them, and starts another when one dies.  What they do is not known here.  A worker ends by
itself when the server is gone, however that died.

On Linux they are forked from one process that has imported what they need, and has no threads (`forkserver` of the
standard library): a worker that is replaced costs milliseconds, and what they imported is in memory once.  Elsewhere, and
where that process cannot be had (it needs a temporary folder with a short path), each worker is started anew.
"""

import contextlib
import logging
import multiprocessing
import multiprocessing.context
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType

from pacifica.ingest.core.jobs import Job

__all__ = ["Pool", "PoolQueue", "Wakeup"]

logger = logging.getLogger(__name__)

#: How long, in seconds, workers have to put their job down.
GRACE_S = 7.0
#: The pause, in seconds, before a worker that died is replaced, so that one that cannot start does not spin.
RESTART_S = 0.5
#: A worker looks for work this often, in seconds, even when nobody wakes it.
LOOK_EVERY_S = 1.0

#: What a terminal sends to all processes that it started: Ctrl-C, and its end.
_TERMINAL = {getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)}

_Context = multiprocessing.context.ForkServerContext | multiprocessing.context.SpawnContext
_SPAWN = multiprocessing.get_context("spawn")
_QUICKEST: _Context = multiprocessing.get_context("forkserver") if sys.platform == "linux" else _SPAWN


class Wakeup:
    """A worker's end: told when there may be work, and when to stop."""

    def __init__(self, bell: "connection.Connection[bytes, bytes]") -> None:
        """Listen to `bell`, to signals, and to the end of the server."""
        self._bell = bell
        self._stop = threading.Event()

    def listen(self) -> None:
        """Be deaf to the terminal, which the server hears as well, and stop at SIGTERM or when the server is gone."""
        for number in _TERMINAL:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_signal)
        if os.name != "nt":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        threading.Thread(target=self._outlive, name="server watch", daemon=True).start()

    def stopping(self) -> bool:
        """Whether the worker is to put down what it has."""
        return self._stop.is_set()

    def wait(self) -> None:
        """Return when there may be work, or a moment later."""
        with contextlib.suppress(EOFError, OSError):
            if self._bell.poll(LOOK_EVERY_S):
                while self._bell.poll():
                    self._bell.recv_bytes()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _outlive(self) -> None:
        # Gone, or it believes that this worker is, as the process that forked it was killed: it has hung up then, too.
        server = multiprocessing.parent_process()
        if server is not None:
            server.join()
        self._stop.set()
        # A worker that hangs in a call must not outlive the server: the next one takes its job over.
        time.sleep(GRACE_S)
        os._exit(1)


class _Worker:
    """The server's end of one worker."""

    def __init__(self, context: _Context, work: Callable[[Wakeup], None], number: int) -> None:
        reader, self._bell = context.Pipe(duplex=False)
        if os.name != "nt":
            os.set_blocking(self._bell.fileno(), False)
        # A daemon: when this process is told to end before it knows the worker, its end is the worker's, too.
        self.process: BaseProcess = context.Process(
            target=_run, args=(work, reader), name=f"worker {number}", daemon=True
        )
        try:
            with _deaf():
                self.process.start()
        except BaseException:
            self._bell.close()
            raise
        finally:
            reader.close()

    def wake(self) -> None:
        """Ring; a full pipe means that it rings already, a broken one that the worker is being replaced."""
        with contextlib.suppress(OSError):
            self._bell.send_bytes(b"!")

    def close(self) -> None:
        self._bell.close()
        self.process.close()


class Pool:
    """A fixed number of worker processes."""

    def __init__(self, work: Callable[[Wakeup], None], count: int, imports: Sequence[str] = ()) -> None:
        """Start nothing yet.

        Args:
            work: must be picklable; returns when it is told to stop.
            count: of workers.
            imports: modules that it needs; must open nothing when they are imported.

        """
        _QUICKEST.set_forkserver_preload(list(imports))
        self._work = work
        self._count = count
        self._workers: list[_Worker] = []
        self._stop = threading.Event()
        self._ending: Callable[[], bool] = lambda: False
        self._keeper = threading.Thread(target=self._keep, name="pool", daemon=True)

    def start(self, ending: Callable[[], bool] = lambda: False) -> None:
        """Start the workers.

        Args:
            ending: whether the server begins to stop: from then on a worker that ended is not replaced.

        """
        self._ending = ending
        with _deaf():
            # A stop between the start of a worker and its place in the list would leave one that nobody ends.
            for number in range(self._count):
                self._workers.append(self._worker(number))
        self._keeper.start()

    def wake(self) -> None:
        """Tell all workers that there may be work.  Never blocks."""
        for worker in self._workers:
            worker.wake()

    def stop(self) -> None:
        """Let the workers put their jobs down, and end them; at most `GRACE_S` seconds.  Also after a start that was cut."""
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join()
        deadline = time.monotonic() + GRACE_S
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                logger.warning("a worker had to be killed; its job goes on later", extra={"pid": worker.process.pid})
                worker.process.kill()
                worker.process.join()
            worker.close()

    def _worker(self, number: int) -> _Worker:
        try:
            return _Worker(_QUICKEST, self._work, number)
        except (OSError, EOFError) as fault:
            # The process that forks them ended just now, or there is no folder for its socket, or none with a short path.
            logger.info("a worker is started anew, and not forked", extra={"reason": str(fault)})
            return _Worker(_SPAWN, self._work, number)

    def _keep(self) -> None:
        while not self._stop.wait(RESTART_S):
            for place, worker in enumerate(self._workers):
                # A signal to the whole group stops the workers while the server waits for its requests.
                if worker.process.is_alive() or self._ending():
                    continue
                code = worker.process.exitcode
                about = {"pid": worker.process.pid, "exit_code": code}
                try:
                    self._workers[place] = self._worker(place)
                except (OSError, EOFError) as fault:
                    # The process that forks them may have ended just now, or the system has none to spare.
                    logger.warning(
                        "a worker ended, and no other can be started yet", extra=about | {"reason": str(fault)}
                    )
                    continue
                # One that was asked to stop by itself, as by a signal to the whole group, did nothing wrong.
                level = logging.ERROR if code else logging.INFO
                logger.log(level, "a worker ended, another took its place", extra=about)
                worker.close()


class PoolQueue:
    """`ports.Queue` to the workers of a pool."""

    def __init__(self, pool: Pool) -> None:
        """Hint to `pool`."""
        self._pool = pool

    def send(self, job: Job) -> None:  # noqa: ARG002 (the port's argument; any worker takes any job)
        """See `ports.Queue.send`; the workers look into the database for what there is to do."""
        self._pool.wake()


@contextmanager
def _deaf() -> Iterator[None]:
    """Let processes that are started meanwhile be deaf to the terminal from their first moment on.

    And to SIGTERM, until they listen: the process that forks them is to outlive them when all are told to stop.
    """
    if os.name == "nt":
        yield
        return
    # It would lift the mask when it is started on the way.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINAL | {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(work: Callable[[Wakeup], None], bell: "connection.Connection[bytes, bytes]") -> None:
    wakeup = Wakeup(bell)
    wakeup.listen()
    work(wakeup)
