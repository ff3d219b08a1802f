"""Predictions for a split: every question exactly once, whatever the number of workers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from msvqa.data.loader import evaluation_batches
from msvqa.data.order import WHOLE, Share, chunks, evaluation_order
from msvqa.data.prepared import Prepared
from msvqa.data.split import Split
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


@torch.no_grad()
def predict_split(
    objective: Objective,
    inputs: Inputs,
    device: torch.device,
    videos_per_batch: int,
    share: Share = WHOLE,
) -> dict[str, np.ndarray]:
    """Return one worker's share of the predictions, with `row`: the question's row in the split.

    The shares of all workers together hold every row once. Workers do not communicate.
    """
    split = inputs.split
    videos = evaluation_order(split.examples.medium, len(split.media), share.workers)[share.worker]
    return predict_videos(objective, inputs, device, videos, videos_per_batch)


@torch.no_grad()
def predict_videos(
    objective: Objective,
    inputs: Inputs,
    device: torch.device,
    videos: list[int],
    videos_per_batch: int,
) -> dict[str, np.ndarray]:
    """Return predictions for all questions of some videos of a split."""
    was_training = objective.training
    objective.eval()
    collected: dict[str, list[np.ndarray]] = {}
    for batch in evaluation_batches(inputs.split, inputs.source, videos, videos_per_batch):
        on_device = inputs.to_device(batch, device)
        rows = {"row": on_device["row"], **objective.predict(on_device)}
        for key, value in rows.items():
            array = value.float() if value.dtype == torch.bfloat16 else value
            collected.setdefault(key, []).append(array.cpu().numpy())
    objective.train(was_training)
    return {key: np.concatenate(parts) for key, parts in collected.items()}


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """What a process needs to predict videos of a split; plain data, so that it can travel."""

    checkpoint: str
    prepared: str
    store: str | None
    split: str
    recipe: dict[str, Any]
    """The run's recipe: its data, clips and evaluation sections are used."""


class Predictor:
    """Predicts videos of a split with the model of a checkpoint. Loaded once per process."""

    def __init__(self, job: PredictionJob, device: str | None = None) -> None:
        recipe = parse(job.recipe)
        loaded = load_checkpoint(job.checkpoint)
        prepared = Prepared.open(job.prepared)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.objective = objective_of(loaded).to(self.device)
        self.objective.top_k = recipe.evaluation.top_k
        self.inputs = open_inputs(recipe, prepared, job.store, job.split)
        self.videos_per_batch = recipe.evaluation.videos_per_batch
        self.precision = recipe.stages[-1].precision

    def __call__(self, videos: list[int]) -> "Result":
        """Return one row per question of videos, which are given by their rows of the split."""
        with autocast(self.device, self.precision):
            return predict_videos(
                self.objective, self.inputs, self.device, videos, self.videos_per_batch
            )


def objective_of(loaded: Loaded) -> Objective:
    """Return the objective of the checkpoint's stage around its model, in eval mode."""
    stage_name = loaded.info["position"]["stage"]
    stage = next(s for s in loaded.recipe.stages if s.name == stage_name)
    kind = resolve(stage.objective.name, OBJECTIVES, "objective")
    objective: Objective = kind(stage.objective, loaded.model)
    return objective.eval()


def check_answers(recipe: Recipe) -> None:
    """Refuse a run whose last stage cannot be asked, before anything is loaded.

    Raises:
        RunError: says which stage it is.
    """
    stage = recipe.stages[-1]
    if resolve(stage.objective.name, OBJECTIVES, "objective").evaluator is None:
        raise RunError(
            f"the last stage of run {recipe.name!r}, {stage.name!r} ({stage.objective.name}), "
            "answers no questions: only a run that ends with a stage such as answering can be "
            "evaluated and asked"
        )


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


def predict_on_ray(
    job: PredictionJob, split: Split, *, workers: int, gpus_per_worker: float
) -> dict[str, np.ndarray]:
    """Return the predictions for all questions of a split, in its order, from a pool of actors.

    Raises:
        MSVQAError: what a worker could not do.
        RuntimeError: a question came twice or not at all.
    """
    from msvqa.engine.actors import Pool, Work, perform

    size = parse(job.recipe).evaluation.videos_per_batch
    videos = np.unique(split.examples.medium).tolist()
    work = Work(worker=Predictor, arguments=(job,), parts=list(chunks(videos, size)))
    parts = list(perform(work, Pool(workers, gpus_per_worker)))
    together = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.argsort(together["row"], kind="stable")
    if not np.array_equal(together["row"][order], np.arange(len(split))):
        raise RuntimeError(f"{len(order)} predictions do not cover {split}")
    return {key: value[order] for key, value in together.items()}
