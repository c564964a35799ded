"""Settings: where a value comes from, and what a wrong one is answered with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pacifica.ingest import globals as files
from pacifica.ingest.config import Settings, keys, load_settings, standalone_settings
from pacifica.ingest.core.errors import BadConfiguration


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file, which is not there yet; no variable is set."""
    path = tmp_path / "config.ini"
    monkeypatch.setattr(files, "CONFIG_FILE", str(path))
    for key in keys():
        monkeypatch.delenv(key.env, raising=False)
    return path


def test_the_file_beats_the_environment_and_that_the_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().ingest.default_user == "root"
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
        ("ingest", "auth_header", "X User", "match"),
        ("policy", "ingest_url", "local:rules.toml", "an absolute path"),
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
