"""What commands show: tables, and a job on its way.

On a terminal with colours and a moving bar; in a pipe as plain lines that are never wrapped or cut.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pacifica.ingest.core.text import printable
from pacifica.ingest.core.wire import Body

__all__ = ["JobView", "console", "follow", "paragraph", "say", "show_table", "view"]

#: The pause between two looks at a job, in seconds.
LOOK_EVERY_S = 0.2
#: A pipe has no width.
PIPE_WIDTH = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as it is shown on its way.

    Attributes:
        job_id: its number.
        state: OK or FAILED.
        step: where it is.
        percent: how far the step is.
        complete: whether it ended.
        reason: why it failed.
        note: what it waits for, or empty.

    """

    job_id: int
    state: str
    step: str
    percent: float
    complete: bool
    reason: str
    note: str = ""


def view(body: Body, note: str = "") -> JobView:
    """A job out of the documented answer to `get_state`."""
    return JobView(
        job_id=int(body["job_id"]),
        state=str(body["state"]),
        step=str(body["task"]),
        percent=float(body["task_percent"]),
        complete=bool(body["complete"]),
        reason=str(body["exception"]),
        note=note,
    )


def console() -> Console:
    """Standard output."""
    plain = Console(highlight=False, markup=False, soft_wrap=False)
    return plain if plain.is_terminal else Console(highlight=False, markup=False, width=PIPE_WIDTH)


def say(text: str, style: str = "") -> None:
    """Print lines of text; control characters but the ends of lines are escaped."""
    out = console()
    for line in text.split("\n"):
        out.print(Text(printable(line), style=style), soft_wrap=True)


def paragraph(text: str) -> Text:
    """Lines of text for a cell of a table; control characters but the ends of lines are escaped."""
    return Text("\n".join(map(printable, text.split("\n"))))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table, without a head when no columns are named; those in `right` are figures."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=bool(columns))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row))
    console().print(table)


def follow(look: Callable[[], JobView], *, every_s: float = LOOK_EVERY_S) -> JobView:
    """Show a job until it ended.

    Args:
        look: the job as it is now.
        every_s: seconds between two looks.

    """
    pause = threading.Event()
    with _bar() as show:
        while True:
            now = look()
            show(now)
            if now.complete:
                return now
            pause.wait(every_s)


@contextmanager
def _bar() -> Iterator[Callable[[JobView], None]]:
    out = console()
    if not out.is_terminal:
        yield _Lines().show
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>5.1f} %"))
    with Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[note]}"), console=out) as progress:
        bar = progress.add_task("", total=100.0, note="")
        yield lambda now: progress.update(
            bar, description=_title(now), completed=now.percent, note=Text(printable(now.note), style="yellow")
        )


class _Lines:
    """A line for each step and each wait."""

    def __init__(self) -> None:
        self._told = ""

    def show(self, now: JobView) -> None:
        line = f"{_title(now)} {now.note}".rstrip()
        if line != self._told:
            say(line)
            self._told = line


def _title(now: JobView) -> str:
    return f"job {now.job_id}: {printable(now.step)}"
