"""A table of your own: CSV, TSV, JSONL or Parquet with video, question, answer[, split[, type]].

`video` is a path relative to the data root, or a file name there or in video/ or videos/, with or
without its ending; all spellings of a file are one video. Other columns are ignored. Without a
split column the videos are divided into train, val and test (80/10/10) by a seed. A question's id
is the number of its row, from 1.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.data.annotations import Annotations, Row
from msvqa.data.delimited import column_name, read_cells
from msvqa.data.question_set import QuestionSet
from msvqa.data.root import SourceFile, open_root
from msvqa.data.spellings import Spellings
from msvqa.data.video_files import VideoFile
from msvqa.errors import DataError, did_you_mean, one_of
from msvqa.storage import Location
from msvqa.text_files import parse_json, read_lines

REQUIRED = ("video", "question", "answer")
OPTIONAL = ("split", "type")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Endings of the files that are looked for; one named by `annotations` may end in .txt too, as
Excel's "Unicode text" does."""
FOLDERS = ("", "video", "videos")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
HELD_OUT = 0.1
"""Part of the videos that val gets, and test, where no column says."""

NumberedRow = tuple[int, dict[str, Any] | str]
"""The number of a row from 1 with our columns, or with what is wrong with it."""


class Table(QuestionSet):
    """Questions about videos of the user, one per row."""

    class Config(QuestionSet.Config):
        """Where the table is and how it is split."""

        annotations: Location | None = None
        """The table; by default the only one in `root`."""
        split_seed: int = 0
        """Which videos are held out where the table has no split column."""

    question_types = ("what", "who", "how", "when", "where", "which", "why")

    def __init__(self, config: "Table.Config") -> None:
        super().__init__(config)
        self._seed = config.split_seed
        self._annotations = config.annotations
        self._spellings = Spellings(self.videos, FOLDERS, (self.root.location, config.root))

    @cached_property
    def file(self) -> SourceFile:
        """The table."""
        if self._annotations is not None:
            folder, _, name = self._annotations.rpartition("/")
            root = self.root if folder == self.root.location else open_root(folder or "/")
            return root.source(name)
        tables = sorted(name for name in self.root.names("") if name.lower().endswith(SUFFIXES))
        if len(tables) != 1:
            found = ", ".join(tables) or "none"
            raise DataError(
                f"{self.root}: one table ({one_of(SUFFIXES)}) is needed, found {found}; "
                "name it with data.annotations=FILE"
            )
        return self.root.source(tables[0])

    def source_files(self) -> list[SourceFile]:
        """Return the table."""
        return [self.file]

    def read(self) -> Annotations:
        """Read all rows; where the table has no splits, make them."""
        file = self.file
        reader = _READERS.get(file.suffix)
        if reader is None:
            raise DataError(
                f"{file}: cannot read {file.suffix!r}; a table is one of {one_of(_READERS)}"
            )
        annotations = Annotations()
        for number, values in reader(file):
            row = values if isinstance(values, str) else self._row(file.name, number, values)
            if isinstance(row, Row):
                annotations.add(row)
            else:
                annotations.refuse("invalid_row", file.name, number, row)
        annotations.rows, notes = self._spellings.merge(annotations.rows)
        annotations.notes += notes
        self._complete_splits(annotations)
        return annotations

    def find_video(self, video_id: str, split: str) -> VideoFile:
        """Return the file of a path or name."""
        return self._spellings.resolve(video_id).file

    def _row(self, source: str, number: int, values: dict[str, Any]) -> Row | str:
        """Return the row, or what is wrong with it."""
        texts: dict[str, str] = {}
        for column, value in values.items():
            if value is None and column in OPTIONAL:
                continue
            if type(value) not in (str, int):
                return f"column {column!r} must be a text, found {str(value)[:40]!r}"
            # The name of a video may begin or end with a space.
            texts[column] = str(value) if column == "video" else str(value).strip()
        absent = [column for column in REQUIRED if column not in texts]
        if absent:
            return f"{', '.join(absent)} missing"
        split = texts.get("split", "").lower()
        if split and split not in SPLIT_NAMES:
            hint = did_you_mean(split, SPLIT_NAMES)
            return f"split {split!r} is not one of {one_of(self.splits)}{hint}"
        return Row(
            split=SPLIT_NAMES.get(split, ""),
            video_id=self._spellings.resolve(texts["video"]).video_id,
            question_id=number,
            question=texts["question"],
            answer=texts["answer"],
            type=texts.get("type") or self.question_type(texts["question"]),
            source=source,
            number=number,
        )

    def _complete_splits(self, annotations: Annotations) -> None:
        """Make splits where no row has one; where some have, all must."""
        without = [row for row in annotations.rows if not row.split]
        if len(without) == len(annotations.rows):
            annotations.rows = split_by_video(without, self._seed)
            annotations.notes.append(
                f"no row of {self.file.name} has a split: its videos are divided into train, val "
                f"and test by data.split_seed={self._seed}"
            )
            return
        for row in without:
            words = "no split, though other rows have one"
            annotations.refuse("invalid_row", row.source, row.number, words, row)
        annotations.rows = [row for row in annotations.rows if row.split]


def split_by_video(rows: list[Row], seed: int) -> list[Row]:
    """Divide rows into train, val and test so that all questions about a video stay together.

    Videos are ranked by a hash of seed and id; so adding a video moves few others.
    """
    ids = {row.video_id for row in rows}
    ranked = sorted(ids, key=lambda video: hashlib.sha256(f"{seed}:{video}".encode()).digest())
    held_out = max(1, round(HELD_OUT * len(ids))) if len(ids) >= 3 else 0
    split_of = dict.fromkeys(ranked, "train")
    split_of |= dict.fromkeys(ranked[:held_out], "test")
    split_of |= dict.fromkeys(ranked[held_out : 2 * held_out], "val")
    return [replace(row, split=split_of[row.video_id]) for row in rows]


def _columns(file: SourceFile, names: list[str], found: str = "") -> dict[str, str]:
    """Return our columns by their name in the file; case and spaces around do not matter."""
    ours = [
        (name, column_name(name)) for name in names if column_name(name) in (*REQUIRED, *OPTIONAL)
    ]
    there = [known for _, known in ours]
    absent = [known for known in REQUIRED if known not in there]
    if absent:
        hints = "".join(did_you_mean(known, names) for known in absent)
        found = found or ", ".join(names) or "none"
        raise DataError(f"{file}: column {', '.join(absent)} missing{hints}; found {found}")
    if len(set(there)) < len(there):
        raise DataError(f"{file}: a column is there twice: {', '.join(name for name, _ in ours)}")
    return dict(ours)


def _read_csv(file: SourceFile) -> Iterator[NumberedRow]:
    cells_of = read_cells(file, REQUIRED)
    names, columns = cells_of.names, _columns(file, cells_of.names, cells_of.found)
    for number, cells in cells_of.rows:
        if len(cells) > len(names):
            yield number, f"{len(cells)} cells under {len(names)} column names"
        else:
            row = dict(zip(names, cells, strict=False))
            yield number, {columns[name]: row[name] for name in columns if name in row}


def _read_jsonl(file: SourceFile) -> Iterator[NumberedRow]:
    for number, line in enumerate(read_lines(file.path, file), start=1):
        if not line.strip():
            continue
        try:
            values = parse_json(line)
        except ValueError as error:
            raise DataError(f"{file}: line {number} is not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise DataError(f"{file}: line {number} is not a JSON object")
        ours = [(column_name(name), value) for name, value in values.items()]
        named = {name: value for name, value in ours if name in (*REQUIRED, *OPTIONAL)}
        if len(named) < sum(name in named for name, _ in ours):
            yield number, f"a column is there twice: {', '.join(values)}"
        else:
            yield number, named


def _read_parquet(file: SourceFile) -> Iterator[NumberedRow]:
    try:
        table = pq.ParquetFile(file.path)
        columns = _columns(file, table.schema_arrow.names)
        number = 0
        for batch in table.iter_batches(columns=list(columns)):
            for row in batch.to_pylist():
                number += 1
                yield number, {columns[name]: value for name, value in row.items()}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a Parquet file: {error}") from None


_READERS = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), _read_csv),
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
