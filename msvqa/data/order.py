"""Which questions of which videos go into which batch: a function of seed and epoch alone.

An epoch is a table of visits. A visit is one video with up to k of its questions; the encoders run
once per visit. The columns of the table are lanes, its rows are optimizer steps: step t takes the
t-th visit of every lane. A video belongs to one lane per epoch (one longer than a lane is cut),
lanes are balanced by visits, and every worker owns a fixed share of the lanes. So the order does
not depend on the number of workers, no two workers need the same video, and a batch does not hold a
video twice.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from msvqa.errors import DataError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """One worker's part of what several workers do together."""

    worker: int = 0
    workers: int = 1


WHOLE = Share()


@dataclass(frozen=True)
class EpochPlan:
    """All visits of one epoch: T steps x N lanes x k questions."""

    video: np.ndarray
    """int64 (T, N), row of the video in the split."""
    question: np.ndarray
    """int64 (T, N, k), rows of the questions in the split."""
    weight: np.ndarray
    """float32 (T, N, k), 0 for the padding of a visit and for a visit repeated as a filler."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the epoch."""
        return len(self.video)

    def lanes_of(self, share: Share) -> slice:
        """Return the lanes that a worker owns."""
        lanes = self.video.shape[1] // share.workers
        return slice(share.worker * lanes, (share.worker + 1) * lanes)

    def after(self, steps: int) -> "EpochPlan":
        """Return the rest of the epoch."""
        return EpochPlan(self.video[steps:], self.question[steps:], self.weight[steps:])


@dataclass(frozen=True)
class _Visit:
    video: int
    questions: np.ndarray
    weight: np.ndarray

    def as_filler(self) -> "_Visit":
        return _Visit(self.video, self.questions, np.zeros_like(self.weight))


def plan_epoch(
    video_row: np.ndarray, *, lanes: int, questions_per_video: int, seed: int, epoch: int
) -> EpochPlan:
    """Return the visits of an epoch; every question counts exactly once.

    Args:
        video_row: (n,) the video of each question.
        lanes: videos in the global batch.
        questions_per_video: k; 1 is plain shuffling of questions.
        seed: seed of the recipe.
        epoch: number of the epoch, from 0.

    Raises:
        DataError: there are no questions.
    """
    if len(video_row) == 0:
        raise DataError("there are no training questions whose video is present")
    generator = np.random.default_rng([seed, epoch])
    visits = _visits_by_video(video_row, questions_per_video, generator)
    table = _fill_lanes(visits, lanes, generator)
    return EpochPlan(
        video=np.array([[v.video for v in lane] for lane in table], dtype=np.int64).T,
        question=np.stack([[v.questions for v in lane] for lane in table]).swapaxes(0, 1),
        weight=np.stack([[v.weight for v in lane] for lane in table]).swapaxes(0, 1),
    )


def count_visits(video_row: np.ndarray, questions_per_video: int) -> int:
    """Return how often the encoders run in an epoch: the sum of ceil(questions / k) over videos."""
    _, counts = np.unique(video_row, return_counts=True)
    return int(np.ceil(counts / questions_per_video).sum())


def evaluation_order(video_row: np.ndarray, num_videos: int, workers: int) -> list[list[int]]:
    """Return the videos of each worker, all questions of a video together, balanced by questions.

    Every video with questions is in exactly one list; the lists may differ in length.
    """
    counts = np.bincount(video_row, minlength=num_videos)
    shares: list[list[int]] = [[] for _ in range(workers)]
    lightest = [(0, worker) for worker in range(workers)]
    for video in np.argsort(-counts, kind="stable"):
        if counts[video]:
            load, worker = heapq.heappop(lightest)
            shares[worker].append(int(video))
            heapq.heappush(lightest, (load + int(counts[video]), worker))
    return shares


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Cut a sequence into pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _visits_by_video(
    video_row: np.ndarray, k: int, generator: np.random.Generator
) -> list[list[_Visit]]:
    rows = np.argsort(video_row, kind="stable")
    videos, starts = np.unique(video_row[rows], return_index=True)
    return [
        [_visit(int(video), questions[i : i + k], k) for i in range(0, len(questions), k)]
        for video, questions in zip(
            videos, map(generator.permutation, np.split(rows, starts[1:])), strict=True
        )
    ]


def _visit(video: int, questions: np.ndarray, k: int) -> _Visit:
    weight = np.zeros(k, dtype=np.float32)
    weight[: len(questions)] = 1
    return _Visit(video, np.resize(questions, k).astype(np.int64), weight)


def _fill_lanes(
    visits: list[list[_Visit]], lanes: int, generator: np.random.Generator
) -> list[list[_Visit]]:
    """Deal the videos to lanes, longest first, and fill all lanes to the same length."""
    longest = -(-sum(map(len, visits)) // lanes)
    shuffled = [visits[i] for i in generator.permutation(len(visits))]
    pieces = [video[i : i + longest] for video in shuffled for i in range(0, len(video), longest)]
    table: list[list[_Visit]] = [[] for _ in range(lanes)]
    lightest = [(0, lane) for lane in range(lanes)]
    for piece in sorted(pieces, key=len, reverse=True):
        load, lane = heapq.heappop(lightest)
        table[lane].extend(piece)
        heapq.heappush(lightest, (load + len(piece), lane))
    steps = max(map(len, table))
    spare = [visit.as_filler() for video in shuffled for visit in video]
    for lane, content in enumerate(table):
        table[lane] = [content[i] for i in generator.permutation(len(content))]
        fillers = generator.integers(len(spare), size=steps - len(content))
        table[lane] += [spare[i] for i in fillers]
    return table
