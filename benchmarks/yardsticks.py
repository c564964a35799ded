"""What the machine could do, measured in the same run: receivers, digests, copies, durable small files.

Each function returns figures by name, as `results.RowResult.put` takes them.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks import clients
from benchmarks.measure import Watch, put_away, touch_memory
from tests.harness import HttpServer, Server, free_port

__all__ = [
    "NGINX",
    "SOCKET",
    "bare_receive",
    "copy_and_digest",
    "durable_files",
    "fsync_loop",
    "nginx_receive",
    "sink_limit",
]

NGINX: Final = "nginx, body to file"
SOCKET: Final = "bare socket to file"

_NGINX_CONF: Final = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
{user}
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  client_body_buffer_size 1m;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 "up"; }}
    location /upload {{
      client_body_in_file_only on;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_pass http://127.0.0.1:{behind};
    }}
  }}
  server {{ listen 127.0.0.1:{behind}; location / {{ return 200 "ok"; }} }}
}}
"""


def nginx() -> Path | None:
    """The program, None when it is not there."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    return Path(found) if found else None


def nginx_receive(bundle: Path, work: Path) -> dict[str, float] | None:
    """Have nginx write a body to a file; None without nginx."""
    program = nginx()
    if program is None:
        return None
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    folder = work / "nginx"
    folder.mkdir(exist_ok=True)
    config = _NGINX_CONF.format(folder=folder, port=port, behind=free_port(), user=user)
    (folder / "nginx.conf").write_text(config, encoding="ascii")
    server = HttpServer("nginx", [program, "-p", folder, "-c", folder / "nginx.conf"], folder, port=port)
    return _receive(server, bundle, folder / "body")


def bare_receive(bundle: Path, work: Path) -> dict[str, float]:
    """Have `receiver` write a body to a file."""
    folder = work / "socket"
    folder.mkdir(exist_ok=True)
    script = Path(__file__).with_name("receiver.py")
    return _receive(HttpServer("socket", [sys.executable, "-I", script, "{port}", folder], folder), bundle, folder)


def _receive(server: Server, bundle: Path, folder: Path) -> dict[str, float]:
    """Send a bundle; without and with an fsync of the file that it became."""
    url = f"http://127.0.0.1:{server.port}"
    with server:
        touch_memory(bundle.stat().st_size)
        with Watch(server) as watch:
            clients.send_file(url, bundle)
        began = time.monotonic()
        written = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        _fsync(written)
        synced_s = time.monotonic() - began
    shutil.rmtree(folder, ignore_errors=True)
    mib = bundle.stat().st_size / 2**20
    return watch.figures() | {
        "MiB/s": mib / watch.seconds,
        "MiB/s with fsync": mib / (watch.seconds + synced_s),
        "CPU s/GiB": watch.cpu_s / mib * 1024,
    }


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def copy_and_digest(path: Path, work: Path) -> dict[str, float]:
    """`cp`, `sha1sum` of the copy, and `sync` of its file system's part, one after the other, as programs."""
    copy = work / "copy"
    touch_memory(path.stat().st_size)
    took: dict[str, float] = {}
    for name, command in (
        ("cp", ["cp", "--reflink=never", str(path), str(copy)]),
        ("sha1sum", ["sha1sum", str(copy)]),
        ("sync", ["sync", str(copy)]),
    ):
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took[f"{name} s"] = time.monotonic() - began
    copy.unlink()
    return took | {"seconds": sum(took.values())}


def fsync_loop(work: Path, size_bytes: int, count: int) -> dict[str, float]:
    """Write, fsync, rename, fsync the folder, one file after the other; the median is what one durable file costs."""
    with _empty(work / "fsync") as folder:
        took = []
        for number in range(count):
            began = time.monotonic()
            _durable([f"{folder}/{number}"], bytes(size_bytes))
            _fsync(folder)
            took.append(time.monotonic() - began)
    return {"median ms": statistics.median(took) * 1000, "files/s": count / sum(took)}


def durable_files(work: Path, size_bytes: int, count: int, threads: int, together: int = 1) -> dict[str, float]:
    """Write, fsync and rename many files with some threads, a thousand a folder; then fsync the folders.

    Args:
        work: where a folder is made for them.
        size_bytes: of each.
        count: how many.
        threads: that work at once.
        together: so many are written by a thread before the first of them is synced.

    """
    content = os.urandom(size_bytes)
    with _empty(work / "durable") as folder:
        folders = [folder / str(number) for number in range(count // 1000 + 1)]
        for one in folders:
            one.mkdir()
        began = time.monotonic()
        with ThreadPoolExecutor(threads) as pool:
            shares = (range(thread, count, threads) for thread in range(threads))
            for done in [pool.submit(_durable_share, folders, share, content, together) for share in shares]:
                done.result()
        for one in folders:
            _fsync(one)
        seconds = time.monotonic() - began
    return {"seconds": seconds, "files/s": count / seconds}


def _durable_share(folders: list[Path], numbers: range, content: bytes, together: int) -> None:
    for start in range(0, len(numbers), together):
        group = numbers[start : start + together]
        _durable([f"{folders[number // 1000]}/{number}" for number in group], content)


def _durable(finals: list[str], content: bytes) -> None:
    """Make files, each step of all before the next one."""
    handles = [os.open(f"{final}.part", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644) for final in finals]
    for handle in handles:
        os.write(handle, content)
        if len(handles) > 1:
            os.posix_fadvise(handle, 0, len(content), os.POSIX_FADV_DONTNEED)  # Linux begins to write it out
    for handle in handles:
        os.fsync(handle)
        os.close(handle)
    for final in finals:
        os.rename(f"{final}.part", final)  # noqa: PTH104 (paths as text are part of what is cheap)


@contextmanager
def _empty(folder: Path) -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        yield found
    finally:
        put_away(found)


def sink_limit(url: str, count: int, size_bytes: int, window: int = 256) -> dict[str, float]:
    """How fast the instant archive takes small files over one connection: one by one, and in a pipeline."""
    body = os.urandom(size_bytes)
    rates = {}
    for name, group in (("one by one files/s", 1), ("pipelined files/s", window)):
        first = 10**12 + group * 10**9
        began = time.monotonic()
        clients.put_many(url, first, count, body, group)
        rates[name] = count / (time.monotonic() - began)
    return rates
