"""A power cut at any moment that one likes: what a disk still has of a folder.

What it is: `PowerCut` records, with the library of `powercut.c` under a service, each moment at which something became
durable; `PowerCut.cuts` plays the record and gives the `Disk` as it is when the power is cut after each of them.  The
rules are the strict ones: a file has what it had when its last fsync began, a name is there when its folder was synced
after it was made, and all else is lost.  A cut in the middle of a sync leaves a part of it, drawn by a seed.

What it is not: a disk that lies.  What a sync told to be durable stays.

Who may call it: the fault rounds.
"""

import fcntl
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness import HarnessError

__all__ = ["Cut", "Disk", "PowerCut"]

SOURCE = Path(__file__).with_name("powercut.c")
PAGE = 4096
_END = -1


@dataclass(slots=True)
class Disk:
    """What is durable.

    Attributes:
        root: the key of the folder that everything lies in.
        files: key of a file → its bytes.
        folders: key of a folder → name → its key, and whether it is a folder.
    """

    root: str
    files: dict[str, bytearray] = field(default_factory=dict)
    folders: dict[str, dict[str, tuple[str, bool]]] = field(default_factory=dict)

    def tree(self) -> dict[str, bytearray | None]:
        """Path → bytes, or None for a folder."""
        return dict(self._below(self.root, ""))

    def _below(self, folder: str, path: str) -> Iterator[tuple[str, bytearray | None]]:
        for name, (key, is_folder) in self.folders.get(folder, {}).items():
            if is_folder:
                yield f"{path}{name}", None
                yield from self._below(key, f"{path}{name}/")
            else:
                yield f"{path}{name}", self.files.get(key, bytearray())

    def write(self, target: Path) -> None:
        """Make the files and folders in an empty folder."""
        for path, content in self.tree().items():
            if content is None:
                (target / path).mkdir()
            else:
                (target / path).write_bytes(content)

    def copy(self) -> "Disk":
        """One that can be changed alone, without a copy of every byte: bytes of a file are replaced, never changed."""
        return Disk(self.root, dict(self.files), {key: dict(names) for key, names in self.folders.items()})


@dataclass(frozen=True, slots=True)
class _File:
    """A file was synced: its length, and the pages that changed."""

    key: str
    size: int
    pages: Mapping[int, bytes]

    def apply(self, disk: Disk, chance: random.Random | None = None) -> None:
        """Make it durable; with `chance` a part of it."""
        content = bytearray(disk.files.get(self.key, b""))
        if chance is None or chance.random() < 0.5:
            content = content[: self.size].ljust(self.size, b"\0")
        for number, page in self.pages.items():
            if chance is None or chance.random() < 0.5:
                start = number * PAGE
                end = min(start + PAGE, self.size)
                content = content.ljust(end, b"\0")
                content[start:end] = page[: end - start]
        disk.files[self.key] = content


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder was synced: its names."""

    key: str
    names: Mapping[str, tuple[str, bool]]

    def apply(self, disk: Disk, chance: random.Random | None = None) -> None:
        """Make them durable; with `chance` some of them."""
        old = disk.folders.get(self.key, {})
        if chance is None:
            disk.folders[self.key] = dict(self.names)
            return
        chosen = {name: (self.names if chance.random() < 0.5 else old).get(name) for name in {**old, **self.names}}
        disk.folders[self.key] = {name: found for name, found in chosen.items() if found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One moment.

    Attributes:
        position: in the record; greater than that of everything that is durable.
        disk: after a cut at that moment.
        torn: after a cut in the middle of the next sync.
    """

    position: int
    disk: Disk
    torn: Disk


class PowerCut:
    """The record of one folder."""

    def __init__(self, root: Path, state: Path) -> None:
        """Record what becomes durable in `root`, where all that is there now is; keep the record in `state`."""
        self._root = root.resolve()
        self._state = state
        (state / "files").mkdir(parents=True)
        self._journal = state / "journal"
        self._journal.touch()
        self._library = state / "powercut.so"
        _compile(self._library)
        self._before = [folder for folder in [self._root, *self._root.rglob("*")] if folder.is_dir()]
        assert not any(path.is_file() for path in self._root.rglob("*")), "files that are there before are not known"
        self._known = {folder: self._ask_key(folder) for folder in self._before}

    @property
    def env(self) -> dict[str, str]:
        """What a service is to have in its environment."""
        return {"LD_PRELOAD": str(self._library), "POWERCUT_ROOT": str(self._root), "POWERCUT_STATE": str(self._state)}

    def position(self) -> int:
        """The moment that is now: everything before it is durable."""
        with self._journal.open("rb") as journal:
            # Whoever writes a record holds the lock: half of one is no moment.
            fcntl.flock(journal, fcntl.LOCK_SH)
            return os.fstat(journal.fileno()).st_size

    def fail(self, text: str, count: int = 0) -> None:
        """Let a sync fail: that which is the `count`th from now on of a path with `text`, or all when it is 0."""
        order = self._state / "fail.new"
        order.write_text(f"{count} {text}")
        order.rename(self._state / "fail")

    def mend(self) -> None:
        """Let no sync fail any more."""
        (self._state / "fail").unlink(missing_ok=True)

    def failed(self) -> bool:
        """Whether the sync that was counted for came and failed; asked once for each."""
        done = self._state / "failed"
        came = done.exists()
        done.unlink(missing_ok=True)
        return came

    def cuts(self, seed: int) -> Iterator[Cut]:
        """Every moment in turn; `seed` draws what is left of a sync that was cut."""
        chance = random.Random(seed)
        disk = self._beginning()
        position = 0
        for after, record in self._records():
            torn = disk.copy()
            record.apply(torn, chance)
            yield Cut(position=position, disk=disk.copy(), torn=torn)
            record.apply(disk)
            position = after
        yield Cut(position=position, disk=disk, torn=disk)

    def _beginning(self) -> Disk:
        disk = Disk(self._known[self._root])
        for folder in self._before:
            below = {child.name: (self._known[child], True) for child in self._before if child.parent == folder}
            disk.folders[self._known[folder]] = below
        return disk

    def _ask_key(self, folder: Path) -> str:
        """The library's own name of a folder: it is asked by a sync that is taken out of the record again."""
        code = "import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDONLY))"
        subprocess.run([sys.executable, "-I", "-S", "-c", code, str(folder)], env=self.env, check=True)
        with self._journal.open("r+b") as journal:
            key = journal.readline().split()[1].decode()
            journal.truncate(0)
        return key

    def _records(self) -> Iterator[tuple[int, _File | _Folder]]:
        """Each record with the position after it; one that was cut off at the end is none."""
        data = memoryview(self._journal.read_bytes())
        place = 0
        while place < len(data):
            place, record = _file(data, place) if data[place] == ord("F") else _folder(data, place)
            if record is None:
                return
            yield place, record


def _compile(library: Path) -> None:
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as fault:
        message = "the tests of power cuts need gcc; install it (on Debian: apt-get install gcc libc6-dev)"
        raise HarnessError(message) from fault


def _line(data: memoryview, place: int) -> tuple[int, str]:
    end = place
    while data[end] != ord("\n"):
        end += 1
    return end + 1, str(data[place:end], "utf-8", "surrogateescape")


def _file(data: memoryview, place: int) -> tuple[int, _File | None]:
    pages: dict[int, bytes] = {}
    try:
        place, head = _line(data, place)
        _, key, size = head.split(" ")
        while (number := int.from_bytes(_exactly(data, place, 8), "little", signed=True)) != _END:
            pages[number] = bytes(_exactly(data, place + 8, PAGE))
            place += 8 + PAGE
    except IndexError:
        return place, None
    return place + 8, _File(key, int(size), pages)


def _exactly(data: memoryview, place: int, size: int) -> memoryview:
    if place + size > len(data):
        raise IndexError
    return data[place : place + size]


def _folder(data: memoryview, place: int) -> tuple[int, _Folder | None]:
    names: dict[str, tuple[str, bool]] = {}
    try:
        place, head = _line(data, place)
        while True:
            place, line = _line(data, place)
            if not line:
                return place, _Folder(head.split(" ")[1], names)
            kind, key, name = line.split(" ", 2)
            names[name] = (key, kind == "d")
    except IndexError:
        return place, None
