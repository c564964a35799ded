"""Row 1: how fast one large body becomes a durable file, and a job."""

import shutil

from benchmarks import clients, yardsticks
from benchmarks.bundles import Shape
from benchmarks.measure import Watch, touch_memory
from benchmarks.results import RowResult
from benchmarks.rounds import NO_NGINX, turns
from benchmarks.services import ORIGINAL, OURS, Bench

__all__ = ["receive"]


def receive(bench: Bench, result: RowResult) -> None:
    """Send 2 GiB to both, to nginx and to a bare socket; no worker runs."""
    shape = Shape(files=1, size_bytes=bench.scaled(2 << 30))
    small = Shape(files=1, size_bytes=1 << 20)
    case, little = str(shape), str(small)
    path, little_path = bench.bundle(shape), bench.bundle(small)
    for number, who in turns(bench):
        with bench.instant() as sink, bench.service(who, sink, works=False) as service:
            for name, body in ((little, little_path), (case, path)):
                touch_memory(body.stat().st_size)
                with Watch(*service.servers) as watch:
                    clients.upload(service.url, body)
                length = body.stat().st_size / 2**20
                figures = {"MiB/s": length / watch.seconds, "CPU s/GiB": watch.cpu_s / length * 1024}
                result.put(name, who, number, watch.figures() | figures)
        if who == OURS:
            result.put(case, yardsticks.SOCKET, number, yardsticks.bare_receive(path, bench.work))
            nginx = yardsticks.nginx_receive(path, bench.work)
            if nginx is None:
                result.note(NO_NGINX)
            else:
                result.put(case, yardsticks.NGINX, number, nginx)
        shutil.rmtree(bench.work / "nginx", ignore_errors=True)
    speed = (case, OURS, "MiB/s")
    result.expect("× the original's throughput", result.ratio(speed, (case, ORIGINAL, "MiB/s")), at_least=3.0)
    result.expect("× nginx body to file", result.ratio(speed, (case, yardsticks.NGINX, "MiB/s")), at_least=0.9)
    result.expect("CPU s/GiB", result.values(case, OURS, "CPU s/GiB").values(), at_most=1.0)
    large, tiny = (result.values(name, OURS, "memory server") for name in (case, little))
    result.expect("MiB more memory than for 1 MiB", [large[at] - tiny[at] for at in large], at_most=20.0)
    result.note("Ours makes the file durable before it answers; nginx, the bare socket and the original do not.")
