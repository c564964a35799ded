"""A source that somebody swaps for a link between two looks at it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pacifica.ingest.core.files import FileEntry
from pacifica.ingest.core.metadata import Document
from pacifica.ingest.ports import SourceFile
from pacifica.ingest.source import Sources, UnfitSource
from pacifica.ingest.testing import BundleBuilder

CONTENT = b"measured"
PARTS = ("run", "run/day", "run/day/a.dat")


@dataclass
class Site:
    """A folder for sources, with one in it, and somebody who acts when the place of a source was just looked at."""

    folder: Path
    act: Callable[[], None] = field(default=lambda: None)

    def __post_init__(self) -> None:
        self.source.parent.mkdir(parents=True)
        self.source.write_bytes(CONTENT)
        self.sources = Sources(roots=[self.incoming], is_staged=self._looked, chunk_bytes=4096)

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    @property
    def source(self) -> Path:
        return self.incoming / PARTS[-1]

    def entry(self) -> FileEntry:
        document = BundleBuilder().entry("a.dat", CONTENT, source=str(self.source)).document()
        return Document.of(document).files[0]

    def swap(self, part: str) -> None:
        """Move a part of the way out of the folder, and put a link to it in its place."""
        (self.incoming / part).rename(self.folder / "aside")
        (self.incoming / part).symlink_to(self.folder / "aside")

    def _looked(self, _: Path) -> bool:
        act, self.act = self.act, lambda: None
        act()
        return False


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def nothing(_: int) -> None:
    """Nobody wants to know what was read."""


def test_a_plain_source_is_taken(site: Site) -> None:
    status, _ = site.sources.examine(site.entry(), nothing)
    assert status.st_ino == site.source.stat().st_ino


def test_the_root_may_be_a_link(site: Site) -> None:
    site.incoming.rename(site.folder / "disk")
    site.incoming.symlink_to(site.folder / "disk")
    site.sources.examine(site.entry(), nothing)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_becomes_a_link_while_the_source_is_opened_is_refused(site: Site, part: str) -> None:
    site.act = lambda: site.swap(part)
    with pytest.raises(UnfitSource, match="is reached through a symbolic link"):
        site.sources.examine(site.entry(), nothing)
    assert (site.incoming / part).is_symlink()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_becomes_a_link_before_the_move_is_refused(site: Site, part: str) -> None:
    """It is the same file still, by device and inode."""
    status, _ = site.sources.examine(site.entry(), nothing)
    noted = SourceFile(seq=0, device=status.st_dev, inode=status.st_ino)
    site.sources.ensure_same(site.entry(), noted, nothing)
    site.swap(part)
    with pytest.raises(UnfitSource, match="is reached through a symbolic link"):
        site.sources.ensure_same(site.entry(), noted, nothing)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_becomes_a_link_while_it_is_looked_at_again_is_refused(site: Site, part: str) -> None:
    status, _ = site.sources.examine(site.entry(), nothing)
    noted = SourceFile(seq=0, device=status.st_dev, inode=status.st_ino)
    site.act = lambda: site.swap(part)
    with pytest.raises(UnfitSource, match="is reached through a symbolic link"):
        site.sources.ensure_same(site.entry(), noted, nothing)
