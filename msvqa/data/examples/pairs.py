"""Pairs of videos, and how alike people found them.

Legend: b pairs of a batch.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from msvqa.data.batch import Batch
from msvqa.data.chance import Chance
from msvqa.data.examples.titled import Titled


class Pairs(Titled):
    """n pairs of videos with their titles and tags."""

    name = "pairs"
    columns = pa.schema([*Titled.columns, ("similarity", pa.float32())])
    media_per_example = 2

    @cached_property
    def similarity(self) -> np.ndarray:
        """(n,) float32, from 0 to 1; not a number where nobody has said."""
        return np.asarray(self.table["similarity"].to_numpy())

    def tensors(self, rows: np.ndarray, chance: Chance | None = None) -> Batch:
        """Return what `Titled` does, and `similarity` (b,); nothing is random."""
        similarity = torch.from_numpy(self.similarity[rows].copy())
        return super().tensors(rows, chance) | {"similarity": similarity}

    def shown(self, rows: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Return titles and similarity of some pairs."""
        titles = self.table["titles"].take(pa.array(rows, type=pa.int64())).to_pylist()
        return {
            "title_a": [first for first, _ in titles],
            "title_b": [second for _, second in titles],
            "similarity": self.similarity[rows],
        }
