"""Disks that are full, that fail, and that lose what was not synced: nothing accepted is lost, nothing half is kept."""

import itertools
import random
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pacifica.ingest import tables
from tests.acceptance.raw_http import Answer, Wire, chunks, head
from tests.faults.disk.powercut import Cut, PowerCut
from tests.faults.disk.small import MIB, fill, small_disk
from tests.faults.disk.uploads import CHUNK, TYPE, bundle, orders, send, send_all, sent
from tests.faults.disk.wreck import faults
from tests.faults.gate import Gate
from tests.faults.load import Order, order
from tests.faults.oracle import Sent, verdict
from tests.faults.site import Code, Setting, Site
from tests.harness import request
from tests.harness.landing import landed
from tests.harness.waiting import until

SEED = 20260
#: How many bundles are sent while the disk is recorded, and how many at once.
UPLOADS = 8
AT_ONCE = 3
#: How many of the moments are also judged by starting the service again.
RESTARTS = 2
#: An upload that stands still is given up within that time, in seconds: after twice the pause that a sender may make.
GIVEN_UP_S = 30.0
#: What the log says of a sweep that could not write.
SWEEP_FAILED = "sweep put off"


def waits(site: Site, job_id: int | None) -> bool:
    """Whether a job gave way to a fault that may pass."""
    mine = (tables.JobEvent.job_id == job_id) & (tables.JobEvent.name == "waiting")
    with site._read():
        return bool(tables.JobEvent.select().where(mine).exists())


# The power


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An upload, and the moment at which its answer was there."""

    sent: Sent
    position: int


class RecordedSite(Site):
    """A standalone site whose disk is recorded.

    Attributes:
        home: the folder of the service.
        power: the record.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        """Let it begin in an empty folder, which is `fresh`, or in one that has its landing zone for long."""
        self.home = folder / "service"
        incoming = self.home / "incoming"
        for place in [self.home] if fresh else [self.home / "staging", incoming]:
            place.mkdir(parents=True)
        self.power = PowerCut(self.home, folder / "power")
        super().__init__(folder, Setting(name="standalone", changes={"ingest": {"move_roots": str(incoming)}}))
        self.incoming = incoming

    def environment(self, code: Code) -> dict[str, str]:
        """With the library that records."""
        return super().environment(code) | self.power.env

    def put(self, wanted: Order, *, synced: bool) -> None:
        """Put the sources of a move where they are to lie."""
        for path, content in wanted.sources.items():
            path.write_bytes(content)
        if synced:
            code = "import os, sys; [os.fsync(os.open(path, os.O_RDONLY)) for path in sys.argv[1:]]"
            command: list[str | Path] = [sys.executable, "-I", "-S", "-c", code, *wanted.sources, self.incoming]
            subprocess.run(command, env=self.power.env, check=True)

    def send(self, wanted: Order) -> Answered:
        """Send one bundle, which must be accepted."""
        answer = send(self.url, wanted)
        assert answer.status == 200, answer.body
        return Answered(position=self.power.position(), sent=sent(wanted, answer))

    def judge_every_cut(self, answered: Sequence[Answered], keep: Collection[int]) -> list[Cut]:
        """Judge what is left after a cut at every moment of the record; returns those at the positions in `keep`."""
        kept: list[Cut] = []
        scratch = self.folder / "scratch"
        scratch.mkdir()
        for cut in self.power.cuts(SEED):
            accepted = [one.sent for one in answered if one.position <= cut.position]
            for disk, when in ((cut.disk, "after"), (cut.torn, "in the sync after")):
                found = "\n".join(faults(disk, accepted, scratch))
                assert not found, f"seed {SEED}, power cut {when} {cut.position}:\n{found}"
            if cut.position in keep:
                kept.append(cut)
        return kept

    def go_on_after(self, cut: Cut, answered: Sequence[Answered]) -> None:
        """Start on the disk as the cut left it, and judge what becomes of everything."""
        self.close()  # also the connection to the database, whose files go
        shutil.rmtree(self.home)
        self.home.mkdir()
        cut.disk.write(self.home)
        self.revive()
        self.settled()
        verdict(self.evidence([_known(one, cut) for one in answered]))


def _known(one: Answered, cut: Cut) -> Sent:
    """What a client knows; an answer that would have come after the cut did not come."""
    return one.sent if one.position <= cut.position else replace(one.sent, status=None, job_id=None)


@pytest.mark.parametrize("at_once", [1, AT_ONCE])
def test_whenever_the_power_is_cut_no_accepted_bundle_is_lost(tmp_path: Path, at_once: int) -> None:
    with RecordedSite(tmp_path) as site:
        answered = send_all(itertools.islice(orders(SEED), UPLOADS), site.send, at_once)
        site.settled()
        site.kill_all()
        # At the moment of an answer the bundle is durable, and nothing that came later is.
        moments = random.Random(SEED).sample(sorted({one.position for one in answered}), RESTARTS)
        kept = site.judge_every_cut(answered, moments)
        assert len(kept) == RESTARTS
        for cut in kept:
            site.go_on_after(cut, answered)


def test_the_first_bundle_of_a_new_folder_is_not_lost_with_the_power(tmp_path: Path) -> None:
    with RecordedSite(tmp_path, fresh=True) as site:
        answered = [site.send(next(orders(SEED)))]
        site.settled()
        site.kill_all()
        site.judge_every_cut(answered, ())


@pytest.mark.parametrize("synced", [True, False])
def test_whenever_the_power_is_cut_no_source_of_a_move_is_lost(tmp_path: Path, *, synced: bool) -> None:
    # What becomes of the jobs afterwards is not judged: the files that the test makes anew are others to the service.
    with RecordedSite(tmp_path) as site:
        made = (order(SEED, number, site.incoming) for number in itertools.count(1))
        moves = list(itertools.islice((one for one in made if one.sources), UPLOADS))
        for move in moves:
            site.put(move, synced=synced)
        answered = send_all(moves, site.send, AT_ONCE)
        site.settled()
        site.kill_all()
        assert not list(site.incoming.iterdir())
        # What its sender never synced may be gone before it is moved, but not after.
        site.judge_every_cut(answered if synced else (), ())


# Disks that cannot write


def test_an_upload_that_cannot_be_synced_is_refused_and_discarded(tmp_path: Path) -> None:
    with RecordedSite(tmp_path) as site:
        told = []
        # The first sync is that of the file, the second that of the folder.
        for count, wanted in enumerate(itertools.islice(orders(SEED), 2), start=1):
            site.power.fail("/staging", count)
            answer = send(site.url, wanted)
            assert site.power.failed()
            assert answer.status >= 500, answer.body
            assert landed(site.staging) == []
            told.append(sent(wanted, answer))
        told.append(site.send(next(orders(SEED + 1))).sent)
        site.settled()
        verdict(site.evidence(told))


def test_what_the_archive_cannot_sync_never_counts_as_stored(tmp_path: Path) -> None:
    with RecordedSite(tmp_path) as site:
        told = []
        # Those of new folders and of files come in any order.
        for count, wanted in zip((1, 2, 4), orders(SEED), strict=False):
            site.power.fail("/archive", count)
            told.append(site.send(wanted).sent)
            site.settled()
            assert site.power.failed()
            assert waits(site, told[-1].job_id)
        site.power.fail("/archive")
        told.append(site.send(next(orders(SEED + 1))).sent)
        until(lambda: waits(site, told[-1].job_id), "the job to wait")
        objects = site.evidence(told).jobs[told[-1].job_id or 0].ids
        assert "archived" not in objects.values()
        site.power.mend()
        site.settled()
        verdict(site.evidence(told))


def test_nothing_is_accepted_while_the_database_cannot_sync(tmp_path: Path) -> None:
    with RecordedSite(tmp_path) as site:
        first, second = itertools.islice(orders(SEED), 2)
        site.power.fail("/ingest.sqlite3")
        refused = send(site.url, first)
        assert refused.status == 503, refused.body
        site.power.mend()
        accepted = site.send(second).sent
        site.settled()
        verdict(site.evidence([sent(first, refused), accepted]))


# Full disks


def small_site(folder: Path, **ingest: str) -> Site:
    """A standalone site that uses its disk to the last byte, unless told otherwise."""
    return Site(folder, Setting(name="standalone", changes={"ingest": {"keep_free": "0 B", **ingest}}))


def assert_full(answer: Answer) -> None:
    assert answer.status == 507, answer.body
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["code"] == "no_space"


class Held:
    """An upload of which only the end is still to be sent."""

    def __init__(self, site: Site, wanted: Order, *, chunked: bool) -> None:
        self.wanted = wanted
        self._wire = Wire(site.url)
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(wanted.body)}"
        self._end = b"0\r\n\r\n" if chunked else wanted.body[-1:]
        body = chunks(wanted.body, CHUNK, end=b"") if chunked else wanted.body[:-1]
        # A full disk is told at once, and the connection closed.
        with suppress(ConnectionError):
            self._wire.send(head("POST", "/upload", TYPE, framing), body)

    def end(self) -> Answer:
        """Send the end."""
        with suppress(ConnectionError):
            self._wire.send(self._end)
        with self._wire:
            return self._wire.answer()

    def finish(self) -> Sent:
        """Send the end; what was refused must have been refused rightly."""
        answer = self.end()
        if answer.status != 200:
            assert_full(answer)
        return sent(self.wanted, answer)


def hold_all(site: Site, wanted: Iterable[Order], *, chunked: bool) -> list[Held]:
    """Begin uploads that together have no room, and return when that is found out."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda one: Held(site, one, chunked=chunked), wanted))


@pytest.mark.parametrize("chunked", [False, True])
def test_uploads_to_a_full_landing_zone_are_refused_and_leave_nothing_behind(tmp_path: Path, *, chunked: bool) -> None:
    with small_disk(tmp_path / "service" / "staging", 8), small_site(tmp_path) as site:
        large = bundle("large", 12 * MIB)
        answer = send(site.url, large, chunked=chunked)
        assert_full(answer)
        assert landed(site.staging) == []
        told = [sent(large, answer)]
        # Each of these has room for itself alone.
        held = hold_all(site, [bundle(f"several{number}", 5 * MIB) for number in range(AT_ONCE)], chunked=chunked)
        told += [one.finish() for one in held]
        assert {one.status for one in told} <= {200, 507}
        assert [one.status for one in told].count(507) > 1
        small = bundle("small", MIB)
        told.append(sent(small, send(site.url, small)))
        assert told[-1].status == 200
        site.settled()
        verdict(site.evidence(told))


def test_a_chunked_upload_does_not_use_up_the_space_that_is_to_be_kept_free(tmp_path: Path) -> None:
    with small_disk(tmp_path / "service" / "staging", 8), small_site(tmp_path, keep_free="4 Mb") as site:
        large = bundle("large", 6 * MIB)
        assert_full(send(site.url, large, chunked=True))


def test_uploads_at_once_do_not_use_up_the_space_that_is_to_be_kept_free(tmp_path: Path) -> None:
    with small_disk(tmp_path / "service" / "staging", 8), small_site(tmp_path, keep_free="4 Mb") as site:
        held = hold_all(site, [bundle(f"both{number}", 3 * MIB) for number in range(2)], chunked=False)
        assert 507 in {one.finish().status for one in held}


def test_a_job_waits_while_the_archive_is_full_and_then_completes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "service" / "archive", 8) as disk, small_site(tmp_path) as site:
        ballast = fill(disk, leave=MIB)
        wanted = bundle("wanted", 2 * MIB)
        told = sent(wanted, send(site.url, wanted))
        until(lambda: waits(site, told.job_id), "the job to wait")
        state = request("GET", f"{site.url}/get_state?job_id={told.job_id}").json()
        assert (state["state"], state["complete"]) == ("OK", False)
        ballast.unlink()
        site.settled()
        verdict(site.evidence([told]))
        assert list(site.archive.rglob("*.part")) == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_service_whose_whole_disk_is_full_answers_and_goes_on_when_there_is_space(
    tmp_path: Path, *, chunked: bool
) -> None:
    """One job is under way and another waits for the only worker, and nothing can be written about either."""
    with small_disk(tmp_path / "service", 16) as disk:
        gate = Gate(disk / "policy.toml")
        with small_site(tmp_path, workers="1") as site:
            gate.close()
            *accepted, late, after = itertools.islice(orders(SEED), 4)
            told = [sent(one, send(site.url, one)) for one in accepted]
            until(gate.reached, "a job to be under way")
            ballast = fill(disk)
            refused = send(site.url, late, chunked=chunked)
            # What has no length is found out when the database cannot take it.
            assert refused.status in ({503, 507} if chunked else {507}), refused.body
            assert "retry-after" in refused.headers
            told.append(sent(late, refused))
            assert request("GET", f"{site.url}/get_state?job_id={told[0].job_id}").status == 200
            assert request("GET", site.url).status == 200
            gate.open()
            for said in ("the job is left to recovery", "the worker waits for the database", SWEEP_FAILED):
                until(lambda said=said: logged(site, said), f"the log to say: {said}")
            ballast.unlink()
            told.append(sent(after, send(site.url, after)))
            assert [one.status for one in told] == [200, 200, refused.status, 200]
            site.settled()
            verdict(site.evidence(told))


def logged(site: Site, said: str) -> bool:
    return said in site.server.log.read_text()


def test_an_upload_that_took_the_last_space_of_the_database_goes_when_there_is_some(tmp_path: Path) -> None:
    """The row that lets recovery remove the bundle cannot be written while nothing at all is free."""
    with small_disk(tmp_path / "service", 16) as disk, small_site(tmp_path) as site:
        last, after = bundle("last", 4 * MIB), bundle("after", MIB)
        (held,) = hold_all(site, [last], chunked=True)
        until(lambda: staged_bytes(site) == len(last.body), "the bundle to arrive")
        ballast = fill(disk)
        refused = held.end()
        assert refused.status in {503, 507}, refused.body
        until(lambda: logged(site, SWEEP_FAILED), "a sweep to try it in vain")
        ballast.unlink()
        until(lambda: staged_bytes(site) == 0, "the bundle to be removed", GIVEN_UP_S)
        told = sent(after, send(site.url, after))
        assert told.status == 200
        site.settled()
        verdict(site.evidence([sent(last, refused), told]))


def staged_bytes(site: Site) -> int:
    return sum(path.stat().st_size for path in landed(site.staging))
