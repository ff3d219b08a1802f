"""The mean of the loss and of its parts: for objectives that nobody has another measure for."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from msvqa import metrics
from msvqa.evaluators.evaluator import Answers, Evaluator, Predictor

if TYPE_CHECKING:
    from msvqa.data.split import Split


class Losses(Evaluator):
    """Means over the examples of a split; a batch's loss counts for each of its examples."""

    name = "losses"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("loss", "min")

    def ask(self, predictor: Predictor, split: "Split") -> dict[str, np.ndarray]:
        """Return the loss and its parts of every example's batch."""
        return predictor("losses")

    def validate(self, answers: Answers, split: "Split") -> dict[str, float]:
        """Return the mean of each."""
        return {name: metrics.mean(values) for name, values in answers.items()}
