"""Actors of Ray Data that share work. What is raised in one of them is raised where results are."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.data.exceptions import ExecutionTimeoutError

from msvqa import profiling
from msvqa.engine.unwrapping import sendable, user_error
from msvqa.errors import ClusterError

NO_PROGRESS_S = 600.0
FAILURE = "failure"
"""The only column of what an actor returns in place of its results."""

Result = dict[str, np.ndarray]


@dataclass(frozen=True)
class Pool:
    """Actors, each on one CPU and a part of a GPU."""

    workers: int
    gpus_per_worker: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What actors do; travels to each of them."""

    worker: Callable[..., Callable[[Any], Result]]
    """Class of the workers: every actor makes one, and calls it with parts of the work."""
    arguments: tuple[Any, ...]
    parts: Sequence[Any]
    in_order: bool = True
    """Whether results come in the order of the parts, or as soon as they are there."""
    no_progress_s: float = NO_PROGRESS_S
    """Longest time without any result."""
    profile: str | None = None
    """Where the actor that gets the first part records it: files without their ends."""


def perform(work: Work, pool: Pool) -> Iterator[Result]:
    """Yield the result for every part. A worker that dies gets its part again.

    Raises:
        MSVQAError: what a worker could not do.
        ClusterError: no progress for long.
    """
    work = replace(work, profile=profiling.place_of_part(work.worker.__name__))
    rows = [{"part": number} for number in range(len(work.parts))]
    with _settings(work):
        # One block per part: a block is what an actor takes at a time.
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Messenger,
            fn_constructor_args=(work,),
            batch_size=1,
            num_cpus=1,
            num_gpus=pool.gpus_per_worker or None,
            compute=ActorPoolStrategy(size=max(1, min(pool.workers, len(rows)))),
        )
        yield from _results(done)


def _results(dataset: ray.data.Dataset) -> Iterator[Result]:
    try:
        for result in dataset.iter_batches(batch_size=None, batch_format="numpy"):
            if FAILURE in result:
                raise pickle.loads(result[FAILURE][0])
            yield result
    finally:
        _end(dataset)


def _end(dataset: ray.data.Dataset) -> None:
    """End the actors of a data set, also of one that was left in the middle.

    Ray does so when nobody holds the data set any more, and the traceback of an error does: its
    actors would keep their CPUs from what comes next.
    """
    executor = getattr(dataset, "_current_executor", None)
    if executor is not None:
        executor.shutdown(force=True)


class Messenger:
    """Actor that hands on what its worker returns, and as data what it raises.

    Of an exception in a constructor Ray keeps only the text, and to others it adds its own frames.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._worker: Callable[[Any], Result] | None = None

    def __call__(self, row: Result) -> Result:
        """Return the result of a part, or the failure."""
        number = int(row["part"][0])
        try:
            with profiling.of_part(None if number else self._work.profile):
                return self._result(number)
        except Exception as error:
            failure = user_error(error)
            if failure is None:
                raise
            sent = pickle.dumps(sendable(failure, error))
            return {FAILURE: np.array([sent], dtype=object)}

    def _result(self, number: int) -> Result:
        self._worker = self._worker or self._work.worker(*self._work.arguments)
        return self._worker(self._work.parts[number])


@contextmanager
def _settings(work: Work) -> Iterator[None]:
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
    context.execution_no_progress_timeout_s = work.no_progress_s
    context.execution_options.preserve_order = work.in_order
    try:
        yield
    except ExecutionTimeoutError as error:
        raise ClusterError(
            f"nothing was finished for {work.no_progress_s:g} s: workers die again and again "
            "(mostly for want of memory), find no CPU, or wait for storage; the logs of Ray say "
            "more. What is done stays, and the same command goes on"
        ) from error
    finally:
        (
            context.enable_progress_bars,
            context.execution_no_progress_timeout_s,
            context.execution_options.preserve_order,
        ) = before
