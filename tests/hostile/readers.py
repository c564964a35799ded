"""What a bundle means: to us, to Python's `tarfile`, and to GNU tar."""

import os
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

from pacifica.ingest.bundle import Bundle, Limits
from pacifica.ingest.core.errors import BadMetadata
from pacifica.ingest.core.paths import is_metadata, member_path

__all__ = ["Files", "ensure_gnu_agrees", "ours", "theirs"]

Files = dict[str, bytes]

#: Of a plain file: its length and its name.
_LISTED = re.compile(rb"-[-rwxsStT]{9} \S+ +([0-9]+) \S+ \S+ (.*)")
#: Owners that this machine cannot have, and folders that lie elsewhere; both are passed over, by us too.
_PASSED_OVER = re.compile(
    rb"tar: (Archive value \S+ is out of [ug]id_t range .*|.*/: Member name contains '\.\.'"
    rb"|Removing leading .* from member names|Exiting with failure status .*)\n"
)
#: The longest name of a file within a folder, in bytes; what is longer can be listed only.
_NAME_MAX = 255


def ours(path: Path) -> tuple[Files, bytes | None]:
    """Return members by canonical path, and the metadata."""
    with Bundle.open(path, Limits(extended_bytes=1 << 16)) as bundle:
        members = {one.path: b"".join(bundle.chunks(one, 700)) for one in bundle}
        try:
            return members, b"".join(bundle.metadata())
        except BadMetadata:
            return members, None


def theirs(path: Path) -> tuple[Files, bytes | None]:
    """Return the same as `tarfile` sees it."""
    members: Files = {}
    metadata = None
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            assert info.isfile() or info.isdir(), info
            body = tar.extractfile(info)
            if body is None:
                continue
            if is_metadata(info.name):
                metadata = body.read()
            else:
                members[member_path(info.name)] = body.read()
    return members, metadata


def ensure_gnu_agrees(path: Path, found: tuple[Files, bytes | None]) -> None:
    """Compare what we found with what GNU tar lists, and with what it unpacks.

    Raises:
        AssertionError: it sees other files.

    """
    members, metadata = found[0], [] if found[1] is None else [found[1]]
    lines = [_LISTED.fullmatch(line) for line in _tar(path, "--list", "--verbose", "--numeric-owner").splitlines()]
    listed = {os.fsdecode(match[2]): int(match[1]) for match in lines if match}
    sizes = {member_path(name): size for name, size in listed.items() if not is_metadata(name)}
    assert sizes == {name: len(body) for name, body in members.items()}
    assert [size for name, size in listed.items() if is_metadata(name)] == [len(body) for body in metadata]
    if any(len(part) > _NAME_MAX for name in listed for part in os.fsencode(name).split(b"/")):
        return
    with tempfile.TemporaryDirectory() as folder:
        _tar(path, "--extract", "--touch", "--no-same-owner", f"--directory={folder}")
        unpacked = {str(file.relative_to(folder)): file.read_bytes() for file in _plain(Path(folder))}
    assert {member_path(name): body for name, body in unpacked.items() if not is_metadata(name)} == members
    assert [body for name, body in unpacked.items() if is_metadata(name)] == metadata


def _tar(path: Path, *options: str) -> bytes:
    line = ["tar", "--quoting-style=literal", "--file", path, *options]
    done = subprocess.run(line, check=False, capture_output=True, timeout=60, env=os.environ | {"LC_ALL": "C"})
    assert done.returncode == 0 or not _PASSED_OVER.sub(b"", done.stderr), done.stderr
    return done.stdout


def _plain(folder: Path) -> list[Path]:
    """Files below a folder, which can be read whatever their modes were."""
    found = []
    for entry in list(folder.iterdir()):
        assert not entry.is_symlink(), entry
        entry.chmod(0o700)
        found += _plain(entry) if entry.is_dir() else [entry]
    return found
