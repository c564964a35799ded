"""Servers as processes: start, wait until ready, stop, kill, restart.

What it is: the base `Server`, which owns one process tree, its folder, its log and
its port; `HttpServer`, for anything that answers HTTP; `Program`, for what has no port.

What it is not: knowledge of any one product (see `tests.harness.servers`,
`tests.harness.core`), nor a supervisor: a server that dies stays dead until a test
restarts it.

Who may call it: the harness and any test that runs a command as a server.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.harness.command import HarnessError, base_environment, tail, watch
from tests.harness.guard import guard, kill_tree, tree
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.web import opener

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from tests.harness.guard import Process

__all__ = ["HttpServer", "Program", "Server"]

_POLL_S = 0.02

_servers: weakref.WeakSet[Server] = weakref.WeakSet()
_owner = os.getpid()


class Server:
    """One private server: a process tree, a folder, a log, a port.

    Use it as a context manager (start … close), or call `start` and `close`.
    A subclass gives `command` and `ready`, and may give `prepare` and `environment`.

    Attributes:
        name: Short name, used for the log file.
        folder: All its files. Made for it, and removed by `close`, when none was given.
        port: Its port on 127.0.0.1; the same after each restart.
        log: Its standard output and error.
    """

    #: Asks the server to end in order.
    stop_signal = signal.SIGTERM
    #: Seconds from the start of the process until it must answer.
    ready_s = 120.0
    #: Seconds from `stop_signal` until it is killed.
    stop_s = 15.0

    def __init__(self, name: str, folder: Path | None = None, *, port: int | None = None) -> None:
        """Take a name, a folder and a port; start nothing.

        Args:
            name: Short name.
            folder: Kept after `close`; a temporary one, removed by it, when None.
            port: A port to listen on; a free one when None.
        """
        self.name = name
        self.port = port or free_port()
        self._temporary = folder is None
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix=f"pacifica-{name}-"))
            # Other accounts (postgres, mysql) must get through; theirs is a folder inside.
            folder.chmod(0o755)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.log = self.folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader: Process | None = None
        self._prepared = False

    # What a subclass gives.

    def command(self) -> Sequence[str | Path]:
        """Return program and arguments; the program must stay in the foreground."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Tell whether the server answers now. An OSError counts as no."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make what must exist before the first start. Called once."""

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the process."""
        return base_environment(self.folder)

    @property
    def account(self) -> str | None:
        """System account to run as; None for the one that runs the tests."""
        return None

    # What a test calls.

    @property
    def pid(self) -> int:
        """Number of the running process.

        Raises:
            HarnessError: It does not run.
        """
        if self._process is None:
            message = f"{self.name} does not run"
            raise HarnessError(message)
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the process and wait until it is ready.

        Raises:
            HarnessError: It runs already, ended early or missed the deadline; the
                message carries the end of its log, and nothing is left running.
        """
        self.launch()
        self.wait_until_ready()
        return self

    def launch(self) -> None:
        """Start the process and do not wait.

        Raises:
            HarnessError: It runs already, or could not be prepared.
        """
        if self.running:
            message = f"{self.name} runs already"
            raise HarnessError(message)
        if not self._prepared:
            self.prepare()
            self._prepared = True
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
                user=self.account,
                group=self.account,
                extra_groups=None if self.account is None else [],
            )
        _servers.add(self)
        self._leader = watch(self._process.pid)

    def wait_until_ready(self) -> None:
        """Poll `ready` until it is true.

        Raises:
            HarnessError: As `start` says.
        """
        deadline = time.monotonic() + self.ready_s
        while not self._answers():
            if not self.running:
                self._fail("ended before it was ready")
            if time.monotonic() > deadline:
                self._fail(f"was not ready after {self.ready_s:g} s")
            time.sleep(_POLL_S)

    def _answers(self) -> bool:
        try:
            return self.ready()
        except (OSError, http.client.HTTPException):
            return False

    def _fail(self, what: str) -> None:
        code = None if self._process is None else self._process.poll()
        self.kill()
        message = f"{self.name} {what} (exit code {code}); end of {self.log}:\n{tail(self.log)}"
        raise HarnessError(message)

    def stop(self) -> None:
        """End the server in order, and kill what is left. Data and port stay. May repeat."""
        if self._process is None:
            return
        if self.running:
            self.signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_s)
        self.kill()

    def kill(self) -> None:
        """Kill the whole tree at once (SIGKILL), as a crash would. May repeat."""
        if self._process is None or self._leader is None:
            return
        if not kill_tree(self._leader):
            message = f"{self.name}: some processes would not die: {self.processes()}"
            raise HarnessError(message)
        self._process.wait()
        guard.forget(self._leader)
        self._process = self._leader = None
        self.killed()

    def killed(self) -> None:
        """Do what must follow each end of the process. For subclasses."""

    def restart(self) -> None:
        """Stop if running, then start on the same port with the same data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the whole tree (SIGSTOP): connections are taken, nothing is answered."""
        for process in self.processes():
            process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen tree go on (SIGCONT)."""
        for process in self.processes():
            process.send(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process of the tree."""
        for process in self.processes()[:1]:
            process.send(number)

    def processes(self) -> list[Process]:
        """List the live processes of the tree, the first one first."""
        return [] if self._leader is None else tree(self._leader)

    def close(self) -> None:
        """Stop, and remove the folder if it was made for this server. May repeat."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start."""
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


class HttpServer(Server):
    """A command that answers HTTP on its port.

    Attributes:
        url: ``http://127.0.0.1:PORT``, without a slash at the end.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path | None = None,
        *,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        health: str = "/",
    ) -> None:
        """Describe the command; start nothing.

        Args:
            name: Short name.
            command: Program and arguments; ``{port}`` in one is replaced by the port.
            folder: As for `Server`.
            port: As for `Server`.
            env: Added to a small base environment.
            health: Path that answers with a status below 500 once the server is ready.
        """
        super().__init__(name, folder, port=port)
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._command = [str(part).replace("{port}", str(self.port)) for part in command]
        self._env = dict(env or {})
        self._health = health

    def command(self) -> Sequence[str | Path]:
        """Return the command that was given."""
        return self._command

    def environment(self) -> dict[str, str]:
        """Return the base environment and what was given."""
        return super().environment() | self._env

    def ready(self) -> bool:
        """Ask for the health path."""
        try:
            with opener().open(self.url + self._health, timeout=2):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return error.code < http.client.INTERNAL_SERVER_ERROR


class Program(Server):
    """A command without a port, ready when its log says so: a Celery worker, say."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path | None = None,
        *,
        env: Mapping[str, str] | None = None,
        says: str = "",
    ) -> None:
        """Describe the command; start nothing.

        Args:
            name: Short name.
            command: Program and arguments.
            folder: As for `Server`.
            env: Added to a small base environment.
            says: What it logs once it is ready; empty: ready as soon as it runs.
        """
        super().__init__(name, folder)
        self._command = list(command)
        self._env = dict(env or {})
        self._says = says.encode()
        self._logged = 0

    def command(self) -> Sequence[str | Path]:
        """Return the command that was given, and note where its log begins."""
        self._logged = self.log.stat().st_size
        return self._command

    def environment(self) -> dict[str, str]:
        """Return the base environment and what was given."""
        return super().environment() | self._env

    def ready(self) -> bool:
        """Look for the text in what was logged since the last start."""
        with self.log.open("rb") as log:
            log.seek(self._logged)
            return self.running and self._says in log.read()


@atexit.register
def _close_all() -> None:
    """Stop what a test left running, and only in the process that started it."""
    if os.getpid() == _owner:
        for server in list(_servers):
            with contextlib.suppress(HarnessError, OSError):
                server.close()
