"""Log lines: one a record, whatever is in it, and no password."""

import io
import logging
from collections.abc import Iterator

import pytest

from pacifica.ingest.core.text import masked, printable
from pacifica.ingest.journal import Lines

#: Ends of lines, for whatever reads a log; moves of a terminal's cursor; and what hides text.
EVIL = [
    "\n",
    "\r",
    "\r\n",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\u2028",
    "\u2029",
    "\x00",
    "\x1b[2K\x1b[1A",
    "\x08",
    "\u202e",
]
FORGED = "2026-01-01 00:00:00,000 INFO    pacifica.ingest.intake: accepted"


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    target = io.StringIO()
    handler = logging.StreamHandler(target)
    handler.setFormatter(Lines())
    logger = logging.getLogger("pacifica.ingest.test_journal")
    logger.addHandler(handler)
    logger.propagate = False
    yield logger, target
    logger.removeHandler(handler)


@pytest.mark.parametrize("evil", EVIL, ids=ascii)
def test_a_record_is_one_line(log: tuple[logging.Logger, io.StringIO], evil: str) -> None:
    logger, target = log
    logger.warning(f"a{evil}{FORGED}", extra={"user": f"b{evil}{FORGED}", f"k{evil}": "c"})  # noqa: G004 (on purpose)
    text = target.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert "user=" in text


@pytest.mark.parametrize("evil", EVIL, ids=ascii)
def test_a_trace_forges_no_record(log: tuple[logging.Logger, io.StringIO], evil: str) -> None:
    logger, target = log
    try:
        raise ValueError(f"a{evil}{FORGED}")  # noqa: TRY301, EM102 (on purpose)
    except ValueError:
        logger.exception("failed", stack_info=True)
    first, *more = target.getvalue()[:-1].split("\n")
    assert "failed" in first
    assert any("ValueError: a" in line for line in more)
    assert any("Stack (most recent call last)" in line for line in more)
    assert all(line.startswith("  ") and line.isprintable() for line in more)


@pytest.mark.parametrize("password", ["hidden", "hid@den", "hid/den", "hid:den", "hid#den?x", "%68idden"])
def test_no_password_is_logged(log: tuple[logging.Logger, io.StringIO], password: str) -> None:
    logger, target = log
    url = f"postgresql://me:{password}@host:5432/db"
    try:
        raise ValueError(url)  # noqa: TRY301 (on purpose)
    except ValueError:
        logger.exception("cannot use %s", url, extra={"url": url})
    assert target.getvalue().count("postgresql://***@host:5432/db") == 3
    assert "me:" not in target.getvalue()
    assert "den" not in target.getvalue()


def test_what_is_no_address_with_a_password_stays() -> None:
    for text in ("http://host/x, mail me@host", "data//tmp/user@host/x", "a@b", "http://host:8051/getid", "://"):
        assert masked(text) == text
        assert printable(text) == text


def test_masking_takes_time_that_grows_with_the_text() -> None:
    assert masked("://" * 200_000) == "://" * 200_000
    assert masked("://" + "a@" * 200_000) == "://***@"


def test_what_others_attach_is_not_told() -> None:
    record = logging.makeLogRecord({"name": "celery.app.trace", "msg": "Task done", "data": {"args": "(1,)"}})
    assert Lines("%(message)s").format(record) == "Task done"
