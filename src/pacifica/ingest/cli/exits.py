"""How a command ends: one table of exit codes, and the one place where an error becomes a line and a code."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType

import click
import peewee

from pacifica.ingest.core.errors import BadConfiguration, IngestError, Unavailable
from pacifica.ingest.core.text import printable

__all__ = ["EPILOG", "FAULTS", "Exit", "exit_code", "run"]

#: What is told in one line; anything else is a fault of ours and deserves its trace.
FAULTS = (IngestError, OSError, peewee.PeeweeException)


class Exit(IntEnum):
    """What a command tells the shell; the table in the docstring of `cli` is for people."""

    OK = 0
    NO = 1
    USAGE = 2
    CONFIGURATION = 3
    UNAVAILABLE = 4
    INTERRUPTED = 130


#: The end of each help text.
EPILOG = """\b
Exit codes:
  0    done; the answer is yes
  1    the answer is no: a failed or unknown job, an unsafe schema, a failed check
  2    the command line is wrong
  3    the configuration is wrong
  4    something is unavailable: the database, a neighbour, a port, a disk
  130  interrupted
"""


def exit_code(fault: Exception) -> Exit:
    """The exit code of an error."""
    match fault:
        case BadConfiguration():
            return Exit.CONFIGURATION
        case Unavailable() | OSError() | peewee.PeeweeException():
            return Exit.UNAVAILABLE
        case _:
            return Exit.NO


def run(command: click.Command, argv: Sequence[str] | None, name: str) -> int:
    """Run a command line to its end; what goes wrong is told on stderr, without a traceback.

    Args:
        command: what to run.
        argv: its arguments; those of the process when None.
        name: the program's name, for messages.

    Returns:
        an exit code.

    """
    try:
        with _interruptible():
            return int(command.main(args=argv, prog_name=name, standalone_mode=False) or Exit.OK)
    except click.ClickException as fault:
        fault.show()
        return fault.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return Exit.INTERRUPTED
    except FAULTS as fault:
        for line in str(fault).splitlines() or [type(fault).__name__]:
            click.echo(f"{name}: {printable(line)}", err=True)
        return exit_code(fault)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM, and the end of the terminal, do what Ctrl-C does: end a command so that it cleans up after itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # What is ignored already, as under nohup, stays so.
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) != signal.SIG_IGN}

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        # Only the first one: what cleans up now is not to be interrupted.  Not SIG_IGN, which child processes would inherit.
        for number in before:
            signal.signal(number, _ignore)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""
