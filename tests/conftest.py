"""What all tests share: the fixtures of the harness, and the rule that nothing is skipped."""

import gc
import signal
from collections.abc import Iterator

import pytest

pytest_plugins = ["tests.harness.fixtures"]


def pytest_configure() -> None:
    """Hear Ctrl-C, and let the programs that tests start hear it: a script that runs tests in the background is deaf."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which a test was skipped: what was not run was not shown."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def stack_alone() -> Iterator[None]:
    """Collect no garbage meanwhile: finalizers of other tests that run at the end of the stack fail, and fail the test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
