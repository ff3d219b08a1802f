"""Ray Tune: runs the trials of a sweep, as many at once as fit, and goes on where it was stopped.

A trial is an ordinary run that trains with the ordinary loop. One worker runs in the trial's own
process, which is cheap; more than one are a Ray Train group inside the trial. Checkpoints belong to
the run. Tune keeps only its own state, so that nothing is stored twice.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from msvqa.data.store import store_dir
from msvqa.engine.checkpoint import checkpoint_name, newest_checkpoint
from msvqa.engine.cluster import Placement, Resources, has_dashboard
from msvqa.engine.loop import Saver, StageJob, train_stage
from msvqa.engine.sweep import SHARED, TUNE, State, Sweep, Trial
from msvqa.engine.trainer import (
    initial_checkpoint,
    log_to_file,
    save_patiently,
    train_stage_on_ray,
)
from msvqa.errors import CheckpointError, ClusterError, MSVQAError, NonFiniteLossError, RunError
from msvqa.recipe import parse
from msvqa.run import CHECKPOINT_INFO, Run, write_json, written_aside
from msvqa.space import FieldRange, Space, Values, parse_space

# Tune's own log files would repeat metrics.jsonl, its lines the table of the command line, and its
# handler would hide an interruption. A trial that diverges ends without a number.
for _name, _value in {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}.items():
    os.environ.setdefault(_name, _value)

logger = logging.getLogger(__name__)

MAX_EPOCHS = 1_000_000
CONTROLLER = {"node:__internal_head__": 0.001}
"""What a trial with a Ray Train group of its own holds itself: the group needs all the CPUs."""
VALUE, EPOCH = "value", "epoch"
"""What trials tell Tune: the best number so far, and the epochs done."""
PLACE, ERROR = "place.json", "error.txt"
STATES: dict[str, State] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "PAUSED": "waiting",
    "TERMINATED": "stopped",
    "ERROR": "failed",
}


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """What every trial needs; plain data, so that it can travel."""

    recipe: dict[str, Any]
    space: dict[str, Any]
    prepared: str
    placement: Placement
    shares_stages: bool
    """Whether the run `shared` has trained all stages but the last one."""

    def sweep(self) -> Sweep:
        """Return the sweep that the trials belong to."""
        return Sweep(parse(self.recipe), parse_space(self.space))


def concurrency(placement: Placement, resources: Resources, space: Space) -> int:
    """Return how many trials run at once: as many as have all their workers at the same time."""
    fitting = [int(resources.cpus / (placement.workers * placement.cpus_per_worker) + 1e-6)]
    if placement.gpus_per_worker:
        fitting.append(int(resources.gpus / (placement.workers * placement.gpus_per_worker) + 1e-6))
    wanted = [space.concurrent] if space.concurrent else []
    return max(1, min(*fitting, space.trials, *wanted))


def needs_dashboard(placement: Placement, space: Space) -> bool:
    """Whether stopped trials leave Ray Train groups, which Tune frees by asking the dashboard."""
    return placement.workers > 1 and space.scheduler.name in ("asha", "median")


def search(
    job: SearchJob, resources: Resources, on_trial: Callable[[Trial], None] | None = None
) -> list[Trial]:
    """Run all trials that are not done yet; return them in the order of their names.

    Raises:
        ClusterError: the search needs the dashboard of a cluster that has none.
    """
    from ray import tune

    sweep = job.sweep()
    space = sweep.space
    if needs_dashboard(job.placement, space) and not has_dashboard():
        raise ClusterError(
            f"scheduler {space.scheduler.name} with scaling.workers > 1 needs a Ray cluster with "
            "dashboard: start it with --include-dashboard=true, or set scaling.workers=1"
        )
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def trial(config: dict[str, Any]) -> None:
        run_trial(job, config["trial"])

    listed = space.search != "optuna"
    analysis = tune.run(
        tune.with_resources(trial, _trial_resources(job.placement)),
        name=TUNE,
        storage_path=str(sweep.path),
        resume="AUTO+ERRORED" if _was_started(sweep) else None,
        metric=VALUE,
        mode=sweep.goal.mode,
        config={"trial": _listed(space) if listed else _domains(space)},
        num_samples=1 if listed else space.trials,
        search_alg=None if listed else _optuna(space),
        scheduler=_scheduler(space),
        max_concurrent_trials=(
            # Populations must all be alive; their trials take turns where they do not fit.
            space.trials
            if space.scheduler.name == "pbt"
            else concurrency(job.placement, resources, space)
        ),
        max_failures=sweep.recipe.faults.max_failures,
        raise_on_failed_trial=False,
        callbacks=[_announcer(sweep, on_trial)] if on_trial else [],
        trial_name_creator=_name_of,
        trial_dirname_creator=_name_of,
        verbose=0,
    )
    return sorted((_summary(sweep, one) for one in analysis.trials), key=lambda t: t.name)


# Trials: what runs in their processes


def run_trial(job: SearchJob, numbered: Mapping[str, Any]) -> None:
    """Train the stages of one trial that are not finished yet."""
    from ray import tune

    sweep = job.sweep()
    name = tune.get_context().get_trial_name()
    values = {key: value for key, value in numbered.items() if key != "number"}
    run = _open_run(sweep, name, values)
    if job.shares_stages:
        _link_shared_stages(run)
    if sweep.space.scheduler.name == "pbt":
        _become_donor(run)
    (run.path / ERROR).unlink(missing_ok=True)
    try:
        for index in range(len(run.recipe.stages)):
            _train(job, sweep, run, index)
    except MSVQAError as error:
        (run.path / ERROR).write_text(str(error), encoding="utf-8")
        if not isinstance(error, NonFiniteLossError):
            raise
        # The same values would diverge again: this trial is over.
    reached = sweep.goal.of(run)
    if reached and run.is_finished(run.recipe.stages[-1].name):
        # Again, since Tune may have forgotten its last reports when it was killed.
        tune.report({VALUE: reached[0], EPOCH: reached[1]})


def _train(job: SearchJob, sweep: Sweep, run: Run, index: int) -> None:
    stage, last = run.recipe.stages[index], index == len(run.recipe.stages) - 1
    if run.is_finished(stage.name):
        return
    stage_job = StageJob(
        recipe=run.recipe.to_dict(),
        stage=index,
        run=str(run.path),
        prepared=job.prepared,
        store=str(store_dir(run.recipe)),
        init_from=initial_checkpoint(stage, run),
    )
    if job.placement.workers > 1:
        callbacks = (_train_reports(sweep, run),) if last else ()
        train_stage_on_ray(stage_job, run, job.placement, callbacks=callbacks)
        return
    log_to_file(run.path, stage.name, rank=0)
    device = "cuda" if job.placement.gpus_per_worker else "cpu"
    train_stage(stage_job, TrialHost(sweep, run, stage.name, torch.device(device)))


class TrialHost:
    """The loop's view of a trial: checkpoints go into the run, validations to Tune."""

    rank = 0

    def __init__(self, sweep: Sweep, run: Run, stage: str, device: torch.device) -> None:
        self.sweep, self.run, self.stage, self.device = sweep, run, stage, device

    def latest_checkpoint(self) -> Path | None:
        """Return the newest checkpoint of the stage.

        Raises:
            CheckpointError: it is damaged.
        """
        previous = self.run.recipe.faults.damaged_checkpoint == "previous"
        return newest_checkpoint(self.run.stage_dir(self.stage), or_previous=previous)

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        """Keep the checkpoint beside the best ones; tell Tune of a validation.

        Raises:
            CheckpointError: storage failed for too long.
        """
        folder = self.run.stage_dir(self.stage) / checkpoint_name(save.step)
        if error := save_patiently(save, folder, self.run.recipe.faults.storage_wait_s):
            raise CheckpointError(error)
        if self.sweep.space.scheduler.name != "pbt":
            self._remove_surplus()
        reached = self.sweep.goal.of(self.run)
        validated = len(numbers) > 2  # more than score and step
        if reached and validated and self.stage == self.run.recipe.stages[-1].name:
            self._tell_tune(*reached, folder)

    def _remove_surplus(self) -> None:
        stage = next(s for s in self.run.recipe.stages if s.name == self.stage)
        *older, _ = self.run.checkpoints(self.stage)
        scored = [entry for entry in older if entry[1]["score"] is not None]
        scored.sort(key=lambda entry: entry[1]["score"], reverse=True)
        kept = [path for path, _ in scored[: stage.checkpoint.keep]]
        for path, _ in older:
            if path not in kept:
                shutil.rmtree(path)

    def _tell_tune(self, value: float, epoch: int, folder: Path) -> None:
        from ray import tune

        numbers = {VALUE: value, EPOCH: epoch}
        if self.sweep.space.scheduler.name != "pbt":
            tune.report(numbers)
            return
        # Tune hands checkpoints from trial to trial; the place is enough for that.
        with tempfile.TemporaryDirectory(prefix="msvqa-") as place:
            write_json(Path(place) / PLACE, {"checkpoint": str(folder)})
            tune.report(numbers, checkpoint=tune.Checkpoint.from_directory(place))


def _train_reports(sweep: Sweep, run: Run) -> Any:
    """Return the callback that tells Tune what a Ray Train group inside a trial reports."""
    from ray.tune.integration.ray_train import TuneReportCallback

    class TrainReports(TuneReportCallback):
        def after_report(
            self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
        ) -> None:
            reached = sweep.goal.of(run)
            if reached and len(metrics[0]) > 2:
                numbers = {VALUE: reached[0], EPOCH: reached[1]}
                super().after_report(run_context, [numbers], None)

    return TrainReports()  # type: ignore[no-untyped-call]


def _open_run(sweep: Sweep, name: str, values: Values) -> Run:
    recipe = sweep.trial_recipe(name, values)
    try:
        return Run.create(recipe)
    except RunError:
        if sweep.space.scheduler.name != "pbt":
            # Tune was killed before it noted this trial, and a new one has taken the number.
            shutil.rmtree(recipe.run_dir)
        else:
            (recipe.run_dir / "recipe.yaml").unlink()
    return Run.create(recipe)


def _link_shared_stages(run: Run) -> None:
    """Make the stages that all trials have in common stages of this run, with their rows."""
    shared = Run.open(run.path.parent / SHARED)
    if not run.metrics_file.is_file() and shared.metrics_file.is_file():
        shutil.copyfile(shared.metrics_file, run.metrics_file)
    for stage in run.recipe.stages[:-1]:
        link = run.stage_dir(stage.name)
        if not link.is_symlink():
            link.symlink_to(Path("..") / SHARED / stage.name)


def _become_donor(run: Run) -> None:
    """Become a copy of the run whose checkpoint Tune hands over, if it is another one."""
    from ray import tune

    handed = tune.get_checkpoint()
    if handed is None:
        return
    with handed.as_directory() as folder:
        place = Path(json.loads((Path(folder) / PLACE).read_text(encoding="utf-8"))["checkpoint"])
    donor, stage = Run.open(place.parent.parent), place.parent.name
    if donor.path == run.path:
        return
    step = json.loads((place / CHECKPOINT_INFO).read_text(encoding="utf-8"))["position"]["step"]
    shutil.rmtree(run.stage_dir(stage), ignore_errors=True)
    shutil.copytree(place, run.stage_dir(stage) / place.name)
    rows = [row for row in donor.metrics() if row["stage"] != stage or row["step"] <= step]
    with written_aside(run.metrics_file) as aside:
        aside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# What Tune is given


def _trial_resources(placement: Placement) -> Any:
    from ray import tune

    if placement.workers > 1:
        return tune.PlacementGroupFactory([CONTROLLER])
    bundle = {"CPU": placement.cpus_per_worker, "GPU": placement.gpus_per_worker}
    return tune.PlacementGroupFactory([bundle])


def _was_started(sweep: Sweep) -> bool:
    return any((sweep.path / TUNE).glob("experiment_state-*.json"))


def _name_of(trial: Any) -> str:
    return f"trial-{trial.config['trial']['number']:04d}"


def _listed(space: Space) -> Any:
    from ray import tune

    points = space.points()
    return tune.grid_search([{"number": number, **values} for number, values in enumerate(points)])


def _domains(space: Space) -> dict[str, Any]:
    return {key: _domain(field) for key, field in space.fields.items()}


def _domain(field: FieldRange) -> Any:
    from ray import tune

    if field.options is not None:
        return tune.choice(list(field.options))
    if field.integer is not None:
        return tune.randint(field.integer[0], field.integer[1] + 1)
    if field.log_uniform is not None:
        return tune.loguniform(*field.log_uniform)
    assert field.uniform is not None
    return tune.uniform(*field.uniform)


def _optuna(space: Space) -> Any:
    """Return Optuna's search, which also numbers the trials."""
    from optuna import logging as optuna_logging
    from ray.tune.search.optuna import OptunaSearch

    class NumberedOptuna(OptunaSearch):
        next_number = 0

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            config = super().suggest(trial_id)
            if config is not None:
                config["trial"]["number"] = self.next_number
                self.next_number += 1
            return config

    optuna_logging.set_verbosity(optuna_logging.WARNING)
    return NumberedOptuna(seed=space.seed)


def _scheduler(space: Space) -> Any:
    from ray.tune import schedulers

    scheduler = space.scheduler
    if scheduler.name == "asha":
        return schedulers.AsyncHyperBandScheduler(
            time_attr=EPOCH,
            grace_period=scheduler.grace_epochs,
            reduction_factor=scheduler.reduction,
            max_t=MAX_EPOCHS,
        )
    if scheduler.name == "median":
        return schedulers.MedianStoppingRule(
            time_attr=EPOCH, grace_period=scheduler.grace_epochs, min_samples_required=3
        )
    if scheduler.name == "pbt":
        return schedulers.PopulationBasedTraining(
            time_attr=EPOCH,
            perturbation_interval=scheduler.every_epochs,
            burn_in_period=scheduler.grace_epochs,
            require_attrs=False,
            hyperparam_mutations={
                # Listed values are stepped through; a domain would be multiplied.
                "trial": {
                    key: list(field.options) if field.options else _domain(field)
                    for key, field in space.fields.items()
                }
            },
            custom_explore_fn=lambda config: config | {"trial": space.clip(config["trial"])},
        )
    return None


# What Tune tells


def _announcer(sweep: Sweep, on_trial: Callable[[Trial], None]) -> Any:
    from ray import tune

    class Announcer(tune.Callback):
        def on_trial_result(
            self, iteration: int, trials: Sequence[Any], trial: Any, result: Any, **_: Any
        ) -> None:
            on_trial(_summary(sweep, trial))

        def on_trial_complete(
            self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any
        ) -> None:
            on_trial(_summary(sweep, trial))

        def on_trial_error(
            self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any
        ) -> None:
            on_trial(_summary(sweep, trial))

    return Announcer()


def _summary(sweep: Sweep, trial: Any) -> Trial:
    name, state, message = str(trial), STATES[trial.status], ""
    error = sweep.path / name / ERROR
    if error.is_file():
        message = error.read_text(encoding="utf-8")
        state = "diverged" if trial.status == "TERMINATED" else "failed"
    elif trial.status == "ERROR" and trial.error_file and Path(trial.error_file).is_file():
        message = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()[-1]
    values = {key: value for key, value in trial.config["trial"].items() if key != "number"}
    return sweep.trial(name, values, state, message)
