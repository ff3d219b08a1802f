"""Predictions for a split: every question exactly once, whatever the number of workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from msvqa.data.batch import Batch
from msvqa.data.loader import PAIRS_PER_MEDIUM
from msvqa.data.order import WHOLE, Share, chunks
from msvqa.data.prepared import Prepared
from msvqa.data.split import Split
from msvqa.engine.asking import Question, ask, crossed, shares, together
from msvqa.engine.checkpoint import Loaded, load_checkpoint, read_lexicon, read_sound
from msvqa.engine.inputs import Inputs, open_inputs
from msvqa.engine.precision import autocast
from msvqa.errors import CheckpointError, RunError
from msvqa.objectives import OBJECTIVES
from msvqa.objectives.objective import Objective
from msvqa.recipe import Recipe, parse
from msvqa.sections import resolve

if TYPE_CHECKING:
    from msvqa.engine.actors import Result


def predict_split(
    objective: Objective, inputs: Inputs, size: int, share: Share = WHOLE
) -> dict[str, np.ndarray]:
    """Return one worker's share of the predictions, with `row`: the example's row in the split.

    The shares of all workers together hold every row once. Workers do not communicate.
    """
    chosen = shares(inputs.split, "both", share.workers)[share.worker]
    return ask(objective, inputs, Question("predict", "both"), chosen, size)


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """What a process needs to predict videos of a split; plain data, so that it can travel."""

    checkpoint: str
    prepared: str
    store: str | None
    split: str
    recipe: dict[str, Any]
    """That of the stage whose model it is: its data, processor and evaluation are used."""


@dataclass(frozen=True)
class Part:
    """A part of the rows that are asked about; travels to the process that answers."""

    question: Question
    chosen: Sequence[int]
    pairs: tuple[np.ndarray, np.ndarray] | None = None
    """Of pairs: the medium and the example of each that is chosen."""


class Predictor:
    """Predicts videos of a split with the model of a checkpoint. Loaded once per process."""

    def __init__(self, job: PredictionJob, device: str | None = None) -> None:
        recipe = parse(job.recipe)
        loaded = load_checkpoint(job.checkpoint)
        prepared = Prepared.open(job.prepared).reading(loaded.lexicon)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.objective = objective_of(loaded).to(self.device)
        self.objective.top_k = recipe.evaluation.top_k
        self.inputs = open_inputs(recipe, prepared, job.store, job.split)
        self.videos_per_batch = recipe.evaluation.videos_per_batch
        self.precision = recipe.stages[-1].precision

    def __call__(self, part: "Part") -> "Result":
        """Return the answers of a method about media or examples, given by rows of the split."""
        inputs, chosen = self.inputs, part.chosen
        if part.pairs is not None:
            inputs, chosen = crossed(inputs, *part.pairs), list(range(len(part.chosen)))
        with autocast(self.device, self.precision):
            found = ask(self.objective, inputs, part.question, chosen, self.videos_per_batch)
        if part.pairs is not None:
            found["row"] = np.array(part.chosen)[found["row"]]
        return found


def objective_of(loaded: Loaded) -> Objective:
    """Return the objective of the checkpoint's stage around its model, in eval mode."""
    (stage,) = loaded.view.stages
    kind = resolve(stage.objective.name, OBJECTIVES, "objective")
    objective: Objective = kind(stage.objective, loaded.model)
    return objective.eval()


def answer_of(
    loaded: Loaded,
    method: Callable[[Batch], dict[str, Tensor]],
    batch: Batch,
    device: torch.device,
    about: str = "",
) -> dict[str, Tensor]:
    """Return what a method of an objective on a device answers to a batch, on the CPU.

    Args:
        loaded: the checkpoint that the objective is of.
        method: of the objective.
        batch: on any device.
        device: that of the objective.
        about: what is asked, for the message.

    Raises:
        CheckpointError: some numbers of the answer are not finite.
    """
    precision = loaded.view.stages[-1].precision
    with torch.inference_mode(), autocast(device, precision):
        found = method({name: values.to(device) for name, values in batch.items()})
    if not all(values.isfinite().all() for values in found.values()):
        raise CheckpointError(
            f"{loaded.location} answers with numbers that are not finite{about and ', ' + about}: "
            f"another checkpoint or precision may not; it was trained with {precision}"
        )
    return {
        name: (values.float() if values.is_floating_point() else values).cpu()
        for name, values in found.items()
    }


def check_answers(recipe: Recipe) -> None:
    """Refuse a run whose last stage cannot be asked, before anything is loaded.

    Raises:
        RunError: says which stage it is.
    """
    stage = recipe.stages[-1]
    if not resolve(stage.objective.name, OBJECTIVES, "objective").answers_questions:
        raise RunError(
            f"the last stage of run {recipe.name!r}, {stage.name!r} ({stage.objective.name}), "
            "answers no questions: only a run that ends with a stage such as answering can be "
            "evaluated and asked"
        )


def writes_answers(recipe: Recipe) -> bool:
    """Whether a run ends with a stage whose model writes answers."""
    kind: type[Objective] = resolve(recipe.stages[-1].objective.name, OBJECTIVES, "objective")
    return kind.writes_answers


def check_lexicon(checkpoint: str, prepared: Prepared) -> None:
    """Refuse a checkpoint that is damaged or that was trained on other words, before Ray starts.

    Raises:
        CheckpointError: says which.
    """
    read_sound(checkpoint)
    if differing := read_lexicon(checkpoint).differing(prepared.lexicon):
        raise CheckpointError(
            f"{checkpoint} was trained with other {' and '.join(differing)} than "
            f"{prepared.location} has: evaluate it on the data it was trained on"
        )


@dataclass(frozen=True)
class PoolPredictor:
    """Asks on a pool of processes, to which the parts of a split are dealt."""

    job: PredictionJob
    split: Split
    workers: int
    gpus_per_worker: float

    def __call__(self, what: str = "predict") -> dict[str, np.ndarray]:
        """Return the answers about every row of the split, in its order.

        Raises:
            MSVQAError: what a worker could not do.
            RuntimeError: something was answered twice or not at all.
        """
        question = Question.of(self._objective, what)
        (chosen,) = shares(self.split, question.scope, 1)
        # In the order of the files: what is read together lies together.
        parts = [Part(question, part) for part in chunks(sorted(chosen), self._size)]
        return together(self._perform(parts), self.split, question.scope)

    def pairs(self, what: str, media: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the answers about chosen pairs, in their order.

        Raises:
            MSVQAError: what a worker could not do.
            RuntimeError: something was answered twice or not at all.
        """
        question, split = Question(what, "pairs"), self.split.crossed(media, rows)
        (chosen,) = shares(split, question.scope, 1)
        parts = [
            Part(question, part, (media[part], rows[part]))
            for part in chunks(chosen, self._size * PAIRS_PER_MEDIUM)
        ]
        return together(self._perform(parts), split, question.scope)

    def answers(self, what: str) -> bool:
        """Whether the objective has such a method."""
        return hasattr(self._objective, what)

    @cached_property
    def _recipe(self) -> Recipe:
        return parse(self.job.recipe)

    @property
    def _objective(self) -> type[Objective]:
        stage = self._recipe.stages[-1]
        found: type[Objective] = resolve(stage.objective.name, OBJECTIVES, "objective")
        return found

    @property
    def _size(self) -> int:
        return self._recipe.evaluation.videos_per_batch

    def _perform(self, parts: Sequence[Part]) -> list["Result"]:
        from msvqa.engine.actors import Pool, Work, perform

        work = Work(worker=Predictor, arguments=(self.job,), parts=parts)
        return list(perform(work, Pool(self.workers, self.gpus_per_worker)))
