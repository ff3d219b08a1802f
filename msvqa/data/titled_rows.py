"""Rows of a table of titled videos, and of a table of pairs of them, checked one by one."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from msvqa.data.annotations import unusable_path
from msvqa.data.root import SourceFile
from msvqa.data.schema import Problem
from msvqa.data.table_files import read_rows
from msvqa.data.table_shapes import PAIRS, TITLES
from msvqa.data.table_splits import NO_SPLIT, SPLIT_NAMES, split_problem
from msvqa.data.titled_media import similarity_problem

MAX_LENGTH = 10_000
"""Characters of a title, and of a tag."""
MAX_TAGS_OF_VIDEO = 10_000
BETWEEN_TAGS = re.compile(r"[|;]")


@dataclass(frozen=True)
class TitledRow:
    """A video with its title and its tags."""

    number: int
    split: str
    """Empty where the row does not say."""
    video: str
    title: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class PairRow:
    """Two videos, and how alike people found them."""

    number: int
    split: str
    """Empty where the row does not say."""
    first: str
    second: str
    similarity: float

    @property
    def videos(self) -> tuple[str, str]:
        """Both videos."""
        return self.first, self.second


AnyRow = TypeVar("AnyRow", TitledRow, PairRow)


@dataclass
class TableRows(Generic[AnyRow]):
    """The usable rows of a table in their order, and what is wrong with the others."""

    file: SourceFile
    rows: list[AnyRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, number: int, words: str, kind: str = "invalid_row") -> None:
        """Note what is wrong with a row."""
        detail = f"{self.file.name}: row {number}: {words}"
        self.problems.append(Problem(kind=kind, detail=detail, path=self.file.name, row=number))

    @property
    def has_splits(self) -> bool:
        """Whether any row says in which split it is."""
        return any(row.split for row in self.rows)

    def need_splits(self) -> None:
        """Refuse the rows that say nothing of their split, where others do."""
        for row in self.rows:
            if not row.split:
                self.refuse(row.number, NO_SPLIT)
        self.rows = [row for row in self.rows if row.split]


def read_titles(
    file: SourceFile, name_of: Callable[[str], str], *, once: bool
) -> TableRows[TitledRow]:
    """Read titled videos.

    Args:
        file: the table.
        name_of: gives all spellings of a video one name.
        once: whether a video may be in one row alone; else it may be in one of each split.

    Raises:
        DataError: it is no table, or lacks a column.
    """
    found = TableRows[TitledRow](file)
    first: dict[tuple[str, str], int] = {}
    for number, values in read_rows(file, TITLES):
        row = values if isinstance(values, str) else _titled(number, values, name_of)
        if isinstance(row, str):
            found.refuse(number, row)
            continue
        earlier = first.setdefault(("" if once else row.split, row.video), number)
        if earlier == number:
            found.rows.append(row)
        else:
            found.refuse(number, f"video {row.video} is also that of row {earlier}")
    if found.has_splits:
        found.need_splits()
    return found


def read_pairs(file: SourceFile, name_of: Callable[[str], str]) -> TableRows[PairRow]:
    """Read pairs of videos.

    Args:
        file: the table.
        name_of: gives all spellings of a video one name.

    Raises:
        DataError: it is no table, or lacks a column.
    """
    found = TableRows[PairRow](file)
    for number, values in read_rows(file, PAIRS):
        row = values if isinstance(values, str) else _pair(number, values, name_of)
        if isinstance(row, str):
            found.refuse(number, row)
        else:
            found.rows.append(row)
    return found


def refuse_unknown(pairs: TableRows[PairRow], known: TableRows[TitledRow]) -> None:
    """Refuse the pairs of videos that the table of titles does not have."""
    videos, kept = {row.video for row in known.rows}, []
    for row in pairs.rows:
        absent = [video for video in dict.fromkeys(row.videos) if video not in videos]
        if absent:
            pairs.refuse(row.number, f"video {' and '.join(absent)} is not in {known.file.name}")
        else:
            kept.append(row)
    pairs.rows = kept


def place_pairs(pairs: TableRows[PairRow], split_of: dict[str, str]) -> None:
    """Give each pair the split of its videos; those of videos of two splits are left out."""
    placed = []
    for row in pairs.rows:
        first, second = (split_of[video] for video in row.videos)
        if first == second:
            placed.append(replace(row, split=first))
        else:
            words = f"{row.first} is in {first} and {row.second} in {second}"
            pairs.refuse(row.number, words, "divided_pair")
    pairs.rows = placed


def counted(rows: Iterable[PairRow], splits: Sequence[str]) -> str:
    """Return how many pairs each split has, in words."""
    count = Counter(row.split for row in rows)
    return ", ".join(f"{count[split]} in {split}" for split in splits)


def _titled(number: int, values: dict[str, Any], name_of: Callable[[str], str]) -> TitledRow | str:
    """Return a row, or what is wrong with it."""
    if words := _name_problem(values, "video") or _split_problem(values):
        return words
    if "title" not in values:
        return "title missing"
    title, tags = values["title"], _tags(values.get("tags"))
    if title is None:
        title = ""
    if words := _text_problem(title, "column 'title'"):
        return words
    if isinstance(tags, str):
        return tags
    return TitledRow(number, _split(values), name_of(str(values["video"])), title.strip(), tags)


def _pair(number: int, values: dict[str, Any], name_of: Callable[[str], str]) -> PairRow | str:
    """Return a row, or what is wrong with it."""
    words = (
        _name_problem(values, "video_a")
        or _name_problem(values, "video_b")
        or _split_problem(values)
        or _similarity_problem(values)
    )
    if words:
        return words
    first, second = (name_of(str(values[column])) for column in ("video_a", "video_b"))
    if first == second:
        return f"both are the video {first}, which is like itself"
    return PairRow(number, _split(values), first, second, float(values["similarity"]))


def _name_problem(values: dict[str, Any], column: str) -> str:
    video = values.get(column)
    if type(video) not in (str, int) or not str(video).strip():
        return f"column {column!r} must name a file"
    if words := _text_problem(str(video), f"column {column!r}") or unusable_path(str(video)):
        return f"{str(video)[:50]!r} cannot be the path of a video: {words}"
    return ""


def _split_problem(values: dict[str, Any]) -> str:
    split = values.get("split")
    if split is not None and not isinstance(split, str):
        return f"column 'split' must be a text, found {str(split)[:40]!r}"
    return split_problem((split or "").strip().lower())


def _split(values: dict[str, Any]) -> str:
    return SPLIT_NAMES.get((values.get("split") or "").strip().lower(), "")


def _similarity_problem(values: dict[str, Any]) -> str:
    value = values.get("similarity")
    if value is None or value == "":
        return "similarity missing"
    if type(value) not in (str, int, float):
        return f"column 'similarity' must be a number, found {str(value)[:40]!r}"
    return similarity_problem(value)


def _tags(value: Any) -> tuple[str, ...] | str:
    """Return the tags of a list, or of a text that marks divide; or what is wrong with them."""
    if isinstance(value, str):
        value = BETWEEN_TAGS.split(value)
    elif type(value) is int:
        value = [value]
    if value is None:
        return ()
    if not isinstance(value, list):
        return f"column 'tags' must be a list or a text, found {str(value)[:40]!r}"
    if len(value) > MAX_TAGS_OF_VIDEO:
        return f"column 'tags' has {len(value)} tags, at most {MAX_TAGS_OF_VIDEO} are possible"
    for tag in value:
        if type(tag) not in (str, int):
            return f"a tag must be a text or a whole number, found {str(tag)[:40]!r}"
        if words := _text_problem(str(tag), "a tag"):
            return words
    return tuple(dict.fromkeys(tag for tag in (str(tag).strip() for tag in value) if tag))


def _text_problem(text: Any, what: str) -> str:
    if not isinstance(text, str):
        return f"{what} must be a text, found {str(text)[:40]!r}"
    if len(text) > MAX_LENGTH:
        return f"{what} is longer than {MAX_LENGTH} characters"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{what} is not valid Unicode"
    return ""
