"""Asking a model about a split: every example or medium exactly once, on any number of workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np
import torch

from msvqa.data.batch import Batch
from msvqa.data.loader import (
    evaluation_batches,
    example_batches,
    media_batches,
    pair_batches,
)
from msvqa.data.order import Share, evaluation_order
from msvqa.data.split import Split
from msvqa.engine import distributed
from msvqa.engine.inputs import Inputs
from msvqa.engine.precision import autocast
from msvqa.objectives.objective import Objective

Rows = dict[str, np.ndarray]
"""Answers with `row`: which example or medium each is about."""


@dataclass(frozen=True)
class Question:
    """A method of an objective, and what it is asked about."""

    method: str
    scope: Literal["media", "examples", "both", "pairs"]
    """Media alone, examples alone, examples with their media (all of a medium together), or chosen
    pairs of the two."""

    @classmethod
    def of(cls, objective: type[Objective] | Objective, method: str) -> "Question":
        """Return the question that a method answers about a whole split."""
        return cls(method, objective.about.get(method, "both"))


def shares(split: Split, scope: str, workers: int) -> list[list[int]]:
    """Return what each worker is asked about: rows of media where they are read, else examples.

    Examples with their media are asked one by one where some are about several media or none.
    """
    if scope == "pairs":
        order = np.argsort(split.examples.medium, kind="stable")
        return [part.tolist() for part in np.array_split(order, workers)]
    if scope == "both" and split.examples.asked_by_medium:
        # Of questions about one video its decoding is shared.
        return evaluation_order(split.examples.medium, len(split.media), workers)
    count = len(split.media) if scope == "media" else len(split)
    return [list(range(worker, count, workers)) for worker in range(workers)]


@torch.no_grad()
def ask(
    objective: Objective, inputs: Inputs, question: Question, chosen: Sequence[int], size: int
) -> Rows:
    """Return the answers of an objective's method about some media or examples.

    Args:
        objective: the model with its stage's objective; on its device.
        inputs: the split.
        question: the method, and what it is about.
        chosen: rows of the split's media, or of its examples, see `shares`.
        size: media or examples per batch.
    """
    device = next(objective.parameters()).device
    was_training = objective.training
    objective.eval()
    collected: dict[str, list[np.ndarray]] = {}
    parts = _images_apart(inputs.split, question.scope, chosen)
    for batch in chain.from_iterable(_batches(inputs, question.scope, p, size) for p in parts):
        on_device = inputs.to_device(batch, device)
        about = on_device["video"] if question.scope == "media" else on_device["row"]
        rows = {"row": about, **getattr(objective, question.method)(on_device)}
        for key, value in rows.items():
            array = value.float() if value.dtype == torch.bfloat16 else value
            collected.setdefault(key, []).append(array.cpu().numpy())
    objective.train(was_training)
    return {key: np.concatenate(parts) for key, parts in collected.items()}


def _images_apart(split: Split, scope: str, chosen: Sequence[int]) -> list[Sequence[int]]:
    """Return what is asked about without images, and with: no answer depends on its batch."""
    if scope == "examples" or not split.media.is_image.any():
        return [chosen]
    rows = np.asarray(chosen, dtype=np.int64)
    by_medium = scope == "both" and split.examples.asked_by_medium
    media = rows if scope == "media" or by_medium else split.examples.media[rows, 0]
    is_image = split.media.are_images(media)
    return [part.tolist() for part in (rows[~is_image], rows[is_image]) if len(part)]


def _batches(inputs: Inputs, scope: str, chosen: Sequence[int], size: int) -> Iterator[Batch]:
    if scope == "media":
        return media_batches(inputs.split, inputs.source, chosen, size)
    if scope == "pairs":
        return pair_batches(inputs.split, inputs.source, chosen, size)
    if scope == "examples":
        return example_batches(inputs.split, chosen, size)
    return evaluation_batches(inputs.split, inputs.source, chosen, size)


def crossed(inputs: Inputs, media: np.ndarray, rows: np.ndarray) -> Inputs:
    """Return the same source of media, with chosen pairs in place of the examples."""
    return replace(inputs, split=inputs.split.crossed(media, rows))


def together(parts: Sequence[Rows], split: Split, scope: str) -> Rows:
    """Return the answers of all workers in the order of the split, without `row`.

    Raises:
        RuntimeError: something was answered twice or not at all.
    """
    whole = [part for part in parts if part]
    rows = {key: np.concatenate([part[key] for part in whole]) for key in whole[0]}
    order = np.argsort(rows["row"], kind="stable")
    expected = len(split.media) if scope == "media" else len(split)
    if not np.array_equal(rows.pop("row")[order], np.arange(expected)):
        raise RuntimeError(f"{len(order)} answers do not cover the {expected} rows of {split}")
    return {key: value[order] for key, value in rows.items()}


@dataclass(frozen=True)
class LoopPredictor:
    """Asks in the training loop: each worker its share, and all get all answers."""

    objective: Objective
    inputs: Inputs
    share: Share
    size: int
    precision: Literal["fp32", "bf16"]

    def __call__(self, what: str = "predict") -> Rows:
        """Return the answers about every row of the split, the same on every worker."""
        return self._ask(Question.of(self.objective, what), self.inputs)

    def pairs(self, what: str, media: np.ndarray, rows: np.ndarray) -> Rows:
        """Return the answers about chosen pairs, in their order, the same on every worker."""
        return self._ask(Question(what, "pairs"), crossed(self.inputs, media, rows))

    def answers(self, what: str) -> bool:
        """Whether the objective has such a method."""
        return hasattr(self.objective, what)

    def _ask(self, question: Question, inputs: Inputs) -> Rows:
        own = shares(inputs.split, question.scope, self.share.workers)[self.share.worker]
        device = next(self.objective.parameters()).device
        with autocast(device, self.precision):
            found = ask(self.objective, inputs, question, own, self.size)
        # A worker without media has no answers.
        return together(distributed.gather_objects(found), inputs.split, question.scope)
