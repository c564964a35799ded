"""How the HTTP adapters use the network: connections, time limits, credentials, no detours."""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacifica.ingest.core.digests import Digest
from pacifica.ingest.core.errors import ClaimLost, NeighbourDown
from pacifica.ingest.core.metadata import Document
from pacifica.ingest.neighbours import HttpArchive, HttpCatalogue, HttpIds, HttpPolicy, Timeouts
from pacifica.ingest.ports import IdMode, Parcel
from tests.conformance.rogue import Reply, Rogue, http
from tests.harness import ALLOWED, HttpServer, PacificaCore

IDS = Reply(raw=http("200 OK", b'{"startIndex": 1, "endIndex": 1}'))
HASTY = Timeouts(connect_s=5.0, answer_s=0.5, transfer_s=0.5)
#: More than the buffers of a loopback connection take in.
LARGE = 64 << 20


def parcel(folder: Path, size: int) -> Parcel:
    holder = folder / "holder"
    with holder.open("wb") as file:
        file.truncate(size)
    digest = Digest(algorithm="md5", value="0" * 32)
    return Parcel(file_id=5, path="a", holder=holder, offset=0, size_bytes=size, digest=digest)


def created(size: int) -> bytes:
    return http("201 Created", b'{"total_bytes": %d}' % size)


def ignore(_count: int) -> None:
    pass


def test_one_connection_serves_many_calls() -> None:
    with Rogue(IDS) as rogue:
        ids = HttpIds(rogue.url)
        for _ in range(5):
            ids.reserve(IdMode.JOB, 1)
        assert (rogue.connections, len(rogue.requests)) == (1, 5)


def test_one_thread_at_a_time_asks_for_ids() -> None:
    """The service gives one range to two callers that ask at once."""
    with Rogue(IDS) as rogue, ThreadPoolExecutor(8) as pool:
        ids = HttpIds(rogue.url)
        list(pool.map(lambda _: ids.reserve(IdMode.JOB, 1), range(100)))
        assert (rogue.connections, len(rogue.requests)) == (1, 100)


@pytest.mark.parametrize("connections", [1, 3])
def test_no_more_connections_than_allowed_are_open(connections: int, tmp_path: Path) -> None:
    with Rogue(Reply(raw=created(100))) as rogue, ThreadPoolExecutor(8) as pool:
        archive = HttpArchive(rogue.url, connections)
        sent = parcel(tmp_path, 100)
        list(pool.map(lambda _: archive.store(sent, ignore), range(100)))
        assert len(rogue.requests) == 100
        assert 1 <= rogue.connections <= connections


def test_a_connection_that_the_server_closed_is_replaced() -> None:
    with Rogue(Reply(raw=IDS.raw, then="close")) as rogue:
        ids = HttpIds(rogue.url)
        for _ in range(5):
            ids.reserve(IdMode.JOB, 1)
            assert rogue.hung_up.wait(10)
            rogue.hung_up.clear()
        assert rogue.connections == 5


@pytest.mark.parametrize(
    ("reply", "connections"),
    [
        (Reply(raw=b"HTTP/1.1 103 Early Hints\r\n\r\n"), 2),
        (Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b" " * (2 << 20)), 2),
        (Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{", then="hang"), 2),
        (Reply(raw=b"", then="hang"), 2),
        (Reply(raw=b"", then="reset"), 2),
        (Reply(raw=http("503 Busy")), 1),
    ],
    ids=["interim", "too long", "silent in the body", "silent", "reset", "busy"],
)
def test_after_a_fault_no_late_answer_is_taken_for_the_next_one(reply: Reply, connections: int) -> None:
    with Rogue(reply, IDS) as rogue:
        ids = HttpIds(rogue.url, timeouts=HASTY)
        with pytest.raises(NeighbourDown):
            ids.reserve(IdMode.JOB, 1)
        assert ids.reserve(IdMode.JOB, 1) == range(1, 2)
        assert rogue.connections == connections


@pytest.mark.parametrize("size", [1, LARGE])
def test_a_claim_that_is_lost_while_sending_ends_the_request(tmp_path: Path, size: int) -> None:
    def lost(_count: int) -> None:
        raise ClaimLost

    with Rogue(Reply(raw=created(10))) as rogue:
        archive = HttpArchive(rogue.url)
        with pytest.raises(ClaimLost):
            archive.store(parcel(tmp_path, size), lost)
        archive.store(parcel(tmp_path, 10), ignore)
        assert rogue.connections == 2


def test_progress_is_told_while_a_long_file_is_sent(tmp_path: Path) -> None:
    told: list[int] = []
    with Rogue(Reply(raw=created(LARGE))) as rogue:
        HttpArchive(rogue.url, 1, 1 << 20).store(parcel(tmp_path, LARGE), told.append)
        assert len(rogue.requests[0][1]) == LARGE
    assert told == [1 << 20] * 64


def test_a_holder_that_cannot_be_read_is_not_blamed_on_the_network(tmp_path: Path) -> None:
    sent = parcel(tmp_path, 5)._replace(holder=tmp_path / "gone")
    with (
        Rogue(Reply(raw=created(5))) as rogue,
        pytest.raises(NeighbourDown, match="gone cannot be read: No such file"),
    ):
        HttpArchive(rogue.url).store(sent, ignore)


def test_an_archive_that_stops_reading_is_down(tmp_path: Path) -> None:
    with (
        Rogue(Reply(raw=b"", then="hang", reads_body=False)) as rogue,
        pytest.raises(NeighbourDown),
    ):
        HttpArchive(rogue.url, timeouts=HASTY).store(parcel(tmp_path, LARGE), ignore)


@pytest.mark.parametrize("then", ["close", "reset"])
def test_an_archive_that_says_created_before_it_has_the_bytes_did_not_store(tmp_path: Path, then: str) -> None:
    """It echoes the Content-Length, so its count looks right."""
    early = Reply(raw=created(LARGE), then=then, reads_body=False)
    with Rogue(early) as rogue, pytest.raises(NeighbourDown):
        HttpArchive(rogue.url).store(parcel(tmp_path, LARGE), ignore)


def test_sending_may_take_longer_than_connecting(tmp_path: Path) -> None:
    """The HTTP client's own time limit for sending is the one for connecting."""
    timeouts = Timeouts(connect_s=0.1, transfer_s=30.0)
    with Rogue(Reply(raw=created(LARGE))) as rogue:
        HttpArchive(rogue.url, 1, LARGE, timeouts=timeouts).store(parcel(tmp_path, LARGE), ignore)
        assert len(rogue.requests[0][1]) == LARGE


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Rogue(Reply(raw=http("502 Proxy"))) as proxy, Rogue(IDS) as rogue:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.lower(), proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert HttpIds(rogue.url).reserve(IdMode.JOB, 1) == range(1, 2)
        assert (proxy.connections, rogue.connections) == (0, 1)


def test_user_and_password_of_the_url_are_sent_and_never_shown(tmp_path: Path) -> None:
    with Rogue(Reply(raw=http("403 Forbidden"))) as rogue:
        archive = HttpArchive(f"http://me:s3cret@127.0.0.1:{rogue.port}/base/")
        with pytest.raises(NeighbourDown) as fault:
            archive.store(parcel(tmp_path, 1), ignore)
        assert re.search(rb"(?i:\r\nauthorization): Basic bWU6czNjcmV0\r\n", rogue.requests[0][0])
        assert fault.value.reason == f"PUT {rogue.url}/base/5 answered 403"
        assert archive.location(5) == f"{rogue.url}/base/5"


@pytest.mark.parametrize(("user", "sent"), [("me", b"me"), ("zoë", b"zo\xeb"), ("花子", "花子".encode())])
def test_the_user_goes_in_the_configured_header(user: str, sent: bytes) -> None:
    with Rogue(Reply(raw=http("200 OK", b'{"status": "success"}'))) as rogue:
        HttpPolicy(f"{rogue.url}/ingest", "X-Who").permit([], user)
        head, body = rogue.requests[0]
    assert head.startswith(b"POST /ingest HTTP/1.1\r\n")
    assert b"X-Who: " + sent + b"\r\n" in head
    assert b"Content-Type: application/json\r\n" in head
    assert body == b"[]"


def test_a_long_document_gets_more_time_to_be_registered() -> None:
    """The answer comes after the time that a short one is given."""
    timeouts = Timeouts(answer_s=1.0, per_file_s=1.0)
    slow = Reply(raw=b'HTTP/1.1 200 OK\r\n\r\n{"status": "success"}', then="trickle")
    with Rogue(slow) as rogue, pytest.raises(NeighbourDown, match="does not end"):
        HttpCatalogue(f"{rogue.url}/ingest", timeouts=timeouts).register(5, [])
    silent = Reply(raw=b"", then="hang")
    with Rogue(silent) as rogue, pytest.raises(NeighbourDown, match="within 3 s"):
        HttpCatalogue(f"{rogue.url}/ingest", timeouts=timeouts).register(5, [{}, {}])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside threads is what is tested
def test_a_forked_process_has_connections_of_its_own() -> None:
    with Rogue(IDS) as rogue:
        ids = HttpIds(rogue.url)
        ids.reserve(IdMode.JOB, 1)
        child = os.fork()
        if child == 0:
            os._exit(0 if ids.reserve(IdMode.JOB, 1) == range(1, 2) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert ids.reserve(IdMode.JOB, 1) == range(1, 2)
        assert rogue.connections == 2


# --- the real services


def _uniqueid(core: PacificaCore, timeouts: Timeouts) -> Callable[[], object]:
    ids = HttpIds(core.uniqueid_url, timeouts=timeouts)
    return lambda: ids.reserve(IdMode.FILE, 1)


def _policy(core: PacificaCore, timeouts: Timeouts) -> Callable[[], object]:
    policy = HttpPolicy(core.policy_ingest_url, "X-User", timeouts=timeouts)
    return lambda: policy.permit(Document.of(ALLOWED.document()).registration(1), "me")


def _archive(core: PacificaCore, timeouts: Timeouts) -> Callable[[], object]:
    archive = HttpArchive(core.archive_url, timeouts=timeouts)
    return lambda: archive.size(999_999_999)


def _metadata(core: PacificaCore, timeouts: Timeouts) -> Callable[[], object]:
    catalogue = HttpCatalogue(core.metadata_ingest_url, timeouts=timeouts)
    return lambda: catalogue.lookup(999_999_999)


SERVICES = {"uniqueid": _uniqueid, "policy": _policy, "archive": _archive, "metadata": _metadata}


@pytest.mark.parametrize("role", SERVICES)
def test_a_real_service_that_dies_is_down_and_then_used_again(core: PacificaCore, role: str) -> None:
    call = SERVICES[role](core, Timeouts())
    call()
    service: HttpServer = getattr(core, role)
    service.kill()
    with pytest.raises(NeighbourDown) as fault:
        call()
    assert fault.value.neighbour == role
    service.start()
    call()


@pytest.mark.parametrize("role", SERVICES)
def test_a_real_service_that_hangs_is_down_and_then_used_again(core: PacificaCore, role: str) -> None:
    # A healthy Policy asks Metadata several times, which takes more than a second on a busy machine.
    call = SERVICES[role](core, Timeouts(answer_s=5.0, transfer_s=5.0))
    call()
    service: HttpServer = getattr(core, role)
    service.pause()
    with pytest.raises(NeighbourDown, match="no answer within 5 s"):
        call()
    service.resume()
    SERVICES[role](core, Timeouts())()


def test_an_object_that_the_real_archive_cannot_open_is_not_absent(core: PacificaCore) -> None:
    core.archive_path(31_415_926).mkdir()
    with pytest.raises(NeighbourDown, match="Errno 21"):
        HttpArchive(core.archive_url).size(31_415_926)


def test_a_document_that_the_real_catalogue_chokes_on_is_told_with_its_reason(core: PacificaCore) -> None:
    entry = {"destinationTable": "Files", "_id": 31_415_926, "name": "f", "subdir": "", "size": 1}
    times = {"mtime": "2024-01-01", "ctime": "2024-01-01"}
    bad = entry | times | {"mimetype": "odd/one", "hashtype": "md5", "hashsum": "0" * 32}
    number = {"destinationTable": "Transactions._id", "value": 31_415_926}
    catalogue = HttpCatalogue(core.metadata_ingest_url)
    with pytest.raises(NeighbourDown, match="ValueError: Invalid metadata for file 31415926"):
        catalogue.register(31_415_926, [*ALLOWED.document(), number, bad])
    assert catalogue.lookup(31_415_926) is None
