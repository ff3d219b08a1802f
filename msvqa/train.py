"""Train: all stages of a recipe, one after another, each resumed where it stopped."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msvqa.cache import check_cache
from msvqa.data.dataset import Prepared
from msvqa.data.features import feature_files
from msvqa.engine import cluster
from msvqa.engine.checkpoint import newest_checkpoint
from msvqa.engine.fitting import Fit
from msvqa.engine.inputs import model_sizes
from msvqa.engine.loop import StageJob
from msvqa.engine.rehearsal import Estimate, rehearse
from msvqa.engine.tracking import Row
from msvqa.engine.trainer import initial_checkpoint, train_stage_on_ray
from msvqa.errors import DataError, RecipeError
from msvqa.extract import extract
from msvqa.models.model import build_model
from msvqa.objectives import OBJECTIVES
from msvqa.prepare import prepare
from msvqa.recipe import Recipe
from msvqa.run import Run, only_one
from msvqa.sections import flatten, resolve
from msvqa.storage import join

FILE_KEYS = ("weights", "word_vectors", "appearance_hdf5", "motion_hdf5")
"""Fields of a recipe that name a file, wherever they stand."""


@dataclass(frozen=True)
class Progress:
    """Callbacks of a long job; each may be left out."""

    on_row: Callable[[Row], None] | None = None
    """Called with every logged row of a stage."""
    on_extract: Callable[[int, int, int], None] | None = None
    """Called with the videos done, all videos, and the rejected ones."""
    on_stage: Callable[[str, str], None] | None = None
    """Called with a stage and what happens to it: `starts`, `resumes`, `is finished`."""

    def stage(self, name: str, what: str) -> None:
        """Say what happens to a stage."""
        if self.on_stage:
            self.on_stage(name, what)


def train(recipe: Recipe, progress: Progress | None = None) -> Run:
    """Prepare and extract what is not there yet, then train every stage that is not finished.

    Raises:
        RecipeError, DataError, RunError, ClusterError, CheckpointError: before Ray starts, if it
            can be known.
        StoppedError: SIGINT or SIGTERM came; a checkpoint is written.
    """
    progress = progress or Progress()
    check(recipe)
    check_initial(recipe)
    run = Run(recipe.run_location, recipe)
    run.refuse_changes()
    prepared = prepare(recipe.data, need_videos=recipe.reads_videos)
    need_training_questions(recipe, prepared)
    check_own(run, prepared)
    check_initial_fit(recipe, prepared)
    if all(run.is_finished(stage.name) for stage in recipe.stages):
        for stage in recipe.stages:
            progress.stage(stage.name, "is finished")
        # What it was trained with stays in its files.
        return run
    with only_one(run.folder), cluster.connected() as resources:
        placement = cluster.place(recipe.scaling, resources, data_cpus=_data_cpus(recipe))
        store = None
        if not _decodes_while_training(recipe):
            extracted = extract(recipe, progress=progress.on_extract)
            check_cache(extracted.location, extracted.nbytes)
            store = extracted.location
        # Last, since the recipe of a run cannot be put right any more.
        run = Run.create(recipe)
        for index, stage in enumerate(recipe.stages):
            state = _state(run, stage.name)
            progress.stage(stage.name, state)
            if state == "is finished":
                continue
            job = StageJob(
                recipe=recipe.to_dict(),
                stage=index,
                run=run.location,
                prepared=prepared.location,
                store=store,
                init_from=initial_checkpoint(stage, run),
            )
            train_stage_on_ray(job, run, placement, progress.on_row)
    return run


def dry_run(recipe: Recipe) -> list[Estimate]:
    """Build every stage, train one batch of it in this process, and estimate the whole.

    Raises:
        RecipeError, DataError, ClusterError: as `train`.
    """
    check(recipe)
    prepared = prepare(recipe.data, need_videos=recipe.reads_videos)
    need_training_questions(recipe, prepared)
    return rehearse(recipe, prepared)


def check(recipe: Recipe) -> None:
    """Refuse what can be known to be wrong without data and without Ray.

    Raises:
        RecipeError: lists every problem.
        DataError: feature files that are none, or of other shapes than the recipe says.
        ClusterError: more workers than this machine can run, or a run that is lost with its job.
    """
    cluster.refuse_lost({"runs": recipe.runs})
    problems = _worker_problems(recipe)
    problems += [
        f"{key}: there is no file {value}"
        for key, value in flatten(recipe.to_dict())
        if key.rpartition(".")[2] in FILE_KEYS and value and not Path(value).is_file()
    ]
    problems += _model_problems(recipe)
    if problems:
        raise RecipeError(problems)
    if files := feature_files(recipe):
        files.check()
    cluster.check_resources(recipe.scaling, data_cpus=_data_cpus(recipe))


def check_initial(recipe: Recipe) -> None:
    """Refuse a starting point outside the run that cannot be used, before anything is trained.

    Raises:
        CheckpointError, RunError: it does not exist, is damaged, or of another model.
    """
    run, names = Run(recipe.run_location, recipe), [stage.name for stage in recipe.stages]
    for stage in recipe.stages:
        if stage.init_from and stage.init_from not in names:
            initial_checkpoint(stage, run)


def check_initial_fit(recipe: Recipe, prepared: Prepared) -> None:
    """Compare the starting points outside the run with the model, whose sizes the data gives.

    Raises:
        CheckpointError: one is of another model.
    """
    run, names = Run(recipe.run_location, recipe), [stage.name for stage in recipe.stages]
    starts = [
        number
        for number, stage in enumerate(recipe.stages)
        if stage.init_from
        and stage.init_from not in names
        # A stage with checkpoints goes on from them.
        and not run.checkpoints(stage.name)
    ]
    if starts:
        fit = Fit.of(recipe, prepared)
        for number in starts:
            fit.check_initial(number)


def check_own(run: Run, prepared: Prepared) -> None:
    """Refuse what stages of the run would go on from and cannot, or put it aside.

    Raises:
        CheckpointError: one is of another model, or damaged.
    """
    stages, previous = run.recipe.stages, run.recipe.faults.damaged_checkpoint == "previous"
    names = [stage.name for stage in stages]
    if trained := [name for name in names if run.checkpoints(name)]:
        fit = Fit.of(run.recipe, prepared)
        for name in trained:
            fit.check_own(name)
    for stage in stages:
        if run.is_finished(stage.name):
            continue
        newest_checkpoint(run.locate(run.stage_dir(stage.name)), or_previous=previous)
        if stage.init_from in names and run.is_finished(stage.init_from):
            initial_checkpoint(stage, run)


def _model_problems(recipe: Recipe) -> list[str]:
    """Build the model without memory and ask for what only it knows."""
    import torch

    from msvqa.engine.optim import check_groups

    problems = []
    try:
        with torch.device("meta"):
            model = build_model(recipe, model_sizes(recipe, None))
    except ValueError as error:
        return [f"model: {error}"]
    for number, stage in enumerate(recipe.stages):
        try:
            check_groups(model.parameter_groups(), stage.optimizer)
            resolve(stage.objective.name, OBJECTIVES, "objective")(stage.objective, model)
        except RecipeError as error:
            problems += [f"stages.{number}.{problem}" for problem in error.problems]
        except ValueError as error:
            problems.append(f"stages.{number}.objective: {error}")
    return problems


def _worker_problems(recipe: Recipe) -> list[str]:
    """Return what does not fit the number of workers, or any of the numbers that there may be."""
    counts, problems = recipe.scaling.worker_counts, []
    for number, stage in enumerate(recipe.stages):
        videos, accumulate = stage.batch.videos, stage.batch.accumulate
        for count in counts:
            if videos % (count * accumulate):
                enough = math.lcm(*counts) * accumulate
                problems.append(
                    f"stages.{number}.batch.videos: {videos} is not a multiple of "
                    f"scaling.workers x accumulate = {count} x {accumulate}"
                    + (f"; multiples of {enough} serve all counts" if len(counts) > 1 else "")
                )
                break
    if len(counts) > 1 and _decodes_while_training(recipe):
        problems.append(
            "scaling.workers: a range of workers would take the CPUs that clips.cache=none "
            "decodes on; use clips.cache=store, or one number of workers"
        )
    return problems


def _decodes_while_training(recipe: Recipe) -> bool:
    return recipe.clips.cache == "none" and recipe.features is None


def _data_cpus(recipe: Recipe) -> float:
    """CPUs that must stay free while training runs; every worker decodes its own stream."""
    if not _decodes_while_training(recipe):
        return 0.0
    return float(recipe.scaling.worker_counts[-1] * (recipe.scaling.data_workers or 1))


def need_training_questions(recipe: Recipe, prepared: Prepared) -> None:
    """Refuse data of which nothing can be trained on.

    Raises:
        DataError: no training video is there, or none has features.
    """
    counts: dict[str, Any] = prepared.info["splits"]["train"]
    if files := feature_files(recipe):
        if not any(video in files for video in prepared.split("train", False).video_id):
            raise DataError(f"none of the training videos of {prepared.root} has a row in {files}")
        return
    if not counts["questions"]["present"]:
        raise DataError(
            f"none of the {counts['videos']['expected']} training videos is present under "
            f"{prepared.root}: see {join(prepared.location, 'missing.txt')}"
        )


def _state(run: Run, stage: str) -> str:
    if run.is_finished(stage):
        return "is finished"
    return "resumes" if run.checkpoints(stage) else "starts"
