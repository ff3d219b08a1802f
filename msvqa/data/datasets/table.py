"""A table of your own: CSV, TSV, JSONL or Parquet with video, question, answer[, split[, type]].

Or of captions: video, caption[, split[, start, end]], one caption a row; `start` and `end` are
seconds of the video.

`video` is a path relative to the data root, or a file name there or in video/ or videos/, with or
without its ending; all spellings of a file are one video. Other columns are ignored. Without a
split column the videos are divided into train, val and test (80/10/10) by a seed. A question's id
is the number of its row, from 1.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from msvqa.data.annotated import Annotated
from msvqa.data.annotations import Annotations, Row
from msvqa.data.caption_rows import CaptionRows, Found, Place
from msvqa.data.question_set import QuestionSet
from msvqa.data.root import SourceFile, open_root
from msvqa.data.spellings import Spellings
from msvqa.data.table_files import Columns, has_column, read_rows
from msvqa.data.video_files import VideoFile
from msvqa.errors import DataError, did_you_mean, one_of
from msvqa.storage import Location

QUESTIONS = Columns(("video", "question", "answer"), ("split", "type"))
CAPTIONS = Columns(("video", "caption"), ("split", "start", "end"))
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Endings of the files that are looked for; one named by `annotations` may end in .txt too, as
Excel's "Unicode text" does."""
FOLDERS = ("", "video", "videos")
SPAN = ("start", "end")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
HELD_OUT = 0.1
"""Part of the videos that val gets, and test, where no column says."""


class Table(QuestionSet):
    """Questions about videos of the user, or captions of them, one per row."""

    class Config(QuestionSet.Config):
        """Where the table is and how it is split."""

        annotations: Location | None = None
        """The table; by default the only one in `root`."""
        split_seed: int = 0
        """Which videos are held out where the table has no split column."""

    question_types = ("what", "who", "how", "when", "where", "which", "why")

    def __init__(self, config: "Table.Config") -> None:
        super().__init__(config)
        self._seed, self._shared = config.split_seed, config.shared_videos
        self._annotations = config.annotations
        self._spellings = Spellings(self.videos, FOLDERS, (self.root.location, config.root))

    @cached_property
    def file(self) -> SourceFile:
        """The table."""
        if self._annotations is not None:
            folder, _, name = self._annotations.rpartition("/")
            root = (
                self.root
                if folder == self.root.location
                else open_root(folder or "/", follow_links=self.config.follow_links)
            )
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
        annotations = Annotations()
        for number, values in read_rows(file, QUESTIONS):
            row = values if isinstance(values, str) else self._row(file.name, number, values)
            if isinstance(row, Row):
                annotations.add(row)
            else:
                annotations.refuse("invalid_row", file.name, number, row)
        annotations.rows, notes = self._spellings.merge(annotations.rows)
        annotations.notes += notes
        self._complete_splits(annotations)
        return annotations

    def annotate(self) -> Annotated:
        """Read all questions, or all captions where the table has those."""
        if has_column(self.file, "caption") and not has_column(self.file, "question"):
            return self._captions()
        return super().annotate()

    def _captions(self) -> Annotated:
        rows, notes = CaptionRows(self.splits), []
        read: list[tuple[int, str, Place, Any]] = []
        for number, values in read_rows(self.file, CAPTIONS):
            row = values if isinstance(values, str) else self._caption(values)
            if isinstance(row, str):
                rows.refuse(self.file.name, number, row)
            else:
                read.append((number, *row))
        dealt: Mapping[str, str] = {}
        if not any(split for _, split, _, _ in read):
            dealt = deal({place.path for _, _, place, _ in read}, self._seed)
            notes.append(self._divided())
        for number, split, place, caption in read:
            if not (split := split or dealt.get(place.path, "")):
                rows.refuse(self.file.name, number, "no split, though other rows have one")
            elif words := rows.add(split, place, caption):
                rows.refuse(self.file.name, number, words)
        found = {
            (split, place): Found(self._spellings.resolve(place.path).file, "video")
            for split, place in rows.places()
        }
        return rows.annotated(found, self.root, self._shared, notes)

    def _caption(self, values: Mapping[str, Any]) -> tuple[str, Place, Any] | str:
        """Return split, medium and caption of a row, or what is wrong with it."""
        if not isinstance(values.get("video"), (str, int)) or not str(values["video"]).strip():
            return "column 'video' must name a file"
        split = str(values.get("split") or "").strip().lower()
        if split and split not in SPLIT_NAMES:
            hint = did_you_mean(split, SPLIT_NAMES)
            return f"split {split!r} is not one of {one_of(self.splits)}{hint}"
        try:
            span = [None if values.get(k) in (None, "") else float(values[k]) for k in SPAN]
        except (TypeError, ValueError):
            return f"'start' and 'end' are seconds, found {[values.get(k) for k in SPAN]}"
        spelled = self._spellings.resolve(str(values["video"]))
        # All spellings of a file are one medium.
        place = Place(spelled.file.path or spelled.video_id, *span)
        return SPLIT_NAMES.get(split, ""), place, values.get("caption")

    def _divided(self) -> str:
        return (
            f"no row of {self.file.name} has a split: its videos are divided into train, val "
            f"and test by data.split_seed={self._seed}"
        )

    def find_video(self, video_id: str, split: str) -> VideoFile:
        """Return the file of a path or name."""
        return self._spellings.resolve(video_id).file

    def _row(self, source: str, number: int, values: dict[str, Any]) -> Row | str:
        """Return the row, or what is wrong with it."""
        texts: dict[str, str] = {}
        for column, value in values.items():
            if value is None and column in QUESTIONS.optional:
                continue
            if type(value) not in (str, int):
                return f"column {column!r} must be a text, found {str(value)[:40]!r}"
            # The name of a video may begin or end with a space.
            texts[column] = str(value) if column == "video" else str(value).strip()
        absent = [column for column in QUESTIONS.required if column not in texts]
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
            annotations.notes.append(self._divided())
            return
        for row in without:
            words = "no split, though other rows have one"
            annotations.refuse("invalid_row", row.source, row.number, words, row)
        annotations.rows = [row for row in annotations.rows if row.split]


def split_by_video(rows: list[Row], seed: int) -> list[Row]:
    """Divide rows into train, val and test so that all questions about a video stay together."""
    split_of = deal({row.video_id for row in rows}, seed)
    return [replace(row, split=split_of[row.video_id]) for row in rows]


def deal(ids: Collection[str], seed: int) -> dict[str, str]:
    """Return the split of each video: train, val or test.

    Videos are ranked by a hash of seed and id; so adding a video moves few others.
    """
    ranked = sorted(ids, key=lambda video: hashlib.sha256(f"{seed}:{video}".encode()).digest())
    held_out = max(1, round(HELD_OUT * len(ids))) if len(ids) >= 3 else 0
    split_of = dict.fromkeys(ranked, "train")
    split_of |= dict.fromkeys(ranked[:held_out], "test")
    split_of |= dict.fromkeys(ranked[held_out : 2 * held_out], "val")
    return split_of
