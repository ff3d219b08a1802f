"""Video similarity: records to a store, a step of training, embedding, and a million records.

python -m benchmarks.similarity

Records are generated in the published layout, 1536 numbers a frame. On one core: making a store of
them against a plain loop that reads and checks every record; a step of training against a plain
loop over batches in memory; embedding against the forward pass alone. On two: extraction with two
workers against one. Then 10 k, 100 k and 1 M records of one frame each, in a process of its own for
every part: preparing, planning an epoch, and reading all batches of it.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.loops import batches_in_memory, first_stage, our_loop, plain_loop
from benchmarks.measure import OwnMemory, Ratio, measure, pin_to_one_core, ratio, write
from benchmarks.rows.setting import CPU
from msvqa.data.batch import Batch
from msvqa.data.datasets.synthetic_similarity import PIECES, World
from msvqa.data.loader import training_batches
from msvqa.data.order import plan_epoch
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.data.records import as_example, parse_example, read_records, write_records
from msvqa.data.sampling import strided
from msvqa.data.store import write_index, write_shard
from msvqa.engine.asking import Question, ask
from msvqa.engine.ingest import ShardJob, ShardWriter
from msvqa.engine.inputs import Inputs, model_sizes, open_inputs
from msvqa.extract import extract, videos_of
from msvqa.models.model import build_model
from msvqa.objectives.tagging import Tagging
from msvqa.prepare import prepare
from msvqa.recipe import Recipe, parse

WIDTH, TAGS, TITLE = 1536, 10_000, 12
RECORDS, FRAMES = 12_000, 19
"""Of the comparisons of speed: six shards; frames is the mean of the published videos."""
FILES = 4
SIZES = (10_000, 100_000, 1_000_000)
LIMIT_GB = 1.5
STEPS, BATCH, ROUNDS = 8, 64, 5
PARTS = ("prepare", "extract", "plan", "epoch")


# Data


def generate(root: Path, count: int, frames: int) -> None:
    """Write records with random titles and tags; the numbers of frames repeat after a while."""
    world, draw = World.of(0, WIDTH), random.Random(0)
    pool = (0.1 + 0.3 * np.random.default_rng(0).normal(size=(4096, WIDTH))).astype("<f2")
    rows = [row.tobytes() for row in pool]
    (root / "pointwise").mkdir(parents=True)
    (root / "text").mkdir()
    for number, part in enumerate(np.array_split(np.arange(count), FILES)):
        contents = (_record(int(n), frames, rows, world.words, draw) for n in part)
        write_records(root / "pointwise" / f"pretrain_{number}.tfrecords", contents)
    pieces = [*PIECES, *world.words]
    (root / "text" / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    config = {"model_type": "bert", "vocab_size": len(pieces)}
    (root / "text" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (root / "tag_list.txt").write_text("".join(f"{tag}\n" for tag in range(TAGS)), encoding="utf-8")


def _record(
    number: int, frames: int, rows: Sequence[bytes], words: Sequence[str], draw: random.Random
) -> bytes:
    first = number * frames % (len(rows) - frames)
    return as_example(
        {
            "id": [str(10**18 + number).encode()],
            "title": ["".join(draw.choices(words, k=TITLE)).encode()],
            "frame_feature": list(rows[first : first + frames]),
            "tag_id": [draw.randrange(TAGS) for _ in range(4)],
            "asr_text": [b"nan"],
            "category_id": [10_101],
        }
    )


def recipe_of(folder: Path, frames: int) -> Recipe:
    """Return a recipe of a small model on the records of a folder."""
    vectors = {
        "name": "vectors", "frames": frames, "width": WIDTH, "sampling": "strided",
        "dtype": "float16", "batch_dtype": "float32", "cache": "store",
    }  # fmt: skip
    text = {"width": 256, "layers": 4, "heads": 4, "inner_width": 1024, "positions": 64}
    return parse(
        {
            "name": "benchmark",
            "runs": str(folder / "runs"),
            "data": {
                "name": "qq_browser",
                "root": str(folder / "data"),
                "prepared": str(folder / "prepared"),
            },
            "processor": vectors,
            "model": {"name": "uniter", "text": text, "embedding_size": 256},
            "stages": [
                {
                    "name": "pretrain",
                    "objective": {"name": "tagging", "masked_words": 10.0},
                    "steps": STEPS,
                    "batch": {"examples": BATCH},
                    "log_every_steps": 1_000_000,
                }
            ],
        }
    )


# Records to a store


def compare_readers(recipe: Recipe, folder: Path) -> list[Ratio]:
    """Compare what a worker of extraction does with a plain loop over the same records."""
    files = sorted((folder / "data" / "pointwise").iterdir())
    media, spec = videos_of(prepare(recipe.data)), processor_of(recipe).spec()
    size = spec.videos_per_shard
    shards = {n: media[i : i + size] for n, i in enumerate(range(0, len(media), size))}
    # A place of its own each time: to take the place of another shard costs the removal of that.
    places = (folder / f"one-core-{n}" for n in count())

    def ours() -> None:
        job = ShardJob(processor_of(recipe), str(next(places)), spec.to_dict(), {}, shards)
        writer = ShardWriter(job)
        for shard in shards:
            writer(shard)

    def plain() -> None:
        place = next(places)
        place.mkdir()
        array = np.empty((size, FRAMES, WIDTH), np.float16)
        for n, record in enumerate(record for file in files for record in read_records(file)):
            assert not record.error
            entries = parse_example(record.content)["frame_feature"]
            rows = np.frombuffer(b"".join(map(_bytes, entries)), "<f2").reshape(-1, WIDTH)
            assert np.isfinite(rows).all()
            array[n % size] = rows[strided(len(rows), FRAMES)]
            if n % size == size - 1:
                _write(place / str(n), array)
        if (n + 1) % size:
            _write(place / str(n), array[: (n + 1) % size])

    costs = measure({"ours": ours, "plain": plain}, rounds=ROUNDS)
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    name = f"records to a store, one core, {megabytes:.0f} MB: plain loop / ours"
    return [ratio(name, costs, "plain", "ours", ">= 0.9")]


def _bytes(entry: object) -> bytes:
    assert isinstance(entry, bytes)
    return entry


def _write(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as target:
        target.write(memoryview(array).cast("B"))
        target.flush()
        os.fsync(target.fileno())


def compare_workers(recipe: Recipe, folder: Path) -> list[Ratio]:
    """Compare the videos per second of extraction with one worker and with two."""
    costs: dict[str, list[float]] = {"1": [], "2": []}
    for attempt in range(3):
        for workers in costs:
            raw = recipe.to_dict()
            raw["processor"]["store"] = str(folder / f"store-{workers}-{attempt}")
            raw["scaling"]["data_workers"] = int(workers)
            done: list[tuple[float, int]] = []
            extract(parse(raw), progress=lambda n, *_, d=done: d.append((time.perf_counter(), n)))
            # After as many shards as there are workers all of them have started.
            (start, first), (end, last) = done[int(workers) - 1], done[-1]
            costs[workers].append((end - start) / (last - first))
    return [ratio("extraction: one worker / two workers", costs, "1", "2", ">= 1.7")]


# Training and embedding


def compare_loops(recipe: Recipe) -> list[Ratio]:
    """Compare steps of our loop with a plain one, and embedding with the forward pass."""
    prepared, store = prepare(recipe.data), extract(recipe)
    inputs = open_inputs(recipe, prepared, store.location, "train")
    job = first_stage(recipe, prepared)
    batches = batches_in_memory(inputs, recipe.stages[0].batch, STEPS)
    costs: dict[str, list[float]] = {name: [] for name in ("ours", "plain", "embed", "forward")}
    objective = _tagging(recipe, prepared)
    for _ in range(ROUNDS + 1):
        costs["ours"].append(our_loop(job))
        costs["plain"].append(plain_loop(_tagging(recipe, prepared), batches))
        costs["embed"].append(_embedding(objective, inputs))
        costs["forward"].append(_forward(objective, batches))
    costs = {name: found[1:] for name, found in costs.items()}
    sizes = f"batches of {BATCH}, {TAGS} tags"
    return [
        ratio(f"step: our loop / plain loop, data in memory ({sizes})", costs, "ours", "plain",
              "<= 1.05"),
        ratio("embedded videos per second / forward pass alone", costs, "forward", "embed",
              ">= 0.9"),
    ]  # fmt: skip


def _tagging(recipe: Recipe, prepared: Prepared) -> Tagging:
    model = build_model(recipe, model_sizes(recipe, prepared))
    return Tagging(Tagging.Config(masked_words=10.0), model)


def _embedding(objective: Tagging, inputs: Inputs) -> float:
    chosen = list(range(STEPS * BATCH))
    start = time.perf_counter()
    ask(objective, inputs, Question("embed", "media"), chosen, BATCH)
    return (time.perf_counter() - start) / len(chosen)


@torch.no_grad()
def _forward(objective: Tagging, batches: Sequence[Batch]) -> float:
    objective.eval()
    start = time.perf_counter()
    for batch in batches:
        objective.embed(batch)
    return (time.perf_counter() - start) / (len(batches) * BATCH)


# Growth


def do(folder: Path, part: str) -> dict[str, float]:
    """Do one part of the work on a million records in this process; return its cost."""
    recipe = recipe_of(folder, 1)

    def store() -> None:
        spec, media = processor_of(recipe).spec(), videos_of(Prepared.open(folder / "prepared"))
        extractor, size = processor_of(recipe).extractor(), spec.videos_per_shard
        location, shards = store_location(recipe), []
        for n, first in enumerate(range(0, len(media), size)):
            entries = map(extractor.extract, media[first : first + size])
            shards.append(write_shard(location, n, spec, entries, {}))
        write_index(location, spec, shards, {})

    def batches() -> Iterator[Batch]:
        prepared = Prepared.open(folder / "prepared")
        inputs = open_inputs(recipe, prepared, str(store_location(recipe)), "train", CPU)
        plan = plan_epoch(inputs.split, recipe.stages[0].batch, seed=0, epoch=0)
        return training_batches(inputs.split, inputs.source, plan)

    work: dict[str, Callable[[], Any]] = {
        "prepare": lambda: prepare(recipe.data),
        "extract": store,
        "plan": lambda: next(batches()),
        "epoch": lambda: sum(1 for _ in batches()),
    }
    with OwnMemory() as memory:
        imports_gb, start = memory.gb, time.process_time()
        work[part]()
        cpu_s = time.process_time() - start
    return {"cpu_s": cpu_s, "gb": memory.gb, "imports_gb": imports_gb}


def growth(sizes: Sequence[int]) -> dict[int, dict[str, dict[str, float]]]:
    """Return the cost of every part at every size."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="msvqa-similarity-") as name:
            generate(Path(name) / "data", size, 1)
            for part in PARTS:
                command = [sys.executable, "-m", "benchmarks.similarity", "--part", part, name]
                environment = {**os.environ, "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
                done = subprocess.run(command, check=True, capture_output=True, env=environment)
                found.setdefault(size, {})[part] = json.loads(done.stdout.splitlines()[-1])
                print(size, part, found[size][part], file=sys.stderr)
    return found


def main() -> int:
    """Measure and write the table; 1 where more memory is needed than the limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.similarity")
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="most records of growth")
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(do(arguments.folder, arguments.part)))
        return 0
    found = growth([size for size in SIZES if size <= arguments.largest])
    with tempfile.TemporaryDirectory(prefix="msvqa-similarity-") as name:
        folder = Path(name)
        generate(folder / "data", RECORDS, FRAMES)
        recipe = recipe_of(folder, FRAMES)
        ratios = compare_workers(recipe, folder)
        pin_to_one_core()
        ratios += [*compare_readers(recipe, folder), *compare_loops(recipe)]
    facts = {
        f"{part}, {size:,} records": f"{cost['cpu_s']:.1f} s, {cost['gb']:.2f} GB "
        f"({cost['imports_gb']:.2f} of them modules)"
        for size, parts in found.items()
        for part, cost in parts.items()
    }
    table = write("similarity", ratios, facts)
    sys.stdout.write(table.read_text(encoding="utf-8"))
    return int(any(cost["gb"] > LIMIT_GB for parts in found.values() for cost in parts.values()))


if __name__ == "__main__":
    sys.exit(main())
