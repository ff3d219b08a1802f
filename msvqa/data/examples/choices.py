"""Questions with a few options each, of which one is right.

Legend: n rows, b of them in a batch.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from msvqa.data.batch import Batch
from msvqa.data.chance import Chance
from msvqa.data.examples.examples import Examples, Fitted
from msvqa.data.texts import as_tensor
from msvqa.recipe import DataConfig

if TYPE_CHECKING:
    from msvqa.data.annotated import Annotated


class Choices(Examples):
    """n questions about a medium; their texts are read by the language model that is asked."""

    name = "choices"
    columns = pa.schema(
        [
            ("task", pa.string()),
            ("index", pa.int64()),  # of the question in the file of its task, from 0
            ("question", pa.string()),
            ("options", pa.list_(pa.string())),
            ("answer", pa.int64()),  # which option is right, from 0
        ]
    )

    @cached_property
    def answer(self) -> np.ndarray:
        """(n,) int64, which option is right."""
        return np.asarray(self.table["answer"].to_numpy())

    @cached_property
    def count(self) -> np.ndarray:
        """(n,) int64, how many options each question has."""
        lengths = pc.list_value_length(self.table["options"]).to_numpy()
        return np.asarray(lengths, dtype=np.int64)

    def tensors(self, rows: np.ndarray, chance: Chance | None = None) -> Batch:
        """Return what is asked.

        `answer` int64 (b,), the right option; `options` int64 (b,), how many there are;
        `asked_utf8`, question and options as a list in JSON, see `data/texts.py`.
        """
        part = self.table.take(pa.array(rows, type=pa.int64()))
        asked = zip(part["question"].to_pylist(), part["options"].to_pylist(), strict=True)
        return {
            "answer": torch.from_numpy(self.answer[rows]),
            "options": torch.from_numpy(self.count[rows]),
            "asked_utf8": as_tensor([json.dumps([question, *rest]) for question, rest in asked]),
        }

    def shown(self, rows: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Return task, number, question, options and the right option of some examples."""
        part = self.table.take(pa.array(rows, type=pa.int64()))
        return {field.name: part[field.name].to_pylist() for field in self.columns}

    @classmethod
    def fit(cls, annotated: "Annotated", config: DataConfig) -> Fitted:
        """Return the questions as they are: no words are learned from a benchmark."""
        return Fitted(
            table=annotated.examples.select(cls.schema().names).cast(cls.schema()),
            facts=annotated.facts,
            cautions=cls.cautions(annotated),
        )

    @classmethod
    def cautions(cls, annotated: "Annotated") -> list[str]:
        """Say what guessing is worth."""
        lengths = pc.list_value_length(annotated.examples["options"]).to_numpy()
        if not len(lengths):
            return ["there is not one question"]
        return [f"guessing is right in {np.mean(1 / lengths):.1%} of the questions"]
