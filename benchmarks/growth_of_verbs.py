"""How extraction, an epoch and an evaluation grow as videos, questions or clips double.

python -m benchmarks.growth_of_verbs

Small videos are drawn; each size is a process of its own with one thread, in which the verbs do all
that they do, but for Ray: the work of its actors is done by the process itself. Of each are told
seconds of the clock and of the processor, and the largest memory above what was there before.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.measure import Family, OwnMemory, write

VERBS = ("extract", "epoch", "evaluate")
FIRST = {"videos": 12, "questions": 3, "clips": 2}
"""Of each of three splits; of a video; of a video."""
DOUBLINGS = 3
FASTER_THAN_LINEAR = 1.15
"""Exponent of the last doubling: time = size ** exponent, with what does not grow at all."""
Sizes = dict[str, int]


def growing() -> dict[tuple[str, int], Sizes]:
    """Return the sizes by what grows in them and how often it has doubled."""
    return {
        (axis, doubled): {**FIRST, axis: FIRST[axis] << doubled}
        for axis in FIRST
        for doubled in range(DOUBLINGS + 1)
    }


def generate(folder: Path, sizes: Sizes) -> None:
    """Draw videos, and ask of each as many questions as wanted, the same ones again and again."""
    from msvqa.data.datasets.synthetic import generate as draw

    draw(folder / "data", videos=dict.fromkeys(("train", "val", "test"), sizes["videos"]))
    number = 0
    for file in sorted((folder / "data").glob("*_qa.json")):
        rows: dict[int, list[dict[str, Any]]] = {}
        for row in json.loads(file.read_text(encoding="utf-8")):
            rows.setdefault(row["video_id"], []).append(row)
        asked = []
        for of_video in rows.values():
            for place in range(sizes["questions"]):
                asked.append({**of_video[place % len(of_video)], "id": number})
                number += 1
        file.write_text(json.dumps(asked), encoding="utf-8")


def measure(folder: Path, sizes: Sizes) -> dict[str, dict[str, float]]:
    """Do all verbs one after another in this process; return what each took."""
    from msvqa.engine.loop import train_stage
    from msvqa.evaluate import evaluate
    from msvqa.extract import extract
    from msvqa.prepare import prepare
    from tests.local_host import LocalHost
    from tests.tiny import make_job, make_recipe

    clips = f"clips.num_clips={sizes['clips']}"
    recipe = make_recipe(folder, clips, "stages.1.epochs=1", "stages.1.init_from=null")
    prepare(recipe.data)
    run, job = make_job(recipe, 1)
    host = LocalHost(run.stage_dir(recipe.stages[1].name))
    work: dict[str, Callable[[], Any]] = {
        "extract": lambda: extract(recipe),
        "epoch": lambda: train_stage(job, host),
        "evaluate": lambda: evaluate(run.path, "test"),
    }
    with _without_ray():
        return {verb: _took(work[verb]) for verb in VERBS}


@contextmanager
def _without_ray() -> Iterator[None]:
    """Have this process do what actors would do."""
    from msvqa.engine import actors, cluster, ingest

    @contextmanager
    def connected(**_: Any) -> Iterator[cluster.Resources]:
        yield cluster.Resources(1.0, 0.0)

    def perform(work: actors.Work, pool: actors.Pool) -> Iterator[actors.Result]:
        worker = work.worker(*work.arguments)
        yield from map(worker, work.parts)

    with (
        patch.object(cluster, "connected", connected),
        patch.object(actors, "perform", perform),
        patch.object(ingest, "perform", perform),
    ):
        yield


def _took(work: Callable[[], Any]) -> dict[str, float]:
    # Also that of the processes that decode.
    with OwnMemory() as memory, Family() as family:
        cpu_s = family.seconds_with_own
        before, start, cpu = memory.gb, time.perf_counter(), cpu_s()
        work()
        took = {"s": time.perf_counter() - start, "cpu_s": cpu_s() - cpu}
    return {**took, "gb": memory.gb - before}


def run() -> dict[tuple[str, int], dict[str, dict[str, float]]]:
    """Measure all sizes, each in a process of its own; the first, the same for all, only once."""
    found: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    known: dict[str, dict[str, dict[str, float]]] = {}
    for key, sizes in growing().items():
        name = json.dumps(sizes)
        if name not in known:
            command = [sys.executable, "-m", "benchmarks.growth_of_verbs", "--sizes", name]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
            known[name] = json.loads(done.stdout.splitlines()[-1])
        found[key] = known[name]
        print(*key, found[key], file=sys.stderr)
    return found


def exponent(seconds: list[float]) -> float:
    """Return with which power of the size the seconds have grown in the last doubling."""
    return math.log2(seconds[-1] / seconds[-2])


def main() -> int:
    """Measure and write the table, with what grows faster than linearly."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth_of_verbs")
    parser.add_argument("--sizes", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sizes:
        with tempfile.TemporaryDirectory(prefix="msvqa-growth-") as name:
            generate(Path(name), arguments.sizes)
            found = measure(Path(name), arguments.sizes)
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    measured, facts = run(), {}
    for axis in FIRST:
        sizes = [FIRST[axis] << doubled for doubled in range(DOUBLINGS + 1)]
        facts |= _told(axis, sizes, [measured[axis, n] for n in range(DOUBLINGS + 1)])
    file = write("growth_of_verbs", [], facts)
    sys.stdout.write(file.read_text(encoding="utf-8"))
    return 0


def _told(axis: str, sizes: list[int], found: list[dict[str, dict[str, float]]]) -> dict[str, str]:
    """Return what each verb took at each size, and how that has grown."""
    told = {}
    for verb in VERBS:
        for size, at_size in zip(sizes, found, strict=True):
            took = at_size[verb]
            told[f"{verb}, {size} {axis}"] = (
                f"{took['s']:.2f} s, {took['cpu_s']:.2f} CPU s, {took['gb']:.3f} GB"
            )
        power = exponent([at_size[verb]["cpu_s"] for at_size in found])
        verdict = "FASTER than linearly" if power > FASTER_THAN_LINEAR else "not faster"
        told[f"{verb}, exponent of CPU s in the last doubling of {axis}"] = (
            f"{power:.2f}: {verdict}"
        )
    return told


if __name__ == "__main__":
    sys.exit(main())
