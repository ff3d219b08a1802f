"""The list of labels that a model tells apart: one class each."""

from collections.abc import Iterable, Sequence

import numpy as np

from msvqa.data.batch import NO_LABEL
from msvqa.data.tags import in_order
from msvqa.data.text import WordList


class LabelList(WordList):
    """Labels in the order of their classes: whole numbers by their size, before texts."""

    name, noun = "labels", "labels"
    reserved = ()

    @classmethod
    def of_training(cls, labels: Iterable[str]) -> "LabelList":
        """Return the list of the training labels."""
        return cls(in_order(labels))

    def encode(self, label: str) -> int:
        """Return the class of a label, `NO_LABEL` of one that is not in the list."""
        return self._ids.get(label, NO_LABEL)

    def classes(self, labels: Sequence[str]) -> np.ndarray:
        """Return the classes (n,) int64 of labels, see `encode`."""
        return np.array([self.encode(label) for label in labels], dtype=np.int64)

    def decode(self, number: int) -> str:
        """Return the label of a class."""
        return self._words[number]
