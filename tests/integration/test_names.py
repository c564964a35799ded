"""The documented Python names at work: a program that was written for 0.4.1 carries a bundle by hand.

The neighbours are the real ones; the database is a new SQLite file.
"""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pacifica.ingest import orm, tarutils, tasks, utils
from pacifica.ingest.core.errors import Conflict, FaultyBundle, NeighbourDown
from pacifica.ingest.testing import BundleBuilder
from tests.by_hand import configured
from tests.harness import REFUSED, PacificaCore

FILES = {"a.txt": b"alpha", "deep/b.bin": bytes(range(256)) * 500, "empty": b"", "data/c": b"a folder called data"}


@pytest.fixture(autouse=True)
def folder(core: PacificaCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Configured as such a program is: by the environment."""
    settings = {
        "UNIQUEID_URL": core.uniqueid_url,
        "POLICY_INGEST_URL": core.policy_ingest_url,
        "ARCHIVEINTERFACE_URL": core.archive_url,
        "METADATA_INGEST_URL": core.metadata_ingest_url,
    }
    with configured(tmp_path, settings, monkeypatch):
        yield tmp_path


@pytest.fixture
def job_id() -> int:
    return utils.get_unique_id(1, "upload_job")


def builder(files: dict[str, bytes] = FILES, **submission: Any) -> BundleBuilder:
    bundle = BundleBuilder(**submission)
    for path, content in files.items():
        bundle.add(path, content)
    return bundle


def opened(bundle: BundleBuilder, folder: Path) -> tarfile.TarFile:
    tar = tarutils.open_tar(str(bundle.write(folder / "bundle.tar")))
    assert tar is not None
    return tar


def loaded(tar: tarfile.TarFile, job_id: int) -> tarutils.MetaParser:
    meta = tarutils.MetaParser()
    meta.load_meta(tar, job_id)
    return meta


def answer(job_id: int) -> dict[str, Any]:
    return dict(utils.create_state_response(orm.read_state(job_id)))


def assert_step(job_id: int, state: str, task: str, percent: str) -> None:
    found = answer(job_id)
    assert (found["state"], found["task"], found["task_percent"]) == (state, task, percent), found


def assert_registered(core: PacificaCore, job_id: int, files: dict[str, bytes]) -> None:
    found = {"/".join(filter(None, [row["subdir"], row["name"]])): row for row in core.files(job_id)}
    assert found.keys() == files.keys()
    for path, content in files.items():
        assert core.archived(found[path]["_id"]) == content
        assert found[path]["hashsum"] == hashlib.sha256(content).hexdigest()


# A bundle, by hand


def test_a_bundle_that_is_carried_by_hand_is_archived_and_registered(
    core: PacificaCore, folder: Path, job_id: int
) -> None:
    with opened(builder(), folder) as tar:
        meta = loaded(tar, job_id)
        assert tarutils.file_count(tar) == meta.file_count == len(meta.files) == len(FILES)
        assert list(meta.files) == [str(meta.start_id + seq) for seq in range(len(FILES))]
        tarutils.TarIngester(tar, meta).ingest()
    assert meta.post_metadata() == (True, "")
    assert_registered(core, job_id, FILES)


def test_the_documented_steps_carry_a_bundle_and_tell_its_state(core: PacificaCore, folder: Path, job_id: int) -> None:
    path = str(builder().write(folder / "bundle.tar"))
    tar = tasks.ingest_check_tarfile(job_id, path)
    assert tar is not None
    assert_step(job_id, "OK", "open tar", "100.0")
    with tar:
        meta = tasks.ingest_metadata_parser(job_id, tar)
        assert_step(job_id, "OK", "load metadata", "100.0")
        tasks.ingest_policy_check(job_id, meta.meta_str)
        assert_step(job_id, "OK", "Policy Validation", "100.0")
        tasks.ingest_files(job_id, tarutils.TarIngester(tar, meta))
        assert_step(job_id, "OK", "ingest files", "100.0")
    assert not answer(job_id)["complete"]
    tasks.ingest_metadata(job_id, meta)
    assert_step(job_id, "OK", "ingest metadata", "100.0")
    assert answer(job_id)["complete"]
    assert_registered(core, job_id, FILES)


def test_a_member_can_be_carried_alone(core: PacificaCore, folder: Path) -> None:
    file_id = utils.get_unique_id(1, "file")
    with opened(builder({"a": b"alpha"}), folder) as tar:
        ingester = tarutils.FileIngester("sha1", hashlib.sha1(b"alpha").hexdigest(), file_id)
        assert ingester.upload_file_in_file(tar.getmember("data/a"), tar)
        assert ingester.validate_hash()
    assert core.archived(file_id) == b"alpha"


def test_nothing_in_the_archive_is_overwritten(core: PacificaCore, folder: Path) -> None:
    file_id = utils.get_unique_id(1, "file")
    with opened(builder({"a": b"alpha", "b": b"beta"}), folder) as tar:
        tarutils.FileIngester("md5", hashlib.md5(b"alpha").hexdigest(), file_id).upload_file_in_file(
            tar.getmember("data/a"), tar
        )
        again = tarutils.FileIngester("md5", hashlib.md5(b"beta").hexdigest(), file_id)
        with pytest.raises(Conflict):
            again.upload_file_in_file(tar.getmember("data/b"), tar)
    assert core.archived(file_id) == b"alpha"


def test_a_member_with_another_hash_is_not_sent(core: PacificaCore, folder: Path) -> None:
    file_id = utils.get_unique_id(1, "file")
    with opened(builder({"a": b"alpha"}), folder) as tar:
        ingester = tarutils.FileIngester("sha1", "0" * 40, str(file_id))
        with pytest.raises(tarutils.HashValidationException, match="'data/a' has hash"):
            ingester.upload_file_in_file(tar.getmember("data/a"), tar)
    assert file_id not in core.archived_ids()


FAULTS: dict[str, Callable[[], BundleBuilder]] = {
    "another digest": lambda: builder().add("z", b"1", hashsum="0" * 64),
    "another size": lambda: builder().add("z", b"1", size=7),
    "a member that is missing": lambda: builder().entry("z", b"1"),
    "a member that is not named": lambda: builder().member("data/z", b"1"),
    "a mimetype that Metadata refuses": lambda: builder().add("z", b"1", mimetype="none"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_of_a_faulty_bundle_is_sent(fault: str, core: PacificaCore, folder: Path, job_id: int) -> None:
    before = core.archived_ids()
    with opened(FAULTS[fault](), folder) as tar:
        ingester = tarutils.TarIngester(tar, loaded(tar, job_id))
        with pytest.raises(tasks.IngestException):
            tasks.ingest_files(job_id, ingester)
    assert_step(job_id, "FAILED", "ingest files", "0.0")
    assert answer(job_id)["exception"]
    assert core.archived_ids() == before


# What does not open, load or pass


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no tar at all" * 100,
        builder().member("data/link", type=tarfile.SYMTYPE, linkname="/etc/passwd").build(),
        builder().member("/etc/passwd", b"x").build(),
        builder().build()[:1000],
    ],
)
def test_what_is_no_bundle_does_not_open(content: bytes, folder: Path, job_id: int) -> None:
    path = folder / "hostile.tar"
    path.write_bytes(content)
    assert tarutils.open_tar(str(path)) is None
    with pytest.raises(tasks.IngestException):
        tasks.ingest_check_tarfile(job_id, str(path))
    assert_step(job_id, "FAILED", "open tar", "0.0")


@pytest.mark.parametrize("metadata", [b"", b"no json", b"{}", b'[{"destinationTable": "Transactions._id"}]'])
def test_metadata_that_cannot_be_read_fails_its_step(metadata: bytes, folder: Path, job_id: int) -> None:
    with opened(builder().metadata(metadata), folder) as tar, pytest.raises(tasks.IngestException):
        tasks.ingest_metadata_parser(job_id, tar)
    assert_step(job_id, "FAILED", "load metadata", "0.0")


def test_what_policy_refuses_fails_its_step(folder: Path, job_id: int) -> None:
    refused = builder(submitter=REFUSED.submitter, project=REFUSED.project, instrument=REFUSED.instrument)
    with opened(refused, folder) as tar:
        meta = loaded(tar, job_id)
    allowed, reason = tasks.validate_meta(meta.meta_str, "anybody")
    assert not allowed
    assert REFUSED.project in reason
    with pytest.raises(tasks.IngestException):
        tasks.ingest_policy_check(job_id, meta.meta_str, "anybody")
    assert_step(job_id, "FAILED", "Policy Validation", "0.0")
    assert answer(job_id)["exception"] == reason


def test_what_is_no_json_is_not_allowed() -> None:
    assert not tasks.validate_meta("{")[0]


def test_a_transaction_is_registered_once(folder: Path, job_id: int) -> None:
    with opened(builder(), folder) as tar:
        meta = loaded(tar, job_id)
        tarutils.TarIngester(tar, meta).ingest()
    tasks.ingest_metadata(job_id, meta)
    with pytest.raises(tasks.IngestException, match="already"):
        tasks.ingest_metadata(job_id, meta)
    assert_step(job_id, "FAILED", "ingest metadata", "0.0")


def test_an_empty_parser_posts_nothing() -> None:
    done, reason = tarutils.MetaParser().post_metadata()
    assert not done
    assert "list of objects" in reason


def test_what_a_program_adds_to_the_metadata_is_registered(core: PacificaCore, folder: Path, job_id: int) -> None:
    with opened(builder(), folder) as tar:
        meta = loaded(tar, job_id)
        tarutils.TarIngester(tar, meta).ingest()
    pair = {"destinationTable": "TransactionKeyValue", "key": "Sample", "value": "S-17"}
    meta.meta_str = json.dumps([*json.loads(meta.meta_str), pair])
    meta.clean_metadata()
    assert meta.post_metadata() == (True, "")
    assert core.key_values(job_id) == {"Sample": "S-17"}
    assert_registered(core, job_id, FILES)


def test_ids_are_told_by_the_neighbour(core: PacificaCore) -> None:
    first = utils.get_unique_id(10, "file")
    assert utils.get_unique_id(1, "file") >= first + 10
    core.uniqueid.kill()
    with pytest.raises(NeighbourDown):
        utils.get_unique_id(1, "file")


def test_a_parser_answers_by_id(folder: Path, job_id: int) -> None:
    content = b"x"
    bundle = BundleBuilder().add(
        "p/q.txt", content, hashtype="sha1", hashsum=f"sha1:{hashlib.sha1(content).hexdigest()}"
    )
    with opened(bundle, folder) as tar:
        meta = loaded(tar, job_id)
    file_id = str(meta.start_id)
    assert (meta.get_fname(file_id), meta.get_subdir(file_id)) == ("q.txt", "p")
    assert meta.get_hash(file_id) == ("sha1", hashlib.sha1(content).hexdigest())
    assert meta.transaction_id == job_id


# A move, by hand


def document(folder: Path, **overrides: Any) -> Path:
    bundle = BundleBuilder()
    for name, content in {"one": b"1", "two": b"22"}.items():
        source = folder / name
        source.write_bytes(content)
        bundle.entry(f"moved/{name}", content, **({"source": str(source)} | overrides))
    path = folder / "move.json"
    path.write_text(json.dumps(bundle.document()), encoding="utf-8")
    return path


def test_the_documented_steps_carry_a_move(core: PacificaCore, folder: Path, job_id: int) -> None:
    meta = tasks.move_metadata_parser(job_id, str(document(folder)))
    tasks.ingest_policy_check(job_id, meta.meta_str, "anybody")
    tasks.move_files(job_id, meta)
    assert_step(job_id, "OK", "move files", "100.0")
    tasks.ingest_metadata(job_id, meta)
    assert_registered(core, job_id, {"moved/one": b"1", "moved/two": b"22"})
    assert not (folder / "one").exists()


@pytest.mark.parametrize("overrides", [{"source": "/etc/hostname"}, {"hashsum": "0" * 64}, {"size": 99}])
def test_nothing_of_a_faulty_move_is_moved(
    overrides: dict[str, Any], core: PacificaCore, folder: Path, job_id: int
) -> None:
    before = core.archived_ids()
    meta = tasks.move_metadata_parser(job_id, str(document(folder, **overrides)))
    with pytest.raises(FaultyBundle):
        tarutils.patch_files(meta)
    with pytest.raises(tasks.IngestException):
        tasks.move_files(job_id, meta)
    assert_step(job_id, "FAILED", "move files", "0.0")
    assert core.archived_ids() == before


def test_a_document_that_is_not_there_fails_its_step(folder: Path, job_id: int) -> None:
    with pytest.raises(tasks.IngestException):
        tasks.move_metadata_parser(job_id, str(folder / "none.json"))
    assert_step(job_id, "FAILED", "load metadata", "0.0")


# The tasks, in place


def test_the_tasks_can_be_called_in_place(core: PacificaCore, folder: Path, job_id: int) -> None:
    path = builder().write(folder / f"{job_id}.tar")
    tasks.ingest(job_id, str(path))
    assert_step(job_id, "OK", "ingest metadata", "100.0")
    assert_registered(core, job_id, FILES)
    assert not path.exists()
    moved = utils.get_unique_id(1, "upload_job")
    tasks.move(moved, str(document(folder)), "anybody")
    assert_registered(core, moved, {"moved/one": b"1", "moved/two": b"22"})


def test_a_task_does_nothing_twice(core: PacificaCore, folder: Path, job_id: int) -> None:
    path = builder().write(folder / f"{job_id}.tar")
    tasks.ingest(job_id, str(path), "anybody")
    before = core.archived_ids()
    tasks.ingest(job_id, str(path), "anybody")
    assert_step(job_id, "OK", "ingest metadata", "100.0")
    assert core.archived_ids() == before
