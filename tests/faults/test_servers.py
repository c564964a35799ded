"""The short round of servers: nothing is lost, stuck, done twice or unlisted, whatever neighbours, broker and database do."""

from collections.abc import Callable, Sequence

import pytest

from tests.faults.proxy import Asked, Fault
from tests.faults.rounds import Budget, Row
from tests.faults.servers import OPERATIONS, Deal, Pair, neighbours, outages, pairs
from tests.faults.site import Setting, new_vhost
from tests.harness import MariaDB, PacificaCore, PostgreSQL, RabbitMQ, Redis, Server

SEED = 1
#: How often a server goes away: the database twice, the broker once.
AWAY = 3

Surroundings = tuple[Callable[[], Setting], Sequence[Server]]


@pytest.fixture(params=["redis", "rabbitmq"])
def surroundings(request: pytest.FixtureRequest) -> Surroundings:
    made: Surroundings = request.getfixturevalue(f"with_{request.param}")
    return made


@pytest.fixture
def with_redis(redis_server: Redis, postgresql: PostgreSQL) -> Surroundings:
    def setting() -> Setting:
        return Setting(
            name="Celery on Redis, PostgreSQL",
            broker_url=redis_server.new_database(),
            database_url=postgresql.new_database(),
            workers=4,
        )

    return setting, [postgresql, redis_server]


@pytest.fixture
def with_rabbitmq(rabbitmq: RabbitMQ, mariadb: MariaDB) -> Surroundings:
    def setting() -> Setting:
        return Setting(
            name="Celery on RabbitMQ, MariaDB", broker_url=new_vhost(rabbitmq), database_url=mariadb.new_database()
        )

    return setting, [mariadb, rabbitmq]


def _assert_well(row: Row) -> None:
    assert not row.words, "\n".join(row.words)
    assert row.done > AWAY, "the site did nothing that a fault could have spoiled"


@pytest.mark.timeout(900)
def test_whatever_a_neighbour_answers_nothing_is_lost_stuck_done_twice_or_unlisted(
    with_redis: Surroundings, core: PacificaCore
) -> None:
    setting, _ = with_redis
    row = neighbours(SEED, Budget(tries=len(pairs())), setting, core)
    _assert_well(row)
    assert row.tried >= len(pairs()) + 2 * len(core.services)


def test_broker_and_database_come_back_and_nothing_is_lost_stuck_done_twice_or_unlisted(
    surroundings: Surroundings,
) -> None:
    setting, servers = surroundings
    row = outages(SEED, Budget(tries=AWAY), setting, servers)
    _assert_well(row)
    assert row.tried == AWAY


# --- what is dealt

REQUESTS = {
    "job id": "GET /getid?range=1&mode=upload_job",
    "file ids": "GET /getid?range=7&mode=file",
    "permit": "POST /ingest",
    "size": "HEAD /12",
    "store": "PUT /12",
    "adopt": "PATCH /12",
    "read": "GET /12",
    "look": "GET /12?byte_range=0-0",
    "remove": "DELETE /12",
    "register": "PUT /ingest",
    "find transaction": "GET /transactions?_id=1&recursion_depth=0",
    "find files": "GET /files?transaction=1",
}


def _dealt(deal: Deal, name: str, *, times: int = 200, length: int = 100) -> list[Fault]:
    method, target = REQUESTS[name].split()
    plan = deal.plan(OPERATIONS[name][0])
    said = [plan(Asked(method=method, target=target, length=length)) for _ in range(times)]
    return [fault for fault in said if fault is not None]


def test_each_fault_is_dealt_to_each_operation_in_an_order_of_the_seed() -> None:
    def dealt(seed: int) -> dict[str, list[Fault]]:
        deal = Deal(seed, pairs())
        found = {name: _dealt(deal, name) for name in OPERATIONS if name != "register"}
        found["register"] = _dealt(deal, "register")
        assert deal.left == []
        assert set(deal.dealt) == set(pairs())
        return found

    assert dealt(1) == dealt(1) != dealt(2)


def test_only_bytes_can_be_halved() -> None:
    halves: list[Pair] = [pair for pair in pairs() if pair[1] is Fault.HALF]
    assert halves == [("store", Fault.HALF)]
    deal = Deal(1, halves)
    assert _dealt(deal, "store", length=1, times=1) == []
    assert deal.left == halves
    assert Fault.HALF in _dealt(deal, "store", length=2)


def test_an_unknown_request_is_never_spoiled_and_none_is_after_the_end() -> None:
    deal = Deal(1, pairs())
    plan = deal.plan("archive")
    assert {plan(Asked(method="GET", target="/12?else=0-0", length=0)) for _ in range(100)} == {None}
    deal.end()
    assert _dealt(deal, "store") == []
