"""k folds: the videos of train and val dealt anew, so that every video is validated once.

All questions of a video stay together, and so do ids of one file, or of equal files where the store
knows their content. The fold of a video depends on the ids of all annotated videos and on that: not
on a seed, nor on which files are present. Vocabulary and answer list stay those of the published
train split; test is never touched.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import replace

from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of
from msvqa.data.split import Split
from msvqa.recipe import FoldsConfig, Recipe

DEALT = ("train", "val")


def dealt(recipe: Recipe, prepared: Prepared, copies: list[list[str]]) -> Prepared:
    """Return the folder with the copies that its folds are dealt by.

    Where videos are decoded while training runs, training knows of no copies: then nobody may use
    them, or videos that it was trained on would be held out in an evaluation.
    """
    decodes = processor_of(recipe).way != "store"
    return prepared if decodes else prepared.knowing(copies)


def read_split(
    prepared: Prepared, name: str, folds: FoldsConfig | None, *, present_only: bool = True
) -> Split:
    """Return a split as the recipe's folds have it.

    Raises:
        DataError: no such split.
    """
    if folds is None or name not in DEALT:
        return prepared.split(name, present_only)
    sources = [source for source in DEALT if source in prepared.splits]
    annotated = Split.joined(name, [prepared.split(source, False) for source in sources])
    held_out = _held_out(annotated.media.id, folds, prepared.same_videos)
    dropped = held_out if name == "train" else set(annotated.media.id) - held_out
    expected = len(annotated.without(dropped))
    present = Split.joined(name, [prepared.split(source, present_only) for source in sources])
    return replace(present.without(dropped), expected=expected)


def _held_out(
    video_ids: Collection[str], folds: FoldsConfig, same: Iterable[Collection[str]]
) -> set[str]:
    """Return the videos of one fold; without copies the folds differ by one video at most.

    Every video has its fold whatever copies are known: those of a group join the first of them, and
    no other video moves.
    """
    first_of = {video: video for video in video_ids}
    for group in same:
        firsts = {first_of[video] for video in group if video in first_of}
        if len(firsts) > 1:
            first = min(firsts, key=_digest)
            first_of = {v: first if found in firsts else found for v, found in first_of.items()}
    # By hash: neighbours in a data set often resemble each other.
    chosen = set(sorted(video_ids, key=_digest)[folds.index :: folds.count])
    return {video for video, first in first_of.items() if first in chosen}


def has_split(prepared: Prepared, name: str, folds: FoldsConfig | None) -> bool:
    """Whether there is a split, as the data has it or as folds make it of the others."""
    if folds is None or name not in DEALT:
        return name in prepared.splits
    return any(source in prepared.splits for source in DEALT)


def _digest(video_id: str) -> str:
    return hashlib.sha256(video_id.encode()).hexdigest()
