"""Of how many questions are the videos there: what a training leaves out is said with counts."""

import logging
from collections.abc import Sequence

from msvqa.data.folds import dealt, has_split, read_split
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of
from msvqa.data.store import Store
from msvqa.errors import DataError, RecipeError, did_you_mean, one_of
from msvqa.recipe import FoldsConfig, Recipe

logger = logging.getLogger(__name__)


def check_validation(recipe: Recipe, prepared: Sequence[Prepared]) -> None:
    """Refuse to validate on splits that the data of a stage does not have, or on empty folds.

    Args:
        recipe: the recipe.
        prepared: the prepared folder of every stage.

    Raises:
        RecipeError: says which stage, and which splits there are.
    """
    problems = []
    for number, (stage, folder) in enumerate(zip(recipe.stages, prepared, strict=True)):
        name, splits = stage.validate.on, folder.splits
        known = [*splits, *recipe.evaluations]
        # Data without `val` is not validated where nobody asks for it.
        if name not in known and name != "val":
            problems.append(
                f"stages.{number}.validate.on: there is no split {name!r}"
                f"{did_you_mean(name, known)}; {folder.root} has {one_of(splits)}"
                + (f", evaluations are {one_of(recipe.evaluations)}" if recipe.evaluations else "")
            )
        folds = recipe.of_stage(number).folds
        if folds is not None and name == "val" and _is_empty(folder, folds):
            problems.append(
                f"stages.{number}.folds: no example is only about videos of fold {folds.index} of "
                f"{folds.count}, so nothing is validated: use fewer folds, or by: example"
            )
    if problems:
        raise RecipeError(problems)


def _is_empty(prepared: Prepared, folds: FoldsConfig) -> bool:
    """Whether a fold has nothing to validate on."""
    return not len(read_split(prepared, "val", folds, present_only=False))


def check_coverage(
    recipe: Recipe, prepared: Prepared, store: Store | None = None, *, trains: bool = True
) -> None:
    """Say how many questions are left where `data.allow_missing` leaves out videos.

    Args:
        recipe: the recipe.
        prepared: the prepared folder.
        store: what was made of the videos; without it those count that have a file.
        trains: false where the data is only validated on.

    Raises:
        DataError: none is left to train on.
    """
    if store is not None:
        prepared = dealt(recipe, prepared, store.copies)
    told = []
    used_for = {"train": "trains"} if trains else {}
    if trains == (recipe.stages[-1].validate.on not in recipe.evaluations):
        used_for[recipe.validated_split] = "validates"
    for name, uses in used_for.items():
        if not has_split(prepared, name, recipe.folds):
            continue
        annotated = read_split(prepared, name, recipe.folds, present_only=False)
        used = read_split(
            prepared, name, recipe.folds, present_only=processor_of(recipe).reads_files
        )
        used = used.without(store.rejected if store is not None else ())
        videos = f"{len(used.media)} of {len(annotated.media)} videos"
        if name == "train" and not len(used):
            name = used.examples.name
            raise DataError(
                f"{prepared.root}: none of the {name} is left to train on ({videos} can be used); "
                "`msvqa extract` names the others, and why"
            )
        if len(used) < len(annotated):
            told.append(f"{uses} on {len(used)} of {len(annotated)} {used.examples.name}, {videos}")
        if len(annotated) and not len(used):
            told.append("nothing validates, and the last checkpoint counts as the best")
    if told:
        logger.warning(
            "%s: %s; data.allow_missing=true leaves out the others, whose videos are absent or "
            "cannot be used",
            prepared.root, "; ".join(told),
        )  # fmt: skip
