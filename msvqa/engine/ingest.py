"""Extraction on Ray Data: arrays of media to the shards of a store, or as a stream."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray

from msvqa.data.medium import Medium
from msvqa.data.order import chunks
from msvqa.data.processors.clock import KINDS
from msvqa.data.processors.frozen_encoder import Trial
from msvqa.data.processors.processor import Processor
from msvqa.data.store import SHARDS_STAY, Arrays, Entry, StoreSpec, write_shard
from msvqa.engine.actors import NO_PROGRESS_S, Pool, Result, Work, perform
from msvqa.engine.pace import Written
from msvqa.errors import ClusterError, StorageError, VideoError
from msvqa.failures import as_error

MEDIA_PER_BLOCK = 2
ARRAY = "array:"
"""What the names of arrays begin with, beside the columns of a block."""
CPU_WAIT_S = 30.0


@dataclass(frozen=True)
class ShardJob:
    """Shards that are still to be written; travels to every worker."""

    processor: Processor
    """Not the recipe: to read one imports its model, and with it torch, in every worker."""
    store: str
    spec: dict[str, Any]
    made_with: dict[str, str]
    shards: dict[int, list[Medium]]


def write_shards(job: ShardJob, pool: Pool) -> Iterator[Written]:
    """Write shards in parallel; yield each when it is in its place.

    A worker that dies gets its shard again.

    Raises:
        StoreError: the disk is full or away.
        StorageError: an object store, of the videos or of the shards, is away.
        MSVQAError: what else a worker could not do.
        ClusterError: no progress for long.
    """
    spec = StoreSpec.from_dict(job.spec)
    # Each video is read, for its hash, and then decoded.
    longest_s = spec.videos_per_shard * 2 * job.processor.timeout_s
    work = Work(
        worker=ShardWriter,
        arguments=(job,),
        parts=list(job.shards),
        in_order=False,
        no_progress_s=max(NO_PROGRESS_S, 1.5 * longest_s),
    )
    for result in perform(work, pool):
        yield Written(
            shard=int(result["shard"][0]),
            began=float(result["began"][0]),
            spent_s={kind: float(result[kind][0]) for kind in KINDS},
        )


class ShardWriter:
    """Extracts the videos of a shard one after another and writes them."""

    def __init__(self, job: ShardJob) -> None:
        self._job = job
        self._spec = StoreSpec.from_dict(job.spec)
        self._extractor = job.processor.extractor()
        self._extracting_s = 0.0

    def __call__(self, shard: int) -> Result:
        """Write a shard; say when it was begun, and where the time went."""
        job, began, start = self._job, time.time(), time.perf_counter()
        self._extracting_s, before = 0.0, dict(self._extractor.clock.spent_s)
        write_shard(job.store, shard, self._spec, self._entries(shard), job.made_with)
        spent = {kind: s - before[kind] for kind, s in self._extractor.clock.spent_s.items()}
        spent["reading"] = self._extracting_s - spent["decoding"] - spent["computing"]
        spent["writing"] = time.perf_counter() - start - self._extracting_s
        numbers = {"shard": shard, "began": began, **spent}
        return {name: np.array([number]) for name, number in numbers.items()}

    def _entries(self, shard: int) -> Iterator[Entry]:
        for medium in self._job.shards[shard]:
            try:
                start = time.perf_counter()
                entry = self._extractor.extract(medium)
                self._extracting_s += time.perf_counter() - start
                yield entry
            except (OSError, StorageError) as error:
                kind = type(error) if isinstance(error, StorageError) else StorageError
                raise kind(
                    f"video {medium.id} cannot be read: {as_error(error)}\n{SHARDS_STAY}"
                ) from error


def try_formats(processor: Processor, media: Sequence[Medium], pool: Pool) -> list[Trial]:
    """Return what the encoders of a processor make of a medium in each number format.

    One worker like those that extract tries them.

    Args:
        processor: it has frozen encoders.
        media: the first that can be read is taken; none: the trials say so.
        pool: of the workers that extract.
    """
    work = Work(worker=FormatTrial, arguments=(processor,), parts=[media])
    (result,) = perform(work, replace(pool, workers=1))
    columns = (result[name].tolist() for name in ("part", "cosine", "gain"))
    return [Trial(*row) for row in zip(*columns, strict=True)]


class FormatTrial:
    """Tries the number formats of frozen encoders where they are going to work."""

    def __init__(self, processor: Processor) -> None:
        self._extractor, self._parts = processor.extractor(), list(processor.encoders())

    def __call__(self, media: Sequence[Medium]) -> Result:
        """Return a row for each encoder."""
        trials = [Trial(part, math.nan, math.nan) for part in self._parts]
        for medium in media:
            with suppress(VideoError):
                trials = self._extractor.trials(medium)
                break
        self._extractor.close()
        fields = ("part", "cosine", "gain")
        return {name: np.array([getattr(trial, name) for trial in trials]) for name in fields}


@dataclass(frozen=True)
class Streamed:
    """What became of one medium of a stream."""

    index: int
    """Position among the media."""
    arrays: Arrays | None
    """None for a bad medium."""
    outcome: str
    error: str
    """Empty for a good medium."""
    busy_s: float
    """Seconds that its worker took."""
    by_pyav: str
    """Why PyAV read it in place of the back end that was asked for; empty where it did not."""


def stream_media(media: Sequence[Medium], processor: Processor, workers: int) -> Iterator[Streamed]:
    """Yield the arrays of media in the given order, made while the caller works on those before.

    Raises:
        ClusterError: there is no CPU free to decode on.
        StorageError: the object store that has the media cannot be read.
    """
    _wait_for_cpus(workers)
    work = Work(
        worker=Streamer,
        arguments=(processor,),
        parts=list(chunks([*enumerate(media)], MEDIA_PER_BLOCK)),
        no_progress_s=max(NO_PROGRESS_S, 4 * processor.timeout_s),
    )
    for result in perform(work, Pool(workers)):
        yield from _items(result)


class Streamer:
    """Makes the arrays of a few media at a time."""

    def __init__(self, processor: Processor) -> None:
        self._zeros = {
            name: np.zeros(array.shape, array.dtype)
            for name, array in processor.spec().arrays.items()
        }
        self._extractor = processor.extractor()

    def __call__(self, media: Sequence[tuple[int, Medium]]) -> Result:
        """Return the arrays; a bad medium becomes zeros beside its error, never an exception."""
        start = time.perf_counter()
        made = [self._made(medium) for _, medium in media]
        arrays, outcomes, errors, by_pyav = zip(*made, strict=True)
        return {
            "index": np.array([index for index, _ in media]),
            "busy_s": np.full(len(media), (time.perf_counter() - start) / len(media)),
            "outcome": np.array(outcomes),
            "error": np.array(errors),
            "by_pyav": np.array(by_pyav),
        } | {ARRAY + name: np.stack([made[name] for made in arrays]) for name in self._zeros}

    def _made(self, medium: Medium) -> tuple[Arrays, str, str, str]:
        try:
            return self._extractor.arrays(medium), "ok", "", self._extractor.by_pyav
        except VideoError as error:
            return self._zeros, error.outcome, str(error), ""


def _items(result: Result) -> Iterator[Streamed]:
    names = [name for name in result if name.startswith(ARRAY)]
    for row, index in enumerate(result["index"].tolist()):
        error, outcome = str(result["error"][row]), str(result["outcome"][row])
        arrays = {name.removeprefix(ARRAY): result[name][row] for name in names}
        busy_s, by_pyav = float(result["busy_s"][row]), str(result["by_pyav"][row])
        yield Streamed(index, None if error else arrays, outcome, error, busy_s, by_pyav)


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
