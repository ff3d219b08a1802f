"""Stores: memory-mapped arrays against HDF5 with one chunk per video.

python -m benchmarks.store

With row C1 of `python -m benchmarks`.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from benchmarks.measure import Ratio, cpu_seconds, measure, pin_to_one_core, ratio, write
from benchmarks.rows.setting import Setting
from benchmarks.rows.stores import CLIPS, decoded_against_cached, spec_of, write_store
from msvqa.data.store import Store

VIDEOS = 96
READS = 200
SPEC = spec_of("clips", {"clips": CLIPS}, "uint8")


def write_arrays(folder: Path, clips: np.ndarray) -> Store:
    """Write a store of our kind."""
    return write_store(folder, SPEC, VIDEOS, lambda n: {"clips": clips[n % len(clips)]})


def write_hdf5(folder: Path, clips: np.ndarray) -> list[Path]:
    """Write the same shards as HDF5 files, one chunk per video."""
    size = SPEC.videos_per_shard
    files = []
    for shard, first in enumerate(range(0, VIDEOS, size)):
        files.append(folder / f"{shard:05d}.h5")
        rows = min(size, VIDEOS - first)
        with h5py.File(files[-1], "w") as data:
            dataset = data.create_dataset("clips", (rows, *CLIPS), np.uint8, chunks=(1, *CLIPS))
            for row in range(rows):
                dataset[row] = clips[(first + row) % len(clips)]
        with files[-1].open("rb") as file:  # as our shards are
            os.fsync(file.fileno())
    return files


def readers(store: Store, files: list[Path]) -> dict[str, Callable[[], object]]:
    """Return ways to read `READS` videos at random; files stay open between them."""
    size = SPEC.videos_per_shard
    order = np.random.default_rng(0).integers(0, VIDEOS, READS).tolist()
    opened = [h5py.File(file, "r")["clips"] for file in files]
    buffer = np.empty(CLIPS, np.uint8)
    source = np.ones(CLIPS, np.uint8)

    def copy_views() -> None:
        for n in order:
            np.copyto(buffer, store.read(str(n))["clips"])

    def read_chunks() -> None:
        for n in order:
            opened[n // size].read_direct(buffer, np.s_[n % size])

    return {
        "views": lambda: [store.read(str(n)) for n in order],
        "arrays": copy_views,
        "hdf5": read_chunks,
        "memcpy": lambda: [np.copyto(buffer, source) for _ in order],
    }


def opening(store: Store, files: list[Path]) -> dict[str, Callable[[], object]]:
    """Return ways to open everything anew and touch one video of every shard."""
    size = SPEC.videos_per_shard
    firsts = range(0, VIDEOS, size)

    def open_arrays() -> None:
        again = Store.open(store.path)
        for n in firsts:
            again.read(str(n))["clips"][0, 0, 0, 0, 0]

    def open_hdf5() -> None:
        for file in files:
            with h5py.File(file, "r") as data:
                data["clips"][0, 0, 0, 0, 0, 0]

    return {"arrays": open_arrays, "hdf5": open_hdf5}


def main() -> int:
    """Run and write the results."""
    pin_to_one_core()
    clips = np.random.default_rng(0).integers(0, 256, (8, *CLIPS), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ratios, facts = _measure(folder, clips)
    table = write("store", ratios, facts)
    sys.stdout.write(table.read_text(encoding="utf-8"))
    return 0


def _measure(folder: Path, clips: np.ndarray) -> tuple[list[Ratio], dict[str, str]]:
    def anew(function: Callable[[Path, np.ndarray], object]) -> Callable[[], object]:
        target = folder / "written"

        def run() -> None:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            function(target, clips)

        return run

    writing = measure({"arrays": anew(write_arrays), "hdf5": anew(write_hdf5)}, time.perf_counter)
    store = write_arrays(folder / "store", clips)
    files = write_hdf5(folder, clips)
    reading = measure(readers(store, files), cpu_seconds)
    opened = measure(opening(store, files), time.perf_counter)
    ratios = [
        ratio("write: HDF5 / arrays (wall, both to the disk)", writing, "hdf5", "arrays"),
        ratio("read one video into a buffer: HDF5 / arrays", reading, "hdf5", "arrays"),
        ratio("L2 arrays into a buffer / memcpy", reading, "arrays", "memcpy", "<= 1.8"),
        ratio("open all and touch each shard: HDF5 / arrays (wall)", opened, "hdf5", "arrays"),
        *decoded_against_cached(Setting(folder=folder / "c1")),
    ]
    micro = {name: 1e6 * min(reading[name]) / READS for name in reading}
    facts = {f"µs per video, {name}": f"{cost:.1f}" for name, cost in micro.items()}
    shards = len(files)
    facts |= {f"µs to open a shard, {k}": f"{1e6 * min(v) / shards:.0f}" for k, v in opened.items()}
    return ratios, facts


if __name__ == "__main__":
    sys.exit(main())
