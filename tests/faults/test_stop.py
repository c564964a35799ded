"""Stops in order under load, and the restart of one part after the other with another version: no accepted job fails.

The other version is a real one, from this repository's own history; a clone without history cannot run these tests.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from pacifica.ingest.tables import JobEvent
from tests.faults.load import Client, faults
from tests.faults.site import ROOT, TODAY, Code, Setting, Site
from tests.harness import HttpServer, PostgreSQL, Program, Redis, Server, earlier_env
from tests.harness.waiting import until

SEED = 1
#: Each part of a site is stopped so often.
STOPS = 3
#: So many requests are sent between two stops.
BETWEEN = 10
#: The last commit of schema 2.1; today's is 2.2, with more columns.
EARLIER = "81191ec3a72fa85f65948a295babb94d954b31b6"


@pytest.fixture(params=["standalone", "celery"])
def setting(request: pytest.FixtureRequest, redis_server: Redis) -> Setting:
    if request.param == "standalone":
        return Setting(name="standalone, SQLite")
    return Setting(name="Celery on Redis, SQLite", broker_url=redis_server.new_database())


@pytest.fixture(scope="session")
def earlier() -> Code:
    """Code of an earlier version, as its users installed it."""
    return Code(python=earlier_env(ROOT, EARLIER, "postgresql", "redis").python)


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


def test_a_standalone_service_goes_on_with_what_the_earlier_version_left(earlier: Code, tmp_path: Path) -> None:
    with Site(tmp_path, Setting(name="standalone, SQLite", code=earlier)) as site:
        under_load(site, lambda part: exchange(site, part, TODAY))


def test_one_part_after_the_other_can_be_replaced_by_the_next_version_and_back(
    redis_server: Redis, postgresql: PostgreSQL, earlier: Code, tmp_path: Path
) -> None:
    """Both versions work on the same jobs meanwhile; in the end the earlier one alone, with what the next one added."""
    setting = Setting(
        name="Celery on Redis, PostgreSQL",
        broker_url=redis_server.new_database(),
        database_url=postgresql.new_database(),
        code=earlier,
    )
    with Site(tmp_path, setting) as site:
        order = iter([TODAY, TODAY, earlier, earlier, TODAY, TODAY])
        under_load(site, lambda part: exchange(site, part, next(order)))


def exchange(site: Site, part: Server, code: Code) -> None:
    """Stop a part, but not before its processes had a job if they work, and start it with other code."""
    assert isinstance(part, HttpServer | Program)
    if part is site.parts[-1]:
        until(lambda: claimed(site) & {process.pid for process in part.processes()}, "a job for this code")
    stopped(part)
    site.replace(part, code)
    start(site, part)


def claimed(site: Site) -> set[int]:
    """Numbers of the processes that ever had a job."""
    with site._read():
        return {int(event.text.rpartition(":")[2]) for event in JobEvent.select().where(JobEvent.name == "claimed")}
