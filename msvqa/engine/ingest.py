"""Decoding and extraction on Ray Data: videos to the shards of a store, or clips as a stream."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from msvqa.data.order import chunks
from msvqa.data.store import SHARDS_STAY, Entry, StoreSpec, write_shard
from msvqa.engine.actors import NO_PROGRESS_S, Pool, Result, Work, perform
from msvqa.engine.extraction import ClipDecoder, ClipExtractor, Extractor, open_extractor
from msvqa.errors import ClusterError, StorageError, VideoError
from msvqa.failures import as_error
from msvqa.recipe import ClipsConfig, parse

VIDEOS_PER_BLOCK = 2
CPU_WAIT_S = 30.0


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


def write_shards(job: ShardJob, pool: Pool) -> Iterator[int]:
    """Write shards in parallel; yield the number of each when it is in its place.

    A worker that dies gets its shard again.

    Raises:
        StoreError: the disk is full or away.
        StorageError: an object store, of the videos or of the shards, is away.
        MSVQAError: what else a worker could not do.
        ClusterError: no progress for long.
    """
    spec = StoreSpec.from_dict(job.spec)
    # Each video is read, for its hash, and then decoded.
    longest_s = spec.videos_per_shard * 2 * job.clips.timeout_s
    work = Work(
        worker=ShardWriter,
        arguments=(job,),
        parts=list(job.shards),
        in_order=False,
        no_progress_s=max(NO_PROGRESS_S, 1.5 * longest_s),
    )
    for result in perform(work, pool):
        yield int(result["shard"][0])


class ShardWriter:
    """Extracts the videos of a shard one after another and writes them."""

    def __init__(self, job: ShardJob) -> None:
        self._job = job
        self._spec = StoreSpec.from_dict(job.spec)
        self._extractor: Extractor = (
            open_extractor(parse(job.recipe)) if job.recipe else ClipExtractor(job.clips)
        )

    def __call__(self, shard: int) -> Result:
        """Write a shard."""
        job = self._job
        write_shard(job.store, shard, self._spec, self._entries(shard), job.made_with)
        return {"shard": np.array([shard])}

    def _entries(self, shard: int) -> Iterator[Entry]:
        for video in self._job.shards[shard]:
            try:
                yield self._extractor.extract(video.video_id, video.path)
            except (OSError, StorageError) as error:
                kind = type(error) if isinstance(error, StorageError) else StorageError
                raise kind(
                    f"video {video.video_id} cannot be read: {as_error(error)}\n{SHARDS_STAY}"
                ) from error


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
    work = Work(
        worker=ClipStreamer,
        arguments=(clips,),
        parts=list(chunks([*enumerate(paths)], VIDEOS_PER_BLOCK)),
        no_progress_s=max(NO_PROGRESS_S, 4 * clips.timeout_s),
    )
    for result in perform(work, Pool(workers)):
        yield from _items(result)


class ClipStreamer:
    """Decodes a few videos at a time."""

    def __init__(self, clips: ClipsConfig) -> None:
        self._size = clips.size_px
        self._shape = (clips.num_clips, clips.frames_per_clip, self._size, self._size, 3)
        self._decoder = ClipDecoder(clips, [self._size])

    def __call__(self, videos: Sequence[tuple[int, str]]) -> Result:
        """Return the clips; a bad video becomes zeros beside its error, never an exception."""
        clips, outcomes, errors = zip(*[self._decode(path) for _, path in videos], strict=True)
        return {
            "index": np.array([index for index, _ in videos]),
            "clips": np.stack(clips),
            "outcome": np.array(outcomes),
            "error": np.array(errors),
        }

    def _decode(self, path: str) -> tuple[np.ndarray, str, str]:
        try:
            decoded = self._decoder.decode(path)
        except VideoError as error:
            return np.zeros(self._shape, np.uint8), error.outcome, str(error)
        return decoded.frames[self._size], decoded.outcome, ""


def _items(result: Result) -> Iterator[dict[str, Any]]:
    for row, index in enumerate(result["index"].tolist()):
        error = str(result["error"][row])
        yield {
            "index": index,
            "clips": None if error else result["clips"][row],
            "outcome": str(result["outcome"][row]),
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
