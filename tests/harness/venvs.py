"""Virtual environments for programs that cannot share the test run's own.

What it is: environments built once and kept in the user's cache folder
(``$XDG_CACHE_HOME/pacifica-ingest-tests``, by default below ``~/.cache``). A folder's
name carries a hash of its Python and of all that went in, so a changed pin or source
makes a new one. A lock file lets one process build while others wait, and a marker,
written last, tells a whole environment from an interrupted one.

What it is not: a resolver. The neighbours' pins are those that were measured
(`CORE_PINS`, `NEIGHBOURS`); everything else comes from our ``pyproject.toml``.

Who may call it: the harness, and tests that run an installed command.

How the environments relate: one with a package under test is a *clone* of one without:
a new environment that takes over the other's site-packages and scripts (their first
line is rewritten). So a change in our source costs a copy and the build of one wheel,
and no download or compilation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import shutil
import sys
import sysconfig
import tempfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.harness.command import HarnessError, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "CORE_PINS",
    "NEIGHBOURS",
    "Environment",
    "beside_env",
    "core_env",
    "earlier_env",
    "environment",
    "original_env",
    "project_env",
    "uwsgi_env",
]

#: What the neighbours and clients run on.
CORE_PINS = (
    "cherrypy==18.10.0",
    "cheroot==11.1.2",
    "peewee==3.17.9",
    "celery==5.3.6",
    "kombu==5.3.5",
    "redis==5.0.8",
    "click==8.1.8",
    "requests==2.31.0",
    "urllib3==1.26.20",
    "psycopg2-binary==2.9.13",
    "python-dateutil==2.9.0.post0",
    "pytz==2026.6",
    "six",
    "pager",
    "jsonschema",
    "PyMySQL",
)
#: The neighbours and clients themselves, installed without their own wishes.
NEIGHBOURS = (
    "pacifica-namespace==0.0.2",
    "pacifica-uniqueid==0.5.1",
    "pacifica-policy==0.8.3",
    "pacifica-archiveinterface==0.4.2",
    "pacifica-metadata==0.13.0",
    "pacifica-downloader==0.4.1",
    "pacifica-uploader==0.3.1",
    "pacifica-cli==0.5.2",
)
_ORIGINAL = "pacifica-ingest==0.4.1"
#: The neighbours need ``pkg_resources``, which later setuptools took away.
_TOOLS = ("pip<25", "setuptools==69.5.1", "wheel")
_CORE_PYTHON = "3.11"

_BUILD_WAIT_S = 1200.0
_MARKER = ".complete"
#: An environment is removed when another of its name is built and nobody asked for it this long.
_KEEP_S = 6 * 3600.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A ready virtual environment.

    Attributes:
        folder: Where it lies.
    """

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.bin("python")

    @property
    def site_packages(self) -> Path:
        """Its folder of installed packages."""
        return next((self.folder / "lib").glob("python3*")) / "site-packages"

    def bin(self, name: str) -> Path:
        """Return the path of one of its commands."""
        return self.folder / "bin" / name

    def pip(self, *arguments: str | Path) -> str:
        """Run its pip.

        Raises:
            HarnessError: pip failed; carries its output.
        """
        command = [self.python, "-I", "-m", "pip", "--disable-pip-version-check", *arguments]
        return run(command, wait_s=_BUILD_WAIT_S)


def environment(name: str, *pins: str, no_deps: Sequence[str] = ()) -> Environment:
    """Return an environment of this interpreter with the given pins.

    Args:
        name: Short word for the folder's name.
        pins: Requirements, installed with what they need.
        no_deps: Requirements, installed after those and alone.
    """
    return _simple(name, Path(sys.executable), (), pins, no_deps)


def core_env() -> Environment:
    """Return the neighbours' and clients' environment, without any ingest."""
    return _simple("core", _core_python(), _TOOLS, CORE_PINS, NEIGHBOURS)


def original_env() -> Environment:
    """Return the neighbours' environment with the original ingest 0.4.1 in it."""
    base = core_env()
    return _cached("original", [base.folder.name, _ORIGINAL], lambda new: _add_original(base, new))


def _add_original(base: Environment, new: Environment) -> None:
    _clone(base, new)
    new.pip("install", "--quiet", "--no-deps", _ORIGINAL)


def project_env(project_root: Path, *extras: str) -> Environment:
    """Return an environment of this interpreter with our package, as users install it.

    Not editable: built as a wheel from a copy of the sources. Remade when
    ``pyproject.toml`` or ``src`` changes; what the package needs is installed once.

    Args:
        project_root: Folder of ``pyproject.toml``.
        extras: Names of optional dependencies to have, like ``postgresql``.
    """
    return _with_project("project", project_root, extras)


def earlier_env(project_root: Path, commit: str, *extras: str) -> Environment:
    """Return `project_env` of a commit of this repository's own history.

    Raises:
        HarnessError: The history is not there.
    """
    with tempfile.TemporaryDirectory(prefix="pacifica-earlier-") as folder:
        packed = Path(folder) / "source.tar"
        try:
            run(
                [
                    "git",
                    "-C",
                    project_root,
                    "archive",
                    "--output",
                    packed,
                    commit,
                    "src",
                    "pyproject.toml",
                    "README.md",
                    "LICENSE",
                ]
            )
        except (HarnessError, OSError) as fault:
            message = (
                f"{project_root} has no commit {commit}, whose code is to run beside today's.  A clone without history "
                f"gets it with: git fetch --unshallow.  An unpacked archive cannot run this test.  {fault}"
            )
            raise HarnessError(message) from fault
        source = Path(folder) / "source"
        shutil.unpack_archive(packed, source, filter="data")
        return _with_project("project", source, extras)


def uwsgi_env(project_root: Path, *extras: str) -> Environment:
    """Return `project_env` with uWSGI, which is compiled once."""
    return _with_project("uwsgi", project_root, extras, "uwsgi")


def _with_project(name: str, root: Path, extras: Sequence[str], *more: str) -> Environment:
    with _source(root) as copy:
        base = environment(f"{name}-base", *_requirements(copy, extras), *more)
        return _add_project(name, base, copy)


def beside_env(project_root: Path) -> Environment:
    """Return the neighbours' environment with our package beside them.

    It answers one question: is ``pacifica`` still one namespace for all of them when
    ours is installed into the same site-packages? The neighbours pin older releases
    (peewee 3, celery 5.3 …) than we ask for, and must not lose them. So our wheel is
    installed into a clone of `core_env` without its requirements; then those of its
    requirements of which *no* release is there are added, with all that is there
    already as constraints. Ours therefore runs on the neighbours' releases there; what
    it does on its own is the business of `project_env`.
    """
    with _source(project_root) as copy:
        return _add_project("beside", core_env(), copy, _add_missing)


def _add_project(
    name: str, base: Environment, copy: Path, finish: Callable[[Environment], None] | None = None
) -> Environment:
    """Return a clone of `base` with our wheel, built from a copy of the sources."""

    def fill(new: Environment) -> None:
        _clone(base, new)
        new.pip("install", "--quiet", "--no-deps", _wheel(copy))
        if finish is not None:
            finish(new)

    return _cached(name, [base.folder.name, _hash(copy)], fill)


def _wheel(copy: Path) -> Path:
    """Build our wheel next to its sources, without a download when the tools are there."""
    tools = environment("build", *_project(copy)["build-system"]["requires"])
    tools.pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", copy / "dist", copy)
    return next((copy / "dist").glob("*.whl"))


def _add_missing(new: Environment) -> None:
    """Install the requirements of our package that nothing there satisfies by name."""
    script = Path(__file__).parent / "scripts" / "missing_requirements.py"
    missing = run([new.python, "-I", script, "pacifica-ingest"]).split("\n")
    missing = [line for line in missing if line]
    if not missing:
        return
    constraints = new.folder / "constraints.txt"
    frozen = new.pip("list", "--format=freeze").splitlines()
    constraints.write_text("\n".join(frozen) + "\n", encoding="utf-8")
    new.pip("install", "--quiet", "--constraint", constraints, *missing)


def _simple(name: str, python: Path, tools: Sequence[str], pins: Sequence[str], no_deps: Sequence[str]) -> Environment:
    """Make an environment from pins alone."""

    def fill(new: Environment) -> None:
        run([python, "-I", "-m", "venv", new.folder], wait_s=_BUILD_WAIT_S)
        if tools:
            new.pip("install", "--quiet", *tools)
        if pins:
            new.pip("install", "--quiet", *pins)
        if no_deps:
            new.pip("install", "--quiet", "--no-deps", *no_deps)

    key = [_python_key(python), *tools, "|", *pins, "|", *no_deps]
    return _cached(name, key, fill)


def _python_key(python: Path) -> str:
    show = "import sys, sysconfig; print(sys.version, sysconfig.get_platform())"
    return run([python, "-I", "-c", show]).strip()


def _core_python() -> Path:
    """Find the Python that the neighbours run on.

    Raises:
        HarnessError: It is not installed, or lacks what makes virtual environments.
    """
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for python in (Path(sys.executable), *(Path(folder) / f"python{_CORE_PYTHON}" for folder in folders)):
        if _makes_core(python):
            return python
    message = (
        f"the neighbours run on Python {_CORE_PYTHON} only; this is {sysconfig.get_python_version()}, and no folder "
        f"on PATH has a python{_CORE_PYTHON} that works and has the modules venv and ensurepip; install it (on "
        f"Debian: apt-get install python{_CORE_PYTHON}-venv; anywhere: uv python install {_CORE_PYTHON})"
    )
    raise HarnessError(message)


def _makes_core(python: Path) -> bool:
    """Tell whether a Python is the neighbours' and whole; a version manager's shim may be neither."""
    show = "import ensurepip, sysconfig, venv; print(sysconfig.get_python_version())"
    try:
        return run([python, "-I", "-c", show]).strip() == _CORE_PYTHON
    except (HarnessError, OSError):
        return False


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pacifica-ingest-tests"


def _cached(name: str, key: Sequence[str], fill: Callable[[Environment], None]) -> Environment:
    """Return the environment for a key, filling it first if it is not whole.

    Args:
        name: First part of the folder's name.
        key: All that decides the content.
        fill: Makes the environment in its folder, which does not exist yet.
    """
    digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:16]
    folder = _cache() / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    found = Environment(folder=folder)
    marker = folder / _MARKER
    with _locked(folder.parent / f"{folder.name}.lock"):
        if marker.exists():
            marker.touch()
            return found
        shutil.rmtree(folder, ignore_errors=True)
        _remove_old(name, folder)
        began = time.monotonic()
        _say(f"building the environment {folder.name} …")
        fill(found)
        marker.touch()
        _say(f"built {folder.name} in {time.monotonic() - began:.1f} s")
    return found


def _say(text: str) -> None:
    sys.stderr.write(f"[harness] {text}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_old(name: str, keep: Path) -> None:
    """Remove whole environments of the same name that nobody asked for lately."""
    for marker in keep.parent.glob(f"{name}-*/{_MARKER}"):
        is_same = marker.parent.name.rpartition("-")[0] == name and marker.parent != keep
        if is_same and time.time() - marker.stat().st_mtime > _KEEP_S:
            shutil.rmtree(marker.parent, ignore_errors=True)


def _clone(base: Environment, new: Environment) -> None:
    """Make `new` from `base`: same interpreter, same packages, scripts of its own."""
    run([base.python, "-I", "-m", "venv", "--without-pip", new.folder])
    shutil.copytree(base.site_packages, new.site_packages, symlinks=True, dirs_exist_ok=True)
    for script in (base.folder / "bin").iterdir():
        target = new.bin(script.name)
        if not target.exists() and script.is_file() and not script.is_symlink():
            _copy_script(script, target, base, new)


def _copy_script(script: Path, target: Path, base: Environment, new: Environment) -> None:
    content = script.read_bytes()
    if content.startswith(b"#!"):
        content = content.replace(os.fsencode(base.folder), os.fsencode(new.folder))
    target.write_bytes(content)
    target.chmod(script.stat().st_mode)


def _project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def _requirements(root: Path, extras: Sequence[str]) -> list[str]:
    """Return what our package needs, as its ``pyproject.toml`` says.

    Raises:
        KeyError: It knows no such extra.
    """
    project = _project(root)["project"]
    optional = project.get("optional-dependencies", {})
    return [*project["dependencies"], *(line for extra in extras for line in optional[extra])]


@contextlib.contextmanager
def _source(root: Path) -> Iterator[Path]:
    """Copy what makes the wheel, so that an edit meanwhile cannot part hash and content."""
    with tempfile.TemporaryDirectory(prefix="pacifica-source-") as folder:
        copy = Path(folder) / "project"
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(root / "src", copy / "src", ignore=unwanted)
        for path in root.iterdir():
            if path.is_file():
                shutil.copyfile(path, copy / path.name)
        yield copy


def _hash(copy: Path) -> str:
    digest = hashlib.sha256()
    for path in [copy / "pyproject.toml", *sorted((copy / "src").rglob("*"))]:
        if path.is_file():
            digest.update(f"{path.relative_to(copy)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
