"""Is a recipe sound: what can be known to be wrong without data and without Ray."""

import math
from pathlib import Path

from msvqa.data.features import feature_files
from msvqa.engine import cluster
from msvqa.engine.inputs import model_sizes
from msvqa.errors import RecipeError
from msvqa.models.model import build_model
from msvqa.objectives import OBJECTIVES
from msvqa.recipe import Recipe
from msvqa.sections import flatten, resolve

FILE_KEYS = ("weights", "word_vectors", "appearance_hdf5", "motion_hdf5")
"""Fields of a recipe that name a file, wherever they stand."""


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
    cluster.check_resources(recipe.scaling, data_cpus=data_cpus(recipe))


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
    if len(counts) > 1 and decodes_while_training(recipe):
        problems.append(
            "scaling.workers: a range of workers would take the CPUs that clips.cache=none "
            "decodes on; use clips.cache=store, or one number of workers"
        )
    return problems


def decodes_while_training(recipe: Recipe) -> bool:
    """Whether the workers decode videos while they train, without a store."""
    return recipe.clips.cache == "none" and recipe.features is None


def data_cpus(recipe: Recipe) -> float:
    """Return the CPUs that must stay free while training; workers decode streams of their own."""
    if not decodes_while_training(recipe):
        return 0.0
    return float(recipe.scaling.worker_counts[-1] * (recipe.scaling.data_workers or 1))
