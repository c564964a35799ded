"""Faults on command, for the doubles of this package."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Concatenate, ParamSpec, TypeVar

__all__ = ["Double", "Faults", "can_fail"]


@dataclass(slots=True, kw_only=True)
class _Plan:
    pattern: str
    first: int
    last: int
    error: BaseException
    after: bool
    seen: int = 0


class Faults:
    """What goes wrong, and when; shared by all doubles of a test.

    Attributes:
        calls: the name of every call so far, as `archive.store`, in order.

    """

    def __init__(self) -> None:
        """Nothing goes wrong yet."""
        self.calls: list[str] = []
        self._plans: list[_Plan] = []
        self._lock = threading.Lock()

    def fail(self, call: str, *, error: BaseException, at: int = 1, times: int = 1, after: bool = False) -> None:
        """Let calls fail.

        Args:
            call: role and method, as `archive.store`; a pattern such as `archive.*` or `*` means all that match.
            error: what is raised.
            at: the first call that fails, counted from now; 1 is the next.
            times: how many fail from there.
            after: whether the work is done before it fails, as when an answer is lost.

        """
        with self._lock:
            self._plans.append(_Plan(pattern=call, first=at, last=at + times - 1, error=error, after=after))

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        """Do the work of a call inside."""
        due = self._due(call)
        if due is not None and not due.after:
            raise due.error
        yield
        if due is not None:
            raise due.error

    def _due(self, call: str) -> _Plan | None:
        with self._lock:
            self.calls.append(call)
            due = None
            for plan in self._plans:
                if fnmatchcase(call, plan.pattern):
                    plan.seen += 1
                    due = plan if plan.first <= plan.seen <= plan.last else due
            return due


class Double:
    """The base of every double; it can be used by many threads."""

    #: How its calls are named.
    role: ClassVar[str]

    def __init__(self, faults: Faults | None = None) -> None:
        """Fail as `faults` says; with None, never."""
        self.faults = faults or Faults()
        self.lock = threading.RLock()


D = TypeVar("D", bound=Double)
P = ParamSpec("P")
R = TypeVar("R")


def can_fail(method: Callable[Concatenate[D, P], R]) -> Callable[Concatenate[D, P], R]:
    """Make a method of a double one atomic step that fails on command."""

    @functools.wraps(method)
    def run(self: D, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.faults.around(f"{self.role}.{method.__name__}"), self.lock:
            return method(self, *args, **kwargs)

    return run
