"""Question answering: accuracy per question type, beside what the text alone can give."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from msvqa import metrics
from msvqa.data.examples.questions import Questions
from msvqa.data.schema import PREDICTIONS
from msvqa.data.text import AnswerList
from msvqa.errors import DataError
from msvqa.evaluators.evaluator import Answers, Evaluator
from msvqa.evaluators.ranked import ranked_answers, ranked_columns

if TYPE_CHECKING:
    from msvqa.data.lexicon import Lexicon
    from msvqa.data.split import Split


class QuestionAnswering(Evaluator):
    """Accuracy of the best answer.

    An answer outside the list counts as wrong, whatever is predicted, unless the recipe asks for
    the rule of DualVGR's program (`count_unknown_as_wrong: false`). A type without questions gets
    n = 0 and no accuracy; the reference divides by zero there.

    A question that the model answers with numbers which are not finite is not answered: wrong.
    """

    name = "question_answering"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("accuracy", "max")
    numbers: ClassVar[tuple[str, ...]] = ("accuracy",)

    def validate(self, answers: Answers, split: "Split") -> dict[str, float]:
        """Return the accuracy; unknown answers, and rows that are not finite, count as wrong."""
        right = metrics.is_right(answers["top"][:, 0], split.of(Questions).answer_id)
        return {"accuracy": metrics.mean(right & metrics.is_finite(answers))}

    def evaluate(
        self, answers: Answers, split: "Split", train: "Split", kinds: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return accuracies with intervals by video, baselines and counts.

        Raises:
            DataError: the predictions are not one row per question.
        """
        asked, taught = split.of(Questions), train.of(Questions)
        top = answers["top"]
        if len(top) != len(split):
            raise DataError(f"{len(top)} predictions for {len(split)} questions of {split.name!r}")
        unknown_counts = not self.config.count_unknown_as_wrong
        answered = metrics.is_finite(answers)
        right = answered & metrics.is_right(top[:, 0], asked.answer_id, unknown_counts)
        baselines = {
            # Of no training nobody knows what its text alone would give.
            name: metrics.is_right(predicted, asked.answer_id)
            if len(taught)
            else np.full(len(asked), np.nan)
            for name, predicted in metrics.text_baselines(taught, asked).items()
        }
        possible = asked.answer_id >= metrics.UNKNOWN_CLASSES
        compared = {
            "accuracy": right,
            "type_only_accuracy": baselines["most_frequent_of_type"],
            "question_only_accuracy": baselines["question_only"],
            "best_possible": possible,
        }
        every = np.ones(len(split), dtype=bool)
        there = {*taught.question_type, *asked.question_type}
        listed = [kind for kind in kinds if kind in there]
        kind_of = np.array(asked.question_type, dtype=object)
        return {
            "split": split.name,
            **_row_of(compared, asked.medium, every),
            f"top{top.shape[1]}_accuracy": _number(
                metrics.mean(answered & metrics.is_in_top(top, asked.answer_id))
            ),
            "n_expected": split.expected,
            "n_videos": len(split.media),
            "n_not_finite": int((~answered).sum()),
            "n_unknown_answers": int((asked.answer_id < metrics.UNKNOWN_CLASSES).sum()),
            "count_unknown_as_wrong": self.config.count_unknown_as_wrong,
            "baselines": {name: _number(metrics.mean(hits)) for name, hits in baselines.items()}
            | {"best_possible": _number(metrics.mean(possible))},
            "per_type": {
                kind: _row_of(compared, asked.medium, kind_of == kind)
                for kind in dict.fromkeys([*listed, *taught.question_type, *asked.question_type])
            },
        }

    def asked(self, split: "Split") -> dict[str, list[Any]]:
        """Return the questions, by their ids and videos."""
        shown = split.of(Questions).shown(np.arange(len(split)))
        videos = [split.media.id[row] for row in split.examples.medium]
        return {"question_id": list(shown["question_id"]), "video_id": videos}

    def table(self, answers: Answers, split: "Split", lexicon: "Lexicon") -> pa.Table:
        """Return one row per question, with all that is needed to count without this package."""
        asked = split.of(Questions)
        ranked = ranked_columns(answers, lexicon.of(AnswerList).decode)
        right = zip(ranked["top"], asked.answer, strict=True)
        columns = {
            **asked.shown(np.arange(len(asked))),
            **self.asked(split),
            "correct": [best[:1] == [answer] for best, answer in right],
            **ranked,
        }
        return pa.table(columns, schema=PREDICTIONS)

    def answers(self, table: pa.Table, split: "Split", lexicon: "Lexicon") -> Answers:
        """Return the classes and probabilities that a table shows."""
        encode = lexicon.of(AnswerList).encode
        return ranked_answers(table, lambda text: encode(text, train=True))


def _row_of(
    compared: Mapping[str, np.ndarray], video: np.ndarray, chosen: np.ndarray
) -> dict[str, Any]:
    """Return the means over the chosen questions, with the interval of the first."""
    low, high = metrics.interval_by_video(compared["accuracy"][chosen], video[chosen])
    return {
        "n": int(chosen.sum()),
        **{name: _number(metrics.mean(hits[chosen])) for name, hits in compared.items()},
        "accuracy_interval": [_number(low), _number(high)],
    }


def _number(value: float) -> float | None:
    """Return the value, or None where there is none: JSON has no NaN."""
    return None if math.isnan(value) else value
