"""Stops in order under load, and the restart of one part after the other with another version: no accepted job fails."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.load import Client, faults
from tests.faults.site import ROOT, Setting, Site
from tests.harness import Redis, Server
from tests.harness.waiting import until

SEED = 1
#: Each part of a site is stopped so often.
STOPS = 3
#: So many requests are sent between two stops.
BETWEEN = 10
#: What workers of the next version call themselves, in place of their host.
HOST, NEXT = "{socket.gethostname()[:100]}", "next"


@pytest.fixture(params=["standalone", "celery"])
def setting(request: pytest.FixtureRequest, redis_server: Redis) -> Setting:
    if request.param == "standalone":
        return Setting(name="standalone, SQLite")
    return Setting(name="Celery on Redis, SQLite", broker_url=redis_server.new_database())


def under_load(site: Site, each: Callable[[Server], None]) -> None:
    """Do something with each part of a site, one after the other, while clients send; then judge."""
    with Client(site.server.port, SEED, incoming=site.incoming) as client:
        for part in [*site.parts] * STOPS:
            enough = len(client.sent) + BETWEEN
            until(lambda enough=enough: len(client.sent) >= enough, "requests to be sent")
            each(part)
        site.server.wait_until_ready()
    site.settled()
    assert faults(client, site.evidence(client.sent)) == []


def stopped(part: Server) -> None:
    """Stop a part in order; it must end by itself."""
    part.signal(part.stop_signal)
    until(lambda: not part.running, f"the {part.name} to end", part.stop_s)
    part.kill()


def start(site: Site, part: Server) -> None:
    """Start a part, and wait until the site takes uploads again."""
    part.launch()
    site.server.wait_until_ready()


def test_a_stop_in_order_fails_no_job_and_lets_none_wait_for_its_lease(setting: Setting, tmp_path: Path) -> None:
    with Site(tmp_path, setting) as site:

        def stop_and_start(part: Server) -> None:
            stopped(part)
            start(site, part)

        under_load(site, stop_and_start)
        assert site.taken_over() == 0


def test_one_part_after_the_other_can_be_replaced_by_another_version(redis_server: Redis, tmp_path: Path) -> None:
    """Both versions work on the same jobs meanwhile."""
    shutil.copytree(ROOT / "src", tmp_path / "next", ignore=shutil.ignore_patterns("__pycache__"))
    module = tmp_path / "next" / "pacifica" / "ingest" / "app.py"
    code = module.read_text(encoding="utf-8")
    assert HOST in code
    module.write_text(code.replace(HOST, NEXT), encoding="utf-8")
    setting = Setting(name="Celery on Redis, SQLite", broker_url=redis_server.new_database())
    with Site(tmp_path / "site", setting) as site:

        def replace(part: Server) -> None:
            stopped(part)
            assert isinstance(part, type(site.server) | type(site.worker))
            part._env["PYTHONPATH"] = str(tmp_path / "next")
            start(site, part)

        under_load(site, replace)
        assert 0 < claims(site, f"{NEXT}:%") < claims(site, "%")


def claims(site: Site, worker: str) -> int:
    """How often a job was claimed by workers of that name."""
    database = sqlite3.connect(site.database_url.removeprefix("sqlite:///"))
    question = "SELECT count(*) FROM ingest_event WHERE name = 'claimed' AND text LIKE ?"
    (found,) = database.execute(question, (worker,)).fetchone()
    database.close()
    return int(found)
