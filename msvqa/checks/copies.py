"""Are the videos of different splits different files, as far as their content is known."""

import logging
from collections import defaultdict

from msvqa.data.annotations import several
from msvqa.data.folds import DEALT
from msvqa.data.leakage import IN_TWO_SPLITS, Allowed, how_to_allow, shared_content
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of
from msvqa.data.store import Store
from msvqa.errors import DataError
from msvqa.recipe import Recipe

logger = logging.getLogger(__name__)


def check_copies(recipe: Recipe, prepared: Prepared, store: Store) -> None:
    """Say which files are equal, of those that were read for the store.

    Raises:
        DataError: some are in two splits, which is not allowed by name, and the recipe refuses it.
    """
    if not store.copies:
        return
    allowed = Allowed(frozenset(recipe.data.shared_videos))
    problems = list(shared_content(store.copies, _splits(recipe, prepared), allowed))
    in_two = [problem for problem in problems if problem.kind == IN_TWO_SPLITS]
    if in_two:
        told = (
            f"{prepared.root}: {len(in_two)} x the same content in two splits\n"
            f"{several(in_two)}{how_to_allow(in_two)}"
        )
        if recipe.data.equal_videos == "refuse":
            raise DataError(told)
        logger.warning("%s; data.equal_videos=refuse stops here", told)
    others = [problem for problem in problems if problem.kind != IN_TWO_SPLITS]
    if others:
        logger.warning("%d x equal files, first: %s", len(others), others[0].detail)


def _splits(recipe: Recipe, prepared: Prepared) -> dict[str, list[str]]:
    """Return where each video is; what folds deal anew is one split, since they keep copies."""
    splits: dict[str, list[str]] = defaultdict(list)
    reads_files = processor_of(recipe).reads_files
    for name in prepared.splits:
        place = "+".join(DEALT) if recipe.folds is not None and name in DEALT else name
        for video in prepared.split(name, reads_files).media.id:
            if place not in splits[video]:
                splits[video].append(place)
    return splits
