"""Train: all stages of a recipe, one after another, each resumed where it stopped."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from msvqa.cache import check_cache
from msvqa.checks.checkpoints import check_initial, check_initial_fit, check_own
from msvqa.checks.copies import check_copies
from msvqa.checks.coverage import check_coverage
from msvqa.checks.features import check_features
from msvqa.checks.recipe import check, data_cpus
from msvqa.checks.sources import check_pretrained
from msvqa.data.found_store import find_store
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.data.store import Store
from msvqa.engine import cluster
from msvqa.engine.loop import StageJob
from msvqa.engine.rehearsal import Estimate, rehearse
from msvqa.engine.tracking import Row
from msvqa.engine.trainer import initial_checkpoint, train_stage_on_ray
from msvqa.errors import DataError
from msvqa.extract import await_others, extract
from msvqa.prepare import prepare
from msvqa.recipe import Recipe
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
    run, prepared = _checked(recipe)
    if all(run.is_finished(stage.name) for stage in recipe.stages):
        for stage in recipe.stages:
            progress.stage(stage.name, "is finished")
        # What it was trained with stays in its files.
        return run
    for caution in prepared.info.get("cautions", ()):
        logger.warning("%s", caution)
    check_features(recipe, prepared)
    with only_one(run.folder), _in_turn(recipe), cluster.connected() as resources:
        placement = cluster.place(recipe.scaling, resources, data_cpus=data_cpus(recipe))
        store: Store | None = None
        if processor_of(recipe).way == "store":
            store = extract(recipe, progress=progress.on_extract, checked=True)
            check_cache(store.location, store.nbytes)
        check_coverage(recipe, prepared, store)
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
                store=store.location if store is not None else None,
                init_from=initial_checkpoint(stage, run),
            )
            train_stage_on_ray(job, run, placement, progress.on_row)
    return run


@contextmanager
def _in_turn(recipe: Recipe) -> Iterator[None]:
    """Begin when nobody else extracts what the recipe needs: before Ray takes its memory."""
    if processor_of(recipe).way == "store":
        await_others(recipe)
    yield


def dry_run(recipe: Recipe) -> list[Estimate]:
    """Build every stage, train one batch of it in this process, and estimate the whole.

    Raises:
        RecipeError, DataError, RunError, ClusterError, CheckpointError: as `train`.
    """
    _, prepared = _checked(recipe)
    check_features(recipe, prepared)
    processor = processor_of(recipe)
    if processor.way == "store":
        store = find_store(store_location(recipe), processor.spec())
        if store is not None:
            check_copies(recipe, prepared, store)
    check_coverage(recipe, prepared)
    return rehearse(recipe, prepared)


def _checked(recipe: Recipe) -> tuple[Run, Prepared]:
    """Look at all that can be known before Ray starts, but for whole feature files."""
    check(recipe)
    check_initial(recipe)
    run = Run(recipe.run_location, recipe)
    run.refuse_changes()
    prepared = prepare(recipe.data, need_videos=processor_of(recipe).reads_files)
    need_training_questions(recipe, prepared)
    check_own(run, prepared)
    check_initial_fit(recipe, prepared)
    check_pretrained(recipe, prepared)
    return run, prepared


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


def _state(run: Run, stage: str) -> str:
    if run.is_finished(stage):
        return "is finished"
    return "resumes" if run.checkpoints(stage) else "starts"
