"""A rehearsal: every stage built for real, one batch trained, and what the whole would take."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from msvqa.compilation import compile_forward
from msvqa.data.batch import Batch
from msvqa.data.folds import read_split
from msvqa.data.found_store import find_store, refuse_rejected
from msvqa.data.loader import training_batches
from msvqa.data.order import Share, plan_epoch
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.engine.inputs import DirectSource, Inputs, model_sizes, open_inputs
from msvqa.engine.memory import peak_memory_bytes
from msvqa.engine.optim import build_optimizer
from msvqa.engine.precision import autocast
from msvqa.engine.stage_model import choose_trained
from msvqa.engine.words import read_with_its_words
from msvqa.errors import NonFiniteLossError, StoreError
from msvqa.models.layers.memory_layout import use_channels_last
from msvqa.models.model import build_model
from msvqa.objectives import OBJECTIVES
from msvqa.objectives.objective import Objective
from msvqa.recipe import Recipe, StageConfig
from msvqa.run import Run
from msvqa.sections import resolve


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one stage needs, measured on one batch of one worker."""

    stage: str
    parameters: int
    trained_parameters: int
    loss: float
    peak_memory_bytes: int
    """Largest memory of the process (CPU) or of the allocator (GPU)."""
    step_s: float
    steps: int

    @property
    def total_s(self) -> float:
        """Seconds for all steps, without validation and start-up."""
        return self.step_s * self.steps

    def __str__(self) -> str:
        return (
            f"{self.stage}: {self.parameters / 1e6:.2f} M parameters "
            f"({self.trained_parameters / 1e6:.2f} M trained), "
            f"peak memory {self.peak_memory_bytes / 2**20:.0f} MiB, {self.step_s:.2f} s per step, "
            f"{self.steps} steps: about {self.total_s / 60:.1f} min; "
            f"loss of the batch {self.loss:.3f}"
        )


def rehearse(recipe: Recipe, prepared: Sequence[Prepared]) -> list[Estimate]:
    """Build and step every stage in this process, without Ray.

    Args:
        recipe: the recipe.
        prepared: the prepared folder of every stage.

    Raises:
        StoreError: the recipe has features of encoders, and they are not extracted yet.
        VideoError: a video of the batch cannot be decoded.
        NonFiniteLossError: the loss of the batch is not finite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run, views = Run(recipe.run_location, recipe), recipe.views()
    estimates = []
    for number in range(len(views)):
        folder = read_with_its_words(run, number, prepared)
        estimates.append(_rehearse_stage(views[number], folder, device))
    return estimates


def _rehearse_stage(view: Recipe, prepared: Prepared, device: torch.device) -> Estimate:
    (stage,) = view.stages
    inputs = _open(view, prepared, device)
    batches, steps = _one_step(view, stage, inputs)
    batches = [inputs.to_device(batch, device) for batch in batches]
    model = build_model(view, model_sizes(view, prepared), stage.absent).to(device)
    if stage.channels_last:
        use_channels_last(model)
    kind = resolve(stage.objective.name, OBJECTIVES, "objective")
    objective: Objective = kind(stage.objective, model)
    choose_trained(model, objective, stage)
    if stage.compile:
        compile_forward(objective, f"stages {stage.name}")
    loss, step_s = _time_step(objective.train(), stage, batches, device)
    if not math.isfinite(loss):
        rows = {int(row) for batch in batches for row in batch["video"]}
        videos = ", ".join(sorted(inputs.split.media.id[row] for row in rows))
        raise NonFiniteLossError(
            f"stage {stage.name!r}: the loss of the first batch is not finite; its videos: "
            f"{videos}. Lower optimizer.lr or optimizer.clip_norm, or look at these videos"
        )
    parameters = list(model.parameters())
    return Estimate(
        stage=stage.name,
        parameters=sum(p.numel() for p in parameters),
        trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        loss=loss,
        peak_memory_bytes=peak_memory_bytes(device),
        step_s=step_s,
        steps=steps,
    )


def _open(recipe: Recipe, prepared: Prepared, device: torch.device) -> Inputs:
    """Open the store, or read the few videos that are needed from where it will be made from."""
    processor = processor_of(recipe)
    if processor.way == "direct":
        return open_inputs(recipe, prepared, None, "train", device)
    location = store_location(recipe)
    store = find_store(location, processor.spec())
    if store is not None:
        if not recipe.data.allow_missing:
            refuse_rejected(store)
        return open_inputs(recipe, prepared, store.location, "train", device)
    if processor.encoders():
        raise StoreError(f"store {location} is not there yet; run `msvqa extract` with its recipe")
    split = read_split(prepared, "train", recipe.folds, present_only=processor.reads_files)
    if files := processor.files():
        split = split.without([video for video in split.media.id if video not in files])
        if recipe.data.allow_missing:
            split = split.without(files.survey(split.media.id).unusable)
    return Inputs(split=split, source=DirectSource(split, processor))


def _one_step(recipe: Recipe, stage: StageConfig, inputs: Inputs) -> tuple[list[Batch], int]:
    """Return the first worker's batches of the first step, and the steps of the stage.

    Of a range of workers the fewest, whose parts are the largest.
    """
    plan = plan_epoch(inputs.split, stage.batch, seed=recipe.seed, epoch=0)
    accumulate = stage.batch.accumulate
    share = Share(workers=recipe.scaling.worker_counts[0])
    batches = training_batches(inputs.split, inputs.source, plan, share, accumulate)
    return list(islice(batches, accumulate)), stage.steps or plan.steps * (stage.epochs or 1)


def _time_step(
    objective: Objective, stage: StageConfig, batches: list[Batch], device: torch.device
) -> tuple[float, float]:
    """Return loss and seconds of a step; the first of two steps warms up."""
    optimizer = build_optimizer(objective.model, stage.optimizer)
    step_s = loss = 0.0
    for _ in range(2):
        start, loss = time.perf_counter(), 0.0
        for batch in batches:
            with autocast(device, stage.precision):
                part = objective(batch)["loss"]
            part.backward()
            loss += float(part.detach())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        step_s = time.perf_counter() - start
    return loss, step_s
