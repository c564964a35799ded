"""Row 12: files that lie on a shared disk already."""

import hashlib
import random
from pathlib import Path

from benchmarks import bundles, clients
from benchmarks.measure import Watch
from benchmarks.results import RowResult
from benchmarks.rounds import turns
from benchmarks.services import ORIGINAL, OURS, Bench

__all__ = ["move"]

KIB = 1024


def move(bench: Bench, result: RowResult) -> None:
    """Move 10,000 files of 1 KiB, made anew for each round."""
    files = bench.scaled(10_000, 10)
    case = f"{files:,} × 1 KiB moved"
    for number, who in turns(bench):
        with bench.instant() as sink, bench.service(who, sink) as service:
            document = sources(service.folder / "incoming", files, seed=number)
            with Watch(*service.servers) as watch:
                job_id = clients.post(service.url, "/move", document)
                clients.until_done(service.url, job_id)
            result.put(case, who, number, watch.figures() | {"us/file": watch.seconds / files * 1e6})
    ratio = result.ratio((case, ORIGINAL, "seconds"), (case, OURS, "seconds"))
    result.expect("× the original's speed", ratio, at_least=5.0)
    result.note(
        "Ours reads each file before, for its digest, and the archive's copy after; the original reads nothing."
    )


def sources(folder: Path, files: int, seed: int) -> list[dict[str, object]]:
    """Write files of 1 KiB, and return the document that asks for their move."""
    source = random.Random(seed)
    document = bundles.document()
    folder.mkdir()
    for number in range(files):
        content = source.randbytes(KIB)
        path = folder / f"{number}.dat"
        path.write_bytes(content)
        digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        document.append(bundles.entry(number, KIB, "sha1", digest, source=str(path)))
    return document
