"""The splits of a table of the user: those that a column names, or made by a seed."""

import hashlib
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from msvqa.errors import did_you_mean, one_of

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
HELD_OUT = 0.1
"""Part of the videos that val gets, and test, where no column says."""
FEWEST = 6
"""Of fewer videos in pairs none are held out: there would not be a pair for each split."""
NO_SPLIT = "no split, though other rows have one"


def split_problem(name: str) -> str:
    """Say why a name in lower case is that of no split; nothing where it is, or is empty."""
    if not name or name in SPLIT_NAMES:
        return ""
    return f"split {name!r} is not one of {one_of(SPLITS)}{did_you_mean(name, SPLIT_NAMES)}"


def deal(ids: Collection[str], seed: int) -> dict[str, str]:
    """Return the split of each video: train, val or test.

    Videos are ranked by a hash of seed and id; so adding a video moves few others.
    """
    ranked = _ranked(ids, seed)
    held_out = max(1, round(HELD_OUT * len(ids))) if len(ids) >= 3 else 0
    split_of = dict.fromkeys(ranked, "train")
    split_of |= dict.fromkeys(ranked[:held_out], "test")
    split_of |= dict.fromkeys(ranked[held_out : 2 * held_out], "val")
    return split_of


def deal_pairs(pairs: Iterable[tuple[str, str]], seed: int) -> dict[str, str]:
    """Return the split of each video of pairs: train, val or test.

    Videos that pairs tie together, directly or by others, stay together where they are few enough.
    Of more of them a split gets neighbours, so that few pairs are of videos of two splits.
    """
    tied: dict[str, set[str]] = defaultdict(set)
    for a, b in pairs:
        tied[a].add(b)
        tied[b].add(a)
    ranked = _ranked(tied, seed)
    neighbours = {video: _ranked(found, seed) for video, found in tied.items()}
    held_out = max(2, round(HELD_OUT * len(ranked))) if len(ranked) >= FEWEST else 0
    split_of = dict.fromkeys(ranked, "train")
    for split in ("test", "val"):
        free = [video for video in ranked if split_of[video] == "train"]
        split_of |= dict.fromkeys(_region(free, neighbours, held_out), split)
    return split_of


def _region(
    free: Sequence[str], neighbours: Mapping[str, Sequence[str]], size: int
) -> dict[str, None]:
    """Return about so many of the free videos, with few pairs that lead out."""
    left, region = set(free), dict[str, None]()
    for start in free:
        room = size - len(region)
        if room <= 0:
            break
        if start not in left:
            continue
        group = _reached(start, neighbours, left, size + 1)
        left.difference_update(group)
        if len(group) <= size:
            region |= dict.fromkeys(group)  # whole, though it may be more than there is room for
        elif room > 1:
            region |= dict.fromkeys(group[:room])
    return region


def _reached(
    start: str, neighbours: Mapping[str, Sequence[str]], left: Collection[str], most: int
) -> list[str]:
    """Return so many videos at most that pairs lead to, the nearest first."""
    found, waiting = {start: None}, deque([start])
    while waiting:
        for video in neighbours[waiting.popleft()]:
            if len(found) == most:
                return [*found]
            if video in left and video not in found:
                found[video] = None
                waiting.append(video)
    return [*found]


def _ranked(ids: Iterable[str], seed: int) -> list[str]:
    return sorted(ids, key=lambda video: hashlib.sha256(f"{seed}:{video}".encode()).digest())
