"""Draw the pictures of the documentation: `python tools/draw.py docs/pictures`.

The phases and their moves come from the code; a move without a label here is an error, so that the picture cannot lie.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from pacifica.ingest.core.jobs import MOVES
from pacifica.ingest.core.states import Phase

INK, PAPER, LINE, ACCENT = "#1b2a33", "#ffffff", "#5b7482", "#0b6e8f"
FILL = {"own": "#e3f1f5", "other": "#f4efe4", "store": "#e9ede3", "end": "#f3e4e4"}
SIZE = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle with lines of text; x and y are its centre, all lengths in pixels."""

    x: float
    y: float
    text: str
    width: float = 150
    height: float = 54
    kind: str = "own"

    def svg(self) -> str:
        """The rectangle and its text."""
        lines = self.text.split("\n")
        top = self.y - (len(lines) - 1) * SIZE * 0.6
        text = "".join(
            f'<text x="{self.x}" y="{top + at * SIZE * 1.25:.1f}" class="{"head" if at == 0 else "small"}">{escape(line)}</text>'
            for at, line in enumerate(lines)
        )
        return (
            f'<rect x="{self.x - self.width / 2}" y="{self.y - self.height / 2}" width="{self.width}" '
            f'height="{self.height}" rx="8" fill="{FILL[self.kind]}" stroke="{LINE}"/>{text}'
        )

    def border(self, x: float, y: float) -> tuple[float, float]:
        """Where a line from the centre towards a point leaves the box."""
        dx, dy = x - self.x, y - self.y
        scale = 1 / max(abs(dx) / (self.width / 2), abs(dy) / (self.height / 2), 1e-9)
        return self.x + dx * scale, self.y + dy * scale


def arrow(start: Box, end: Box, label: str = "", *, bend: float = 0, at: float = 0.5, dashed: bool = False) -> str:
    """A line with a head from box to box; `bend` moves its middle sideways, in pixels; the label stands `at` its share."""
    middle_x, middle_y = (start.x + end.x) / 2, (start.y + end.y) / 2
    length = math.hypot(end.x - start.x, end.y - start.y) or 1
    middle_x += -(end.y - start.y) / length * bend
    middle_y += (end.x - start.x) / length * bend
    x1, y1 = start.border(middle_x, middle_y)
    x2, y2 = end.border(middle_x, middle_y)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    path = (
        f'<path d="M{x1:.1f},{y1:.1f} Q{middle_x:.1f},{middle_y:.1f} {x2:.1f},{y2:.1f}" class="line"{dash} '
        'marker-end="url(#head)"/>'
    )
    near, far, both = (1 - at) ** 2, at**2, 2 * at * (1 - at)
    at_x, at_y = near * x1 + both * middle_x + far * x2, near * y1 + both * middle_y + far * y2
    return path + note(at_x, at_y, label) if label else path


def note(x: float, y: float, text: str) -> str:
    """Small lines of text on a patch of paper."""
    lines = text.split("\n")
    width = max(map(len, lines)) * 6.3 + 8
    height = len(lines) * 15 + 2
    patch = (
        f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height}" fill="{PAPER}"/>'
    )
    rows = "".join(
        f'<text x="{x:.1f}" y="{y + (at - (len(lines) - 1) / 2) * 15:.1f}" class="note">{escape(line)}</text>'
        for at, line in enumerate(lines)
    )
    return patch + rows


def picture(width: int, height: int, title: str, *parts: str) -> str:
    """A whole SVG document."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f'<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0,0 L10,5 L0,10 z" fill="{ACCENT}"/></marker></defs>'
        f"<style>text{{font-family:Helvetica,Arial,sans-serif;fill:{INK};text-anchor:middle;dominant-baseline:middle}}"
        f".head{{font-size:{SIZE}px;font-weight:bold}}.small{{font-size:12px}}.note{{font-size:12px;fill:{LINE}}}"
        f".line{{fill:none;stroke:{ACCENT};stroke-width:1.6}}</style>"
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>{"".join(parts)}</svg>\n'
    )


def flow() -> str:
    """How a bundle flows."""
    client = Box(x=90, y=90, text="instrument\ncomputer", width=120, kind="other")
    rest = Box(x=330, y=90, text="rest · intake\nreceives, counts, syncs")
    staging = Box(x=330, y=230, text="landing zone\nvolume_path", kind="store")
    store = Box(x=590, y=230, text="database\nthe truth about jobs", kind="store")
    queue = Box(x=590, y=90, text="queue\nhints only")
    pipeline = Box(x=880, y=90, text="pipeline\na worker, with a claim")
    recovery = Box(x=880, y=230, text="recovery\nsweeps every 2 s")
    others = {
        "policy": Box(x=1170, y=40, text="Policy\nmay this be submitted?", kind="other", width=170, height=46),
        "ids": Box(x=1170, y=110, text="UniqueID\nnumbers for files", kind="other", width=170, height=46),
        "archive": Box(x=1170, y=180, text="Archive Interface\nkeeps the bytes", kind="other", width=170, height=46),
        "catalogue": Box(x=1170, y=250, text="Metadata\nregisters, once", kind="other", width=170, height=46),
    }
    arrows = [
        arrow(client, rest, "1 bundle", bend=-26),
        arrow(rest, client, "4 job", bend=-26),
        arrow(rest, staging, "2 file, synced"),
        arrow(rest, store, "3 READY"),
        arrow(rest, queue, "5 hint"),
        arrow(queue, pipeline, "6 hint"),
        arrow(pipeline, store, "7 claim, intents,\nprogress", bend=-30, at=0.3),
        arrow(recovery, store, "take over", dashed=True),
        arrow(recovery, queue, "hint again", dashed=True, at=0.75),
        *(arrow(pipeline, other) for other in others.values()),
    ]
    boxes = [client, rest, staging, store, queue, pipeline, recovery, *others.values()]
    return picture(1280, 300, "How a bundle flows", *(box.svg() for box in boxes), *arrows)


PLACES = {
    Phase.RECEIVING: Box(x=120, y=90, text="receiving\nbytes arrive"),
    Phase.READY: Box(x=400, y=90, text="ready\nwaits for a worker", width=160),
    Phase.RUNNING: Box(x=700, y=90, text="running\na worker has the claim", width=180),
    Phase.DONE: Box(x=1000, y=90, text="done\nregistered, cleaned", kind="store"),
    Phase.FAILED: Box(x=400, y=290, text="failed\nbundle and reason kept", kind="end", width=180),
}

LABELS: Mapping[tuple[Phase, Phase], tuple[str, float]] = {
    (Phase.RECEIVING, Phase.READY): ("accepted", 0),
    (Phase.RECEIVING, Phase.FAILED): ("upload cut off", 30),
    (Phase.READY, Phase.RUNNING): ("claimed", -34),
    (Phase.READY, Phase.FAILED): ("forced by\nan operator", -50),
    (Phase.RUNNING, Phase.READY): ("waits, stops,\nis taken over", -34),
    (Phase.RUNNING, Phase.DONE): ("finished", 0),
    (Phase.RUNNING, Phase.FAILED): ("permanent fault, or\nretry_for is over", -40),
    (Phase.FAILED, Phase.READY): ("retry", -50),
}


def phases() -> str:
    """The phases of a job and the moves between them, as the code has them."""
    moves = {(before, after) for before, followers in MOVES.items() for after in followers}
    if moves != LABELS.keys():
        msg = f"labels and moves differ: {sorted(moves ^ LABELS.keys())}"
        raise ValueError(msg)
    arrows = [arrow(PLACES[a], PLACES[b], label, bend=bend) for (a, b), (label, bend) in LABELS.items()]
    return picture(1110, 350, "Phases of a job", *(box.svg() for box in PLACES.values()), *arrows)


PICTURES = {"flow.svg": flow, "phases.svg": phases}


def main(folder: Path) -> None:
    """Write all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (folder / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
