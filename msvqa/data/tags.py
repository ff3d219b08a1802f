"""The list of tags that a model knows: one column each, in ascending order of the tags."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msvqa.data.text import WordList
from msvqa.errors import DataError

MAX_TAGS = 1_000_000
LISTS_AT_ONCE = 100_000


class TagList(WordList):
    """Tags in the order of their columns."""

    name, noun = "tags", "tags"
    reserved = ()

    @classmethod
    def ascending(cls, tags: Iterable[str]) -> "TagList":
        """Return the list of some tags: whole numbers by their size, before texts.

        Raises:
            DataError: there are too many.
        """
        ordered = in_order(tags)
        if len(ordered) > MAX_TAGS:
            raise DataError(f"{len(ordered)} tags, at most {MAX_TAGS} are possible")
        return cls(ordered)

    def columns(self, tags: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns of lists of tags, one list after another, and how many of each.

        A column is there once for each list, ascending; tags that are not in the list are left out.
        """
        listed = pa.array(self._words, pa.string())
        # Some lists at a time: the keys of all take as much memory as everything else.
        parts = [tags.slice(first, LISTS_AT_ONCE) for first in range(0, len(tags), LISTS_AT_ONCE)]
        found = [_columns(part, listed) for part in parts]
        columns = [np.empty(0, np.int32), *(column for column, _ in found)]
        counts = [np.empty(0, np.int64), *(count for _, count in found)]
        return np.concatenate(columns), np.concatenate(counts)


def _columns(tags: pa.ListArray, listed: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    owner = np.repeat(np.arange(len(tags)), pc.list_value_length(tags).fill_null(0).to_numpy())
    found = pc.index_in(pc.list_flatten(tags), value_set=listed)
    column = np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)
    known, width = column >= 0, max(len(listed), 1)
    # Each list and column once, in the order of both.
    owner, column = np.divmod(np.unique(owner[known] * width + column[known]), width)
    return column.astype(np.int32), np.bincount(owner, minlength=len(tags))


def in_order(words: Iterable[str]) -> list[str]:
    """Return different words: whole numbers by their size, before texts by their letters."""
    return sorted(set(words), key=lambda word: (_number(word), word))


def _number(tag: str) -> int:
    """Return a whole number of 64 bits as it is, and a larger one for what is none."""
    return int(tag) if tag.isdecimal() and len(tag) < 19 else 10**19
