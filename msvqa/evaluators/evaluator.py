"""What every evaluator has in common: predictions of a split to named numbers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from msvqa.recipe import EvaluationConfig

if TYPE_CHECKING:
    from msvqa.data.split import Split


class Evaluator(ABC):
    """Counts what a model predicted."""

    def __init__(self, config: EvaluationConfig) -> None:
        self.config = config

    @abstractmethod
    def evaluate(
        self,
        predictions: Mapping[str, np.ndarray],
        split: "Split",
        train: "Split",
        kinds: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Return the metrics of a split, ready for JSON.

        Args:
            predictions: rows of `Objective.predict`, one per question in the order of the split.
            split: the questions that were asked.
            train: the questions that baselines are fitted on.
            kinds: kinds of questions in the order of reports; others follow as they appear.
        """
