"""Which words a stage reads its data with: those that its model was trained in."""

from collections.abc import Sequence

from msvqa.data.prepared import Prepared
from msvqa.engine.checkpoint import locate_initial, read_lexicon
from msvqa.recipe import Recipe
from msvqa.run import Run


def keeps_words(recipe: Recipe, number: int) -> bool:
    """Whether a stage reads with the lexicon of the checkpoint that it starts from.

    A stage with data of its own does, and one that starts from such a stage. Where the data is the
    same the lexicon is too, and a checkpoint from elsewhere must have been trained with it.
    """
    stage = recipe.stages[number]
    if stage.init_from is None:
        return False
    names = [one.name for one in recipe.stages[:number]]
    if stage.init_from not in names:
        return stage.data is not None
    before = recipe.stages[names.index(stage.init_from)]
    return stage.data != before.data or keeps_words(recipe, names.index(stage.init_from))


def read_with_its_words(run: Run, number: int, prepared: Sequence[Prepared]) -> Prepared:
    """Return the data of a stage as the stage will read it, also before any stage is trained.

    Args:
        run: the run, with its recipe.
        number: the stage.
        prepared: the prepared folder of every stage.
    """
    recipe = run.recipe
    if not keeps_words(recipe, number):
        return prepared[number]
    init_from = recipe.stages[number].init_from
    assert init_from is not None
    names = [stage.name for stage in recipe.stages[:number]]
    if init_from in names:
        before = read_with_its_words(run, names.index(init_from), prepared)
        return prepared[number].reading(before.lexicon, adds=True)
    return prepared[number].reading(read_lexicon(locate_initial(init_from, run)), adds=True)
