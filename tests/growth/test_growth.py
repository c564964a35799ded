"""How time and memory grow with files and bytes: a whole service, standalone and with workers and neighbours of its own.

Nothing is compared with a clock: only one bundle with another in the same service, by the processor time that it took, after
as many tries as noise may need, and with bounds far above what a quiet machine shows.  The full measurement is `make bench`.
"""

import configparser
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import clients
from benchmarks.bundles import Shape, stream, total_bytes
from benchmarks.measure import Watch
from benchmarks.services import InstantNeighbours
from tests.acceptance.stage import Standalone, admin, environment
from tests.harness import HttpServer, Program, Redis, Server, run

TRIES = 3
FEW, MANY = Shape(files=1_000, size_bytes=1024), Shape(files=20_000, size_bytes=1024)
SMALL, LARGE = Shape(files=1, size_bytes=16 << 20), Shape(files=1, size_bytes=512 << 20)
#: A file among twenty thousand may cost so many times what one among a thousand costs; 1.1 is usual, and when all of it is
#: quadratic it is twenty.
DEARER = 1.6
#: Each file more may take so many bytes of a process.
A_FILE = 4_096
#: By so many bytes the memory of a process differs between two runs of the same.
WANDERS = 24 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A service of ours that runs.

    Attributes:
        url: of its server.
        servers: all its processes.
    """

    url: str
    servers: tuple[Server, ...]

    def carry(self, shape: Shape) -> Watch:
        """Carry a bundle from end to end, and tell what it cost."""
        with Watch(*self.servers) as watch:
            job_id = clients.send_stream(self.url, stream(shape), total_bytes(shape))
            clients.until_done(self.url, job_id, poll_s=0.1)
        return watch


@contextmanager
def alone(folder: Path) -> Iterator[Place]:
    """Numbers, archive and catalogue are its own."""
    with Standalone(folder, INGEST_WORKERS="1") as server:
        yield Place(url=server.url, servers=(server,))


@contextmanager
def facility(folder: Path, broker_url: str) -> Iterator[Place]:
    """A Celery worker, and instant neighbours over HTTP."""
    with ExitStack() as stack:
        sink = stack.enter_context(InstantNeighbours(Path(sys.executable), folder))
        ini = configparser.ConfigParser(interpolation=None)
        ini.read_dict(
            {
                "ingest": {"volume_path": str(folder / "volume")},
                "uniqueid": {"url": sink.uniqueid_url},
                "policy": {"ingest_url": sink.policy_ingest_url},
                "archiveinterface": {"url": sink.archive_url},
                "metadata": {"ingest_url": sink.metadata_ingest_url},
                "database": {"peewee_url": f"sqlite:///{folder / 'db.sqlite3'}"},
                "celery": {"broker_url": broker_url},
            }
        )
        with (folder / "config.ini").open("w") as file:
            ini.write(file)
        env = environment(folder, INGEST_CONFIG=str(folder / "config.ini"))
        run(admin("dbsync"), env=env)
        serve = [sys.executable, "-m", "pacifica.ingest", "-a", "127.0.0.1", "-p", "{port}"]
        work = [sys.executable, "-m", "celery", "-A", "pacifica.ingest.tasks", "worker", "--concurrency", "1"]
        server = stack.enter_context(HttpServer("server", serve, folder / "server", env=env))
        line = [*work, "--loglevel", "info"]
        worker = stack.enter_context(Program("worker", line, folder / "worker", env=env, says=" ready."))
        yield Place(url=server.url, servers=(server, worker))


@pytest.fixture(scope="module", params=["standalone", "facility"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_server: Redis
) -> Iterator[Place]:
    """A service that is warm: a small bundle went through."""
    folder = tmp_path_factory.mktemp("growth")
    with alone(folder) if request.param == "standalone" else facility(folder, redis_server.new_database()) as found:
        found.carry(Shape(files=3, size_bytes=100))
        yield found


@pytest.fixture(scope="module")
def few_and_many(place: Place) -> tuple[Watch, Watch]:
    """What a thousand and twenty thousand files cost."""
    return place.carry(FEW), place.carry(MANY)


def test_the_time_of_a_file_does_not_grow_with_their_number(place: Place, few_and_many: tuple[Watch, Watch]) -> None:
    found = [_dearer(*few_and_many)]
    while found[-1] >= DEARER and len(found) < TRIES:
        found.append(_dearer(place.carry(FEW), place.carry(MANY)))
    assert min(found) < DEARER, (
        f"times the processor time of a file, among {MANY.files} instead of {FEW.files}: {found}"
    )


def test_memory_grows_by_little_with_files(few_and_many: tuple[Watch, Watch]) -> None:
    assert _grew(*few_and_many) < WANDERS + A_FILE * (MANY.files - FEW.files)


def test_memory_does_not_grow_with_bytes(place: Place) -> None:
    assert _grew(place.carry(SMALL), place.carry(LARGE)) < WANDERS


def _dearer(few: Watch, many: Watch) -> float:
    """How many times more processor time a file took when there were more of them."""
    return (many.cpu_s / MANY.files) / (few.cpu_s / FEW.files)


def _grew(little: Watch, much: Watch) -> int:
    """By how many bytes the peak of a process is higher, of the one that grew most."""
    before, after = little.memory, much.memory
    return max(peak - before[name] for name, peak in after.items())
