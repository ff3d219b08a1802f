"""What every evaluator has in common: it asks a model about a split, and counts the answers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa

from msvqa.evaluators import EVALUATORS
from msvqa.objectives import OBJECTIVES
from msvqa.recipe import EvaluationConfig, Recipe
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

    def pairs(self, what: str, media: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the answers about chosen pairs of a medium and what an example says.

        Args:
            what: name of the method.
            media: (p,) rows of the split's media.
            rows: (p,) rows of the split's examples.
        """
        ...

    def answers(self, what: str) -> bool:
        """Whether the objective has such a method."""
        ...


@dataclass(frozen=True)
class Sheet:
    """A table of numbers, as the console prints it and the page draws it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    """The first cell of a row says what it is about."""


@dataclass(frozen=True)
class Case:
    """One example with its answer, for people who look."""

    said: str
    media: Sequence[tuple[str, str]]
    """Ids of media to be shown, and what is written below each."""


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """One point for each of many examples."""

    title: str
    columns: tuple[str, str]
    """What the axes show."""
    x: Sequence[float]
    y: Sequence[float]
    note: str = ""
    """Of how many examples these are, and which are left out."""


class Evaluator(ABC):
    """Asks, and counts. Counting needs no model, so it can be done again."""

    name: ClassVar[str]
    """As the table `EVALUATORS` lists it."""
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

    def asked(self, split: "Split") -> dict[str, list[Any]]:
        """Return columns of `table` that tell the examples of a split from those of others."""
        return {"medium": [split.media.id[row] for row in split.examples.medium]}

    def table(self, answers: Answers, split: "Split", lexicon: "Lexicon") -> pa.Table:
        """Return the answers with what was asked, to be read without this package."""
        every = np.arange(len(split))
        shown = {name: list(values) for name, values in split.examples.shown(every).items()}
        return pa.table(
            self.asked(split) | shown | {name: list(rows) for name, rows in answers.items()}
        )

    @classmethod
    def sheet(cls, metrics: Mapping[str, Any]) -> Sheet:
        """Return the numbers of metrics.json as a table."""
        rows = [(name, value) for name, value in metrics.items() if isinstance(value, float)]
        return Sheet(("number", "value"), rows)

    @classmethod
    def sheets(cls, metrics: Mapping[str, Any]) -> Mapping[str, Sheet]:
        """Return further tables of metrics.json for the page, under their titles."""
        return {}

    @classmethod
    def cases(cls, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Case]]:
        """Return examples that are worth a look, under what they have in common.

        Args:
            rows: those of `table`.
        """
        return {}

    @classmethod
    def figures(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[Scatter]:
        """Return figures of all examples.

        Args:
            rows: those of `table`.
        """
        return ()

    def answers(self, table: pa.Table, split: "Split", lexicon: "Lexicon") -> Answers:
        """Return what `table` was made of, to count again."""
        known = {"medium", *split.examples.shown(np.arange(0))}
        names = [name for name in table.column_names if name not in known]
        return {name: np.array(table[name].to_pylist()) for name in names}


def evaluator_of_stage(view: Recipe) -> type[Evaluator]:
    """Return what asks the model of a view's last stage: by name, or as its objective says."""
    objective = resolve(view.stages[-1].objective.name, OBJECTIVES, "objective")
    return evaluator_of(view.evaluation.name or objective.evaluator)


def evaluator_of_metrics(metrics: Mapping[str, Any]) -> type[Evaluator]:
    """Return what has counted the content of a metrics.json."""
    return evaluator_of(metrics.get("evaluator", "losses"))


def evaluator_of(name: str) -> type[Evaluator]:
    """Return the evaluator of a name of the table."""
    kind: type[Evaluator] = resolve(name, EVALUATORS, "evaluator")
    return kind
