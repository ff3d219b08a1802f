"""Our training loop and a plain one, over the same batches: seconds per example."""

import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch

from benchmarks.rows.setting import CPU
from msvqa.data.batch import Batch
from msvqa.data.loader import training_batches
from msvqa.data.order import plan_epoch
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import store_location
from msvqa.engine.inputs import Inputs
from msvqa.engine.loop import Saver, StageJob, StageLoop
from msvqa.objectives.objective import Objective
from msvqa.recipe import BatchConfig, Recipe

CLIP_NORM = 12.0


class SilentHost:
    """Runs the loop in this process and keeps nothing."""

    rank, device = 0, CPU

    def latest_checkpoint(self) -> Path | None:
        """Return none: every part starts anew."""
        return None

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        """Keep nothing."""


class TimedLoop(StageLoop):
    """Our loop with its store, thread, batches, logging and checks, but without validation."""

    def _validate(self) -> tuple[dict[str, float], float | None]:
        return {}, None


def first_stage(recipe: Recipe, prepared: Prepared) -> StageJob:
    """Return the job of a recipe's first stage, whose data and store are there."""
    run = Path(recipe.run_location)
    run.mkdir(parents=True, exist_ok=True)
    return StageJob(
        recipe=recipe.to_dict(), stage=0, run=str(run), prepared=str(prepared.location),
        store=str(store_location(recipe)),
    )  # fmt: skip


def batches_in_memory(inputs: Inputs, batch: BatchConfig, steps: int) -> list[Batch]:
    """Return the first batches of the first epoch of seed 0."""
    plan = plan_epoch(inputs.split, batch, seed=0, epoch=0)
    return list(islice(training_batches(inputs.split, inputs.source, plan), steps))


def our_loop(job: StageJob) -> float:
    """Return the seconds per example of our loop."""
    loop = TimedLoop(job, SilentHost())
    loop.run()
    return 1 / float(loop.experiment.metrics()[-1]["questions_per_s"])


def plain_loop(objective: Objective, batches: Sequence[Batch], lr: float = 1e-4) -> float:
    """Return the seconds per example of a loop that does nothing but train."""
    # Ours switches this on for the whole process.
    torch.use_deterministic_algorithms(False)
    objective.train()
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=lr)
    start = time.perf_counter()
    for batch in batches:
        objective(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    examples = sum(float(batch["weight"].sum()) for batch in batches)
    return (time.perf_counter() - start) / examples
