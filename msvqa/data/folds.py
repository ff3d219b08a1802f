"""k folds: the videos of train and val dealt anew, so that every video is validated once.

Or the examples, whatever they are about: see `example_folds`.

All questions of a video stay together, and so do ids of one file, or of equal files where the store
knows their content. The fold of a video depends on the ids of all annotated videos and on that: not
on a seed, nor on which files are present. Vocabulary and answer list stay those of the published
train split; test is never touched.
"""

import hashlib
import random
from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from msvqa.data.examples.examples import NO_MEDIUM
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of
from msvqa.data.split import Split
from msvqa.recipe import FoldsConfig, Recipe

DEALT = ("train", "val")
FOLD_SEED = 42
PUBLISHED_PAIRS, PUBLISHED_FOLDS, PUBLISHED_SIZE = 67_899, 11, 6_000

Fold = tuple[np.ndarray, np.ndarray]
"""Rows of val, and of train in a shuffled order."""


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
    if folds.by == "example":
        chosen = example_folds(len(annotated), folds.count)[folds.index][name == "train"]
        return _of_examples(prepared, annotated.taking(np.sort(chosen)), sources, present_only)
    same = [*prepared.same_videos, *_together(annotated, folds)]
    held_out = _held_out(annotated.media.id, folds, same)
    dropped = held_out if name == "train" else set(annotated.media.id) - held_out
    expected = len(annotated.without(dropped))
    present = Split.joined(name, [prepared.split(source, present_only) for source in sources])
    return replace(present.without(dropped), expected=expected)


def _of_examples(
    prepared: Prepared, dealt_anew: Split, sources: list[str], present_only: bool
) -> Split:
    """Return chosen examples with the media that they are about, and those alone."""
    media = dealt_anew.examples.media
    named = np.zeros(len(dealt_anew.media), dtype=bool)
    named[media[media != NO_MEDIUM]] = True
    found = dealt_anew.keeping(named)
    if not present_only:
        return found
    present = {video for source in sources for video in prepared.split(source).media.id}
    return found.without(set(found.media.id) - present)


def example_folds(count: int, folds: int, size: int | None = None) -> list[Fold]:
    """Return val and train of every fold, as rows of the `count` examples in their order.

    The arithmetic is that of team 618 in the QQ Browser AI Algorithm Competition of 2021: one
    generator shuffles all rows once, and then the training rows of one fold after another, so that
    the order of a fold depends on those before it. Of the 67 899 published pairs a fold holds out
    6000, and 1899 are validated by none. Of any other number all are validated: the parts are as
    equal as may be, and the last one has the rest.
    """
    generator = random.Random(FOLD_SEED)
    order = list(range(count))
    generator.shuffle(order)
    published = (count, folds) == (PUBLISHED_PAIRS, PUBLISHED_FOLDS)
    if size is None and published:
        size = PUBLISHED_SIZE
    has_rest, part = size is None, size or count // folds
    found = []
    for fold in range(folds):
        start, stop = fold * part, (fold + 1) * part
        if has_rest and fold == folds - 1:
            stop = count
        train = order[:start] + order[stop:]
        generator.shuffle(train)
        found.append((np.array(order[start:stop], np.int64), np.array(train, np.int64)))
    return found


def _together(split: Split, folds: FoldsConfig) -> list[list[str]]:
    """Return ids of videos that examples about several tie together, directly or by others.

    More than half a fold of them would make the folds unequal: such videos are dealt one by one,
    and examples about videos of both sides are then in neither val nor train.
    """
    if split.examples.media_per_example == 1:
        return []
    first = np.arange(len(split.media))
    media = split.examples.media
    tied = np.where(media == NO_MEDIUM, media[:, :1], media)
    while True:
        # Every medium takes the lowest number that an example shows it, until nothing changes.
        lowest = first.copy()
        np.minimum.at(lowest, tied.reshape(-1), np.repeat(first[tied].min(axis=1), tied.shape[1]))
        lowest = lowest[lowest]
        if (lowest == first).all():
            break
        first = lowest
    order = np.argsort(first, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(first[order])) + 1)
    most = max(2, len(split.media) // folds.count // 2)
    ids = split.media.id
    return [[ids[row] for row in group.tolist()] for group in groups if 1 < len(group) <= most]


def _held_out(
    video_ids: Collection[str], folds: FoldsConfig, same: Iterable[Collection[str]]
) -> set[str]:
    """Return the videos of one fold; without copies the folds differ by one video at most.

    Every video has its fold whatever copies are known: those of a group join the first of them, and
    no other video moves.
    """
    first_of = {video: video for video in video_ids}
    members: dict[str, list[str]] = {}
    for group in same:
        firsts = {first_of[video] for video in group if video in first_of}
        if len(firsts) > 1:
            first = min(firsts, key=_digest)
            for video in [v for found in firsts for v in members.get(found, [found])]:
                first_of[video] = first
                members.setdefault(first, [first]).append(video)
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
