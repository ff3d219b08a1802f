"""How the data path grows with the number of captions: time and memory, without any pixels.

python -m benchmarks.growth

Captions on a tenth as many media are generated; each command is a process of its own with one
thread. Measured: preparing them, opening the training split as a worker does, planning an epoch of
it, and counting the steps of a stage.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.measure import peak_gb, write

SIZES = (10_000, 100_000, 1_000_000)
CAPTIONS_PER_MEDIUM = 10
LIMIT_S, LIMIT_GB = 20.0, 1.0
WORDS = 5_000
PARTS = ("prepare", "open", "plan", "count")


def generate(folder: Path, captions: int) -> None:
    """Write empty files in place of videos, and captions of random words for them."""
    media = captions // CAPTIONS_PER_MEDIUM
    (folder / "videos").mkdir(parents=True)
    for number in range(media):
        (folder / "videos" / f"{number:07d}.mp4").touch()
    draw = random.Random(0)
    for split, numbers in {"train": range(media - 2), "val": range(media - 2, media)}.items():
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(_rows(numbers, draw))


def _rows(media: Iterable[int], draw: random.Random) -> Iterator[str]:
    words = [f"w{number:x}" for number in range(WORDS)]
    for number, _ in product(media, range(CAPTIONS_PER_MEDIUM)):
        row = {"video": f"videos/{number:07d}.mp4", "caption": " ".join(draw.choices(words, k=10))}
        yield json.dumps(row) + "\n"


def measure(folder: Path, part: str) -> dict[str, float]:
    """Do one part of the work in this process; return its CPU seconds and largest memory."""
    from msvqa.data.order import count_steps, plan_epoch
    from msvqa.data.prepared import Prepared
    from msvqa.prepare import prepare
    from msvqa.recipe import BatchConfig, parse_data

    config = parse_data("caption_files", [], root=str(folder), prepared=str(folder / "prepared"))
    batch = BatchConfig(examples=256)

    def opened() -> Any:
        return Prepared.open(folder / "prepared").split("train")

    work: dict[str, Callable[[], Any]] = {
        "prepare": lambda: prepare(config),
        "open": opened,
        "plan": lambda: plan_epoch(opened(), batch, seed=0, epoch=0),
        "count": lambda: count_steps(opened(), batch),
    }
    imported_gb, start = peak_gb(), time.process_time()
    work[part]()
    seconds = time.process_time() - start
    return {"cpu_s": seconds, "gb": peak_gb(), "imports_gb": imported_gb}


def run(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Measure all parts at all sizes, each in a process of its own."""
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="msvqa-growth-") as name:
            folder = Path(name) / "data"
            generate(folder, size)
            for part in PARTS:
                command = [sys.executable, "-m", "benchmarks.growth", "--part", part, str(folder)]
                environment = {**os.environ, "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
                done = subprocess.run(command, check=True, capture_output=True, env=environment)
                found = json.loads(done.stdout)
                rows.append(
                    {"captions": size, "part": part, **{k: round(v, 3) for k, v in found.items()}}
                )
                print(rows[-1], file=sys.stderr)
    return rows


def main() -> int:
    """Measure and write the table; 1 where a limit is passed at the largest size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        sys.stdout.write(json.dumps(measure(arguments.folder, arguments.part)))
        return 0
    rows = run(SIZES)
    facts = {
        f"{row['part']}, {row['captions']:,} captions": f"{row['cpu_s']} s, {row['gb']} GB "
        f"({row['imports_gb']} of them modules)"
        for row in rows
    }
    write("growth", [], facts)
    largest = [row for row in rows if row["captions"] == SIZES[-1]]
    return int(any(row["cpu_s"] > LIMIT_S or row["gb"] > LIMIT_GB for row in largest))


if __name__ == "__main__":
    sys.exit(main())
