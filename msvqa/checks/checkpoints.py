"""Are the checkpoints sound that a run goes on from or starts from."""

from collections.abc import Sequence

from msvqa.data.prepared import Prepared
from msvqa.data.subwords import Subwords
from msvqa.engine.checkpoint import locate_initial, newest_checkpoint, read_info, read_lexicon
from msvqa.engine.fitting import Fit
from msvqa.engine.origins import read_origins
from msvqa.engine.trainer import initial_checkpoint
from msvqa.engine.words import read_with_its_words
from msvqa.errors import CheckpointError
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


def check_initial_fit(recipe: Recipe, prepared: Sequence[Prepared]) -> None:
    """Compare the starting points outside the run with the model, whose sizes the data gives.

    Args:
        recipe: the recipe.
        prepared: the prepared folder of every stage.

    Raises:
        CheckpointError: one is of another model, or was trained with other pieces of words.
    """
    run, names = Run(recipe.run_location, recipe), [stage.name for stage in recipe.stages]
    for number, stage in enumerate(recipe.stages):
        outside = stage.init_from and stage.init_from not in names
        # A stage with checkpoints goes on from them.
        if outside and not run.checkpoints(stage.name):
            Fit.of(recipe, number, prepared).check_initial()
            _refuse_other_pieces(run, number, prepared)


def _refuse_other_pieces(run: Run, number: int, prepared: Sequence[Prepared]) -> None:
    """Refuse a start whose text was read with another vocabulary: two may be equally large."""
    stage = run.recipe.stages[number]
    assert stage.init_from is not None
    name, own = Subwords.name, read_with_its_words(run, number, prepared).lexicon
    if name not in own.names:
        return
    location = locate_initial(stage.init_from, run)
    if "text" in stage.fresh and "text" not in read_origins(read_info(location)):
        return
    theirs = read_lexicon(location)
    if name in theirs.names and name in own.differing(theirs):
        raise CheckpointError(
            f"stages.{number}.init_from: {location} was trained with other pieces of words than "
            "data.tokenizer has: name the folder that it was trained with"
        )


def check_own(run: Run, prepared: Sequence[Prepared]) -> None:
    """Refuse what stages of the run would go on from and cannot, or put it aside.

    Args:
        run: the run.
        prepared: the prepared folder of every stage.

    Raises:
        CheckpointError: one is of another model, or damaged.
    """
    stages, previous = run.recipe.stages, run.recipe.faults.damaged_checkpoint == "previous"
    names = [stage.name for stage in stages]
    for number, name in enumerate(names):
        if run.checkpoints(name):
            Fit.of(run.recipe, number, prepared).check_own()
    for stage in stages:
        if run.is_finished(stage.name):
            continue
        newest_checkpoint(run.locate(run.stage_dir(stage.name)), or_previous=previous)
        if stage.init_from in names and run.is_finished(stage.init_from):
            initial_checkpoint(stage, run)
