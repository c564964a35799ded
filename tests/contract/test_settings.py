"""Settings: where a value comes from, and what a wrong one is answered with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pacifica.ingest import globals as files
from pacifica.ingest.config import Key, Settings, keys, load_settings, standalone_settings
from pacifica.ingest.core.errors import BadConfiguration


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file, which is not there yet; no variable is set."""
    path = tmp_path / "config.ini"
    monkeypatch.setattr(files, "CONFIG_FILE", str(path))
    for key in keys():
        monkeypatch.delenv(key.env, raising=False)
        if key.env_file:
            monkeypatch.delenv(key.env_file, raising=False)
    return path


def test_the_file_beats_the_environment_and_that_the_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().ingest.default_user == "anonymous"
    monkeypatch.setenv("INGEST_DEFAULT_USER", "environment")
    assert load_settings().ingest.default_user == "environment"
    file.write_text("[ingest]\ndefault_user = file\n", encoding="utf-8")
    assert load_settings().ingest.default_user == "file"


@pytest.mark.parametrize(
    ("section", "name", "value", "allowed"),
    [
        ("ingest", "volume_path", "staging", "an absolute path"),
        ("ingest", "move_roots", "/data, incoming", "an absolute path"),
        ("ingest", "transfer_size", "4 kilos", "4 kilos"),
        ("ingest", "lease", "1", "greater than or equal to 2"),
        ("ingest", "auth_header", "X User", "letters, digits and hyphens"),
        ("ingest", "trusted_proxies", "proxy.example.org", "addresses or networks"),
        ("ingest", "trusted_proxies", "10.0.0.1, 10.0.0.1/8", "10.0.0.1/8 has host bits set"),
        ("ingest", "trusted_proxies", "127.0.0.1 ::1", "addresses or networks"),
        ("ingest", "enforce_submitter", "maybe", "'off', 'warn' or 'on'"),
        ("ingest", "own_jobs_only", "perhaps", "true or false"),
        ("policy", "ingest_url", "local:rules.toml", "an absolute path"),
        ("ingest", "max_metadata_size", "4 b", "greater than or equal to 4096"),
        ("ingest", "min_hash", "sha2", "nothing or md5 or sha1 or"),
        ("archiveinterface", "url", "file:archive", "file:///absolute/path"),
        ("archiveinterface", "url", "file://host/archive", "file:///absolute/path"),
        ("archiveinterface", "url", "ftp://archive", "http://host:port"),
        ("archiveinterface", "verify", "maybe", "'full', 'size' or 'none'"),
        ("uniqueid", "url", "http://", "http://host:port"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_file_key_and_what_is_allowed(
    file: Path, section: str, name: str, value: str, allowed: str
) -> None:
    file.write_text(f"[{section}]\n{name} = {value}\n", encoding="utf-8")
    with pytest.raises(BadConfiguration) as fault:
        load_settings()
    (line,) = str(fault.value).splitlines()
    assert line.startswith(f"{file}: [{section}] {name} = {value!r}: ")
    assert allowed in line


def test_the_weakest_hash_may_be_in_capitals(file: Path) -> None:
    assert not load_settings().ingest.min_hash
    file.write_text("[ingest]\nmin_hash = SHA3_256\n", encoding="ascii")
    assert load_settings().ingest.min_hash == "sha3_256"


def test_a_wrong_value_of_the_environment_names_the_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not file.exists()
    monkeypatch.setenv("VOLUME_PATH", "here")
    with pytest.raises(BadConfiguration, match=r"^environment variable VOLUME_PATH: .*absolute"):
        load_settings()


def test_all_faults_are_told_at_once_and_no_password(file: Path) -> None:
    file.write_text("[ingest]\nlease = x\n[uniqueid]\nurl = ftp://me:secret@host\n", encoding="utf-8")
    with pytest.raises(BadConfiguration) as fault:
        load_settings()
    assert len(str(fault.value).splitlines()) == 2
    assert "secret" not in str(fault.value)


@pytest.mark.parametrize("load", [load_settings, lambda: standalone_settings(Path("/srv/ingest"))])
def test_a_slip_of_the_pen_is_told(
    file: Path, load: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("[ingest]\nretry_fro = 5\n", encoding="ascii")
    load()
    assert caplog.messages == ["unknown configuration key"]
    caplog.clear()
    file.unlink()
    monkeypatch.setenv("INGEST_CONFIG", str(file))
    load()
    assert caplog.messages == ["INGEST_CONFIG names a file that is not there"]


SECRETS = [key for key in keys() if key.env_file]


def test_what_may_carry_a_password_can_come_from_a_file() -> None:
    assert {key.env_file for key in SECRETS} == {
        "PEEWEE_URL_FILE",
        "BROKER_URL_FILE",
        "BACKEND_URL_FILE",
        "UNIQUEID_URL_FILE",
        "POLICY_INGEST_URL_FILE",
        "ARCHIVEINTERFACE_URL_FILE",
        "METADATA_INGEST_URL_FILE",
    }


@pytest.mark.parametrize("key", SECRETS, ids=lambda key: key.env)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_is_read_from_its_file(file: Path, key: Key, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://me:100%25secret@host:1"
    secret = file.with_name("secret")
    secret.write_bytes(f"{url}{end}".encode())
    monkeypatch.setenv(key.env_file, str(secret))
    assert getattr(getattr(load_settings(), key.section), key.name) == url
    # An empty variable is one that is not set.
    monkeypatch.setenv(key.env, "")
    assert getattr(getattr(load_settings(), key.section), key.name) == url


def test_the_configuration_file_beats_the_file_of_a_secret(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("[celery]\nbroker_url = redis://a\n", encoding="ascii")
    secret = file.with_name("secret")
    secret.write_text("redis://b", encoding="ascii")
    monkeypatch.setenv("BROKER_URL_FILE", str(secret))
    assert load_settings().celery.broker_url == "redis://a"


def test_a_secret_that_is_given_twice_is_a_clear_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = file.with_name("secret")
    secret.write_text("redis://me:hidden@b", encoding="ascii")
    monkeypatch.setenv("BROKER_URL_FILE", str(secret))
    monkeypatch.setenv("BROKER_URL", "redis://me:hidden@a")
    with pytest.raises(BadConfiguration, match="BROKER_URL and BROKER_URL_FILE are both set") as fault:
        load_settings()
    assert "hidden" not in str(fault.value)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b"\xff\xfe", "UTF-8"), (..., "Is a directory")]
)
def test_a_file_of_a_secret_that_cannot_be_read_is_named(
    file: Path, content: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = file.with_name("secret")
    if content is ...:
        secret.mkdir()
    elif content is not None:
        secret.write_bytes(content)
    monkeypatch.setenv("PEEWEE_URL_FILE", str(secret))
    with pytest.raises(BadConfiguration, match=f"PEEWEE_URL_FILE .*secret: .*{reason}"):
        load_settings()


def test_a_wrong_secret_names_the_variable_of_its_file_and_not_the_password(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = file.with_name("secret")
    # A slash in a password, that should have been encoded.
    secret.write_text("ftp://me:hid/den@pass@host", encoding="ascii")
    monkeypatch.setenv("METADATA_INGEST_URL_FILE", str(secret))
    with pytest.raises(BadConfiguration, match=r"^file of environment variable METADATA_INGEST_URL_FILE: ") as fault:
        load_settings()
    assert "'ftp://***@host'" in str(fault.value)
    assert all(part not in str(fault.value) for part in ("hid", "den", "pass@"))
