"""C1, L1, L2: clips and features from stores into batches, against what they are made from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Ratio, ratio
from benchmarks.reference import hdf5
from benchmarks.rows.setting import Costs, Finding, Setting, per_unit
from msvqa.data.buffers import Buffers, VideoArrays
from msvqa.data.sampling import sample_clips
from msvqa.data.store import ArraySpec, Entry, Store, StoreSpec, write_index, write_shard
from msvqa.data.video import decode
from tests import barcode_video

CLIPS = (8, 16, 100, 100, 3)
FEATURES = {"appearance": (8, 16, 2048), "motion": (8, 2048)}
"""Published sizes of one video"""
VIDEOS = 64
QUESTIONS, GROUPED = 256, 8
BATCHES = 10
"""Batches of ours in one measurement: one alone is too short for the clock"""
OFTEN = 4
"""Times as many rounds: each is short, and what the system does meanwhile shows"""
READS, DECODES = 100, 2


def spec_of(kind: str, shapes: dict[str, tuple[int, ...]], dtype: str) -> StoreSpec:
    """Return what a store of some arrays holds."""
    arrays = {name: ArraySpec(shape=shape, dtype=dtype) for name, shape in shapes.items()}
    return StoreSpec(
        kind=kind, arrays=arrays, num_clips=8, frames_per_clip=16, size_px={}, decoder=""
    )


def write_store(
    folder: Path, spec: StoreSpec, videos: int, make: Callable[[int], dict[str, Any]]
) -> Store:
    """Write the arrays that `make` returns for each number of a video."""
    size = spec.videos_per_shard

    def entry(number: int) -> Entry:
        return Entry(video_id=str(number), outcome="ok", arrays=make(number))

    shards = [
        write_shard(folder, shard, spec, map(entry, range(first, min(first + size, videos))), {})
        for shard, first in enumerate(range(0, videos, size))
    ]
    return write_index(folder, spec, shards, {})


def clips(setting: Setting) -> list[Finding]:
    """Return C1."""
    return [*decoded_against_cached(setting)]


def decoded_against_cached(setting: Setting) -> list[Ratio]:
    """Return the cost of decoding a video over that of reading its clips from a store."""
    setting.folder.mkdir(parents=True, exist_ok=True)
    path = barcode_video.write(setting.folder / "video.avi", setting.size(300, 40))
    shape = setting.size(CLIPS, (8, 16, 16, 16, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    videos = setting.size(32, 4)
    spec = spec_of("clips", {"clips": shape}, "uint8")
    store = write_store(setting.folder / "clips", spec, videos, lambda n: {"clips": pixels[n % 2]})
    buffer = np.empty(shape, np.uint8)
    order = np.random.default_rng(0).integers(0, videos, READS).tolist()

    def read() -> None:
        for number in order:
            np.copyto(buffer, store.read(str(number))["clips"])

    def decode_video() -> None:
        for _ in range(DECODES):
            decode(path, lambda n: sample_clips(n, 8, 16), [shape[2]])

    costs = setting.measure({"decode": decode_video, "read": read})
    costs = per_unit(costs, {"decode": DECODES, "read": READS})
    return [ratio("C1 decode / read into a buffer, 100 px", costs, "decode", "read", ">= 30")]


def features(setting: Setting) -> list[Finding]:
    """Return L1 and L2."""
    return [*compare_features(costs_of_features(setting))[:3]]


def costs_of_features(setting: Setting) -> Costs:
    """Return the costs of one batch, made in each of the ways of `ways_to_batches`."""
    shapes = setting.size(FEATURES, {"appearance": (2, 2, 8), "motion": (2, 8)})
    generator = np.random.default_rng(0)

    def draw(number: int) -> dict[str, np.ndarray]:
        drawn = {name: generator.random(shape, np.float32) for name, shape in shapes.items()}
        return {name: array.astype("float16") for name, array in drawn.items()}

    spec = spec_of("features", shapes, "float16")
    store = write_store(setting.folder / "features", spec, VIDEOS, draw)
    files = hdf5.write_files(setting.folder, store)
    methods = ways_to_batches(store, files)
    times = {name: BATCHES for name in methods if name != "files"}
    often = replace(setting, rounds=OFTEN * setting.rounds)
    return per_unit(often.measure(methods), times)


def ways_to_batches(store: Store, files: dict[str, Path]) -> dict[str, Callable[[], object]]:
    """Return ways to make batches; those of ours make `BATCHES` of them.

    The files hold float32, as the reference wrote them; the store float16, the default of recipes.
    """
    generator = np.random.default_rng(0)
    random = generator.integers(VIDEOS, size=QUESTIONS).tolist()
    grouped = generator.permutation(VIDEOS)[: QUESTIONS // GROUPED].tolist()
    buffers = Buffers()
    views = [store.read(str(video)) for video in grouped]
    targets = [{name: np.empty_like(array) for name, array in view.items()} for view in views]

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
        "files": lambda: hdf5.read_per_question(files, random),
        "random": lambda: ours(random, buffers),
        "grouped": lambda: ours(grouped, buffers),
        "fresh": lambda: ours(grouped, None),
        "memcpy": copy,
    }


def compare_features(costs: Costs) -> list[Ratio]:
    """Return the ratios of ways to make a batch."""
    opened = "L1 HDF5 opened for each question / ours"
    return [
        ratio(f"{opened}, random", costs, "files", "random", ">= 10"),
        ratio(f"{opened}, {GROUPED} questions per video", costs, "files", "grouped", ">= 100"),
        ratio("L2 ours, grouped / memcpy of the same bytes", costs, "grouped", "memcpy", "<= 1.8"),
        ratio("fresh memory for each batch / buffers used again", costs, "fresh", "grouped"),
    ]
