"""Annotated captions on their way into tables: media that are found, rows that are checked."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pyarrow as pa

from msvqa.data.annotated import MEDIA_COLUMNS, Annotated
from msvqa.data.examples.captions import Captions, unrolled
from msvqa.data.leakage import Allowed, leaking
from msvqa.data.pictures import IMAGE_SUFFIXES
from msvqa.data.root import Root
from msvqa.data.schema import Problem
from msvqa.data.video_files import VideoFile
from msvqa.errors import did_you_mean

MAX_CAPTION_LENGTH = 10_000
NAMES_COMPARED = 1_000


@dataclass(frozen=True)
class Place:
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


@dataclass
class CaptionRows:
    """Captions by split and medium, in the order in which they were added."""

    splits: Sequence[str]
    problems: list[Problem] = field(default_factory=list)
    _captions: dict[str, dict[Place, list[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

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
        self._captions[split][place] += texts
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
        media = [medium_row(split, place, found[split, place]) for split, place in self.places()]
        captions = (
            (split, number, texts)
            for split in self.splits
            for number, texts in enumerate(self._captions[split].values())
        )
        rows = unrolled(captions)
        users = [(m["id"], m["split"], root.identify(m["path"])) for m in media if m["path"]]
        allowed = Allowed(frozenset(shared))
        return Annotated(
            kind=Captions,
            splits=self.splits,
            media=pa.Table.from_pylist(media, schema=MEDIA_COLUMNS),
            examples=_examples(rows),
            problems=[
                *self.problems,
                *allowed.problems({medium["id"] for medium in media}, self.splits),
                *media_problems(self.places(), found),
                *leaking(users, allowed),
            ],
            notes=notes,
            same_file=same_file(users),
        )

    def places(self) -> list[tuple[str, Place]]:
        """Return the media of all splits, with the split."""
        return [(split, place) for split in self.splits for place in self._captions[split]]


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


def _examples(rows: Sequence[tuple[str, int, list[str]]]) -> pa.Table:
    media = pa.FixedSizeListArray.from_arrays(pa.array([m for _, m, _ in rows], pa.int64()), 1)
    return pa.table(
        {
            "media": media,
            "split": pa.array([split for split, _, _ in rows], pa.string()),
            "captions": pa.array([texts for _, _, texts in rows], pa.list_(pa.string())),
        }
    )


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
