"""What every evaluator has in common: it asks a model about a split, and counts the answers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa

from msvqa.evaluators import EVALUATORS
from msvqa.recipe import EvaluationConfig
from msvqa.sections import resolve

if TYPE_CHECKING:
    from msvqa.data.lexicon import Lexicon
    from msvqa.data.split import Split

Answers = Mapping[str, np.ndarray]
"""Arrays whose first axis is the rows that were asked about, in their order."""


class Predictor(Protocol):
    """Asks a model about a split: in the training loop, or on a pool of processes."""

    def __call__(self, what: str = "predict") -> dict[str, np.ndarray]:
        """Return the answers of an objective's method about every example or medium, each once."""
        ...


class Evaluator(ABC):
    """Asks, and counts. Counting needs no model, so it can be done again."""

    monitor: ClassVar[tuple[str, Literal["max", "min"]]]
    """Validation number that chooses the best checkpoint, and its direction."""
    numbers: ClassVar[tuple[str, ...]] = ()
    """Names of all numbers of a validation; empty where they cannot be known beforehand."""

    def __init__(self, config: EvaluationConfig) -> None:
        self.config = config

    def ask(self, predictor: Predictor, split: "Split") -> dict[str, np.ndarray]:
        """Return what there is to count, one row for each example of the split."""
        return predictor()

    def ask_besides(self, predictor: Predictor, split: "Split") -> dict[str, np.ndarray]:
        """Return more to count, one row for each example: what validations take no time for."""
        return {}

    @abstractmethod
    def validate(self, answers: Answers, split: "Split") -> dict[str, float]:
        """Return the numbers of a validation."""

    def evaluate(
        self, answers: Answers, split: "Split", train: "Split", kinds: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return the metrics of a split, ready for JSON.

        Args:
            answers: what `ask` returned.
            split: the examples that were asked about.
            train: the examples that baselines are fitted on.
            kinds: kinds of questions in the order of reports; others follow as they appear.
        """
        return {
            "split": split.name,
            "n": len(split),
            "n_expected": split.expected,
            "n_media": len(split.media),
            **self.validate(answers, split),
        }

    def table(self, answers: Answers, split: "Split", lexicon: "Lexicon") -> pa.Table:
        """Return the answers with what was asked, to be read without this package."""
        every = np.arange(len(split))
        columns = {"medium": [split.media.id[row] for row in split.examples.medium]}
        shown = {name: list(values) for name, values in split.examples.shown(every).items()}
        return pa.table(columns | shown | {name: list(rows) for name, rows in answers.items()})

    def answers(self, table: pa.Table, split: "Split", lexicon: "Lexicon") -> Answers:
        """Return what `table` was made of, to count again."""
        known = {"medium", *split.examples.shown(np.arange(0))}
        names = [name for name in table.column_names if name not in known]
        return {name: np.array(table[name].to_pylist()) for name in names}


def evaluator_of(name: str) -> type[Evaluator]:
    """Return the evaluator of a name of the table."""
    kind: type[Evaluator] = resolve(name, EVALUATORS, "evaluator")
    return kind
