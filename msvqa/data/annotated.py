"""What the annotations of a data set say, as tables, and what is wrong with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msvqa.data.examples.examples import NO_MEDIUM, Examples
from msvqa.data.media import COLUMNS
from msvqa.data.schema import Problem

MEDIA_COLUMNS = pa.schema(
    [
        *COLUMNS,
        ("split", pa.string()),
        ("present", pa.bool_()),
        ("expected", pa.string()),  # where the file is or should be, relative to the data root
        ("absence", pa.string()),  # why it is absent, and what is there in its place
    ]
)


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """Media and examples of all splits; those of a split are neighbours in both tables."""

    kind: type[Examples]
    splits: Sequence[str]
    """Names of all splits in the order of the tables."""
    media: pa.Table
    """Columns as in `MEDIA_COLUMNS`."""
    examples: pa.Table
    """`media` (rows within the split), `split`, and what the kind is annotated with."""
    problems: Sequence[Problem] = ()
    notes: Sequence[str] = ()
    """What users should know of how the files were read."""
    same_file: Sequence[Sequence[str]] = ()
    """Ids of media that are one file."""
    endings_tried: str = ""
    """Said of absent files whose names have no ending."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the kind wants to know of the data set."""

    def rows_of(self, table: pa.Table, split: str) -> tuple[int, int]:
        """Return where the rows of a split begin in one of the tables, and how many there are."""
        chosen = np.flatnonzero(pc.equal(table["split"], split).to_numpy())
        return (int(chosen[0]), len(chosen)) if len(chosen) else (0, 0)

    def span(self, table: pa.Table, split: str) -> tuple[int, int]:
        """Return where the rows of a split begin in one of the tables, and where they end."""
        first, count = self.rows_of(table, split)
        return first, first + count

    def presence(self) -> np.ndarray:
        """Return for each example whether all of its media are present."""
        start = {name: self.rows_of(self.media, name)[0] for name in self.splits}
        first = np.array([start[name] for name in self.examples["split"].to_pylist()], dtype=int)
        width = self.kind.media_per_example
        flat = self.examples["media"].combine_chunks().flatten().to_numpy()
        rows = flat.reshape(-1, width) + first[:, None]
        present = np.asarray(self.media["present"].to_numpy(), dtype=bool)
        has_none = flat.reshape(-1, width) == NO_MEDIUM
        there = present[np.where(has_none, 0, rows)] if len(present) else np.zeros_like(has_none)
        found: np.ndarray = (there | has_none).all(axis=1)
        return found
