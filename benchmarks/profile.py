"""Where the processor time of a worker goes: `python -m benchmarks.profile`.

A timer of processor time interrupts the work a thousand times a second and notes where its main thread is.  So nothing
becomes slower by being counted, as small functions do under `cProfile`.  What other threads spend counts where the main
thread waits for them; the database and the neighbours are other processes, and are not seen.

The pipeline runs in this process, on the neighbours and the database of rows 4 and 12, or of row 11.
"""

import argparse
import json
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

from benchmarks import report
from benchmarks.bundles import Shape
from benchmarks.results import Options
from benchmarks.rows.move import sources
from benchmarks.services import Bench, InstantNeighbours
from pacifica import ingest
from pacifica.ingest import app, orm
from pacifica.ingest.config import Settings, standalone_settings
from pacifica.ingest.core.states import Kind, Phase
from pacifica.ingest.intake import Body
from pacifica.ingest.testing import MemoryQueue

__all__ = ["Sampler", "main"]

#: Between two looks, in seconds of processor time.
_EVERY_S: Final = 0.001
_PACKAGE: Final = str(Path(ingest.__file__).parent)
#: What begins the steps, and how many calls below it tell one from another.
_FLOW: Final = ("Pipeline.ingest", "Pipeline.move")
_DEPTH: Final = 2
#: Parts with a smaller share are not told apart.
_LEAST: Final = 0.01


@dataclass
class Sampler:
    """Notes where the main thread is, by processor time; a context manager.

    Attributes:
        steps: the step of the flow, with what it called, → how often it was seen there.
        modules: the module of the package that worked, or called what did, → how often.
    """

    steps: Counter[str] = field(default_factory=Counter)
    modules: Counter[str] = field(default_factory=Counter)
    _before: Any = None

    def __enter__(self) -> Self:
        """Begin."""
        self._before = signal.signal(signal.SIGPROF, self._note)
        signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._before)

    def _note(self, _: int, frame: FrameType | None) -> None:
        ours = [one.f_code for one in _outwards(frame) if one.f_code.co_filename.startswith(_PACKAGE)]
        names = [code.co_qualname for code in reversed(ours)]
        flow = next((place for place, name in enumerate(names) if name in _FLOW), len(names))
        self.steps[" → ".join(names[flow + 1 : flow + 1 + _DEPTH]) or "the rest"] += 1
        self.modules[_module(ours[0].co_filename) if ours else "none of ours"] += 1


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _module(file: str) -> str:
    return file.removeprefix(_PACKAGE).removeprefix("/").removesuffix(".py").replace("/", ".")


def _settings(bench: Bench, sink: InstantNeighbours, folder: Path) -> Settings:
    """Those of a worker of `Bench.service`."""
    return Settings.model_validate(
        {
            "ingest": {"volume_path": str(folder / "volume"), "move_roots": str(folder)},
            "uniqueid": {"url": sink.uniqueid_url},
            "policy": {"ingest_url": sink.policy_ingest_url},
            "archiveinterface": {"url": sink.archive_url},
            "metadata": {"ingest_url": sink.metadata_ingest_url},
            "database": {"peewee_url": bench.postgresql.new_database()},
        }
    )


def _service(settings: Settings) -> app.Service:
    service = app.compose(settings, MemoryQueue())
    app.use(service)
    orm.prepare_schema(create=True)
    return service


def _carry(service: app.Service, kind: Kind, text: bytes, sampler: Sampler | None) -> tuple[float, float]:
    """Carry one body to its end; returns processor seconds of this process, and seconds, from the claim on."""
    job = service.intake.accept(kind, "10", Body(chunks=[text], length=len(text)))
    claim = service.claim(job.job_id)
    if claim is None:
        raise AssertionError(job)
    before, began = time.process_time(), time.monotonic()
    if sampler is None:
        service.pipeline.run(claim)
    else:
        with sampler:
            service.pipeline.run(claim)
    spent, took = time.process_time() - before, time.monotonic() - began
    ended = service.store.job(job.job_id)
    if ended.phase is not Phase.DONE:
        raise AssertionError(ended)
    return spent, took


def _table(title: str, seen: Counter[str], files: int, cpu_s: float) -> list[str]:
    """Microseconds of a file, by the share of the looks."""
    total = seen.total()
    lines = [f"| {title} | µs a file | share |", "| --- | --- | --- |"]
    named = [(name, count) for name, count in seen.most_common() if count >= _LEAST * total]
    few = total - sum(count for _, count in named)
    for name, count in [*named, *([("parts of less than 1 %", few)] if few else [])]:
        lines.append(f"| `{name}` | {count / total * cpu_s / files * 1e6:.1f} | {count / total:.0%} |")
    return lines


def main(arguments: list[str]) -> int:
    """Profile; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description="Say where a worker's processor time goes, as tables."
    )
    parser.add_argument("--files", type=int, default=10_000, help="of 1 KiB; default: 10000")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--move", action="store_true", help="move files, as row 12")
    other.add_argument("--standalone", action="store_true", help="with neighbours and database of its own, as row 11")
    asked = parser.parse_args(arguments)
    work = Path(tempfile.mkdtemp(prefix="pacifica-profile-"))
    work.chmod(0o755)
    tempfile.tempdir = str(work)
    bench = Bench(options=Options(), work=work)
    try:
        with bench.stack, bench.instant() as sink:
            folder = bench.folder()
            settings = standalone_settings(folder) if asked.standalone else _settings(bench, sink, folder)
            service = _service(settings)
            kind = Kind.MOVE if asked.move else Kind.INGEST
            sampler = Sampler()
            for number, (files, counted) in enumerate(((3, None), (asked.files, sampler))):
                incoming = settings.move_roots[0] / f"incoming-{number}"
                text = (
                    json.dumps(sources(incoming, files, seed=number)).encode()
                    if asked.move
                    else bench.bundle(Shape(files=files, size_bytes=1024)).read_bytes()
                )
                cpu_s, took_s = _carry(service, kind, text, counted)
        run = report.surroundings("python -m benchmarks.profile " + shlex.join(arguments))
        each, spent = took_s / asked.files * 1e6, cpu_s / asked.files * 1e6
        what = (
            f"{asked.files:,} × 1 KiB, {kind}: {each:.0f} µs a file, {spent:.0f} of them processor time of the worker"
        )
        lines = [", ".join(run.values()), "", what, "", *_table("step", sampler.steps, asked.files, cpu_s), ""]
        lines += _table("module", sampler.modules, asked.files, cpu_s)
        sys.stdout.write("\n".join(lines) + "\n")
    finally:
        tempfile.tempdir = None
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
