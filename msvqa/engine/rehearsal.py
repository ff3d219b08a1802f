"""A rehearsal: every stage built for real, one batch trained, and what the whole would take."""

import resource
import time
from dataclasses import dataclass
from itertools import islice

import torch

from msvqa.data.batch import Batch, to_device
from msvqa.data.dataset import Prepared, Split
from msvqa.data.loader import VideoSource, training_batches
from msvqa.data.order import plan_epoch
from msvqa.data.store import Store, store_dir
from msvqa.engine.inputs import DecodingSource, StoreSource, model_sizes
from msvqa.engine.optim import build_optimizer
from msvqa.engine.precision import autocast, use_channels_last
from msvqa.errors import StoreError
from msvqa.models.model import build_model
from msvqa.objectives import OBJECTIVES
from msvqa.objectives.objective import Objective
from msvqa.recipe import Recipe, StageConfig, resolve


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


def rehearse(recipe: Recipe, prepared: Prepared) -> list[Estimate]:
    """Build and step every stage in this process, without Ray.

    Raises:
        StoreError: the recipe reads features and they are not extracted yet.
        VideoError: a video of the batch cannot be decoded.
    """
    split = prepared.split("train")
    source = _source(recipe, split)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    estimates = []
    for stage in recipe.stages:
        batches, steps = _one_step(recipe, stage, split, source)
        model = build_model(recipe, model_sizes(recipe, prepared)).to(device)
        if stage.channels_last:
            use_channels_last(model)
        kind = resolve(stage.objective.name, OBJECTIVES, "objective")
        objective: Objective = kind(stage.objective, model)
        for module in objective.frozen():
            module.requires_grad_(False)
        loss, step_s = _time_step(objective.train(), stage, batches, device)
        parameters = list(model.parameters())
        estimates.append(
            Estimate(
                stage=stage.name,
                parameters=sum(p.numel() for p in parameters),
                trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
                loss=loss,
                peak_memory_bytes=_peak_memory(device),
                step_s=step_s,
                steps=steps,
            )
        )
    return estimates


def _source(recipe: Recipe, split: Split) -> VideoSource:
    try:
        return StoreSource(Store.open(store_dir(recipe)), split)
    except StoreError:
        if recipe.features is not None:
            raise
        return DecodingSource(split, recipe.clips)


def _one_step(
    recipe: Recipe, stage: StageConfig, split: Split, source: VideoSource
) -> tuple[list[Batch], int]:
    """Return the first worker's batches of the first step, and the steps of the stage."""
    plan = plan_epoch(
        split.video_row,
        lanes=stage.batch.videos,
        questions_per_video=stage.batch.questions_per_video,
        seed=recipe.seed,
        epoch=0,
    )
    accumulate = stage.batch.accumulate
    batches = training_batches(
        split, source, plan, workers=recipe.scaling.workers, accumulate=accumulate
    )
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
                part = objective(to_device(batch, device))["loss"]
            part.backward()
            loss += float(part.detach())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        step_s = time.perf_counter() - start
    return loss, step_s


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
