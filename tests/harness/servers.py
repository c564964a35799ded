"""Private PostgreSQL, MariaDB, Redis and RabbitMQ servers on the loopback.

What it is: one class per product, a `Server` with a `url` and, for the two databases,
`new_database`. Each has its own folder, port, account data and configuration; nothing
of an instance that the machine already runs is read or used.

What it is not: a client library. Readiness is asked with the server's own tool or a
few bytes on a socket, so the harness needs no driver.

Who may call it: `tests.harness.fixtures`, `tests.harness.core` and any test that needs
a server of its own to kill.

A missing product is an error that says what to install; nothing is ever skipped.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness.command import HarnessError, base_environment, run
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.process import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MariaDB", "PostgreSQL", "RabbitMQ", "Redis"]

_USER = "pacifica"
_PROBE_S = 2.0


def _binary(name: str, package: str, *patterns: str) -> Path:
    """Find a program.

    Args:
        name: Name of the program, for ``PATH``.
        package: Debian package that has it.
        patterns: Glob patterns below ``/``, looked at before ``PATH``; the last match wins.

    Raises:
        HarnessError: Not there; says what to install.
    """
    found = _find(name, patterns)
    if found is None:
        message = f"the tests need {name}; install it (on Debian: apt-get install {package})"
        raise HarnessError(message)
    return found


def _find(name: str, patterns: Sequence[str]) -> Path | None:
    for pattern in patterns:
        matches = sorted(Path("/").glob(pattern.lstrip("/")), key=_version)
        if matches:
            return matches[-1]
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    return None if path is None else Path(path)


def _version(path: Path) -> list[int]:
    return [int(part) for part in path.parts if part.isdigit()]


def _account(name: str) -> str | None:
    """Return the account to drop to when this process is root; else None."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(name)
    except KeyError:
        message = f"root cannot run this server itself, and there is no account {name}"
        raise HarnessError(message) from None
    return name


def _give(folder: Path, account: str | None) -> None:
    """Make a folder that belongs to `account`, and see that it can be reached.

    Raises:
        HarnessError: The account may not pass a folder above it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account is None:
        return
    shutil.chown(folder, account, account)
    blocked = next((p for p in folder.parents if not p.stat().st_mode & 0o001), None)
    if blocked is not None:
        message = (
            f"the account {account} may not enter {blocked}; give no folder, or one that everybody may pass through"
        )
        raise HarnessError(message)


def _exchange(port: int, question: bytes, size: int) -> bytes:
    """Connect, send, and return the first bytes of the answer."""
    with socket.create_connection((LOOPBACK, port), timeout=_PROBE_S) as connection:
        if question:
            connection.sendall(question)
        return connection.recv(size)


class PostgreSQL(Server):
    """A private PostgreSQL: TCP only, every local role trusted.

    Attributes:
        url: ``postgresql://pacifica:pacifica@127.0.0.1:PORT/postgres``.
    """

    # SIGTERM would wait for all clients to leave.
    stop_signal = signal.SIGINT

    def __init__(self, folder: Path | None = None, *, durable: bool = False) -> None:
        """Choose folder and port; start nothing.

        Args:
            folder: As for `Server`; as root it must be passable for ``postgres``.
            durable: Keep fsync. Without, data survives `kill` but not a power cut.
        """
        super().__init__("postgresql", folder)
        self._durable = durable
        self._numbers = itertools.count(1)
        self.url = self._url("postgres")

    def _url(self, database: str) -> str:
        return f"postgresql://{_USER}:{_USER}@{LOOPBACK}:{self.port}/{database}"

    @property
    def account(self) -> str | None:
        """PostgreSQL refuses to run as root."""
        return _account("postgres")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @staticmethod
    def _tool(name: str) -> Path:
        return _binary(name, "postgresql", f"/usr/lib/postgresql/*/bin/{name}")

    def prepare(self) -> None:
        """Create the cluster."""
        tool = self._tool("initdb")
        _give(self._data, self.account)
        options = ["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust"]
        command: list[str | Path] = [tool, "-D", self._data, f"--username={_USER}", *options]
        run(command, env=base_environment(self._data), cwd=self._data, account=self.account)

    def command(self) -> Sequence[str | Path]:
        """Return the postmaster's command line."""
        settings = [
            f"listen_addresses={LOOPBACK}",
            f"port={self.port}",
            "unix_socket_directories=",
            "shared_buffers=32MB",
            "max_connections=200",
            "log_min_messages=warning",
        ]
        if not self._durable:
            # Only that: commits must reach the kernel, and a page may be killed half written.
            settings.append("fsync=off")
        options = [part for setting in settings for part in ("-c", setting)]
        return [self._tool("postgres"), "-D", self._data, *options]

    def ready(self) -> bool:
        """Ask pg_isready's question: will it take a session?"""
        command: list[str | Path] = [self._tool("pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port), "-t", "2"]
        done = subprocess.run(command, env=self.environment(), check=False)
        return done.returncode == 0

    def query(self, sql: str, database: str = "postgres") -> str:
        """Run SQL with psql and return the bare rows, columns parted by ``|``."""
        return run([self._tool("psql"), "-XqAt", "-d", self._url(database), "-c", sql])

    def new_database(self) -> str:
        """Create an empty database and return its peewee URL."""
        name = f"test_{next(self._numbers)}_{os.getpid()}"
        self.query(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self._url(name)


class MariaDB(Server):
    """A private MariaDB: TCP and a socket inside its data folder, utf8mb4, InnoDB.

    Attributes:
        url: ``mysql://pacifica:pacifica@127.0.0.1:PORT/mysql``.
    """

    def __init__(self, folder: Path | None = None, *, durable: bool = False) -> None:
        """Choose folder and port; start nothing.

        Args:
            folder: As for `Server`; as root it must be passable for ``mysql``.
            durable: Flush the log at each commit. Without, data survives `kill` but not
                a power cut.
        """
        super().__init__("mariadb", folder)
        self._durable = durable
        self._numbers = itertools.count(1)
        self.url = self._url("mysql")

    def _url(self, database: str) -> str:
        return f"mysql://{_USER}:{_USER}@{LOOPBACK}:{self.port}/{database}"

    @property
    def account(self) -> str | None:
        """MariaDB refuses to run as root unless told to; we use its own account."""
        return _account("mysql")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        """Create the system tables and our user."""
        _binary("mariadbd", "mariadb-server")
        _give(self._data, self.account)
        grants = self._data / "user.sql"
        grants.write_text(
            "FLUSH PRIVILEGES;\n"  # without, the installing server knows no accounts
            f"CREATE USER '{_USER}'@'{LOOPBACK}' IDENTIFIED BY '{_USER}';\n"
            f"GRANT ALL ON *.* TO '{_USER}'@'{LOOPBACK}' WITH GRANT OPTION;\n",
            encoding="ascii",
        )
        grants.chmod(0o644)
        command: list[str | Path] = [
            _binary("mariadb-install-db", "mariadb-server"),
            "--no-defaults",
            f"--datadir={self._data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            f"--extra-file={grants}",
        ]
        run(command, env=base_environment(self._data), cwd=self._data, account=self.account)

    def command(self) -> Sequence[str | Path]:
        """Return the server's command line."""
        return [
            _binary("mariadbd", "mariadb-server"),
            "--no-defaults",
            f"--datadir={self._data}",
            f"--bind-address={LOOPBACK}",
            f"--port={self.port}",
            # Relative to the data folder: a deep folder would exceed a socket's 107 bytes.
            "--socket=server.sock",
            f"--pid-file={self._data / 'server.pid'}",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_general_ci",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=16M",
            "--performance-schema=OFF",
            "--max-connections=200",
            f"--innodb-flush-log-at-trx-commit={1 if self._durable else 2}",
        ]

    def ready(self) -> bool:
        """Look for the greeting of protocol version 10 (an error packet has 0xff there)."""
        greeting = _exchange(self.port, b"", 5)
        return greeting[4:5] == b"\x0a"

    def query(self, sql: str, database: str = "mysql") -> str:
        """Run SQL with the mariadb client and return the bare rows, tab-separated."""
        command: list[str | Path] = [
            _binary("mariadb", "mariadb-client"),
            "--no-defaults",
            "--protocol=tcp",
            f"--host={LOOPBACK}",
            f"--port={self.port}",
            f"--user={_USER}",
            f"--password={_USER}",
            "--batch",
            "--skip-column-names",
            f"--execute={sql}",
            database,
        ]
        return run(command)

    def new_database(self) -> str:
        """Create an empty database and return its peewee URL."""
        name = f"test_{next(self._numbers)}_{os.getpid()}"
        self.query(f"CREATE DATABASE `{name}`")
        return self._url(name)


class Redis(Server):
    """A private Redis with an append-only file, so that its data survives `kill`.

    Attributes:
        url: ``redis://127.0.0.1:PORT/0``, which belongs to nobody; for a broker take a database with `new_database`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Choose folder and port; start nothing."""
        super().__init__("redis", folder)
        self._numbers = itertools.count(1)
        self.url = f"redis://{LOOPBACK}:{self.port}/0"

    def command(self) -> Sequence[str | Path]:
        """Return the server's command line."""
        options = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            # Written before each answer. `everysec` may put a write off while it flushes.
            "appendfsync": "no",
            "save": "",
            "databases": "10000",
            "daemonize": "no",
        }
        pairs = [part for key, value in options.items() for part in (f"--{key}", value)]
        return [_binary("redis-server", "redis-server"), *pairs]

    def ready(self) -> bool:
        """Expect PONG; while it loads its file it says LOADING."""
        return _exchange(self.port, b"PING\r\n", 5) == b"+PONG"

    def new_database(self) -> str:
        """Return the URL of an empty database: workers that share one take each other's messages."""
        return f"{self.url.removesuffix('/0')}/{next(self._numbers)}"


class _Epmd(Server):
    """The name service that an Erlang node needs; a private one that ends with the node."""

    def __init__(self, folder: Path) -> None:
        super().__init__("epmd", folder)

    def command(self) -> Sequence[str | Path]:
        epmd = _binary("epmd", "erlang-base", "/usr/lib/erlang/erts-*/bin/epmd")
        return [epmd, "-port", str(self.port), "-address", LOOPBACK]

    def ready(self) -> bool:
        with socket.create_connection((LOOPBACK, self.port), timeout=_PROBE_S):
            return True


class RabbitMQ(Server):
    """A private RabbitMQ node: own name, name service, cookie, data; no plug-ins.

    Attributes:
        url: ``pyamqp://guest:guest@127.0.0.1:PORT//``.
    """

    ready_s = 90.0
    stop_s = 30.0

    def __init__(self, folder: Path | None = None) -> None:
        """Choose folder and ports; start nothing."""
        super().__init__("rabbitmq", folder)
        self.url = f"pyamqp://guest:guest@{LOOPBACK}:{self.port}//"
        self._distribution_port = free_port()
        self._epmd = _Epmd(self.folder)

    def prepare(self) -> None:
        """Write the configuration."""
        for name in ("data", "log", "config"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = {LOOPBACK}:{self.port}\n"
            "log.console = true\n"
            "log.console.level = warning\n"
            "log.file = false\n"
            "disk_free_limit.absolute = 50MB\n",
            encoding="ascii",
        )
        (self.folder / "enabled_plugins").write_text("[].\n", encoding="ascii")
        (self.folder / "environment.conf").touch()

    def environment(self) -> dict[str, str]:
        """Return the node's environment; it reads no file of the machine's own node."""
        folder = self.folder
        return super().environment() | {
            "RABBITMQ_NODENAME": f"pacifica-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "node.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +sbwt none"
            ),
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_CRASH_DUMP": "/dev/null",
        }

    def command(self) -> Sequence[str | Path]:
        """Return the start script itself, not Debian's wrapper that changes the account."""
        # A start script that finds no name service starts one for the whole machine.
        if not self._epmd.running:
            self._epmd.start()
        return [_binary("rabbitmq-server", "rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")]

    def ready(self) -> bool:
        """Open AMQP 0-9-1 and look for a method frame (Connection.Start)."""
        return _exchange(self.port, b"AMQP\x00\x00\x09\x01", 1) == b"\x01"

    def killed(self) -> None:
        """End the name service with the node."""
        self._epmd.kill()
