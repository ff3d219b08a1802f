"""Annotated captions on their way into tables: rows that are checked."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from msvqa.data.annotated import Annotated
from msvqa.data.examples.captions import HELD_TOGETHER, KINDS, Captions
from msvqa.data.placed_media import Found, Place, PlacedMedia, Where
from msvqa.data.root import Root
from msvqa.data.schema import Problem

MAX_CAPTION_LENGTH = 10_000
ROWS_AT_ONCE = 10_000
"""So many captions are held as objects on their way into a table."""


class CaptionRows:
    """Captions by split and medium, in the order in which they were added."""

    def __init__(self, splits: Sequence[str]) -> None:
        self.splits = splits
        self.problems: list[Problem] = []
        self._numbers: dict[str, dict[Place, int]] = {split: {} for split in splits}
        """Media of each split, by the order in which they came."""
        self._named = {split: (array("i"), array("q")) for split in splits}
        """File, as its place in `_files`, and row that named each of these media first."""
        self._files: dict[str, int] = {}
        self._texts = {split: _Texts() for split in splits}

    def add(self, split: str, place: Place, captions: Any, where: Where, kinds: Any = None) -> str:
        """Keep the captions of a medium, or return what is wrong with them.

        Args:
            split: name of the split.
            place: the medium.
            captions: one text or a list of texts.
            where: name of the file and number of the row that say so.
            kinds: what the captions say by kinds of words, such as {"color": "red"}; None: not
                named.
        """
        texts = [captions] if isinstance(captions, str) else captions
        if not isinstance(texts, list) or not texts:
            return "'caption' must be a text or a list of texts"
        for text in texts:
            if words := _text_problem(text):
                return words
        if words := _span_problem(place) or _kinds_problem(kinds):
            return words
        numbers = self._numbers[split]
        count = len(numbers)
        number = numbers.setdefault(place, count)
        if number == count:
            files, rows = self._named[split]
            files.append(self._files.setdefault(where[0], len(self._files)))
            rows.append(where[1])
        self._texts[split].add(number, texts, kinds)
        return ""

    def row_of(self, split: str, place: Place) -> Where:
        """Return the row that named a medium of a split first."""
        files, rows = self._named[split]
        number = self._numbers[split][place]
        return [*self._files][files[number]], rows[number]

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
        media = PlacedMedia(self.places(), found, root, self.row_of)
        return Annotated(
            kind=Captions,
            splits=self.splits,
            media=media.table,
            examples=self._examples(),
            problems=[*self.problems, *media.problems(self.splits, shared)],
            notes=notes,
            same_file=media.same_file,
        )

    def _examples(self) -> pa.Table:
        tables = [
            texts.table(split, split == HELD_TOGETHER) for split, texts in self._texts.items()
        ]
        if not any(texts.names_kinds for texts in self._texts.values()):
            tables = [table.drop_columns(["kinds"]) for table in tables]
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
        self._kinds: dict[int, list[tuple[str, str]]] = {}
        """Of those of `_objects` that have any, by their places."""
        self._kinds_columns: list[pa.Array] = []
        self.names_kinds = False
        """Whether any caption has kinds."""

    def add(self, medium: int, texts: Sequence[str], kinds: Mapping[str, str] | None) -> None:
        """Add captions of the medium with a number."""
        if kinds:
            self.names_kinds = True
            pairs, first = [*kinds.items()], len(self._objects)
            self._kinds |= dict.fromkeys(range(first, first + len(texts)), pairs)
        self._media.extend([medium] * len(texts))
        self._objects += texts
        if len(self._objects) >= ROWS_AT_ONCE:
            self._store()

    def _store(self) -> None:
        self._columns.append(pa.array(self._objects, pa.string()))
        kinds = [self._kinds.get(place) for place in range(len(self._objects))]
        self._kinds_columns.append(pa.array(kinds, KINDS))
        self._objects, self._kinds = [], {}

    def table(self, split: str, together: bool) -> pa.Table:
        """Return one row for each medium with all of its captions, or one for each caption.

        Both are in the order of the media, and the captions of one in that in which they came.
        """
        self._store()
        medium = np.asarray(self._media, dtype=np.int64)
        texts, kinds = pa.chunked_array(self._columns), pa.chunked_array(self._kinds_columns)
        if (np.diff(medium) < 0).any():
            order = np.argsort(medium, kind="stable")
            texts, medium = texts.take(pa.array(order)), medium[order]
            kinds = kinds.take(pa.array(order))
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
                # Of the first caption of each row, which stands for a row wherever it is asked.
                "kinds": kinds.take(pa.array(starts[:-1])),
            }
        )


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


def _kinds_problem(kinds: Any) -> str:
    if kinds is None:
        return ""
    texts = [*kinds, *kinds.values()] if isinstance(kinds, dict) else [None]
    if any(not isinstance(text, str) or _text_problem(text) for text in texts):
        return (
            '\'kinds\' names what the caption says by kinds of words, such as {"color": "red"}, '
            f"found {str(kinds)[:60]}"
        )
    return ""


def _span_problem(place: Place) -> str:
    if place.start is not None and place.start < 0:
        return f"'start' is {place.start:g}, before the video begins"
    if place.end is not None and place.end <= (place.start or 0):
        return f"'end' {place.end:g} is not after 'start' {place.start or 0:g}"
    return ""
