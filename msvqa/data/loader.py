"""Batches from a split and a source of video tensors, made in a background thread."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from msvqa.data.batch import Batch, with_images
from msvqa.data.chance import Chance
from msvqa.data.examples.examples import NO_MEDIUM
from msvqa.data.order import WHOLE, EpochPlan, Share, chunks
from msvqa.data.split import Split

PAIRS_PER_MEDIUM = 16
"""Of examples that are asked about as pairs with media: how many there are in a batch at most."""


class MediaSource(Protocol):
    """Gives the tensors of media (`clips`, or `appearance` and `motion`) in a given order."""

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield the tensors of one group of the split's media after another.

        Args:
            groups: rows of the split's media.
            chance: random numbers of a training epoch; None: nothing is random.
        """
        ...


class Prefetched:
    """Batches made by a thread that stays `depth` ahead; measures the time spent waiting."""

    def __init__(self, batches: Callable[[], Iterable[Batch]], depth: int = 2) -> None:
        self.waiting_s = 0.0
        self._batches = batches
        self._queue: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Batch]:
        threading.Thread(target=self._fill, daemon=True, name="batches").start()
        try:
            while True:
                start = time.perf_counter()
                item = self._queue.get()
                self.waiting_s += time.perf_counter() - start
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._stopped.set()

    def _fill(self) -> None:
        try:
            for batch in self._batches():
                if not self._offer(batch):
                    return
            self._offer(None)
        except BaseException as error:  # handed to the consumer, which raises it
            self._offer(error)

    def _offer(self, item: Batch | BaseException | None) -> bool:
        """Put an item into the queue unless the consumer has gone away."""
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


def grouped(batches: Iterable[Batch], size: int) -> Generator[list[Batch], None, None]:
    """Yield the batches of each step together; where it is closed, so are the batches."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []


def training_batches(
    split: Split,
    source: MediaSource,
    plan: EpochPlan,
    share: Share = WHOLE,
    accumulate: int = 1,
) -> Iterator[Batch]:
    """Yield one worker's share of an epoch: `accumulate` batches for every step.

    Raises:
        ValueError: the lanes cannot be shared evenly.
    """
    lanes = plan.media.shape[1]
    if lanes % (share.workers * accumulate):
        raise ValueError(
            f"a batch of {lanes} visits cannot be shared evenly by workers x accumulate = "
            f"{share.workers} x {accumulate}"
        )
    own = plan.lanes_of(share)
    size = lanes // share.workers // accumulate
    # M micro batches of `size` visits, each k examples about one medium, or one about m media
    m = plan.media.shape[2]
    media = plan.media[:, own].reshape(-1, *((size,) if m == 1 else (size, m)))  # (M, size[, m])
    rows = plan.rows[:, own].reshape(len(media), -1)  # (M, size·k)
    weight = plan.weight[:, own].reshape(len(media), -1)  # (M, size·k)
    normalizer = (plan.weight.sum(axis=(1, 2)) / share.workers).repeat(accumulate)  # (M,)
    index = torch.arange(size).repeat_interleave(plan.rows.shape[2])
    # Of a step, not of a worker's part of it: what is seen depends on no number of workers.
    alone = _images_alone(split, plan.media).repeat(accumulate)  # (M,)
    for number, tensors in enumerate(_read(source, list(media), plan.chance)):
        batch = _tensors(split, rows[number], plan.chance) | tensors
        batch["video"] = torch.from_numpy(media[number].copy())
        if m == 1:
            batch["video_index"] = index
        batch["weight"] = torch.from_numpy(weight[number].copy())
        batch["normalizer"] = torch.tensor(float(normalizer[number]))
        batch["workers"] = torch.tensor(float(share.workers))
        yield _seen(split, media[number], batch, alone=bool(alone[number]))


def _read(
    source: MediaSource, media: Sequence[np.ndarray], chance: Chance | None = None
) -> Iterator[Batch]:
    """Yield the tensors of media, each group in its shape (n, ...) or (n, m, ...); zeros for none.

    A group that has no media at all has no tensors of any.
    """
    groups = [group[group != NO_MEDIUM].tolist() for group in media]
    for group, tensors in zip(media, source.batches(groups, chance), strict=True):
        yield {key: _placed(found, group) for key, found in tensors.items()}


def _placed(found: torch.Tensor, media: np.ndarray) -> torch.Tensor:
    there = media.reshape(-1) != NO_MEDIUM
    if not there.all():
        whole = found.new_zeros((media.size, *found.shape[1:]))
        whole[torch.from_numpy(there)] = found
        found = whole
    return found if media.ndim == 1 else found.unflatten(0, media.shape)


def evaluation_batches(
    split: Split, source: MediaSource, asked: Sequence[int], per_batch: int
) -> Iterator[Batch]:
    """Yield examples with their media, every example once.

    Args:
        split: the examples and media.
        source: gives the tensors of the media.
        asked: rows of media, all of whose examples are yielded together; rows of examples where
            these are not `asked_by_medium`.
        per_batch: how many of `asked` are in a batch.
    """
    if not split.examples.asked_by_medium:
        yield from _examples_with_media(split, source, asked, per_batch)
        return
    order = np.argsort(split.examples.medium, kind="stable")
    starts = np.searchsorted(split.examples.medium[order], np.arange(len(split.media) + 1))
    groups = list(chunks(asked, per_batch))
    for group, tensors in zip(groups, source.batches(groups), strict=True):
        rows = [order[starts[v] : starts[v + 1]] for v in group]
        index = np.repeat(np.arange(len(group)), [len(r) for r in rows])
        batch = _evaluated(split, np.array(group), np.concatenate(rows), index) | tensors
        yield _seen(split, np.array(group), batch)


def _examples_with_media(
    split: Split, source: MediaSource, rows: Sequence[int], per_batch: int
) -> Iterator[Batch]:
    groups = [np.array(group, dtype=np.int64) for group in chunks(rows, per_batch)]
    width = split.examples.media_per_example
    media = [split.examples.media[group] for group in groups]  # (b, m) each
    shaped = [of[:, 0] if width == 1 else of for of in media]
    for group, of, tensors in zip(groups, shaped, _read(source, shaped), strict=True):
        batch = _evaluated(split, of, group, np.arange(len(group))) | tensors
        if width > 1:
            del batch["video_index"]
        yield _seen(split, of, batch)


def pair_batches(
    split: Split, source: MediaSource, rows: Sequence[int], media_per_batch: int
) -> Iterator[Batch]:
    """Yield chosen examples with their media, of many examples of one medium a part at a time.

    Args:
        split: the examples and media.
        source: gives the tensors of the media.
        rows: examples; those of one medium are neighbours.
        media_per_batch: most media of a batch; it has `PAIRS_PER_MEDIUM` times as many examples at
            most.
    """
    chosen = np.asarray(rows, dtype=np.int64)
    medium = split.examples.medium[chosen]
    starts, most = [0], media_per_batch * PAIRS_PER_MEDIUM
    seen: set[int] = set()
    for position, of in enumerate(medium.tolist()):
        full = of not in seen and len(seen) == media_per_batch
        if full or position - starts[-1] == most:
            starts.append(position)
            seen = set()
        seen.add(of)
    parts = np.split(np.arange(len(chosen)), starts[1:]) if len(chosen) else []
    found = [np.unique(medium[part], return_inverse=True) for part in parts]
    groups = [of.tolist() for of, _ in found]
    for part, (of, index), tensors in zip(parts, found, source.batches(groups), strict=True):
        yield _seen(split, of, _evaluated(split, of, chosen[part], index) | tensors)


def _evaluated(split: Split, media: np.ndarray, rows: np.ndarray, index: np.ndarray) -> Batch:
    """Return a batch without its media: each example counts once, and one worker has them all."""
    return {
        **_tensors(split, rows),
        "video": torch.from_numpy(media),
        "video_index": torch.from_numpy(index),
        "weight": torch.ones(len(rows)),
        "normalizer": torch.tensor(float(len(rows))),
        "workers": torch.tensor(1.0),
    }


def media_batches(
    split: Split, source: MediaSource, media: Sequence[int], media_per_batch: int
) -> Iterator[Batch]:
    """Yield media, each once, with what the examples say of them alone."""
    groups = list(chunks(media, media_per_batch))
    for group, tensors in zip(groups, source.batches(groups), strict=True):
        rows = np.array(group, dtype=np.int64)
        batch = {**tensors, **split.examples.of_media(rows), "video": torch.from_numpy(rows)}
        yield _seen(split, rows, batch)


def example_batches(split: Split, rows: Sequence[int], examples_per_batch: int) -> Iterator[Batch]:
    """Yield examples without their media, each once."""
    for group in chunks(rows, examples_per_batch):
        yield _tensors(split, np.array(group))


def _images_alone(split: Split, media: np.ndarray) -> np.ndarray:
    """Return which steps (T,) of media (T, N, m) are of single images alone."""
    return np.asarray(split.media.are_images(media).all(axis=(1, 2)))


def _seen(split: Split, media: np.ndarray, batch: Batch, *, alone: bool | None = None) -> Batch:
    """Return a batch of media (V,) that says which are images, of a split that has some.

    Args:
        split: has the media.
        media: rows of it.
        batch: with their tensors.
        alone: whether an image has one frame; None: where the batch has nothing but images.
    """
    if media.ndim > 1 or not split.media.is_image.any():
        return batch
    is_image = split.media.are_images(media)
    alone = bool(is_image.all()) if alone is None else alone
    return with_images(batch, torch.from_numpy(is_image), alone=alone)


def _tensors(split: Split, rows: np.ndarray, chance: Chance | None = None) -> Batch:
    rows = rows.astype(np.int64)
    return split.examples.tensors(rows, chance) | {"row": torch.from_numpy(rows)}
