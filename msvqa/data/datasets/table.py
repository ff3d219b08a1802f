"""A table of your own: CSV, TSV, JSONL or Parquet with video, question, answer[, split[, type]].

Or of captions: video, caption[, split[, start, end]], one caption a row; `start` and `end` are
seconds of the video. Or of titled videos: video, title[, tags[, split]], one video a row; `tags` is
a list, or a text that `|` or `;` divides. Or of pairs: video_a, video_b, similarity[, split], whose
titles and tags are in a table of titled videos, `titles`; the similarity is from 0 to 1.

`video` is a path relative to the data root, or a file name there or in video/ or videos/, with or
without its ending; all spellings of a file are one video. Other columns are ignored. Without a
split column the videos are divided into train, val and test (80/10/10) by a seed. A question's id
is the number of its row, from 1.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from msvqa.data.annotated import Annotated
from msvqa.data.annotations import Annotations, Row
from msvqa.data.caption_rows import CaptionRows
from msvqa.data.examples.titled import TitledConfig
from msvqa.data.medium import kind_of
from msvqa.data.placed_media import Found, Place
from msvqa.data.question_set import QuestionSet
from msvqa.data.root import SourceFile, open_root
from msvqa.data.spellings import Spellings
from msvqa.data.subwords import vocabulary_files
from msvqa.data.table_files import read_rows
from msvqa.data.table_shapes import CAPTIONS, PAIRS, QUESTIONS, shape_of
from msvqa.data.table_splits import NO_SPLIT, SPLIT_NAMES, deal, split_problem
from msvqa.data.titled_tables import TitledTables, divided
from msvqa.data.video_files import VideoFile
from msvqa.errors import DataError, one_of
from msvqa.files import hash_file
from msvqa.storage import Location, join

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Endings of the files that are looked for; one named by `annotations` may end in .txt too, as
Excel's "Unicode text" does."""
FOLDERS = ("", "video", "videos")
SPAN = ("start", "end")
OF_TITLES = frozenset({"titles", "tokenizer", "text_length", "masked_words"})
"""Fields that say something of titled videos and of pairs alone."""


class Table(QuestionSet):
    """Questions about videos of the user, captions, titles or pairs of them, one per row."""

    class Config(TitledConfig, QuestionSet.Config):
        """Where the table is and how it is split."""

        # Only of pairs: a table of titled videos and one of pairs of them are two parts of a root.
        names_part: ClassVar[tuple[str, ...]] = ("titles",)
        annotations: Location | None = None
        """The table; by default the only one in `root`."""
        titles: Location | None = None
        """Of a table of pairs: the table of titled videos that has their titles and tags."""
        split_seed: int = 0
        """Which videos are held out where the table has no split column."""

    config: Config
    question_types = ("what", "who", "how", "when", "where", "which", "why")

    def __init__(self, config: "Table.Config") -> None:
        super().__init__(config)
        self._seed, self._shared = config.split_seed, config.shared_videos
        self._annotations, self._titles = config.annotations, config.titles
        self._spellings = Spellings(self.videos, FOLDERS, (self.root.location, config.root))

    @cached_property
    def file(self) -> SourceFile:
        """The table."""
        if self._annotations is not None:
            return self._named(self._annotations)
        names = (name for name in self.root.names("") if name.lower().endswith(SUFFIXES))
        tables = sorted(name for name in names if join(self.root.location, name) != self._titles)
        if len(tables) != 1:
            found = ", ".join(tables) or "none"
            raise DataError(
                f"{self.root}: one table ({one_of(SUFFIXES)}) is needed, found {found}; "
                "name it with data.annotations=FILE"
            )
        return self.root.source(tables[0])

    @cached_property
    def titles_file(self) -> SourceFile | None:
        """The table of titled videos beside a table of pairs.

        Raises:
            DataError: it is absent, or named beside a table of another shape.
        """
        if self._titles is None:
            return None
        if self.shape != "pairs":
            raise DataError(
                f"data.titles is for tables of pairs ({', '.join(PAIRS.required)}), and "
                f"{self.file} is one of {self.shape}: name a table of titled videos with "
                "data.annotations"
            )
        return self._named(self._titles)

    @cached_property
    def shape(self) -> str:
        """What the table is of, one of `SHAPES`."""
        return shape_of(self.file)

    @property
    def unused(self) -> frozenset[str]:
        """Fields about titles, where there are none."""
        return frozenset() if self._has_titles else OF_TITLES

    def source_files(self) -> list[SourceFile]:
        """Return the table; of titled videos and pairs also the vocabulary, and that of titles."""
        found = [self.file, *([self.titles_file] if self.titles_file else [])]
        if self._has_titles:
            found += vocabulary_files(self.config.tokenizer_folder)
        return found

    def fingerprint(self) -> dict[str, str]:
        """Return the SHA-256 of every source file; by its location where there are several."""
        if not self._has_titles:
            return super().fingerprint()
        return {file.location: hash_file(file.path) for file in self.source_files()}

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
        """Read what the table is of: questions, captions, titled videos or pairs."""
        titles = self.titles_file
        if self.shape == "captions":
            return self._captions()
        if self.shape == "questions":
            return super().annotate()
        spellings = self._spellings
        tables = TitledTables(
            root=self.root,
            name_of=spellings.name,
            file_of=lambda name: spellings.resolve(name).file,
            seed=self._seed,
            shared=self._shared,
        )
        if self.shape == "pairs":
            return tables.pairs(self.file, titles)
        return tables.titled(self.file)

    @property
    def _has_titles(self) -> bool:
        return self.shape in ("titles", "pairs")

    def _named(self, location: str) -> SourceFile:
        """Return a table by its full location, inside the root or elsewhere."""
        folder, _, name = location.rpartition("/")
        if folder == self.root.location:
            return self.root.source(name)
        return open_root(folder or "/", follow_links=self.config.follow_links).source(name)

    def _captions(self) -> Annotated:
        rows, notes, name = CaptionRows(self.splits), [], self.file.name
        read: list[tuple[int, str, Place, Any]] = []
        for number, values in read_rows(self.file, CAPTIONS):
            row = values if isinstance(values, str) else self._caption(values)
            if isinstance(row, str):
                rows.refuse(name, number, row)
            else:
                read.append((number, *row))
        dealt: Mapping[str, str] = {}
        if not any(split for _, split, _, _ in read):
            dealt = deal({place.path for _, _, place, _ in read}, self._seed)
            notes.append(divided(self.file, "videos", self._seed))
        for number, split, place, caption in read:
            if not (split := split or dealt.get(place.path, "")):
                rows.refuse(name, number, NO_SPLIT)
            elif words := rows.add(split, place, caption, (name, number)):
                rows.refuse(name, number, words)
        found = {
            (split, place): Found(self._spellings.resolve(place.path).file, kind_of(place.path))
            for split, place in rows.places()
        }
        return rows.annotated(found, self.root, self._shared, notes)

    def _caption(self, values: Mapping[str, Any]) -> tuple[str, Place, Any] | str:
        """Return split, medium and caption of a row, or what is wrong with it."""
        if not isinstance(values.get("video"), (str, int)) or not str(values["video"]).strip():
            return "column 'video' must name a file"
        split = str(values.get("split") or "").strip().lower()
        if words := split_problem(split):
            return words
        try:
            span = [None if values.get(k) in (None, "") else float(values[k]) for k in SPAN]
        except (TypeError, ValueError):
            return f"'start' and 'end' are seconds, found {[values.get(k) for k in SPAN]}"
        spelled = self._spellings.resolve(str(values["video"]))
        # All spellings of a file are one medium.
        place = Place(spelled.file.path or spelled.video_id, *span)
        return SPLIT_NAMES.get(split, ""), place, values.get("caption")

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
        if words := split_problem(split):
            return words
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
            annotations.notes.append(divided(self.file, "videos", self._seed))
            return
        for row in without:
            annotations.refuse("invalid_row", row.source, row.number, NO_SPLIT, row)
        annotations.rows = [row for row in annotations.rows if row.split]


def split_by_video(rows: list[Row], seed: int) -> list[Row]:
    """Divide rows into train, val and test so that all questions about a video stay together."""
    split_of = deal({row.video_id for row in rows}, seed)
    return [replace(row, split=split_of[row.video_id]) for row in rows]
