"""Which examples go into which batch: a function of seed and epoch alone.

An epoch is a table of visits. Its columns are lanes, its rows are optimizer steps: step t takes the
t-th visit of every lane, and every worker owns a fixed share of the lanes. So the order does not
depend on the number of workers.

Planned by medium, a visit is one video with up to k of its questions; the encoders run once per
visit. A video belongs to one lane per epoch (one longer than a lane is cut), and lanes are balanced
by visits: no two workers need the same video, and a batch does not hold a video twice.

Planned plainly, a visit is one example, and an epoch a permutation of all. Where several streams
(videos and images, say) are kept apart, every step is of one of them. Where batches are made by
length, a part of the permutation is sorted, cut into steps, and these come in a drawn order.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from msvqa.data.chance import Chance
from msvqa.data.split import Split
from msvqa.errors import DataError
from msvqa.recipe import BatchConfig

Item = TypeVar("Item")
SORTED_STEPS = 200
"""By length, so many steps of a permutation are sorted at a time: more of them have little less
padding, and of all together the same examples would meet in every epoch."""
LEAST_SORTS = 4
"""So many parts of an epoch are sorted at least."""


@dataclass(frozen=True)
class Share:
    """One worker's part of what several workers do together."""

    worker: int = 0
    workers: int = 1


WHOLE = Share()


@dataclass(frozen=True)
class EpochPlan:
    """All visits of one epoch: T steps x N lanes, k examples each, about m media together."""

    media: np.ndarray
    """int64 (T, N, m), rows of the split's media; -1 for none."""
    rows: np.ndarray
    """int64 (T, N, k), rows of the split's examples."""
    weight: np.ndarray
    """float32 (T, N, k), 0 for the padding of a visit and for a visit repeated as a filler."""
    chance: Chance
    """The random numbers of the epoch's examples and media."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the epoch."""
        return len(self.media)

    def lanes_of(self, share: Share) -> slice:
        """Return the lanes that a worker owns."""
        lanes = self.media.shape[1] // share.workers
        return slice(share.worker * lanes, (share.worker + 1) * lanes)

    def after(self, steps: int) -> "EpochPlan":
        """Return the rest of the epoch."""
        return replace(
            self,
            media=self.media[steps:],
            rows=self.rows[steps:],
            weight=self.weight[steps:],
        )


def plan_epoch(split: Split, batch: BatchConfig, *, seed: int, epoch: int) -> EpochPlan:
    """Return the visits of an epoch; every example counts exactly once.

    Args:
        split: what is trained on; the kind of its examples says how they are planned.
        batch: size of the global batch.
        seed: seed of the recipe.
        epoch: number of the epoch, from 0.

    Raises:
        DataError: there are no examples.
        ValueError: batches are to be made by the lengths of examples that have none.
    """
    examples = split.examples
    if not len(examples):
        raise DataError(f"there are no training {examples.name} whose media are present")
    lengths = examples.lengths if batch.by_length else None
    generator = np.random.default_rng([seed, epoch])
    if examples.planned == "by_medium":
        media, rows, weight = _by_medium(examples.medium, batch, generator)
    else:
        media, rows, weight = _plainly(split, batch, lengths, generator)
    return EpochPlan(media, rows, weight, Chance(seed, epoch))


def count_steps(split: Split, batch: BatchConfig) -> int:
    """Return the optimizer steps of an epoch, which are the same in every one."""
    examples = split.examples
    if examples.planned == "by_medium":
        return _steps_by_medium(examples.medium, batch.videos, batch.questions_per_video)
    counts = np.unique(_streams(split, batch), return_counts=True)[1]
    return int(sum(-(-int(count) // batch.lanes) for count in counts))


@dataclass(frozen=True)
class _Visit:
    video: int
    questions: np.ndarray
    weight: np.ndarray

    def as_filler(self) -> "_Visit":
        return _Visit(self.video, self.questions, np.zeros_like(self.weight))


_Plan = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Media, rows and weight of an epoch."""


def _by_medium(medium: np.ndarray, batch: BatchConfig, generator: np.random.Generator) -> _Plan:
    visits = _visits_by_video(medium, batch.questions_per_video, generator)
    table = _fill_lanes(visits, batch.videos, generator)
    return (
        np.array([[v.video for v in lane] for lane in table], dtype=np.int64).T[:, :, None],
        np.stack([[v.questions for v in lane] for lane in table]).swapaxes(0, 1),
        np.stack([[v.weight for v in lane] for lane in table]).swapaxes(0, 1),
    )


def _steps_by_medium(medium: np.ndarray, lanes: int, k: int) -> int:
    """Return the length of the longest lane: which piece it gets depends on lengths alone."""
    _, counts = np.unique(medium, return_counts=True)
    visits = -(-counts // k)
    longest = -(-int(visits.sum()) // lanes)
    whole, rest = np.divmod(visits, longest)
    pieces = np.concatenate([np.full(int(whole.sum()), longest), rest[rest > 0]])
    loads = [0] * lanes
    for piece in sorted(pieces.tolist(), reverse=True):
        heapq.heapreplace(loads, loads[0] + piece)
    return max(loads)


def _plainly(
    split: Split, batch: BatchConfig, lengths: np.ndarray | None, generator: np.random.Generator
) -> _Plan:
    stream, lanes = _streams(split, batch), batch.lanes
    tables, weights = [], []
    for which in np.unique(stream):
        order = generator.permutation(np.flatnonzero(stream == which))
        steps = -(-len(order) // lanes)
        place = np.arange(steps * lanes).reshape(steps, lanes)
        if lengths is not None:
            order = _by_length(order, lengths, lanes)
            # Else the last worker would have the longest of every step.
            place = generator.permuted(place, axis=1)
        # The last batch is filled with those that came first, which count nothing there.
        tables.append(np.resize(order, steps * lanes)[place])
        weights.append((place < len(order)).astype(np.float32))
    mixed = np.arange(sum(map(len, tables)))
    if len(tables) > 1 or lengths is not None:
        mixed = generator.permutation(mixed)
    rows, weight = np.concatenate(tables)[mixed], np.concatenate(weights)[mixed]
    return split.examples.media[rows], rows[:, :, None], weight[:, :, None]


def _by_length(order: np.ndarray, lengths: np.ndarray, lanes: int) -> np.ndarray:
    """Return rows (n,) of which each part of neighbouring steps is sorted by length."""
    steps = max(1, min(SORTED_STEPS, len(order) // (LEAST_SORTS * lanes)))
    parts = np.split(order, range(steps * lanes, len(order), steps * lanes))
    return np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])


def _streams(split: Split, batch: BatchConfig) -> np.ndarray:
    """Return the stream (n,) of each example; one for all where they are mixed."""
    if batch.streams == "mixed":
        return np.zeros(len(split), dtype=np.int8)
    return split.stream


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
