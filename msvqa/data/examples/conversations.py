"""Conversations about a medium, or about none: instructions, questions and answers in turns.

Legend: n rows, b of them in a batch.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msvqa.data.batch import Batch
from msvqa.data.chance import Chance
from msvqa.data.examples.examples import Examples, Fitted
from msvqa.data.texts import as_tensor
from msvqa.recipe import DataConfig

if TYPE_CHECKING:
    from msvqa.data.annotated import Annotated

KINDS = ("video", "image", "text")
"""What a conversation is about, in the order of their streams."""


class Conversations(Examples):
    """n conversations of one turn or several, about a video, an image or nothing that is seen."""

    name = "conversations"
    has_lengths = True
    columns = pa.schema(
        [
            ("source", pa.string()),  # file that the row is from
            ("kind", pa.string()),  # one of KINDS
            ("questions", pa.list_(pa.string())),  # empty where the answer is a caption
            ("answers", pa.list_(pa.string())),
            ("instructions", pa.list_(pa.string())),
        ]
    )

    def stream_of(self, is_image: np.ndarray) -> np.ndarray:
        """Return (n,) what each is about, as its source says it, images of videos apart."""
        of_media: np.ndarray = super().stream_of(is_image)
        return len(KINDS) * of_media + self.kind

    @cached_property
    def kind(self) -> np.ndarray:
        """(n,) what each is about, as its place in `KINDS`."""
        kinds = self.table["kind"].to_pylist()
        return np.array([KINDS.index(kind) for kind in kinds], dtype=np.int8)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) float64, characters of all turns with one instruction, those that training draws.

        Tokens are a matter of the language model, and nearly proportional.
        """
        turns = pc.list_value_length(self.table["answers"]).to_numpy()
        of_turns = np.repeat(np.arange(len(turns)), turns)
        found = {}
        for name in ("questions", "answers", "instructions"):
            characters = pc.utf8_length(pc.list_flatten(self.table[name])).to_numpy()
            found[name] = np.bincount(of_turns, weights=characters, minlength=len(turns))
        return found["questions"] + found["answers"] + found["instructions"] / turns.clip(min=1)

    def turns(self, rows: np.ndarray, chance: Chance | None = None) -> list[list[tuple[str, ...]]]:
        """Return question, answer and instruction of each turn of some rows.

        Training shuffles the turns of a row, otherwise in each epoch; the instruction that counts
        is that of the turn that then comes first.
        """
        part = self.table.take(pa.array(rows, type=pa.int64()))
        columns = [part[name].to_pylist() for name in ("questions", "answers", "instructions")]
        found = [list(zip(*lists, strict=True)) for lists in zip(*columns, strict=True)]
        if chance is None:
            return found
        return [
            [turns[n] for n in chance.of_example(row).permutation(len(turns))]
            for row, turns in zip(rows.tolist(), found, strict=True)
        ]

    def tensors(self, rows: np.ndarray, chance: Chance | None = None) -> Batch:
        """Return `conversation_utf8`: kind and turns of each row as JSON, see `data/texts.py`."""
        kinds = [KINDS[n] for n in self.kind[rows]]
        pairs = zip(kinds, self.turns(rows, chance), strict=True)
        texts = [json.dumps([kind, turns], ensure_ascii=False) for kind, turns in pairs]
        return {"conversation_utf8": as_tensor(texts)}

    def shown(self, rows: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Return kind, questions and answers of some rows."""
        part = self.table.take(pa.array(rows, type=pa.int64()))
        names = ("source", "kind", "questions", "answers")
        return {name: part[name].to_pylist() for name in names}

    @classmethod
    def fit(cls, annotated: "Annotated", config: DataConfig) -> Fitted:
        """Return the conversations as they are: a language model brings its own words."""
        table = annotated.examples.select(cls.schema().names).cast(cls.schema())
        counts = {}
        for name in annotated.splits:
            first, last = annotated.span(annotated.examples, name)
            kinds = Counter(table["kind"].slice(first, last - first).to_pylist())
            # Not `videos`, which is what there is of media.
            counts[name] = {f"about_{kind}": kinds[kind] for kind in KINDS}
        return Fitted(
            table=table, counts=counts, facts=annotated.facts, cautions=cls.cautions(annotated)
        )

    @classmethod
    def cautions(cls, annotated: "Annotated") -> list[str]:
        """Say where nothing validates."""
        if annotated.rows_of(annotated.examples, "val")[1]:
            return []
        return [
            "no conversation is for validation: nothing validates, and the last checkpoint counts "
            "as the best"
        ]


def media_column(media: Sequence[int]) -> pa.Array:
    """Return the column of the medium of each row; -1 for none."""
    flat = pa.array(np.asarray(media, dtype=np.int64))
    return pa.FixedSizeListArray.from_arrays(flat, 1)
