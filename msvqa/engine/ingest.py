"""Decoding and extraction on Ray Data: videos to the shards of a store, or clips as a stream."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.data.exceptions import ExecutionTimeoutError

from msvqa.data.store import StoreSpec, write_shard
from msvqa.engine.extraction import ClipDecoder, ClipExtractor, Extractor, open_extractor
from msvqa.errors import ClusterError, StorageError, StoreError, VideoError
from msvqa.recipe import ClipsConfig, parse

VIDEOS_PER_BLOCK = 2
NO_PROGRESS_S = 600.0
CPU_WAIT_S = 30.0
STORAGE_FAILED = "storage"
"""Outcome of a video that could not even be brought here, which says nothing about it."""


@dataclass(frozen=True)
class Video:
    """A video of the store to be."""

    video_id: str
    path: str


@dataclass(frozen=True)
class ShardJob:
    """Shards that are still to be written; travels to every worker."""

    clips: ClipsConfig
    recipe: dict[str, Any] | None
    """For features the whole recipe, as plain data: its sections have types made when it is read.
    For clips nothing, since reading it imports the model, and with it torch, in every worker."""
    store: str
    spec: dict[str, Any]
    made_with: dict[str, str]
    shards: dict[int, list[Video]]


@dataclass(frozen=True)
class Pool:
    """Actors, each on one CPU and a part of a GPU."""

    workers: int
    gpus_per_worker: float = 0.0


def write_shards(job: ShardJob, pool: Pool) -> Iterator[int]:
    """Write shards in parallel; yield the number of each when it is in its place.

    A worker that dies gets its shard again.

    Raises:
        StoreError: the disk is full or away.
        StorageError: an object store, of the videos or of the shards, is away.
        ClusterError: no progress for long.
    """
    spec = StoreSpec.from_dict(job.spec)
    # Each video is read, for its hash, and then decoded.
    longest_s = spec.videos_per_shard * 2 * job.clips.timeout_s
    rows = [{"shard": shard} for shard in job.shards]
    with _settings(no_progress_s=max(NO_PROGRESS_S, 1.5 * longest_s), in_order=False):
        # One block per shard: the rows are small, and a block is what a worker takes at a time.
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ShardWriter,
            fn_constructor_args=(job,),
            batch_size=1,
            num_cpus=1,
            num_gpus=pool.gpus_per_worker or None,
            compute=ActorPoolStrategy(size=min(pool.workers, len(rows))),
        )
        for row in done.iter_rows():
            if row["error"]:
                kind = StorageError if row["remote"] else StoreError
                raise kind(
                    f"shard {row['shard']} of {job.store} cannot be written: {row['error']}\n"
                    "The shards that are there stay: make room or bring the storage back, and the "
                    "same command goes on"
                )
            yield int(row["shard"])


class ShardWriter:
    """Actor that extracts the videos of a shard one after another and writes them."""

    def __init__(self, job: ShardJob) -> None:
        self._job = job
        self._spec = StoreSpec.from_dict(job.spec)
        self._extractor: Extractor = (
            open_extractor(parse(job.recipe)) if job.recipe else ClipExtractor(job.clips)
        )

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Write the shards whose numbers the batch holds; say why one could not be written."""
        errors = [self._write(shard) for shard in batch["shard"].tolist()]
        return batch | {
            "error": np.array([str(error or "") for error in errors]),
            "remote": np.array([isinstance(error, StorageError) for error in errors]),
        }

    def _write(self, shard: int) -> OSError | StorageError | None:
        videos = self._job.shards[shard]
        entries = (self._extractor.extract(video.video_id, video.path) for video in videos)
        try:
            write_shard(self._job.store, shard, self._spec, entries, self._job.made_with)
        except (OSError, StorageError) as error:
            # Not raised: Ray Data would report its own frames, and start the shard again.
            return error
        return None


def stream_clips(
    paths: Sequence[str], clips: ClipsConfig, workers: int
) -> Iterator[dict[str, Any]]:
    """Decode videos in the given order while the caller works on those before.

    Yields:
        `index`, position in `paths`; `clips`, uint8 (C, F, H, W, 3), or None for a bad video;
        `outcome`; `error`, empty for a good one.

    Raises:
        ClusterError: there is no CPU free to decode on.
        StorageError: the object store that has the videos cannot be read.
    """
    _wait_for_cpus(workers)
    rows = [{"index": index, "path": path} for index, path in enumerate(paths)]
    blocks = max(1, -(-len(rows) // VIDEOS_PER_BLOCK))
    with _settings(no_progress_s=max(NO_PROGRESS_S, 4 * clips.timeout_s), in_order=True):
        decoded = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            ClipStreamer,
            fn_constructor_args=(clips,),
            batch_size=VIDEOS_PER_BLOCK,
            num_cpus=1,
            compute=ActorPoolStrategy(size=min(workers, blocks)),
        )
        for batch in decoded.iter_batches(batch_size=None, batch_format="numpy"):
            yield from _items(batch)


class ClipStreamer:
    """Actor that decodes the videos of a block."""

    def __init__(self, clips: ClipsConfig) -> None:
        self._size = clips.size_px
        self._shape = (clips.num_clips, clips.frames_per_clip, self._size, self._size, 3)
        self._decoder = ClipDecoder(clips, [self._size])

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the clips; a bad video becomes zeros beside its error, never an exception."""
        found = [self._decode(path) for path in batch["path"].tolist()]
        clips, outcomes, errors = zip(*found, strict=True)
        return {
            "index": batch["index"],
            "clips": np.stack(clips),
            "outcome": np.array(outcomes),
            "error": np.array(errors),
        }

    def _decode(self, path: str) -> tuple[np.ndarray, str, str]:
        try:
            decoded = self._decoder.decode(path)
        except VideoError as error:
            return np.zeros(self._shape, np.uint8), error.outcome, str(error)
        except StorageError as error:
            # Raised where the clips arrive: Ray Data would report its own frames.
            return np.zeros(self._shape, np.uint8), STORAGE_FAILED, str(error)
        return decoded.frames[self._size], decoded.outcome, ""


def _items(batch: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    for row, index in enumerate(batch["index"].tolist()):
        error = str(batch["error"][row])
        if batch["outcome"][row] == STORAGE_FAILED:
            raise StorageError(error)
        yield {
            "index": index,
            "clips": None if error else batch["clips"][row],
            "outcome": str(batch["outcome"][row]),
            "error": error,
        }


def _wait_for_cpus(workers: int) -> None:
    """Wait until the actors of an earlier stream have given back their CPUs, but not for ever."""
    deadline = time.monotonic() + CPU_WAIT_S
    while (free := ray.available_resources().get("CPU", 0.0)) < workers:
        if time.monotonic() > deadline:
            # Ray Data itself would wait without end and without a word.
            raise ClusterError(
                f"decoding while training runs wants {workers} free CPUs for each training "
                f"worker, there are {free:g}: lower scaling.workers or scaling.data_workers, "
                "or use clips.cache=store"
            )
        time.sleep(0.1)


@contextmanager
def _settings(no_progress_s: float, in_order: bool) -> Iterator[None]:
    """Set up Ray Data for the data sets made inside, and put its settings back.

    Raises:
        ClusterError: there was no progress for too long.
    """
    context = DataContext.get_current()
    before = (
        context.enable_progress_bars,
        context.execution_no_progress_timeout_s,
        context.execution_options.preserve_order,
    )
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = no_progress_s
    context.execution_options.preserve_order = in_order
    try:
        yield
    except ExecutionTimeoutError as error:
        raise ClusterError(
            f"no video was finished for {no_progress_s:g} s: workers die again and again, find no "
            "CPU, or wait for storage; the logs of Ray say more. What is done stays, and the same "
            "command goes on"
        ) from error
    finally:
        (
            context.enable_progress_bars,
            context.execution_no_progress_timeout_s,
            context.execution_options.preserve_order,
        ) = before
