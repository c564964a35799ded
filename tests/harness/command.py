"""Commands that run to their end, and what every program of the harness starts with.

What it is: `run`, the small `base_environment`, `tail` of a log, and the error that the
whole harness raises.

What it is not: a way to start servers (see `tests.harness.process`).

Who may call it: the harness and any test.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.harness.guard import find, guard, kill_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.harness.guard import Process

__all__ = ["HarnessError", "base_environment", "run", "tail", "watch"]

_TAIL_LINES = 40


class HarnessError(RuntimeError):
    """The surroundings of a test could not be made; the message says what to do."""


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of a log; a note when there is none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(text.splitlines()[-lines:]) or "(empty log)"


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text: str | None = None,
    account: str | None = None,
    wait_s: float = 120.0,
) -> str:
    """Run a command to its end and return its standard output.

    Args:
        command: Program and arguments.
        env: The whole environment; when None, this process's own without ``PYTHONPATH``
            and ``PYTHONHOME``, which would bring our modules into other environments.
        cwd: Working folder.
        text: Standard input; nothing when None.
        account: System account to run as (this process must be root).
        wait_s: Deadline in seconds; the whole process group is killed after it.

    Raises:
        HarnessError: Non-zero exit or deadline; carries both outputs.
    """
    with subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_own_environment() if env is None else dict(env),
        cwd=cwd,
        start_new_session=True,
        user=account,
        group=account,
        extra_groups=None if account is None else [],
    ) as process:
        leader = watch(process.pid)
        try:
            out, err = process.communicate(text, timeout=wait_s)
        except BaseException as error:
            kill_tree(leader)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            out, err = process.communicate()
            message = f"{command[0]} took longer than {wait_s:g} s\n{out}\n{err}"
            raise HarnessError(message) from error
        finally:
            guard.forget(leader)
    if process.returncode != 0:
        line = " ".join(str(part) for part in command)
        message = f"exit code {process.returncode} from: {line}\n{out}\n{err}"
        raise HarnessError(message)
    return out


def _own_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}


def watch(pid: int) -> Process:
    """Register a process that was just started and not waited for yet."""
    leader = find(pid)
    assert leader is not None, "a process stays in the table until it is waited for"
    guard.watch(leader)
    return leader


def base_environment(home: Path) -> dict[str, str]:
    """Return a small environment, free of the caller's settings.

    No proxy, no configuration of any Pacifica service and no database password of the
    account that runs the tests reaches a server.
    """
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
