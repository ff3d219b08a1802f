"""What each command has taken, as a table."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.full_shape.process_tree import Took
from benchmarks.full_shape.verbs import Verb
from benchmarks.measure import RESULTS, Count, machine
from msvqa.engine.cluster import OBJECT_STORE_BYTES

COLUMNS = ("verb", "videos", "s", "CPU s", "memory, GB", "object store, MB", "output, MB")
MAY_GROW = 1.5
"""How much more the object store may hold with all videos than with a part of them"""
NEGLIGIBLE_BYTES = 4e6
"""Of an object store: what may be many times another without meaning anything"""
STORE_SHARE = 0.6
"""Of the object store, while decoders work ahead of training: as far as Ray Data lets them, for any
number of videos (`benchmarks/object_store.py`), which a part of them may not reach"""
FASTER_THAN_LINEAR = 1.15
"""CPU seconds for each video of all, over those of the part"""


@dataclass(frozen=True)
class Row:
    """A command at a size, and what it took."""

    verb: Verb
    size: int
    """Videos of the data set"""
    took: Took
    output_bytes: int

    def __str__(self) -> str:
        took = self.took
        cells = (
            self.verb.name, self.size, f"{took.s:.0f}", f"{took.cpu_s:.0f}", f"{took.gb:.2f}",
            f"{took.object_store_bytes / 1e6:.2f}", f"{self.output_bytes / 1e6:.1f}",
        )  # fmt: skip
        return _line(cells)


def pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Return the commands that were given at both sizes: of a part, and of all videos."""
    sizes = sorted({row.size for row in rows})
    few, many = ({r.verb.name: r for r in rows if r.size == size} for size in sizes)
    return [(row, many[name]) for name, row in few.items() if name in many]


def growth(few: Row, many: Row) -> str:
    """Say how the CPU seconds for a video and the object store have grown from a part to all."""
    seconds = many.took.cpu_s / many.size / (few.took.cpu_s / few.size)
    verdict = "FASTER than linearly" if seconds > FASTER_THAN_LINEAR else "not faster"
    held = many.took.object_store_bytes / max(few.took.object_store_bytes, 1)
    return f"CPU s per video {seconds:.2f} times ({verdict}), object store {held:.2f} times"


def is_bounded(few: Row, many: Row) -> bool:
    """Whether the object store has not grown with the videos."""
    held = many.took.object_store_bytes
    if many.verb.works_ahead:
        return held <= STORE_SHARE * OBJECT_STORE_BYTES
    return held <= max(MAY_GROW * few.took.object_store_bytes, NEGLIGIBLE_BYTES)


def write(command: str, rows: Sequence[Row], checks: Sequence[Count]) -> Path:
    """Write all as a table, named by date; return its path."""
    lines = [
        "# full_shape", "", f"`{command}` with " + json.dumps(machine()), "",
        _line(COLUMNS), "|" + "---|" * len(COLUMNS), *map(str, rows), "",
        "| from a part to all | growth |", "|---|---|",
        *(_line((few.verb.name, growth(few, many))) for few, many in pairs(rows)), "",
        "| count | value | |", "|---|---|---|",
        *(_line((check.name, f"{check.value:g}", check.verdict)) for check in checks), "",
    ]  # fmt: skip
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{datetime.date.today().isoformat()}-full_shape.md"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
