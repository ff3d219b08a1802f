"""Are the checkpoints sound that a run goes on from or starts from."""

from msvqa.data.prepared import Prepared
from msvqa.engine.checkpoint import newest_checkpoint
from msvqa.engine.fitting import Fit
from msvqa.engine.trainer import initial_checkpoint
from msvqa.recipe import Recipe
from msvqa.run import Run


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
