"""Captions in JSON or JSONL files, one for each split or several.

    train.json  val.json  test.json      lists of {"video" or "image": path, "caption": text or
                                         list of texts, "start"?: seconds, "end"?: seconds,
                                         "kinds"?: {kind of word: word}}

Paths are relative to the data root. A medium may stand in many rows: all their captions are its
own. With `start` and `end` a caption is of a span of the video, which is a medium of its own.
`kinds` names what the captions say by kinds of words, such as {"color": "red", "motion": "left"}:
nothing learns from it, but retrieval counts in which kinds the first hit is another one.
"""

from functools import cache, cached_property
from typing import Any

from pydantic import model_validator

from msvqa.data.annotated import Annotated
from msvqa.data.annotations import unusable_path
from msvqa.data.caption_rows import CaptionRows
from msvqa.data.dataset import Dataset
from msvqa.data.json_rows import SUFFIXES, json_rows
from msvqa.data.medium import IMAGE_SUFFIXES, kind_of
from msvqa.data.pieces import PiecesConfig, tokenizer_files, unused_fields
from msvqa.data.placed_media import Found, MediaFolders, Place
from msvqa.data.root import Root, SourceFile, open_root
from msvqa.errors import DataError, did_you_mean, one_of
from msvqa.files import hash_file
from msvqa.sections import Config
from msvqa.storage import Location

KEYS = ("video", "image", "caption", "start", "end", "kinds")

Files = dict[str, str | tuple[str, ...]]
"""File or files of each split."""


class SourceConfig(Config):
    """One of several folders with media and their captions."""

    root: Location
    files: Files | None = None
    """By default those of `train`, `val` and `test` that are there, ending in `SUFFIXES`."""


class CaptionFiles(Dataset):
    """Captions for videos, spans of videos and images."""

    class Config(PiecesConfig, Dataset.Config):
        """Where the files are."""

        names_part = ("files", "preferred", "sources")
        files: Files | None = None
        """By default `train.json`, `val.json` and `test.json` (or .jsonl), those that are there."""
        preferred: dict[str, str] = {}
        """File of a split that is read in place of the usual one where the folder has it: what a
        stage learns from first, if a set has that."""
        sources: tuple[SourceConfig, ...] = ()
        """Several folders in place of one; `root` is then the folder that all of them are in."""

        @model_validator(mode="after")
        def _one_way(self) -> "CaptionFiles.Config":
            if self.sources and self.files is not None:
                raise ValueError("files: belong to each of the sources")
            return self

    config: Config

    @cached_property
    def _sources(self) -> list[tuple[str, Root, dict[str, list[str]]]]:
        """Where each source is below the data root, and its files by split.

        Raises:
            DataError: a source lies outside the data root, or has no files.
        """
        follow = self.config.follow_links
        given = self.config.sources or (
            SourceConfig(root=self.config.root, files=self.config.files),
        )
        found = []
        for number, source in enumerate(given):
            root = open_root(source.root, follow_links=follow)
            below = "" if root.location == self.root.location else self.root.name_of(root.location)
            if below is None:
                raise DataError(
                    f"data.sources.{number}.root: {root} is not inside data.root {self.root}; "
                    "data.root is the folder that all sources are in"
                )
            files = _files(root, source.files)
            preferred = {
                split: [name]
                for split, name in self.config.preferred.items()
                if root.size(name) is not None
            }
            found.append((below, root, files | preferred))
        return found

    @property
    def _notes(self) -> list[str]:
        """Say whether the files are read that are preferred, and which if not."""
        said = []
        for _, root, files in self._sources:
            for split, name in self.config.preferred.items():
                read = files.get(split, ["empty"])
                why = "which is preferred" if read == [name] else f"there is no {name}"
                said.append(f"{root}: {split} is {' and '.join(read)}, {why}")
        return said

    @property
    def unused(self) -> frozenset[str]:
        """Fields about pieces of words, where captions become words."""
        return unused_fields(self.config)

    def source_files(self) -> list[SourceFile]:
        """Return the files of all sources, and those of the vocabulary of pieces."""
        captions = [
            root.source(name)
            for _, root, files in self._sources
            for names in files.values()
            for name in names
        ]
        return [*captions, *tokenizer_files(self.config)]

    def fingerprint(self) -> dict[str, str]:
        """Return the SHA-256 of every file by its location: two sources may have one name."""
        return {file.location: hash_file(file.path) for file in self.source_files()}

    def annotate(self) -> Annotated:
        """Read all captions and find the file of each medium."""
        named = [split for _, _, files in self._sources for split in files]
        splits = tuple(dict.fromkeys([*self.splits, *named]))
        rows = CaptionRows(splits)
        for below, root, files in self._sources:
            for split, names in files.items():
                for name in names:
                    told = f"{below}/{name}" if below else name
                    _read(root.source(name), told, split, below, rows)
        media = MediaFolders(self.root)
        by_path: dict[str, Found] = {}
        for _, place in rows.places():
            if place.path not in by_path:
                by_path[place.path] = media.find(place.path)
        return rows.annotated(
            {(split, place): by_path[place.path] for split, place in rows.places()},
            self.root,
            self.config.shared_videos,
            self._notes,
        )


def _files(root: Root, given: Files | None) -> dict[str, list[str]]:
    if given is not None:
        return {
            split: [names] if isinstance(names, str) else list(names)
            for split, names in given.items()
        }
    there = set(root.names(""))
    found = {
        split: [name]
        for split in CaptionFiles.splits
        if (name := next((f"{split}{s}" for s in SUFFIXES if f"{split}{s}" in there), ""))
    }
    if not found:
        wanted = one_of(f"{split}.json" for split in CaptionFiles.splits)
        raise DataError(f"{root}: no file of captions ({wanted}); name them with data.files")
    return found


def _read(file: SourceFile, name: str, split: str, below: str, rows: CaptionRows) -> None:
    # The name is that below the data root: several folders may have files of one name.
    place_of = cache(lambda name, start, end: _place(name, start, end, below))
    for number, row in json_rows(file, "captions", "video and caption"):
        words = _row_problem(row)
        if not words:
            found = place_of(row.get("video", row.get("image")), row.get("start"), row.get("end"))
            if isinstance(found, str):
                words = found
            else:
                words = rows.add(split, found, row["caption"], (name, number), row.get("kinds"))
        if words:
            rows.refuse(name, number, words)


def _row_problem(row: Any) -> str:
    """Say what is wrong with the keys of a row; nothing where they are as they should be."""
    if type(row) is dict and (*row,) == ("video", "caption") and type(row["video"]) is str:
        return ""  # nearly all of millions
    if not isinstance(row, dict):
        return f"an object with video and caption is needed, found {str(row)[:40]!r}"
    names = [key for key in ("video", "image") if key in row]
    if len(names) != 1 or not isinstance(row[names[0]], str) or not row[names[0]].strip():
        hint = did_you_mean("video", set(row) - set(KEYS)) if not names else ""
        return f"one of the keys 'video' and 'image' must name a path{hint}"
    if "caption" not in row:
        return f"key 'caption' is missing{did_you_mean('caption', set(row) - set(KEYS))}"
    span = (row.get("start"), row.get("end"))
    if any(type(value) not in (int, float, type(None)) for value in span):
        return f"'start' and 'end' are seconds, found {span}"
    if names[0] == "image":
        return _image_problem(row["image"], span)
    return ""


def _image_problem(name: str, span: tuple[Any, Any]) -> str:
    if span != (None, None):
        return "an image has no 'start' and no 'end'"
    if kind_of(name) != "image":
        return f"'image' names {name[:50]!r}: an image ends in {one_of(IMAGE_SUFFIXES)}"
    return ""


def _place(name: str, start: float | None, end: float | None, below: str) -> Place | str:
    """Return a medium below the data root, or why its path cannot be one."""
    if problem := unusable_path(name):
        return f"{name[:50]!r} cannot be the path of a file: {problem}"
    path = f"{below}/{name}" if below else name
    return Place(path, *(None if second is None else float(second) for second in (start, end)))
