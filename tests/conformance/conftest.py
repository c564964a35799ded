"""The adapters of each port: the suites here run on every one of them."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacifica.ingest import database, orm, tables
from pacifica.ingest.local.archive import FolderArchive
from pacifica.ingest.local.catalogue import LocalCatalogue
from pacifica.ingest.local.ids import LocalIds
from pacifica.ingest.local.policy import LocalPolicy
from pacifica.ingest.neighbours import HttpArchive, HttpCatalogue, HttpIds, HttpPolicy
from pacifica.ingest.ports import Archive, Catalogue, Ids, JobStore, Policy
from pacifica.ingest.store import SqlJobStore
from pacifica.ingest.testing import ManualClock, MemoryArchive, MemoryCatalogue, MemoryIds, MemoryJobStore
from tests.harness import ALLOWED, ALLOWED_TOO, PacificaCore

#: Small, so that a page and a chunk of the HTTP adapters have ends that a test can reach.
PAGE_FILES = 3
CHUNK_BYTES = 4096

_RULE = """
[[allow]]
submitter = "{0.submitter}"
project = "{0.project}"
instrument = "{0.instrument}"
"""
#: Far above what the UniqueID service gives to other tests on the same servers.
_numbers = itertools.count(30_000_000)


@pytest.fixture
def number() -> Callable[[], int]:
    """An id that no test used before."""
    return lambda: next(_numbers)


@pytest.fixture
def local_database(tmp_path: Path) -> Iterator[None]:
    """An empty database of this process."""
    before = database.DB.obj
    database.use_database(f"sqlite:///{tmp_path / 'local.sqlite3'}")
    orm.OrmSync.update_tables()
    yield
    database.DB.close_all()
    database.DB.initialize(before)


@pytest.fixture(params=["http", "local", "memory"])
def ids(request: pytest.FixtureRequest) -> Ids:
    if request.param == "memory":
        return MemoryIds()
    if request.param == "http":
        core: PacificaCore = request.getfixturevalue("core")
        return HttpIds(core.uniqueid_url)
    request.getfixturevalue("local_database")
    return LocalIds()


@pytest.fixture(params=["http", "local"])
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> Policy:
    if request.param == "http":
        core: PacificaCore = request.getfixturevalue("core")
        return HttpPolicy(core.policy_ingest_url, "X-Http-Authed-User")
    rules = tmp_path / "policy.toml"
    rules.write_text("".join(_RULE.format(who) for who in (ALLOWED, ALLOWED_TOO)), encoding="utf-8")
    return LocalPolicy(rules)


@pytest.fixture(params=["http", "local", "memory"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    if request.param == "memory":
        return MemoryArchive()
    if request.param == "http":
        core: PacificaCore = request.getfixturevalue("core")
        return HttpArchive(core.archive_url, 1, CHUNK_BYTES)
    return FolderArchive(tmp_path / "archive")


@pytest.fixture(params=["http", "local", "memory"])
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    if request.param == "memory":
        return MemoryCatalogue()
    if request.param == "http":
        core: PacificaCore = request.getfixturevalue("core")
        return HttpCatalogue(core.metadata_ingest_url, page_files=PAGE_FILES)
    request.getfixturevalue("local_database")
    return LocalCatalogue()


#: What a job store keeps jobs in.
JOB_TABLES = (orm.IngestState, tables.JobRow, tables.ArchiveId, tables.MoveSource, tables.JobEvent, tables.RequestKey)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module", params=["memory", "sqlite", "postgresql", "mariadb"])
def job_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The kind of store; its database is the one of this process meanwhile."""
    name: str = request.param
    if name == "memory":
        yield name
        return
    before = database.DB.obj
    path = tmp_path_factory.mktemp("jobs") / "jobs.sqlite3"
    url = f"sqlite:///{path}" if name == "sqlite" else request.getfixturevalue(name).new_database()
    database.use_database(url)
    orm.OrmSync.update_tables()
    yield name
    database.DB.close_all()
    database.DB.initialize(before)


@pytest.fixture
def store(job_database: str, clock: ManualClock) -> JobStore:
    """An empty store."""
    if job_database == "memory":
        return MemoryJobStore(clock)
    with database.DB.connection_context():
        for table in JOB_TABLES:
            table.delete().execute()
    return SqlJobStore(clock)
