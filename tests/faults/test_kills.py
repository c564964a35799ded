"""The short round of kills: nothing is lost, stuck, done twice or unlisted, whoever is killed at whatever moment."""

from collections.abc import Callable

import pytest

from tests.faults.kills import kills
from tests.faults.rounds import Budget
from tests.faults.site import Setting, new_vhost
from tests.harness import MariaDB, PostgreSQL, RabbitMQ, Redis

pytestmark = pytest.mark.timeout(900)

SEED = 1
#: Of all three rounds together at least 200; freezes come on top.
KILLS = 67
#: Celery replaces dead children only every five seconds, so there have to be some to kill.
CHILDREN = 10


@pytest.fixture(params=["standalone", "redis", "rabbitmq"])
def setting(request: pytest.FixtureRequest) -> Callable[[], Setting]:
    make: Callable[[], Setting] = request.getfixturevalue(f"with_{request.param}")
    return make


@pytest.fixture
def with_standalone() -> Callable[[], Setting]:
    return lambda: Setting(name="standalone, SQLite")


@pytest.fixture
def with_redis(redis_server: Redis, postgresql: PostgreSQL) -> Callable[[], Setting]:
    return lambda: Setting(
        name="Celery on Redis, PostgreSQL",
        broker_url=redis_server.new_database(),
        database_url=postgresql.new_database(),
        workers=CHILDREN,
    )


@pytest.fixture
def with_rabbitmq(rabbitmq: RabbitMQ, mariadb: MariaDB) -> Callable[[], Setting]:
    return lambda: Setting(
        name="Celery on RabbitMQ, MariaDB",
        broker_url=new_vhost(rabbitmq),
        database_url=mariadb.new_database(),
        workers=CHILDREN,
    )


def test_whatever_is_killed_nothing_is_lost_stuck_done_twice_or_unlisted(setting: Callable[[], Setting]) -> None:
    row = kills(SEED, Budget(tries=KILLS), setting)
    assert not row.words, "\n".join(row.words)
    assert row.tried == KILLS
    assert row.frozen
    assert row.done
    assert row.taken_over, "no kill hit a job"
