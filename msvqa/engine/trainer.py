"""Ray Train around the training loop: one trainer per stage, resumed from its checkpoints."""

import logging
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from msvqa.engine import cluster
from msvqa.engine.checkpoint import checkpoint_name, find_initial
from msvqa.engine.loop import Saver, StageJob, train_stage
from msvqa.engine.tracking import Row, following
from msvqa.errors import MSVQAError, NonFiniteLossError
from msvqa.recipe import StageConfig
from msvqa.run import Run

logger = logging.getLogger(__name__)

MAX_FAILURES = 2


class RayHost:
    """The loop's view of a Ray Train worker."""

    def __init__(self) -> None:
        import ray.train
        from ray.train.torch import get_device

        self._train = ray.train
        self.rank: int = ray.train.get_context().get_world_rank()
        self.device: torch.device = get_device()
        # Ray hands out a checkpoint as a folder that is open only within a context.
        self._open = ExitStack()

    def latest_checkpoint(self) -> Path | None:
        """Return the newest checkpoint that Ray knows of this stage."""
        checkpoint = self._train.get_checkpoint()
        return Path(self._open.enter_context(checkpoint.as_directory())) if checkpoint else None

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        """Hand numbers to Ray; the first worker also hands over a checkpoint."""
        name = checkpoint_name(save.step)
        if self.rank != 0:
            self._train.report(dict(numbers), checkpoint_dir_name=name)
            return
        with tempfile.TemporaryDirectory(prefix="msvqa-") as folder:
            save(Path(folder) / name)
            checkpoint = self._train.Checkpoint.from_directory(Path(folder) / name)
            self._train.report(dict(numbers), checkpoint=checkpoint, checkpoint_dir_name=name)


class LocalHost:
    """The loop's view of a single process without Ray; keeps every checkpoint of the stage."""

    rank = 0

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder, self.device = folder, torch.device(device)

    def latest_checkpoint(self) -> Path | None:
        """Return the newest checkpoint in the folder."""
        found = sorted(self.folder.glob("step-*/checkpoint.json"))
        return found[-1].parent if found else None

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        """Write the checkpoint."""
        save(self.folder / checkpoint_name(save.step))


def train_stage_on_ray(
    job: StageJob,
    run: Run,
    placement: cluster.Placement,
    on_row: Callable[[Row], None] | None = None,
    callbacks: tuple[Any, ...] = (),
) -> None:
    """Train one stage on Ray; a second call with the same run continues where the first stopped.

    Args:
        job: the stage.
        run: where the results go.
        placement: what the workers get.
        on_row: called with every logged row.
        callbacks: callbacks of Ray Train, told of every report.

    Raises:
        NonFiniteLossError and other user errors of the loop.
        ray.train.TrainingFailedError: workers died more often than is put up with.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from msvqa.engine.process_group import torch_config

    stage = run.recipe.stages[job.stage]
    trainer = TorchTrainer(
        _train_function,  # type: ignore[arg-type] # Ray passes on what it returns
        train_loop_config=job.to_dict(),
        torch_config=torch_config(placement.backend),
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.gpus_per_worker > 0,
            resources_per_worker=_resources(placement),
        ),
        run_config=RunConfig(
            name=stage.name,
            callbacks=list(callbacks),
            storage_path=str(run.path),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=CheckpointConfig(
                num_to_keep=stage.checkpoint.keep,
                checkpoint_score_attribute="score",
                checkpoint_score_order="max",
            ),
        ),
    )
    with following(run, on_row):
        result = _fit(trainer)
    if result.return_value:
        raise NonFiniteLossError(result.return_value)


def initial_checkpoint(stage: StageConfig, run: Run) -> str | None:
    """Return the checkpoint that a stage starts from, or None."""
    return str(find_initial(stage.init_from, run)) if stage.init_from else None


def _fit(trainer: Any) -> Any:
    from ray.train.v2.api.exceptions import TrainingFailedError

    try:
        return trainer.fit()
    except TrainingFailedError as error:
        for failure in getattr(error, "worker_failures", {}).values():
            cause = failure
            while cause is not None and not isinstance(cause, MSVQAError):
                cause = getattr(cause, "cause", None) or cause.__cause__
            if cause is not None:
                raise cause from None
        raise


def _train_function(job: dict[str, Any]) -> str | None:
    """Run in every worker. Returns the message of an error that trying again would repeat."""
    stage_job = StageJob(**job)
    host = RayHost()
    _log_to_file(
        Path(stage_job.run), stage_job.recipe["stages"][stage_job.stage]["name"], host.rank
    )
    try:
        train_stage(stage_job, host)
    except NonFiniteLossError as error:
        # Raised by all workers together; an exception would make Ray start the stage again.
        return str(error)
    return None


def _log_to_file(run: Path, stage: str, rank: int) -> None:
    folder = run / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"{stage}-worker{rank}.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("msvqa")
    root.handlers = [handler]
    root.setLevel(logging.INFO)


def _resources(placement: cluster.Placement) -> dict[str, float]:
    resources = {"CPU": placement.cpus_per_worker}
    if placement.gpus_per_worker:
        resources["GPU"] = placement.gpus_per_worker
    return resources
