"""Of how many questions are the videos there: what a training leaves out is said with counts."""

import logging

from msvqa.data.folds import dealt, read_split
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of
from msvqa.data.store import Store
from msvqa.errors import DataError
from msvqa.recipe import Recipe

logger = logging.getLogger(__name__)

USES = {"train": "trains", "val": "validates"}


def check_coverage(recipe: Recipe, prepared: Prepared, store: Store | None = None) -> None:
    """Say how many questions are left where `data.allow_missing` leaves out videos.

    Args:
        recipe: the recipe.
        prepared: the prepared folder.
        store: what was made of the videos; without it those count that have a file.

    Raises:
        DataError: none is left to train on.
    """
    if store is not None:
        prepared = dealt(recipe, prepared, store.copies)
    told = []
    for name, uses in USES.items():
        if name not in prepared.splits:
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
