"""Ray Tune: runs the trials of a sweep, as many at once as fit, and goes on where it was stopped.

A trial is an ordinary run that trains with the ordinary loop. One worker runs in the trial's own
process, which is cheap; more than one are a Ray Train group inside the trial.

Everything that a search goes on from is in the runs: their recipes have the values, their metrics
what was reported, their checkpoints where they were. Tune begins anew each time, with the trials
that have not ended, and is told of the others. What it keeps itself, it writes in pieces that a
crash leaves half done or at odds with each other; none of that is read.
"""

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from msvqa import profiling
from msvqa.engine.checkpoint import checkpoint_name, newest_checkpoint
from msvqa.engine.cluster import Placement, Resources, has_dashboard
from msvqa.engine.loop import VALIDATED, Saver, train_stage
from msvqa.engine.population import (
    become_donor,
    may_be_handed_over,
    remove_surplus,
    report_with_place,
)
from msvqa.engine.sweep import (
    OUTCOME,
    SHARED,
    TUNE,
    Sweep,
    Trial,
    outcome_state,
    trial_name,
    trial_number,
    write_outcome,
)
from msvqa.engine.telling import Telling, watcher
from msvqa.engine.trainer import (
    WriterLock,
    log_to_file,
    save_patiently,
    stage_job,
    train_stage_on_ray,
)
from msvqa.engine.unwrapping import sendable, user_error
from msvqa.errors import CheckpointError, ClusterError, NonFiniteLossError, is_lasting
from msvqa.files import written_aside
from msvqa.recipe import parse
from msvqa.run import CHECKPOINT_INFO, Run
from msvqa.space import FieldRange, Space, parse_space
from msvqa.storage import is_remote, join, open_folder

# Tune's own log files would repeat metrics.jsonl, its lines the table of the command line, and its
# handler would hide an interruption. A trial that diverges ends without a number.
for _name, _value in {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}.items():
    os.environ.setdefault(_name, _value)

logger = logging.getLogger(__name__)

MAX_EPOCHS = 1_000_000
CONTROLLER = {"node:__internal_head__": 0.001}
"""What a trial with a Ray Train group of its own holds itself: the group needs all the CPUs."""
VALUE, EPOCH = "value", "epoch"
"""What trials tell Tune: the best number so far, and the epochs done."""


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """What every trial needs; plain data, so that it can travel."""

    recipe: dict[str, Any]
    space: dict[str, Any]
    placement: Placement
    profile: str | None = None
    """Folder in which the stages of the first trial record themselves."""

    def sweep(self) -> Sweep:
        """Return the sweep that the trials belong to."""
        return Sweep(parse(self.recipe), parse_space(self.space))


def concurrency(placement: Placement, resources: Resources, space: Space) -> int:
    """Return how many trials run at once: as many as have all their workers at the same time."""
    room = resources.room_for(placement.cpus_per_worker, placement.gpus_per_worker)
    wanted = [space.concurrent] if space.concurrent else []
    return max(1, min(room // placement.workers, space.trials, *wanted))


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
    sweep = job.sweep()
    space = sweep.space
    if needs_dashboard(job.placement, space) and not has_dashboard():
        raise ClusterError(
            f"scheduler {space.scheduler.name} with scaling.workers > 1 needs a Ray cluster with "
            "dashboard: start it with --include-dashboard=true, or set scaling.workers=1"
        )
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    begun = sweep.begun()
    trials = _ended(begun)
    if len(trials) < space.trials:
        concurrent = concurrency(job.placement, resources, space)
        trials += _run(job, sweep, begun, concurrent, on_trial)
    if space.scheduler.name == "pbt":
        for trial in _ended(sweep.begun()):
            remove_surplus(sweep.run(trial.name), sweep.recipe.stages[-1].name)
    return sorted(trials, key=lambda trial: trial.name)


def _run(
    job: SearchJob,
    sweep: Sweep,
    begun: Mapping[str, Trial],
    concurrent: int,
    on_trial: Callable[[Trial], None] | None,
) -> list[Trial]:
    """Run the trials that have not ended, with a new Tune."""
    from ray import tune

    def trial(config: dict[str, Any]) -> None:
        # Not the number in it: where a trial goes on from another one, that is the other's.
        values = {key: value for key, value in config["trial"].items() if key != "number"}
        run_trial(job, tune.get_context().get_trial_name(), values)

    space, left = sweep.space, _left(sweep, begun)
    by_optuna = space.search == "optuna"
    sweep.folder.remove(TUNE)
    telling = Telling(sweep, on_trial)
    analysis = tune.run(
        tune.with_resources(trial, _trial_resources(job.placement)),
        name=TUNE,
        storage_path=sweep.location,
        config={} if by_optuna else {"trial": tune.grid_search(left)},
        num_samples=space.trials - len(_ended(begun)) if by_optuna else 1,
        search_alg=_optuna(sweep, begun, left) if by_optuna else None,
        scheduler=_scheduler(sweep, _ended(begun)),
        # Populations must all be alive; their trials take turns where they do not fit.
        max_concurrent_trials=space.trials if space.scheduler.name == "pbt" else concurrent,
        max_failures=sweep.recipe.faults.max_failures,
        raise_on_failed_trial=False,
        callbacks=[watcher(telling, job.placement)],
        trial_name_creator=_name_of,
        trial_dirname_creator=_name_of,
        verbose=0,
    )
    return telling.last(analysis.trials)


def _ended(begun: Mapping[str, Trial]) -> list[Trial]:
    return [trial for trial in begun.values() if trial.ended]


def _left(sweep: Sweep, begun: Mapping[str, Trial]) -> list[dict[str, Any]]:
    """Return number and values of the trials that are known and have not ended."""
    known = {trial_number(name): trial.values for name, trial in begun.items() if not trial.ended}
    if sweep.space.search == "optuna":
        return [{"number": number, **values} for number, values in known.items()]
    points = {
        number: values
        for number, values in enumerate(sweep.space.points())
        if trial_name(number) not in begun or number in known
    }
    if sweep.space.scheduler.name == "pbt":
        # They go on with the values that they have come to.
        points |= known
    return [{"number": number, **values} for number, values in points.items()]


# Trials: what runs in their processes


def run_trial(job: SearchJob, name: str, values: Mapping[str, Any]) -> None:
    """Train the stages of one trial that are not finished yet; note in its run how it has failed.

    Raises:
        MSVQAError: what may be otherwise the next time, so that Tune tries again.
    """
    folder = open_folder(join(job.sweep().location, name))
    # Until this process ends. Where a search was killed, its trials may outlive it for seconds.
    lock = WriterLock(folder.path / ".writer")
    lock.take()
    folder.remove(OUTCOME)
    try:
        with profiling.into(job.profile if trial_number(name) == 0 else None):
            _run_trial(job, name, values)
    except NonFiniteLossError as error:
        # The same values would diverge again: this trial is over.
        write_outcome(folder, "diverged", str(error))
    except Exception as error:
        ours = user_error(error)
        if ours is None:
            raise
        again = not is_lasting(ours)
        # The workers of a trial that was stopped early die before its own process does.
        if outcome_state(folder) != "stopped":
            write_outcome(folder, "failed", str(ours), again=again)
        if again:
            raise sendable(ours, error) from None


def _run_trial(job: SearchJob, name: str, values: Mapping[str, Any]) -> None:
    from ray import tune

    sweep = job.sweep()
    run = _open_run(job, sweep, name, values)
    if sweep.space.scheduler.name == "asha":
        for value, epoch in sweep.goal.history(run):
            tune.report({VALUE: value, EPOCH: epoch})
    for index in range(len(run.recipe.stages)):
        _train(job, sweep, run, index)
    if reached := sweep.goal.of(run):
        # Again, since its process may have been killed before Tune was told.
        tune.report({VALUE: reached[0], EPOCH: reached[1]})


def _train(job: SearchJob, sweep: Sweep, run: Run, index: int) -> None:
    stage, last = run.recipe.stages[index], index == len(run.recipe.stages) - 1
    if run.is_finished(stage.name):
        return
    if job.placement.workers > 1:
        callbacks = (_train_reports(sweep, run),) if last else ()
        train_stage_on_ray(stage_job(run, index), run, job.placement, callbacks=callbacks)
        return
    log_to_file(run, stage.name, rank=0)
    device = "cuda" if job.placement.gpus_per_worker else "cpu"
    train_stage(stage_job(run, index), TrialHost(sweep, run, stage.name, torch.device(device)))


class TrialHost:
    """The loop's view of a trial: checkpoints go into the run, validations to Tune."""

    rank = 0

    def __init__(self, sweep: Sweep, run: Run, stage: str, device: torch.device) -> None:
        self.sweep, self.run, self.stage, self.device = sweep, run, stage, device

    def latest_checkpoint(self) -> str | None:
        """Return the newest checkpoint of the stage.

        Raises:
            CheckpointError: it is damaged.
        """
        folder = self.run.stage_dir(self.stage)
        for leftover in folder.glob(".step-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        previous = self.run.recipe.faults.damaged_checkpoint == "previous"
        return newest_checkpoint(self.run.locate(folder), or_previous=previous)

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        """Keep the checkpoint beside the best ones; tell Tune of a validation.

        Raises:
            CheckpointError: storage failed for too long.
        """
        wait_s = self.run.recipe.faults.storage_wait_s
        if error := save_patiently(save, self.run, self.stage, wait_s):
            raise CheckpointError(error)
        remove_surplus(self.run, self.stage, may_be_handed_over(self.sweep.space.scheduler))
        reached = self.sweep.goal.of(self.run)
        if reached and numbers[VALIDATED] and self.stage == self.run.recipe.stages[-1].name:
            self._tell_tune(*reached, checkpoint_name(save.step))

    def _tell_tune(self, value: float, epoch: int, checkpoint: str) -> None:
        from ray import tune

        numbers = {VALUE: value, EPOCH: epoch}
        if self.sweep.space.scheduler.name == "pbt":
            report_with_place(numbers, self.run, self.stage, checkpoint)
        else:
            tune.report(numbers)


def _train_reports(sweep: Sweep, run: Run) -> Any:
    """Return the callback that tells Tune what a Ray Train group inside a trial reports."""
    from ray.tune.integration.ray_train import TuneReportCallback

    class TrainReports(TuneReportCallback):
        def after_report(
            self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
        ) -> None:
            reached = sweep.goal.of(run)
            if reached and metrics[0][VALIDATED]:
                numbers = {VALUE: reached[0], EPOCH: reached[1]}
                super().after_report(run_context, [numbers], None)

    return TrainReports()  # type: ignore[no-untyped-call]


def _open_run(job: SearchJob, sweep: Sweep, name: str, values: Mapping[str, Any]) -> Run:
    """Open the run of a trial.

    Raises:
        RunError: it has other values.
    """
    recipe = sweep.trial_recipe(name, values)
    populations = sweep.space.scheduler.name == "pbt"
    if populations:
        # The only search that changes values of a run.
        folder = open_folder(recipe.run_location)
        with written_aside(folder.path / "recipe.yaml") as aside:
            aside.write_text(recipe.to_yaml(), encoding="utf-8")
        folder.put("recipe.yaml")
    run = Run.create(recipe)
    if sweep.shared_stages:
        _take_shared_stages(run, sweep)
    if populations:
        log_to_file(run, run.recipe.stages[-1].name, rank=0)
        become_donor(run)
    return run


def _take_shared_stages(run: Run, sweep: Sweep) -> None:
    """Make the stages that all trials have in common stages of this run, with their rows."""
    shared = sweep.run(SHARED)
    if not run.metrics() and (rows := shared.metrics()):
        run.write_metrics(rows)
        run.folder.put(run.metrics_file.name)
    for stage in run.recipe.stages[: sweep.shared_stages]:
        link = run.stage_dir(stage.name)
        if is_remote(run.location):
            # Object stores have no links: the checkpoints are copied inside the store.
            if not run.is_finished(stage.name):
                run.folder.copy(stage.name, shared.folder, last=CHECKPOINT_INFO)
        elif not link.is_symlink():
            link.symlink_to(Path("..") / SHARED / stage.name)


# What Tune is given


def _trial_resources(placement: Placement) -> Any:
    from ray import tune

    if placement.workers > 1:
        return tune.PlacementGroupFactory([CONTROLLER])
    bundle = {"CPU": placement.cpus_per_worker, "GPU": placement.gpus_per_worker}
    return tune.PlacementGroupFactory([bundle])


def _name_of(trial: Any) -> str:
    return trial_name(trial.config["trial"]["number"])


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


def _optuna(sweep: Sweep, begun: Mapping[str, Trial], left: Sequence[Mapping[str, Any]]) -> Any:
    """Return Optuna's search, which numbers the trials and knows those that were begun before."""
    from optuna import logging as optuna_logging
    from ray.tune.search.optuna import OptunaSearch

    class NumberedOptuna(OptunaSearch):
        numbers: list[int]

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            config = super().suggest(trial_id)
            if config is not None:
                config["trial"]["number"] = self.numbers.pop(0)
            return config

    optuna_logging.set_verbosity(optuna_logging.WARNING)
    space = sweep.space
    search = NumberedOptuna(
        space=OptunaSearch.convert_search_space({"trial": _domains(space)}),
        metric=VALUE,
        mode=sweep.goal.mode,
        points_to_evaluate=[_flat(one, space) for one in left],
        # Drawn anew from the same seed, the first values would come again.
        seed=space.seed + len(begun),
    )
    free = [number for number in range(space.trials) if trial_name(number) not in begun]
    search.numbers = [*(one["number"] for one in left), *free]
    for trial in _ended(begun):
        if trial.value is not None:
            search.add_evaluated_point(_flat(trial.values, space), trial.value)
    return search


def _flat(values: Mapping[str, Any], space: Space) -> dict[str, Any]:
    return {f"trial/{key}": values[key] for key in space.fields}


def _scheduler(sweep: Sweep, ended: Sequence[Trial]) -> Any:
    """Return the scheduler, which knows what the trials that have ended reported."""
    from ray.tune import schedulers

    space, scheduler = sweep.space, sweep.space.scheduler
    common: dict[str, Any] = {"time_attr": EPOCH, "metric": VALUE, "mode": sweep.goal.mode}
    if scheduler.name == "asha":
        asha = schedulers.AsyncHyperBandScheduler(
            grace_period=scheduler.grace_epochs,
            reduction_factor=scheduler.reduction,
            max_t=MAX_EPOCHS,
            **common,
        )
        return _told(asha, sweep, ended)
    if scheduler.name == "median":
        return _told(_median(scheduler.grace_epochs, common), sweep, ended)
    if scheduler.name == "pbt":
        return schedulers.PopulationBasedTraining(
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
            **common,
        )
    return None


def _median(grace_epochs: int, common: Mapping[str, Any]) -> Any:
    from ray.tune.schedulers import MedianStoppingRule

    class Median(MedianStoppingRule):
        def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
            # Ray's own stumbles over trials that ended without a number: those that diverged.
            if VALUE in result:
                super().on_trial_complete(tune_controller, trial, result)

    return Median(grace_period=grace_epochs, min_samples_required=3, **common)


@dataclass(frozen=True)
class _Earlier:
    """What schedulers look at in a trial that has ended."""

    trial_id: str


def _told(scheduler: Any, sweep: Sweep, ended: Sequence[Trial]) -> Any:
    """Tell a scheduler of earlier trials, with which it compares the others."""
    for trial in ended:
        earlier = _Earlier(trial.name)
        for value, epoch in sweep.goal.history(Run.open(trial.location)):
            # Only the end of a trial is taken without asking Tune about the trial.
            scheduler.on_trial_add(None, earlier)
            scheduler.on_trial_complete(None, earlier, {VALUE: value, EPOCH: epoch})
    return scheduler
