"""Labelled media: one medium each, with the label that says what it shows.

Legend: n examples, b of them in a batch.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from msvqa.data.batch import NO_LABEL, Batch
from msvqa.data.chance import Chance
from msvqa.data.examples.examples import Examples, Fitted
from msvqa.data.label_list import LabelList
from msvqa.data.lexicon import Lexicon
from msvqa.data.text import WordList
from msvqa.errors import DataError
from msvqa.recipe import DataConfig

if TYPE_CHECKING:
    from msvqa.data.annotated import Annotated

SHOWN = 3


class Labels(Examples):
    """n media with a label each.

    Labels that no training example has are kept, without a class: a model cannot be right there.
    """

    name = "labels"
    columns = pa.schema([("label", pa.string()), ("label_id", pa.int64())])
    lists: ClassVar[tuple[type[WordList], ...]] = (LabelList,)

    @cached_property
    def label(self) -> list[str]:
        """(n,) texts."""
        return list(self.table["label"].to_pylist())

    @cached_property
    def label_id(self) -> np.ndarray:
        """(n,) int64, classes; `NO_LABEL` where no training example has the label."""
        return np.asarray(self.table["label_id"].to_numpy())

    @classmethod
    def fit(cls, annotated: "Annotated", config: DataConfig) -> Fitted:
        """Return the examples with their classes; the classes are the labels of training."""
        table = annotated.examples
        labels, splits = table["label"].to_pylist(), table["split"].to_pylist()
        known = LabelList.of_training(_of_split(labels, splits, "train"))
        classes = known.classes(labels)
        unknown = Counter(
            split for split, number in zip(splits, classes, strict=True) if number == NO_LABEL
        )
        return Fitted(
            table=pa.table(
                {"media": table["media"], "label": table["label"], "label_id": classes},
                schema=cls.schema(),
            ),
            lexicon=Lexicon([known]),
            counts={name: {"unknown_labels": unknown[name]} for name in annotated.splits},
            facts=annotated.facts,
            cautions=cls.cautions(annotated),
        )

    def read_with(self, lexicon: Lexicon, *, trains: bool) -> "Labels":
        """Return the same examples with the classes of another list."""
        place = self.table.schema.get_field_index("label_id")
        classes = lexicon.of(LabelList).classes(self.label)
        return Labels(self.table.set_column(place, "label_id", pa.array(classes)))

    @classmethod
    def cautions(cls, annotated: "Annotated") -> list[str]:
        """Say what is not validated, what cannot be learned, and labels of one example."""
        table = annotated.examples
        labels, splits = table["label"].to_pylist(), table["split"].to_pylist()
        counts, said = Counter(_of_split(labels, splits, "train")), []
        if "val" not in splits:
            said.append(
                "no example is for validation: nothing validates, and the last checkpoint counts "
                "as the best"
            )
        if len(counts) == 1:
            said.append(f"all training examples have the label {next(iter(counts))!r}")
        if once := in_few(name for name, count in counts.items() if count == 1):
            said.append(f"labels of a single training example: {once}")
        for split in annotated.splits:
            unknown = {name for name in _of_split(labels, splits, split) if name not in counts}
            if unknown:
                said.append(
                    f"labels of {split} that no training example has count as wrong whatever is "
                    f"predicted: {in_few(unknown)}"
                )
        return said

    def tensors(self, rows: np.ndarray, chance: Chance | None = None) -> Batch:
        """Return `label` int64 (b,), `NO_LABEL` where there is no class; nothing is random.

        Raises:
            DataError: a training example has no class, as where the model was trained with others.
        """
        classes = self.label_id[rows]
        if chance is not None and (classes == NO_LABEL).any():
            lacking = {self.label[row] for row in np.flatnonzero(self.label_id == NO_LABEL)}
            raise DataError(
                f"labels of training that the starting checkpoint was not trained with: "
                f"{in_few(lacking)}. A stage with data of its own keeps the labels of the stage "
                "that it starts from: give its lists the same names, or train it in a run of its "
                "own, with `model.video_weights`"
            )
        return {"label": torch.from_numpy(classes)}

    def shown(self, rows: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Return the labels of some examples."""
        return {"label": [self.label[row] for row in rows]}


def in_few(names: Iterable[str]) -> str:
    """Return how many names there are and the first of them in order; nothing without any."""
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(repr(name[:40]) for name in ordered[:SHOWN]) + more


def _of_split(labels: Sequence[str], splits: Sequence[str], wanted: str) -> list[str]:
    return [label for label, split in zip(labels, splits, strict=True) if split == wanted]
