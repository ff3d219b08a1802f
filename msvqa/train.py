"""Train: all stages of a recipe, one after another, each resumed where it stopped."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from msvqa.cache import check_cache
from msvqa.checks.checkpoints import check_initial, check_initial_fit, check_own
from msvqa.checks.copies import check_copies
from msvqa.checks.coverage import check_coverage, check_validation
from msvqa.checks.features import check_features
from msvqa.checks.recipe import check, data_cpus
from msvqa.checks.sources import check_pretrained_stages
from msvqa.data.found_store import find_store
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.engine import ceiling, cluster
from msvqa.engine.pace import StagePace
from msvqa.engine.rehearsal import Estimate, rehearse
from msvqa.engine.tracking import Row
from msvqa.engine.trainer import stage_job, train_stage_on_ray
from msvqa.errors import DataError, RecipeError, StorageError
from msvqa.extract import await_others, extract, speed_line
from msvqa.prepare import check_places, prepare_stages, prepare_validations
from msvqa.recipe import Recipe, StageConfig, readers
from msvqa.run import Run, only_one
from msvqa.storage import join

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Callbacks of a long job; each may be left out."""

    on_row: Callable[[Row], None] | None = None
    """Called with every logged row of a stage."""
    on_extract: Callable[[int, int, int], None] | None = None
    """Called with the videos done, all videos, and the rejected ones."""
    on_stage: Callable[[str, str], None] | None = None
    """Called with a stage and what happens to it: `starts`, `resumes`, `is finished`."""

    on_speed: Callable[[str], None] | None = None
    """Called with a line on how fast a stage was trained, or a store was extracted."""

    def stage(self, name: str, what: str) -> None:
        """Say what happens to a stage."""
        if self.on_stage:
            self.on_stage(name, what)

    def speed(self, line: str) -> None:
        """Say how fast something was done."""
        if self.on_speed:
            self.on_speed(line)


def train(recipe: Recipe, progress: Progress | None = None) -> Run:
    """Prepare and extract what is not there yet, then train every stage that is not finished.

    Raises:
        RecipeError, DataError, RunError, ClusterError, CheckpointError: before Ray starts, if it
            can be known.
        StoppedError: SIGINT or SIGTERM came; a checkpoint is written.
    """
    progress = progress or Progress()
    run, views, prepared = _checked(recipe, joins=True)
    if all(run.is_finished(stage.name) for stage in recipe.stages):
        for stage in recipe.stages:
            progress.stage(stage.name, "is finished")
        # What it was trained with stays in its files.
        return run
    for number in readers(views):
        if number < len(recipe.stages):
            for caution in prepared[number].info.get("cautions", ()):
                logger.warning("%s", caution)
        check_features(views[number], prepared[number])
    with ExitStack() as held:
        held.enter_context(only_one(run.folder))
        # Not before: what another command writes just now is neither damaged nor of another model.
        check_own(run, prepared[: len(recipe.stages)])
        held.enter_context(_in_turn(views))
        resources = held.enter_context(cluster.connected())
        placement = cluster.place(recipe.scaling, resources, data_cpus=data_cpus(recipe))
        extract_views(views, prepared, progress, len(recipe.stages))
        # Last, since the recipe of a run cannot be put right any more.
        run = Run.create(recipe)
        for index, stage in enumerate(recipe.stages):
            state = _state(run, stage.name)
            progress.stage(stage.name, state)
            if state == "is finished":
                continue
            if stage.parts:
                logger.info("%s", parts_of(stage))
            train_stage_on_ray(stage_job(run, index), run, placement, progress.on_row)
            if progress.on_speed:
                progress.speed(_speed_line(run, stage))
    return run


def _speed_line(run: Run, stage: StageConfig) -> str:
    try:
        rows = [row for row in run.metrics() if row["stage"] == stage.name]
    except (StorageError, OSError) as error:
        # The stage is trained, and the next one may be, too.
        return f"speed of stage {stage.name}: its rows cannot be read now: {error}"
    # On a cluster of others the workers are elsewhere than what was measured.
    pace = StagePace.of(rows)
    if not cluster.is_own():
        return pace.line(stage.name, stage.precision, None, "")
    return pace.line(stage.name, stage.precision, ceiling.best_product_tflops(stage.precision))


def extract_views(
    views: Sequence[Recipe], prepared: Sequence[Prepared], progress: Progress, stages: int
) -> None:
    """Make every store that is read in training, and say what is left out.

    Args:
        views: those of the stages, then those that stages are validated by.
        prepared: the prepared folder of each.
        progress: told of what is extracted.
        stages: how many views are of stages.

    Raises:
        StoreError, DataError: as `extract`; or nothing is left to train on.
    """
    for number in readers(views):
        view, store, trains = views[number], None, number < stages
        if processor_of(view).way == "store":
            seen = _Seen(progress.on_extract)
            store = extract(view, progress=seen, checked=True, trains=trains)
            if seen.called:
                progress.speed(speed_line(view, store))
            check_cache(store.location, store.nbytes)
        check_coverage(view, prepared[number], store, trains=trains)


class _Seen:
    """Hands on the progress of an extraction, and knows whether there was any."""

    def __init__(self, on_extract: Callable[[int, int, int], None] | None) -> None:
        self._on_extract, self.called = on_extract, False

    def __call__(self, *counts: int) -> None:
        self.called = True
        if self._on_extract:
            self._on_extract(*counts)


@contextmanager
def _in_turn(views: Sequence[Recipe]) -> Iterator[None]:
    """Begin when nobody else extracts what the recipe needs: before Ray takes its memory."""
    for number in readers(views):
        if processor_of(views[number]).way == "store":
            await_others(views[number])
    yield


def dry_run(recipe: Recipe) -> list[Estimate]:
    """Build every stage, train one batch of it in this process, and estimate the whole.

    Raises:
        RecipeError, DataError, RunError, ClusterError, CheckpointError: as `train`.
    """
    run, views, prepared = _checked(recipe, joins=False)
    if recipe.faults.damaged_checkpoint == "stop":
        # Else what is damaged would be put aside, and nothing is changed here.
        check_own(run, prepared[: len(recipe.stages)])
    for number in readers(views):
        view, folder = views[number], prepared[number]
        check_features(view, folder)
        processor = processor_of(view)
        if processor.way == "store":
            store = find_store(store_location(view), processor.spec())
            if store is not None:
                check_copies(view, folder, store)
        check_coverage(view, folder, trains=number < len(recipe.stages))
    return rehearse(recipe, prepared[: len(recipe.stages)])


def _checked(recipe: Recipe, *, joins: bool) -> tuple[Run, list[Recipe], list[Prepared]]:
    """Look at all that can be known before Ray starts, but for whole feature files.

    Args:
        recipe: the recipe.
        joins: whether a named cluster is needed, unless the run is finished.

    Returns:
        The run; the views of its stages and then those that stages are validated by; the prepared
        folder of each view.
    """
    check_places(recipe)
    check(recipe)
    check_initial(recipe)
    run = Run(recipe.run_location, recipe)
    run.refuse_changes()
    if joins and not all(run.is_finished(stage.name) for stage in recipe.stages):
        cluster.check_named()
    prepared = prepare_stages(recipe)
    check_data(recipe, prepared)
    check_initial_fit(recipe, prepared)
    check_pretrained_stages(recipe, prepared)
    validations = recipe.validations()
    validated = prepare_validations(recipe)
    return run, [*recipe.views(), *validations], [*prepared, *validated]


def check_data(recipe: Recipe, prepared: Sequence[Prepared]) -> None:
    """Refuse data that a stage cannot be trained or validated on.

    Raises:
        DataError, RecipeError: says which.
    """
    views = recipe.views()
    for number in readers(views):
        need_training_questions(views[number], prepared[number])
    need_lengths(recipe, prepared)
    check_validation(recipe, prepared)


def need_lengths(recipe: Recipe, prepared: Sequence[Prepared]) -> None:
    """Refuse batches by the length of examples that have none.

    Raises:
        RecipeError: says which stages.
    """
    problems = [
        f"stages.{number}.batch.by_length: {folder.kind.name} have no lengths, only conversations "
        "do; leave it out"
        for number, (stage, folder) in enumerate(zip(recipe.stages, prepared, strict=True))
        if stage.batch.by_length and not folder.kind.has_lengths
    ]
    if problems:
        raise RecipeError(problems)


def need_training_questions(recipe: Recipe, prepared: Prepared) -> None:
    """Refuse data of which nothing can be trained on.

    Raises:
        DataError: no training video is there, or none has features.
    """
    processor = processor_of(recipe)
    if not (processor.reads_files or processor.files()):
        return
    counts: dict[str, Any] = prepared.info["splits"]["train"]
    if files := processor.files():
        if not any(video in files for video in prepared.split("train", False).media.id):
            raise DataError(f"none of the training videos of {prepared.root} has a row in {files}")
        return
    if not counts[prepared.kind.name]["present"]:
        raise DataError(
            f"none of the {counts['videos']['expected']} training videos is present under "
            f"{prepared.root}: see {join(prepared.location, 'missing.txt')}"
        )


def parts_of(stage: StageConfig) -> str:
    """Say which parts of the model a stage trains, freezes and does without."""
    by_state = {
        state: [name for name, is_so in stage.parts.items() if is_so == state]
        for state in ("frozen", "absent")
    }
    said = [f"{state}: {', '.join(names)}" for state, names in by_state.items() if names]
    return f"stage {stage.name}: {'; '.join([*said, 'trained: all other parts'])}"


def _state(run: Run, stage: str) -> str:
    if run.is_finished(stage):
        return "is finished"
    return "resumes" if run.checkpoints(stage) else "starts"
