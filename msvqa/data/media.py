"""Media: what examples are about, one row each: videos, spans of them, images, records.

Legend: N media.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msvqa.data.medium import Medium
from msvqa.storage import join

COLUMNS = pa.schema(
    [
        ("id", pa.string()),  # unique within a split
        ("path", pa.string()),  # relative to the data root; empty where the file is absent
        ("kind", pa.string()),  # see KINDS
        ("start", pa.float64()),  # seconds of a video, bytes of a file of records; null: the whole
        ("end", pa.float64()),
    ]
)
KINDS = ("video", "image", "frames", "record")
"""`frames` is a folder of images in the order of their names, `record` a part of a larger file."""


@dataclass(frozen=True, eq=False)
class Media:
    """N media, as rows of an Arrow table that may be mapped into memory."""

    table: pa.Table
    root: str
    """Location that the paths start at."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"Media({len(self)} in {self.root!r})"

    @cached_property
    def id(self) -> list[str]:
        """(N,) names, unique within a split."""
        return list(self.table["id"].to_pylist())

    @cached_property
    def path(self) -> list[str]:
        """(N,) full locations of the files, empty where a file is absent."""
        return [join(self.root, path) if path else "" for path in self.table["path"].to_pylist()]

    @cached_property
    def kind(self) -> list[str]:
        """(N,) one of `KINDS` each."""
        return list(self.table["kind"].to_pylist())

    @cached_property
    def is_image(self) -> np.ndarray:
        """(N,) bool, which are single images."""
        found = pc.equal(self.table["kind"], "image").to_numpy()
        return np.asarray(found, dtype=bool)

    def are_images(self, rows: np.ndarray) -> np.ndarray:
        """Return which of some rows (...) are of single images; -1, which is no medium, is none."""
        found: np.ndarray = self._is_image_or_none[rows]
        return found

    @cached_property
    def _is_image_or_none(self) -> np.ndarray:
        return np.append(self.is_image, False)

    def span(self, row: int) -> tuple[float | None, float | None]:
        """Return where a medium starts and ends in its file; None where it is the whole file."""
        return self.table["start"][row].as_py(), self.table["end"][row].as_py()

    def medium(self, row: int) -> Medium:
        """Return one of the media."""
        return Medium(self.id[row], self.path[row], self.kind[row], *self.span(row))

    def __iter__(self) -> Iterator[Medium]:
        spans = (self.table["start"].to_pylist(), self.table["end"].to_pylist())
        return map(Medium, self.id, self.path, self.kind, *spans)

    def take(self, rows: np.ndarray) -> "Media":
        """Return some of the media."""
        return replace(self, table=self.table.take(pa.array(rows, type=pa.int64())))

    def is_in(self, ids: Collection[str]) -> np.ndarray:
        """Return for each medium (N,) whether its id is one of these."""
        found = pc.is_in(self.table["id"], value_set=pa.array(sorted(ids), type=pa.string()))
        return np.asarray(found.to_numpy(), dtype=bool)

    @classmethod
    def joined(cls, parts: Sequence["Media"]) -> "Media":
        """Return the media of several tables, one after another."""
        return cls(pa.concat_tables([part.table for part in parts]), parts[0].root)
