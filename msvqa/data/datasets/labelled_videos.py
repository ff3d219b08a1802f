"""Videos and images with a label each, in lists of files or in a folder for each label.

    train.csv  val.csv  test.csv        lists of "path,label" or "path label", one medium a line
    train/LABEL/FILE  val/LABEL/FILE    or folders of splits, with a folder for each label
    LABEL/FILE                          or a folder for each label alone: the media are divided into
                                        train, val and test (80/10/10) by a seed

Lists are those of VideoMAE and UMT: a comma, a tab or the last space of a line divides path and
label, as the first line shows, and a first line that names the columns `path` and `label` is left
out. Paths are relative to the data root. Labels are texts, numbers too. A folder of images, in
place of a file, is the frames of a video.
"""

import csv
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from msvqa.data.annotated import Annotated
from msvqa.data.annotations import unusable_path
from msvqa.data.dataset import Dataset
from msvqa.data.examples.labels import Labels
from msvqa.data.medium import kind_of
from msvqa.data.placed_media import MediaFolders, Place, PlacedMedia, Where, unknown_row
from msvqa.data.root import SourceFile
from msvqa.data.schema import Problem
from msvqa.data.table_splits import deal
from msvqa.data.video_files import is_video
from msvqa.errors import DataError, one_of
from msvqa.text_files import read_lines

SUFFIXES = (".csv", ".txt", ".tsv")
HEADS = ("path", "video", "file", "filename"), ("label", "class")
"""Names of both columns that a first line may have."""
MAX_LABEL_LENGTH = 1_000
DIVIDERS = {",": "a comma", "\t": "a tab", " ": "a space"}


class LabelledVideos(Dataset):
    """Media with a label each."""

    class Config(Dataset.Config):
        """Where the lists are, or how media without splits are divided."""

        names_part = ("files",)
        files: dict[str, str | tuple[str, ...]] | None = None
        """List or lists of each split. By default `train.csv`, `val.csv` and `test.csv` (or .txt,
        .tsv), those that are there; without any, folders are read."""
        split_seed: int = 0
        """Which media are held out where folders are those of labels alone."""

    config: Config

    @cached_property
    def _lists(self) -> dict[str, list[str]]:
        """The lists of each split; none where labels are folders."""
        if self.config.files is not None:
            return {
                split: [names] if isinstance(names, str) else list(names)
                for split, names in self.config.files.items()
            }
        there = set(self.root.names(""))
        return {
            split: [name]
            for split in self.splits
            if (name := next((f"{split}{s}" for s in SUFFIXES if f"{split}{s}" in there), ""))
        }

    def source_files(self) -> list[SourceFile]:
        """Return the lists; without lists there is none."""
        return [self.root.source(name) for names in self._lists.values() for name in names]

    def annotate(self) -> Annotated:
        """Read all labels, and find the file of each medium."""
        rows = LabelRows(tuple(dict.fromkeys([*self.splits, *self._lists])))
        for split, names in self._lists.items():
            for name in names:
                _read(self.root.source(name), split, rows)
        notes = [] if self._lists else self._read_folders(rows)
        # Of folders there are no rows.
        row_of = rows.row_of if self._lists else unknown_row
        media = MediaFolders(self.root)
        found = {(split, place): media.find(place.path) for split, place in rows.places()}
        placed = PlacedMedia(rows.places(), found, self.root, row_of)
        problems = placed.problems(rows.splits, self.config.shared_videos)
        return Annotated(
            kind=Labels,
            splits=rows.splits,
            media=placed.table,
            examples=rows.table(),
            problems=[*rows.problems, *problems],
            notes=notes,
            same_file=placed.same_file,
        )

    def _read_folders(self, rows: "LabelRows") -> list[str]:
        """Add the media of folders; return what users should know of how they were read.

        Raises:
            DataError: there is neither a list nor a folder with media.
        """
        tops = [split for split in self.splits if self.root.has_folder(split)]
        media: list[tuple[str, str, str]] = []
        others: list[str] = []
        for top in tops or [""]:
            for path, label in self._labelled(top):
                if self._is_medium(path):
                    media.append((top, path, label))
                else:
                    others.append(path)
        if not media:
            lists = one_of(f"{split}{SUFFIXES[0]}" for split in self.splits)
            raise DataError(
                f"{self.root}: neither a list ({lists}) nor a folder of videos for each label, "
                "LABEL/FILE or train/LABEL/FILE; name lists with data.files"
            )
        seed = self.config.split_seed
        dealt = {} if tops else deal([path for _, path, _ in media], seed)
        for number, (top, path, label) in enumerate(media, start=1):
            rows.add(top or dealt[path], path, label, (path, number))
        notes = [] if tops else [f"divided into train, val and test (80/10/10) with seed {seed}"]
        if others:
            notes.append(
                f"{len(others)} files in folders of labels are neither videos nor images, and are "
                f"left out, the first: {others[0]!r}"
            )
        return notes

    def _labelled(self, top: str) -> Iterator[tuple[str, str]]:
        """Yield path and label of all that is in the folders of labels, in order."""
        for label in sorted(self.root.folders(top)):
            folder = f"{top}/{label}" if top else label
            inside = [*self.root.names(folder), *self.root.folders(folder)]
            yield from ((f"{folder}/{name}", label) for name in sorted(inside))

    def _is_medium(self, path: str) -> bool:
        if not path.isprintable():
            # Such as a name that is not Unicode, which no table holds.
            return False
        if is_video(path) or kind_of(path) == "image":
            return True
        # Of what is no folder there are no names.
        return any(kind_of(name) == "image" for name in self.root.names(path))


class LabelRows:
    """Labels by split and medium, in the order in which they were added."""

    def __init__(self, splits: Sequence[str]) -> None:
        self.splits = splits
        self.problems: list[Problem] = []
        self._labels: dict[str, dict[Place, tuple[str, Where]]] = {s: {} for s in splits}

    def add(self, split: str, path: str, label: str, where: Where) -> None:
        """Keep the label of a medium, or note what is wrong with it.

        Args:
            split: name of the split.
            path: of the medium, below the data root.
            label: any text.
            where: name of the file and number of the row that say so.
        """
        if words := _row_problem(path, label):
            self.refuse(where, words)
            return
        first, (name, number) = self._labels[split].setdefault(Place(path), (label, where))
        if (name, number) == where:
            return
        earlier = f"{path} is also in {name}: row {number}"
        if first == label:
            self.refuse(where, f"{earlier}, with the same label", "duplicate_record")
        else:
            self.refuse(where, f"{earlier}, with the label {first!r} and not {label!r}")

    def refuse(self, where: Where, words: str, kind: str = "invalid_row") -> None:
        """Note what is wrong with a row, which is left out."""
        name, number = where
        detail = f"{name}: row {number}: {words}"
        self.problems.append(Problem(kind=kind, detail=detail, path=name, row=number))

    def places(self) -> list[tuple[str, Place]]:
        """Return the media of all splits, with the split."""
        return [(split, place) for split in self.splits for place in self._labels[split]]

    def row_of(self, split: str, place: Place) -> Where:
        """Return the row that named a medium of a split."""
        return self._labels[split][place][1]

    def table(self) -> pa.Table:
        """Return one row for each medium: `media`, `split`, `label`."""
        rows = [
            {"media": [number], "split": split, "label": label}
            for split in self.splits
            for number, (label, _) in enumerate(self._labels[split].values())
        ]
        fields = [Labels.schema().field("media"), ("split", pa.string()), ("label", pa.string())]
        return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _row_problem(path: str, label: str) -> str:
    if not path or not label:
        return f"{'the label' if path else 'the path'} is empty"
    if len(label) > MAX_LABEL_LENGTH:
        return f"a label is longer than {MAX_LABEL_LENGTH} characters"
    if problem := unusable_path(path):
        return f"{path[:50]!r} cannot be the path of a file: {problem}"
    return ""


def _read(file: SourceFile, split: str, rows: LabelRows) -> None:
    """Add the rows of a list.

    Raises:
        DataError: it is no text, or of another kind of file.
    """
    if file.suffix not in SUFFIXES:
        raise DataError(f"{file}: lists of labels are in files that end in {one_of(SUFFIXES)}")
    lines = ((n, line.strip()) for n, line in enumerate(read_lines(file.path, file), start=1))
    divider = ""
    for number, line in lines:
        if not line:
            continue
        is_first, divider = not divider, divider or _divider(line)
        cells = _cells(line, divider)
        if is_first and _is_head(cells):
            continue
        if isinstance(cells, str):
            rows.refuse((file.name, number), cells)
        else:
            rows.add(split, *cells, (file.name, number))


def _divider(line: str) -> str:
    return next((mark for mark in DIVIDERS if mark in line), " ")


def _cells(line: str, divider: str) -> tuple[str, str] | str:
    """Return path and label of a line, or what is wrong with it."""
    if divider == " ":
        path, _, label = line.rpartition(" ")
        cells: Sequence[Any] = (path, label) if path else (label,)
    else:
        try:
            cells = next(csv.reader([line], delimiter=divider, strict=True, skipinitialspace=True))
        except csv.Error as error:
            return f"it cannot be divided by {DIVIDERS[divider]}: {error}"
    if len(cells) != 2:
        return (
            f"a path and a label divided by {DIVIDERS[divider]}, as in the first line, are needed, "
            f"found {line[:60]!r}"
        )
    return cells[0].strip(), cells[1].strip()


def _is_head(cells: tuple[str, str] | str) -> bool:
    return not isinstance(cells, str) and all(
        cell.lower() in names for cell, names in zip(cells, HEADS, strict=True)
    )
