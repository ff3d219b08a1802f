"""Tune: search over fields of a recipe; every trial is a run, the best one becomes a recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from msvqa import profiling
from msvqa.checks.checkpoints import check_initial, check_initial_fit
from msvqa.checks.coverage import check_validation
from msvqa.checks.features import check_features
from msvqa.checks.recipe import check, decodes_while_training
from msvqa.checks.sources import check_pretrained_stages
from msvqa.data.prepared import Prepared, prepared_location
from msvqa.data.processors.processor import processor_of
from msvqa.engine import cluster
from msvqa.engine.search import SearchJob, needs_dashboard, search
from msvqa.engine.sweep import Best, Sweep, Trial
from msvqa.errors import RecipeError, did_you_mean, one_of
from msvqa.evaluators.evaluator import evaluator_of_stage
from msvqa.page.search import write_page
from msvqa.prepare import check_places, prepare_stages, prepare_validations
from msvqa.recipe import Recipe, parse
from msvqa.run import only_one
from msvqa.space import Space, probe
from msvqa.storage import absolute
from msvqa.train import Progress, check_data, extract_views, need_lengths, train

MEDIA_SECTIONS = ("clips", "features", "processor")
"""What of a recipe says which processor makes what of a medium."""


@dataclass(frozen=True)
class Result:
    """What a search has found."""

    sweep: Sweep
    trials: Sequence[Trial]
    """The best first."""
    best: Best | None
    page: str


def tune(
    recipe: Recipe,
    space: Space,
    progress: Progress | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> Result:
    """Run all trials that are not done yet; write table, page and the best recipe.

    Args:
        recipe: what is the same for all trials.
        space: the fields that are searched.
        progress: told of extraction and of the stages that all trials share.
        on_trial: called with a trial whenever it reports or ends.

    Raises:
        RecipeError, DataError, RunError, ClusterError, CheckpointError, StorageError: before Ray
            starts, if it can be known.
    """
    probes = check_search(recipe, space)
    for one in _by_start(probes):
        check_initial(one)
    sweep = Sweep(recipe, space)
    sweep.refuse_changes()
    check_places(recipe)
    cluster.check_named()
    prepared = prepare_stages(recipe)
    validated = prepare_validations(recipe)
    located = _located(recipe, prepared)
    stores = _by_store(located, probes)
    for one in stores:
        check_data(one, prepared)
        read = zip([*one.views(), *one.validations()], [*prepared, *validated], strict=True)
        for view, folder in read:
            check_features(view, folder)
    for one in probes:
        check_validation(one, prepared)
        need_lengths(one, prepared)
    for one in _by_model(probes):
        check_initial_fit(one, prepared)
        check_pretrained_stages(one, prepared)
    progress = progress or Progress()
    dashboard = _wants_dashboard(recipe, space)
    with only_one(sweep.folder), cluster.connected(dashboard=dashboard) as resources:
        placement = cluster.place(recipe.scaling, resources)
        for one in stores:
            views, folders = [*one.views(), *one.validations()], [*prepared, *validated]
            extract_views(views, folders, progress, len(one.stages))
        # Last, since what is wrong in recipe or space could not be put right any more.
        Sweep.create(recipe, space)
        if sweep.shared_stages:
            train(Sweep(located, space).shared_recipe(), progress)
        job = SearchJob(
            recipe=located.to_dict(),
            space=space.model_dump(mode="json"),
            placement=placement,
            profile=profiling.folder(),
        )
        trials = sweep.ranked(search(job, resources, on_trial))
    best = sweep.write(trials)
    return Result(sweep, trials, best, write_page(sweep, trials, best))


def check_search(recipe: Recipe, space: Space) -> list[Recipe]:
    """Refuse what can be known to be wrong; return recipes that stand for all trials.

    Raises:
        RecipeError: lists every problem of every value that may be drawn.
        ClusterError: more workers than this machine can run.
    """
    probes, unusable = probe(recipe, space)
    problems = dict.fromkeys(unusable)
    if len(recipe.scaling.worker_counts) > 1:
        problems["scaling.workers: the trials of a search need one number, not min and max"] = None
    if decodes_while_training(recipe):
        cache = f"{processor_of(recipe).section}.cache"
        problems[f"{cache}: none decodes every video again in every trial; use store"] = None
    if recipe.scaling.worker_counts[-1] > 1 and space.scheduler.name == "pbt":
        problems["scaling.workers: scheduler pbt needs trials of one worker"] = None
    for one in probes:
        problems |= dict.fromkeys(_metric_problems(one, space))
        try:
            check(one)
        except RecipeError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise RecipeError(list(problems), f"search space {space.name}")
    return probes


def _metric_problems(recipe: Recipe, space: Space) -> list[str]:
    stage = recipe.stages[-1]
    known = evaluator_of_stage(recipe.validation(len(recipe.stages) - 1)).numbers
    if space.metric is None or not known or space.metric in known:
        return []
    hint = did_you_mean(space.metric, known)
    return [
        f"metric: validation of stage {stage.name!r} yields no {space.metric!r}{hint}, "
        f"but {one_of(known)}"
    ]


def _located(recipe: Recipe, prepared: Sequence[Prepared]) -> Recipe:
    """Return the recipe with places that hold in any working directory."""
    raw: dict[str, Any] = recipe.to_dict()
    raw["data"]["prepared"] = prepared_location(recipe.data)
    names = [stage.name for stage in recipe.stages]
    for stage, folder in zip(raw["stages"], prepared, strict=True):
        if stage["data"]:
            stage["data"]["prepared"] = folder.location
        if stage["init_from"] and stage["init_from"] not in names:
            stage["init_from"] = absolute(stage["init_from"])
    for name, other in raw["evaluations"].items():
        if other["data"]:
            other["data"]["prepared"] = prepared_location(recipe.of_evaluation(name).data)
    return parse(raw)


def _by_start(probes: Sequence[Recipe]) -> list[Recipe]:
    """Return one recipe for every combination of a model and what its stages start from."""
    found = {
        (one.model.name, *((stage.name, stage.init_from) for stage in one.stages)): one
        for one in probes
    }
    return list(found.values())


def _by_model(probes: Sequence[Recipe]) -> list[Recipe]:
    """Return one recipe for every combination of all that gives a model its sizes and a start."""
    found = {}
    for one in probes:
        sizes = [one.to_dict()[key] for key in ("model", *MEDIA_SECTIONS)]
        starts = [(s.init_from, s.parts, s.fresh, s.processor) for s in one.stages]
        found[str((sizes, starts))] = one
    return list(found.values())


def _by_store(recipe: Recipe, probes: Sequence[Recipe]) -> list[Recipe]:
    """Return one recipe for every store that the trials read."""
    raw, found = recipe.to_dict(), {}
    for one in probes:
        # Whether there are folds decides which equal files are a leak.
        changed = one.to_dict()
        sections = {key: changed[key] for key in (*MEDIA_SECTIONS, "folds")}
        own = [{key: stage[key] for key in ("processor", "folds")} for stage in changed["stages"]]
        stages = [stage | new for stage, new in zip(raw["stages"], own, strict=True)]
        media = [{key: sections[key] for key in MEDIA_SECTIONS}, [s["processor"] for s in stages]]
        found[str(media)] = raw | sections | {"stages": stages}
    return [parse(content) for content in found.values()]


def _wants_dashboard(recipe: Recipe, space: Space) -> bool:
    workers = recipe.scaling.worker_counts[-1]
    placement = cluster.Placement(workers, recipe.scaling.cpus_per_worker, 0.0)
    return needs_dashboard(placement, space)
