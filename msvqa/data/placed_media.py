"""Media on their way from annotations into a table: places that are named, files that are found."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import pyarrow as pa

from msvqa.data.annotated import MEDIA_COLUMNS
from msvqa.data.leakage import Allowed, leaking
from msvqa.data.medium import kind_of
from msvqa.data.root import Root
from msvqa.data.schema import Problem
from msvqa.data.video_files import VideoFile
from msvqa.errors import did_you_mean

NAMES_COMPARED = 1_000
Where = tuple[str, int]
"""Name of a file of annotations, and number of a row in it."""


class Place(NamedTuple):
    """A medium as annotations name it."""

    path: str
    start: float | None = None
    end: float | None = None

    @property
    def id(self) -> str:
        """Its name: the path, with the span where it has one."""
        if self.start is None and self.end is None:
            return self.path
        end = "" if self.end is None else f"{self.end:g}"
        return f"{self.path}[{self.start or 0:g}-{end}]"


@dataclass(frozen=True)
class Found:
    """Where a medium is, and of which kind it is."""

    file: VideoFile
    kind: str


RowOf = Callable[[str, Place], Where | None]


def unknown_row(split: str, place: Place) -> None:
    """Say that no row of annotations names a medium."""


@dataclass(frozen=True)
class PlacedMedia:
    """All media of annotations, those of a split together, with where each is."""

    places: Sequence[tuple[str, Place]]
    """Split and name of each."""
    found: Mapping[tuple[str, Place], Found]
    """The file of every one of `places`."""
    root: Root
    """The data root, which says when two names are one file."""
    row_of: RowOf = unknown_row
    """Returns which row of the annotations named a medium of a split first, where that is known."""

    @cached_property
    def table(self) -> pa.Table:
        """The table of media, with `MEDIA_COLUMNS`."""
        columns: dict[str, list[Any]] = {name: [] for name in MEDIA_COLUMNS.names}
        for split, place in self.places:
            for name, value in medium_row(split, place, self.found[split, place]).items():
                columns[name].append(value)
        return pa.table(columns, schema=MEDIA_COLUMNS)

    def problems(self, splits: Sequence[str], shared: Sequence[str]) -> list[Problem]:
        """Return what is wrong with the media: absent files, and videos in two splits.

        Args:
            splits: names of all splits.
            shared: media that may be in several of them, see `data.shared_videos`.
        """
        allowed = Allowed(frozenset(shared))
        return [
            *allowed.problems({place.id for _, place in self.places}, splits),
            *media_problems(self.places, self.found, self.row_of),
            *leaking(self._users, allowed),
        ]

    @property
    def same_file(self) -> list[list[str]]:
        """Ids of media that are one file, or parts of one."""
        return same_file(self._users)

    @cached_property
    def _users(self) -> list[tuple[str, str, str]]:
        """Id, split and file of every medium that is there."""
        found = ((split, place, self.found[split, place].file.path) for split, place in self.places)
        return [(place.id, split, self.root.identify(path)) for split, place, path in found if path]


class MediaFolders:
    """Media by their paths below a data root; each folder is listed once at most."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._names = cache(root.names)
        self._folders = cache(lambda folder: frozenset(root.folders(folder)))

    def find(self, path: str) -> Found:
        """Return the file, or the folder of frames, that a path names."""
        root, kind, inside = self.root, kind_of(path), self.root.inside(path)
        if inside is None:
            return Found(VideoFile("", path, leaves_root=True), kind)
        parent, _, name = inside.rpartition("/")
        is_file = root.size(inside) is not None
        if not is_file and name not in self._folders(parent):
            names = self._names(parent)[:NAMES_COMPARED]
            hint = root.broken_link(inside) or did_you_mean(name, names).strip(" ()")
            return Found(VideoFile("", inside, hint=hint), kind)
        if (target := root.leads_out(inside)) is not None:
            return Found(VideoFile("", inside, leaves_root=True, link=target), kind)
        return Found(VideoFile(inside, inside), kind if is_file else "frames")


def medium_row(split: str, place: Place, found: Found) -> dict[str, Any]:
    """Return a row of the table of media, see `MEDIA_COLUMNS`."""
    file = found.file
    hint = f"; {file.hint}" if file.hint else ""
    return {
        "id": place.id, "path": file.path, "kind": found.kind, "start": place.start,
        "end": place.end, "split": split, "present": bool(file.path), "expected": file.expected,
        "absence": "" if file.path else f"{file.expected}{hint}",
    }  # fmt: skip


def same_file(users: Sequence[tuple[str, str, str]]) -> list[list[str]]:
    """Return the ids of media, as spans, that are parts of one file."""
    ids: dict[str, dict[str, None]] = defaultdict(dict)
    for name, _, file in users:
        ids[file][name] = None
    return [list(names) for names in ids.values() if len(names) > 1]


def media_problems(
    places: Sequence[tuple[str, Place]],
    found: Mapping[tuple[str, Place], Found],
    row_of: RowOf = unknown_row,
) -> Iterator[Problem]:
    """Yield what is wrong with the files of media; `row_of` as in `PlacedMedia`."""
    for split, place in places:
        file = found[split, place].file
        if file.leaves_root:
            way = f" by a link, to {file.link}; data.follow_links=true follows such links"
            kind, words = "outside_root", f"it leaves the data root{way if file.link else ''}"
        elif not file.path:
            hint = f"; {file.hint}" if file.hint else ""
            kind, words = "missing_video", f"no file {file.expected}{hint}"
        else:
            continue
        source, row = row_of(split, place) or ("", None)
        named = f"{source}: row {row}: " if source else ""
        yield Problem(
            kind=kind, detail=f"{named}{place.id} of {split}: {words}", split=split,
            video_id=place.id, path=file.expected, row=row,
        )  # fmt: skip
