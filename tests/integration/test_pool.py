"""The workers of a standalone service: whatever keeps one from being started now, another is started later."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.harness.command import base_environment

#: Workers end by themselves after a second.
BEGIN = """
import logging, operator, os, resource, shutil, tempfile, threading
from pacifica.ingest.local.pool import Pool

told = threading.Event()
class Ear(logging.Handler):
    def emit(self, record):
        if "no other can be started yet" in record.msg:
            told.set()
logging.getLogger("pacifica.ingest.local.pool").addHandler(Ear())

if __name__ == "__main__":
    pool = Pool(operator.methodcaller("wait"), 1)
    pool.start()
    first = pool._workers[0].process.pid
"""
#: This process may open no more files for a while.
NO_FILES = """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), most))
    assert told.wait(60), "nobody noticed"
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
"""
#: The folder of the socket that the forking process listens to is removed, as by one who cleans up old files.
NO_FOLDER = """
    shutil.rmtree(tempfile.gettempdir())
"""
END = """
    late = threading.Event()
    while pool._workers[0].process.pid == first:
        assert pool._keeper.is_alive(), "nobody looks after the workers any more"
        late.wait(0.05)
    pool.stop()
"""


#: Told to stop between the start of a worker, which hangs and is deaf to that, and its place among the workers.
CUT = """
import os, signal, sys, time
from pacifica.ingest.local import pool

class Told(pool._Worker):
    def __init__(self, *args):
        super().__init__(*args)
        print(self.process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGINT)

def hang(wakeup):
    time.sleep(3600)

if __name__ == "__main__":
    pool._Worker = Told
    pool.GRACE_S = 1.0
    mine = pool.Pool(hang, 2)
    try:
        mine.start()
    except KeyboardInterrupt:
        mine.stop()
        sys.exit(3)
"""


def test_a_stop_in_the_middle_of_a_start_ends_every_worker(tmp_path: Path) -> None:
    done = _run(tmp_path, CUT)
    assert done.returncode == 3, done.stderr
    workers = [int(pid) for pid in done.stdout.split()]
    assert workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("trouble", [NO_FILES, NO_FOLDER], ids=["no file can be opened", "its folder is gone"])
def test_a_worker_that_cannot_be_started_now_is_started_later(tmp_path: Path, trouble: str) -> None:
    done = _run(tmp_path, BEGIN + trouble + END)
    assert done.returncode == 0, done.stderr


def _run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(text)
    # Short, so that the name of a socket fits.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="pool-", ignore_cleanup_errors=True) as short:
        env = base_environment(folder) | {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "TMPDIR": short}
        return subprocess.run(
            [sys.executable, script], env=env, capture_output=True, text=True, timeout=60, check=False
        )
