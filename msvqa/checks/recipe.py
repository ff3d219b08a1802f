"""Is a recipe sound: what can be known to be wrong without data and without Ray."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from msvqa.checks.sources import source_problems
from msvqa.compilation import lacking
from msvqa.data.nvdec_needs import lacking as lacking_nvdec
from msvqa.data.processors.processor import Processor, processor_of, processors_of
from msvqa.engine import cluster
from msvqa.engine.inputs import model_sizes
from msvqa.engine.optim import build_optimizer, check_parts
from msvqa.engine.stage_model import choose_trained
from msvqa.errors import RecipeError
from msvqa.job import refuse_lost
from msvqa.models import MODELS
from msvqa.models.encoders import ENCODERS
from msvqa.models.model import Model, build_model
from msvqa.objectives import OBJECTIVES
from msvqa.objectives.objective import Objective
from msvqa.recipe import Recipe
from msvqa.sections import resolve


def check(recipe: Recipe) -> None:
    """Refuse what can be known to be wrong without data and without Ray.

    Raises:
        RecipeError: lists every problem, of the files that the recipe names too.
        DataError: feature files that are none, or of other shapes than the recipe says.
        ClusterError: more workers than this machine can run, or a run that is lost with its job.
    """
    _check(recipe, source_problems(recipe))
    for processor in processors_of(recipe):
        if files := processor.files():
            files.check()


def check_settings(recipe: Recipe) -> None:
    """Refuse as `check` does, without a look at the files that the recipe names."""
    _check(recipe, [])


def _uncompilable(recipe: Recipe) -> list[str]:
    """Return the stages that would compile what computes again with statistics that stay."""
    if not getattr(recipe.model, "checkpoint_activations", False):
        return []
    return [
        f"stages.{number}.compile: model.checkpoint_activations cannot be compiled: use one of both"
        for number, stage in enumerate(recipe.stages)
        if stage.compile
    ]


def _check(recipe: Recipe, found: list[str]) -> None:
    refuse_lost({"runs": recipe.runs})
    problems = [*_worker_problems(recipe), *found, *width_problems(recipe)]
    problems += [*compiler_problems(recipe), *decoder_problems(processors_of(recipe))]
    problems += _uncompilable(recipe)
    problems += _model_problems(recipe)
    if problems:
        raise RecipeError(problems)
    cluster.check_resources(recipe.scaling, data_cpus=data_cpus(recipe))


def compiler_problems(recipe: Recipe) -> list[str]:
    """Return what is to be compiled and cannot be here; nodes of a named cluster say so later."""
    if cluster.joins_cluster():
        return []
    wanted = [f"stages.{n}.compile" for n, stage in enumerate(recipe.stages) if stage.compile]
    wanted += [
        f"{processor.section}.compile"
        for processor in processors_of(recipe)
        if getattr(processor.config, "compile", False)
    ]
    problem = lacking("cuda" if torch.cuda.is_available() else "cpu") if wanted else ""
    return [f"{key}: {problem}" for key in dict.fromkeys(wanted) if problem]


def decoder_problems(processors: Sequence[Processor]) -> list[str]:
    """Return which decoders cannot be used here; nodes of a named cluster say so later."""
    keys = [processor.decoder_key for processor in processors if processor.decoder == "nvdec"]
    problem = lacking_nvdec() if keys and not cluster.joins_cluster() else ""
    return [f"{key}: {problem}" for key in keys if problem]


def width_problems(recipe: Recipe) -> list[str]:
    """Return which widths of features are not those of the encoders that the recipe names."""
    problems = []
    for processor in processors_of(recipe):
        for part, (config, stated) in processor.encoders().items():
            with torch.device("meta"):
                width = resolve(config.name, ENCODERS, "encoder")(config).width
            if width != stated:
                key = f"{processor.section}.{part}_width"
                problems.append(f"{key}: is {stated}, {config.name} gives {width}")
    return problems


def _model_problems(recipe: Recipe) -> list[str]:
    """Build the model of every stage without memory and ask for what only it knows."""
    problems: list[str] = []
    parts: dict[str, set[str]] = {}
    for number, view in enumerate(recipe.views()):
        (stage,) = view.stages
        key = f"stages.{number}"
        try:
            whole = _on_meta(view, ())
        except ValueError as error:
            return [f"model: {error}"]
        try:
            model = _assembled(view, whole)
        except RecipeError as error:
            problems += [f"{key}.{problem}" for problem in error.problems]
            continue
        except ValueError as error:
            problems.append(f"{key}.objective: {error}")
            continue
        repeats = getattr(view.processor, "repeats", 1)
        if repeats > 1 and stage.objective.name != "classification":
            problems.append(
                f"{key}.processor.repeats: {repeats} clips of a medium in a batch are for the "
                "objective classification alone: use 1"
            )
        parts[stage.name] = set(model.parts())
        new = parts[stage.name] - parts.get(stage.init_from or "", parts[stage.name])
        problems += [
            f"{key}.fresh: part {name!r} is absent in stage {stage.init_from!r}, which this one "
            "starts from: name it here"
            for name in sorted(new - set(stage.fresh))
        ]
    return problems


def _on_meta(view: Recipe, absent: Sequence[str]) -> Model:
    with torch.device("meta"):
        model: Model = build_model(view, model_sizes(view, None), absent)
    return model


def _assembled(view: Recipe, whole: Model) -> Model:
    """Return the model of the only stage of a recipe, put together as for training.

    Raises:
        RecipeError: says what does not go together.
    """
    (stage,) = view.stages
    check_parts(whole, stage)
    model = _on_meta(view, stage.absent) if stage.absent else whole
    kind: Any = resolve(stage.objective.name, OBJECTIVES, "objective")
    objective: Objective = kind(stage.objective, model)
    choose_trained(model, objective, stage)
    build_optimizer(model, stage.optimizer)
    if stage.batch.accumulate > 1 and objective.sees_whole_batch:
        raise RecipeError(
            [
                f"batch.accumulate: objective {stage.objective.name} compares all examples of a "
                "batch with each other, which passes over parts of it cannot: use 1"
            ]
        )
    return model


def _worker_problems(recipe: Recipe) -> list[str]:
    """Return what does not fit the number of workers, or any of the numbers that there may be."""
    counts, problems = recipe.scaling.worker_counts, []
    model = resolve(recipe.model.name, MODELS, "model")
    for number, stage in enumerate(recipe.stages):
        lanes, accumulate = stage.batch.lanes, stage.batch.accumulate
        field = "videos" if stage.batch.examples is None else "examples"
        for count in counts:
            if lanes % (count * accumulate):
                enough = math.lcm(*counts) * accumulate
                problems.append(
                    f"stages.{number}.batch.{field}: {lanes} is not a multiple of "
                    f"scaling.workers x accumulate = {count} x {accumulate}"
                    + (f"; multiples of {enough} serve all counts" if len(counts) > 1 else "")
                )
                break
            if lanes // (count * accumulate) < model.least_examples:
                problems.append(
                    f"stages.{number}.batch.{field}: {lanes} over scaling.workers x accumulate = "
                    f"{count} x {accumulate}: model {recipe.model.name} needs "
                    f"{model.least_examples} at once"
                )
                break
    section = processor_of(recipe).section
    if len(counts) > 1 and decodes_while_training(recipe):
        problems.append(
            f"scaling.workers: a range of workers would take the CPUs that {section}.cache=none "
            f"decodes on; use {section}.cache=store, or one number of workers"
        )
    return problems


def decodes_while_training(recipe: Recipe) -> bool:
    """Whether the workers decode videos while they train, without a store."""
    return any(processor.way == "stream" for processor in processors_of(recipe))


def data_cpus(recipe: Recipe) -> float:
    """Return the CPUs that must stay free while training; workers decode streams of their own."""
    if not decodes_while_training(recipe):
        return 0.0
    return float(recipe.scaling.worker_counts[-1] * (recipe.scaling.data_workers or 1))
