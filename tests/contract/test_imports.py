"""Importing is free of consequences, and each module says what is public in it.

Each module is imported in a process of its own, with an empty home, nothing in the environment and no network.
"""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src"
PACKAGE = SOURCES / "pacifica" / "ingest"
FILES = sorted(PACKAGE.rglob("*.py"))
#: Ends the process when the module reaches out.
GUARD = """
import os, sys
REACHES_OUT = {
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "sqlite3.connect",
    "subprocess.Popen", "os.fork", "os.mkdir",
}
def guard(event, arguments):
    if event in REACHES_OUT:
        sys.exit(f"{event} {arguments}")
    if event == "open" and isinstance(arguments[0], str):
        path, mode, flags = arguments
        # Only `wsgi` composes a service, and looks whether there is a configuration.
        looks = os.path.abspath(path).startswith(os.environ["HOME"]) and sys.argv[1] != "pacifica.ingest.wsgi"
        if looks or flags & (os.O_WRONLY | os.O_RDWR):
            sys.exit(f"{event} {arguments}")
sys.path.insert(0, sys.argv[2])
sys.dont_write_bytecode = True
sys.addaudithook(guard)
__import__(sys.argv[1])
"""


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")


MODULES = [module_name(file) for file in FILES]


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """Module → how its import went."""
    home = tmp_path_factory.mktemp("home")

    def import_alone(module: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", GUARD, module, str(SOURCES)],
            env={"HOME": str(home)},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    with ThreadPoolExecutor(4) as pool:
        done = dict(zip(MODULES, pool.map(import_alone, MODULES), strict=True))
    assert not list(home.iterdir())
    return done


@pytest.mark.parametrize("module", MODULES)
def test_importing_a_module_opens_nothing_and_needs_no_configuration(
    module: str, imports: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    done = imports[module]
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        # What every worker of a standalone service imports first, and then.
        ("pacifica.ingest.__main__", {"celery", "cherrypy", "click", "peewee", "rich"}),
        ("pacifica.ingest.app", {"celery", "cherrypy", "rich"}),
        ("pacifica.ingest.cli.server", {"celery", "rich"}),
    ],
)
def test_what_a_process_does_not_need_is_not_imported(module: str, spared: set[str]) -> None:
    show = f"import sys; sys.path.insert(0, {str(SOURCES)!r}); import {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, timeout=120, check=True)
    assert not spared & set(done.stdout.split())


@pytest.mark.parametrize("module", MODULES)
def test_what_is_listed_as_public_is_there(module: str) -> None:
    found = importlib.import_module(module)
    listed = getattr(found, "__all__", [])
    assert len(set(listed)) == len(listed)
    assert not [name for name in listed if not hasattr(found, name)]
    assert not [name for name in listed if name.startswith("_") and name != "__version__"]


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_a_module_uses_only_what_others_list_as_public(file: Path) -> None:
    hidden = [
        f"{module}.{name}"
        for module, name in borrowed(ast.parse(file.read_bytes()))
        if name not in getattr(importlib.import_module(module), "__all__", []) and f"{module}.{name}" not in MODULES
    ]
    assert not hidden


def borrowed(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of each import from the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pacifica.ingest"):
            yield from ((str(node.module), alias.name) for alias in node.names)
