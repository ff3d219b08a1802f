"""Leakage: videos that two splits have in common, by id, by file or by content.

What a model was trained on tells nothing when it is tested on it, so such videos are refused unless
`data.shared_videos` allows them by name.
"""

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msvqa.data.root import Root
from msvqa.data.schema import Problem
from msvqa.errors import did_you_mean

if TYPE_CHECKING:
    from msvqa.data.problems import AnnotatedVideo

IN_TWO_SPLITS, ALLOWED_KIND = "two_splits", "allowed_splits"
PROVES_NOTHING = "a test on it proves nothing"
_READ_OTHERWISE = re.compile(r"(\d.*[._eExX].*|true|false|yes|no|on|off|null|y|n)$", re.IGNORECASE)
"""What YAML reads as something else than the text it is."""


@dataclass(frozen=True)
class Allowed:
    """What may be in more than one split: ids of videos, and splits such as `train+val`."""

    names: frozenset[str]

    def covers(self, video_ids: Collection[str], splits: Collection[str]) -> bool:
        """Whether one of the ids is named, or all the splits together."""
        return any(name in video_ids or set(splits) <= set(name.split("+")) for name in self.names)

    def problems(self, video_ids: Collection[str], splits: Sequence[str]) -> Iterator[Problem]:
        """Find names that mean nothing: no such video, and no such splits."""
        for name in sorted(self.names.difference(video_ids)):
            parts = name.split("+")
            if len(parts) < 2 or not set(parts) <= set(splits):
                yield Problem(
                    kind="unknown_shared",
                    detail=f"data.shared_videos: {name!r} is no video of the annotations"
                    f"{did_you_mean(name, video_ids)}, and no splits such as train+val",
                )


def same_files(videos: Iterable["AnnotatedVideo"], root: Root) -> list[list["AnnotatedVideo"]]:
    """Return the videos that are there, those of one file together."""
    users: dict[str, list[AnnotatedVideo]] = defaultdict(list)
    for video in videos:
        if video.file.path:
            users[root.identify(video.file.path)].append(video)
    return list(users.values())


def shared_ids(videos: Iterable["AnnotatedVideo"], root: Root) -> list[list[str]]:
    """Return the ids that mean the same file, for every file that has several."""
    groups = (list(dict.fromkeys(v.video_id for v in users)) for users in same_files(videos, root))
    return [ids for ids in groups if len(ids) > 1]


def shared_videos(
    videos: Sequence["AnnotatedVideo"], root: Root, allowed: Allowed
) -> Iterator[Problem]:
    """Find videos in two splits, by id and by file, and files with two ids."""
    splits: dict[str, list[str]] = defaultdict(list)
    for video in videos:
        splits[video.video_id].append(video.split)
    for video_id, found in splits.items():
        if len(found) > 1:
            what = f"video {video_id} is in {' and '.join(found)}"
            yield _problem(what, [video_id], found, allowed)
    for users in same_files(videos, root):
        ids = list(dict.fromkeys(video.video_id for video in users))
        found = list(dict.fromkeys(video.split for video in users))
        path = users[0].file.path
        if len(ids) > 1 and any(found != splits[video_id] for video_id in ids):
            names = ", ".join(f"{video.video_id} ({video.split})" for video in users)
            yield _problem(f"{path} is the file of the videos {names}", ids, found, allowed, path)
        elif len(ids) > 1:
            detail = f"{path} is the file of the videos {', '.join(ids)}"
            yield Problem(kind="shared_file", detail=detail, video_id=ids[1], path=path)


def leaking(users: Iterable[tuple[str, str, str]], allowed: Allowed) -> Iterator[Problem]:
    """Find files that media of two splits are in.

    Args:
        users: id, split and file of every medium that is there.
        allowed: what may be in two splits.
    """
    of_file: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, split, file in users:
        of_file[file].append((name, split))
    for found in of_file.values():
        splits = list(dict.fromkeys(split for _, split in found))
        if len(splits) > 1:
            ids = list(dict.fromkeys(name for name, _ in found))
            first = {split: next(name for name, s in found if s == split) for split in splits}
            names = " and ".join(f"{name} ({split})" for split, name in first.items())
            what = f"one file is in {' and '.join(splits)}: {names}"
            yield _problem(what, ids, splits, allowed)


def shared_content(
    copies: Iterable[Sequence[str]],
    splits: Mapping[str, Collection[str]],
    allowed: Allowed,
) -> Iterator[Problem]:
    """Find files of equal content under several names: in two splits, or within one.

    Args:
        copies: ids of videos whose files have the same bytes.
        splits: where each video is.
        allowed: what may be in two splits.
    """
    for ids in copies:
        present = [video for video in ids if video in splits]
        found = list(dict.fromkeys(split for video in present for split in splits[video]))
        names = ", ".join(f"{video} ({'+'.join(splits[video])})" for video in present)
        what = f"the files of the videos {names} are the same byte for byte"
        if len(present) > 1 and len(found) > 1:
            yield _problem(what, present, found, allowed)
        elif len(present) > 1:
            yield Problem(kind="shared_file", detail=what, video_id=present[1])


def how_to_allow(problems: Sequence[Problem]) -> str:
    """Say what to do about videos in two splits; empty where there are none."""
    refused = [problem for problem in problems if problem.kind == IN_TWO_SPLITS]
    if not refused:
        return ""
    by_name, by_split = map(_override, (refused[0].video_id, refused[0].split))
    return (
        "\ntake such a video out of one of its splits, or allow it by name, "
        f"{by_name}, or all that splits share, {by_split}"
    )


def _override(name: str) -> str:
    """Return the word of a command line that allows a name, whatever characters it has."""
    plain = re.fullmatch(r"[A-Za-z0-9_][\w./+-]*", name, re.ASCII) and not _READ_OTHERWISE.match(
        name
    )
    written = name if plain else json.dumps(name, ensure_ascii=False)
    word = f"data.shared_videos=[{written}]"
    return shlex.quote(word) if "'" in word else f"'{word}'"


def _problem(
    what: str, ids: Sequence[str], splits: Sequence[str], allowed: Allowed, path: str = ""
) -> Problem:
    joined = "+".join(splits)
    kind = ALLOWED_KIND if allowed.covers(ids, joined.split("+")) else IN_TWO_SPLITS
    return Problem(
        kind=kind,
        detail=f"{what}; {PROVES_NOTHING}",
        split=joined,
        video_id=ids[-1],
        path=path,
    )
