"""Features to a batch: our store and buffers against opening HDF5 files for every question.

python -m benchmarks.features

The files hold float32, as the reference wrote them; the store float16, the default of recipes.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from benchmarks.measure import cpu_seconds, measure, pin_to_one_core, ratio, write
from msvqa.data.buffers import Buffers, VideoArrays
from msvqa.data.store import ArraySpec, Entry, Store, StoreSpec, write_index, write_shard

VIDEOS = 64
QUESTIONS, GROUPED = 256, 8
SHAPES = {"appearance": (8, 16, 2048), "motion": (8, 2048)}
"""Published sizes of one video"""
BATCHES = 10
"""Batches of ours in one measurement: one alone is too short for the clock"""


def spec_of(dtype: str) -> StoreSpec:
    """Return what the store holds."""
    arrays = {name: ArraySpec(shape=shape, dtype=dtype) for name, shape in SHAPES.items()}
    return StoreSpec(
        kind="features", arrays=arrays, num_clips=8, frames_per_clip=16, size_px={}, decoder=""
    )


def write_store(folder: Path, dtype: str) -> Store:
    """Write random features as a store."""
    spec, generator = spec_of(dtype), np.random.default_rng(0)

    def entry(number: int) -> Entry:
        arrays = {
            name: generator.random(shape, np.float32).astype(dtype)
            for name, shape in SHAPES.items()
        }
        return Entry(video_id=str(number), outcome="ok", arrays=arrays)

    size = spec.videos_per_shard
    shards = [
        write_shard(folder, shard, spec, map(entry, range(first, min(first + size, VIDEOS))), {})
        for shard, first in enumerate(range(0, VIDEOS, size))
    ]
    return write_index(folder, spec, shards, {})


def write_hdf5(folder: Path, store: Store) -> dict[str, Path]:
    """Write the same features as one file for each kind, as the reference does."""
    files = {name: folder / f"{name}.h5" for name in SHAPES}
    for name, file in files.items():
        with h5py.File(file, "w") as data:
            rows = [store.read(video)[name] for video in store.video_ids]
            data["features"] = np.stack(rows).astype(np.float32)
    return files


def methods_of(store: Store, files: dict[str, Path]) -> dict[str, Callable[[], object]]:
    """Return ways to make batches; those of ours make `BATCHES` of them."""
    generator = np.random.default_rng(0)
    random = generator.integers(VIDEOS, size=QUESTIONS).tolist()
    grouped = generator.permutation(VIDEOS)[: QUESTIONS // GROUPED].tolist()
    buffers = Buffers()
    views = [store.read(str(video)) for video in grouped]
    targets = [{name: np.empty_like(array) for name, array in view.items()} for view in views]

    def open_files() -> None:
        rows = []
        for video in random:
            with h5py.File(files["appearance"]) as a, h5py.File(files["motion"]) as m:
                rows.append((a["features"][video], m["features"][video]))
        for column in zip(*rows, strict=True):
            np.stack(column)

    def ours(videos: list[int], buffers: Buffers | None) -> None:
        for _ in range(BATCHES):
            arrays: list[VideoArrays] = [store.read(str(video)) for video in videos]
            (buffers or Buffers()).stack(arrays)

    def copy() -> None:
        for _ in range(BATCHES):
            for view, target in zip(views, targets, strict=True):
                for name, array in view.items():
                    np.copyto(target[name], array)

    return {
        "files": open_files,
        "random": lambda: ours(random, buffers),
        "grouped": lambda: ours(grouped, buffers),
        "fresh": lambda: ours(grouped, None),
        "memcpy": copy,
    }


def main() -> int:
    """Run and write the results."""
    pin_to_one_core()
    with tempfile.TemporaryDirectory() as name:
        store = write_store(Path(name) / "store", "float16")
        costs = measure(methods_of(store, write_hdf5(Path(name), store)), cpu_seconds)
    costs = {key: [c / (1 if key == "files" else BATCHES) for c in v] for key, v in costs.items()}
    ratios = [
        ratio("L1 HDF5 opened for each question / ours, random", costs, "files", "random", ">= 10"),
        ratio(
            f"L1 HDF5 opened for each question / ours, {GROUPED} questions per video",
            costs, "files", "grouped", ">= 100",
        ),
        ratio("L2 ours, grouped / memcpy of the same bytes", costs, "grouped", "memcpy", "<= 1.8"),
        ratio("fresh memory for each batch / buffers used again", costs, "fresh", "grouped"),
    ]  # fmt: skip
    facts = {f"ms per batch of {QUESTIONS}, {k}": f"{1e3 * min(v):.2f}" for k, v in costs.items()}
    table = write("features", ratios, facts)
    sys.stdout.write(table.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
