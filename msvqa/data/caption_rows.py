"""Annotated captions on their way into tables: media that are found, rows that are checked."""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from msvqa.data.annotated import MEDIA_COLUMNS, Annotated
from msvqa.data.examples.captions import HELD_TOGETHER, Captions
from msvqa.data.leakage import Allowed, leaking
from msvqa.data.pictures import IMAGE_SUFFIXES
from msvqa.data.root import Root
from msvqa.data.schema import Problem
from msvqa.data.video_files import VideoFile
from msvqa.errors import did_you_mean

MAX_CAPTION_LENGTH = 10_000
ROWS_AT_ONCE = 10_000
"""So many captions are held as objects on their way into a table."""
NAMES_COMPARED = 1_000


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


class CaptionRows:
    """Captions by split and medium, in the order in which they were added."""

    def __init__(self, splits: Sequence[str]) -> None:
        self.splits = splits
        self.problems: list[Problem] = []
        self._numbers: dict[str, dict[Place, int]] = {split: {} for split in splits}
        """Media of each split, by the order in which they came."""
        self._texts = {split: _Texts() for split in splits}

    def add(self, split: str, place: Place, captions: Any) -> str:
        """Keep the captions of a medium, or return what is wrong with them."""
        texts = [captions] if isinstance(captions, str) else captions
        if not isinstance(texts, list) or not texts:
            return "'caption' must be a text or a list of texts"
        for text in texts:
            if words := _text_problem(text):
                return words
        if words := _span_problem(place):
            return words
        numbers = self._numbers[split]
        self._texts[split].add(numbers.setdefault(place, len(numbers)), texts)
        return ""

    def refuse(self, source: str, row: int, words: str) -> None:
        """Note what is wrong with a row."""
        detail = f"{source}: row {row}: {words}"
        self.problems.append(Problem(kind="invalid_row", detail=detail, path=source, row=row))

    def annotated(
        self,
        found: Mapping[tuple[str, Place], Found],
        root: Root,
        shared: Sequence[str],
        notes: Sequence[str] = (),
    ) -> Annotated:
        """Return the tables of all rows, with what is wrong with the media.

        Args:
            found: every medium of `places`.
            root: the data root, which says when two names are one file.
            shared: media that may be in several splits, see `data.shared_videos`.
            notes: what users should know of how the files were read.
        """
        placed = PlacedMedia.of(self.places(), found, root, Allowed(frozenset(shared)), self.splits)
        return Annotated(
            kind=Captions,
            splits=self.splits,
            media=placed.media,
            examples=self._examples(),
            problems=[*self.problems, *placed.problems],
            notes=notes,
            same_file=placed.same_file,
        )

    def _examples(self) -> pa.Table:
        tables = [
            texts.table(split, split == HELD_TOGETHER) for split, texts in self._texts.items()
        ]
        # Of one piece, which all that follows reads without a copy.
        whole = pa.concat_tables(tables).combine_chunks()
        del tables
        # The pieces are hundreds of megabytes, which Arrow would keep for itself.
        pa.default_memory_pool().release_unused()
        return whole

    def places(self) -> list[tuple[str, Place]]:
        """Return the media of all splits, with the split."""
        return [(split, place) for split in self.splits for place in self._numbers[split]]


class _Texts:
    """The captions of one split: few at a time as objects, all others as a table's column."""

    def __init__(self) -> None:
        self._media = array("i")
        self._objects: list[str] = []
        self._columns: list[pa.Array] = []

    def add(self, medium: int, texts: Sequence[str]) -> None:
        """Add captions of the medium with a number."""
        self._media.extend([medium] * len(texts))
        self._objects += texts
        if len(self._objects) >= ROWS_AT_ONCE:
            self._store()

    def _store(self) -> None:
        self._columns.append(pa.array(self._objects, pa.string()))
        self._objects = []

    def table(self, split: str, together: bool) -> pa.Table:
        """Return one row for each medium with all of its captions, or one for each caption.

        Both are in the order of the media, and the captions of one in that in which they came.
        """
        self._store()
        medium = np.asarray(self._media, dtype=np.int64)
        texts = pa.chunked_array(self._columns)
        if (np.diff(medium) < 0).any():
            order = np.argsort(medium, kind="stable")
            texts, medium = texts.take(pa.array(order)), medium[order]
        self._columns, texts = [], texts.combine_chunks()
        if together:
            medium, per_row = np.unique(medium, return_counts=True)
            starts = np.concatenate([[0], np.cumsum(per_row)])
        else:
            starts = np.arange(len(medium) + 1)
        rows = pa.FixedSizeListArray.from_arrays(pa.array(medium, pa.int64()), 1)
        return pa.table(
            {
                "media": rows,
                "split": pa.array([split] * len(medium), pa.string()),
                "captions": pa.ListArray.from_arrays(pa.array(starts, pa.int32()), texts),
            }
        )


class MediaFolders:
    """Media by their paths below a data root; each folder is listed once at most."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._names = cache(root.names)
        self._folders = cache(lambda folder: frozenset(root.folders(folder)))

    def find(self, path: str) -> Found:
        """Return the file, or the folder of frames, that a path names."""
        root, kind, inside = self.root, _kind_of(path), self.root.inside(path)
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


def _kind_of(path: str) -> str:
    return "image" if path.lower().endswith(IMAGE_SUFFIXES) else "video"


def _text_problem(text: Any) -> str:
    if not isinstance(text, str):
        return f"a caption must be a text, found {str(text)[:40]!r}"
    if not (text[:1].isalnum() or any(map(str.isalnum, text))):
        return "a caption is empty"
    if len(text) > MAX_CAPTION_LENGTH:
        return f"a caption is longer than {MAX_CAPTION_LENGTH} characters"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a caption is not valid Unicode"
    return ""


def _span_problem(place: Place) -> str:
    if place.start is not None and place.start < 0:
        return f"'start' is {place.start:g}, before the video begins"
    if place.end is not None and place.end <= (place.start or 0):
        return f"'end' {place.end:g} is not after 'start' {place.start or 0:g}"
    return ""


@dataclass(frozen=True)
class PlacedMedia:
    """The media of all splits as a table, and what is wrong with them."""

    media: pa.Table
    """Columns as in `MEDIA_COLUMNS`."""
    problems: Sequence[Problem]
    same_file: Sequence[Sequence[str]]
    """Ids of media that are parts of one file."""

    @classmethod
    def of(
        cls,
        places: Sequence[tuple[str, Place]],
        found: Mapping[tuple[str, Place], Found],
        root: Root,
        allowed: Allowed,
        splits: Sequence[str],
    ) -> "PlacedMedia":
        """Return the table of media, with its problems.

        Args:
            places: media with their splits, those of a split together.
            found: where each of them is.
            root: the data root, which says when two names are one file.
            allowed: media that may be in several splits.
            splits: names of all splits.
        """
        columns: dict[str, list[Any]] = {name: [] for name in MEDIA_COLUMNS.names}
        for split, place in places:
            for name, value in medium_row(split, place, found[split, place]).items():
                columns[name].append(value)
        users = [
            (name, split, root.identify(path))
            for name, split, path in zip(
                *(columns[key] for key in ("id", "split", "path")), strict=True
            )
            if path
        ]
        problems = [
            *allowed.problems(set(columns["id"]), splits),
            *media_problems(places, found),
            *leaking(users, allowed),
        ]
        return cls(pa.table(columns, schema=MEDIA_COLUMNS), problems, same_file(users))


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
    places: Sequence[tuple[str, Place]], found: Mapping[tuple[str, Place], Found]
) -> Iterator[Problem]:
    """Yield what is wrong with the files of media."""
    for split, place in places:
        file, about = found[split, place].file, f"{place.id} of {split}"
        if file.leaves_root:
            way = f" by a link, to {file.link}; data.follow_links=true follows such links"
            detail = f"{about}: it leaves the data root{way if file.link else ''}"
            yield Problem(kind="outside_root", detail=detail, split=split, video_id=place.id)
        elif not file.path:
            hint = f"; {file.hint}" if file.hint else ""
            detail = f"{about}: no file {file.expected}{hint}"
            yield Problem(kind="missing_video", detail=detail, split=split, video_id=place.id)
