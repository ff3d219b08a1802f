"""Classification: is the best label the right one, over all media and as the mean over labels.

Legend: n examples, K best labels of each.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from msvqa import metrics
from msvqa.data.examples.labels import Labels
from msvqa.data.label_list import LabelList
from msvqa.errors import DataError
from msvqa.evaluators.evaluator import Answers, Case, Evaluator, Sheet
from msvqa.evaluators.ranked import ranked_answers, ranked_columns

if TYPE_CHECKING:
    from msvqa.data.lexicon import Lexicon
    from msvqa.data.split import Split

WORST, CASES = 10, 4
"""Labels that the sheet shows, and media that are shown of each confusion."""


class Classification(Evaluator):
    """Accuracy of the best label, and its mean over the labels of the split.

    A label that no training example has counts as wrong, whatever is predicted, and so does an
    example that the model answers with numbers which are not finite.
    """

    name = "classification"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("accuracy", "max")
    numbers: ClassVar[tuple[str, ...]] = ("accuracy", "mean_label_accuracy")

    def validate(self, answers: Answers, split: "Split") -> dict[str, float]:
        """Return `accuracy`, and `mean_label_accuracy`, in which each label counts alike."""
        right = _is_right(answers, split)
        return {
            "accuracy": metrics.mean(right),
            "mean_label_accuracy": _mean_over_labels(right, split.of(Labels).label),
        }

    def evaluate(
        self, answers: Answers, split: "Split", train: "Split", kinds: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return accuracies with an interval by video, of each label, a baseline and counts.

        Raises:
            DataError: the predictions are not one row per example.
        """
        asked, top = split.of(Labels), answers["top"]
        if len(top) != len(split):
            raise DataError(f"{len(top)} predictions for {len(split)} labels of {split.name!r}")
        answered, right = metrics.is_finite(answers), _is_right(answers, split)
        in_top = answered & (top == asked.label_id[:, None]).any(axis=1)
        frequent = [name for name, _ in Counter(train.of(Labels).label).most_common(1)]
        guessed = np.array([[label == name for name in frequent] for label in asked.label])
        each = metrics.mean_of_each(right, asked.label)
        return {
            "split": split.name,
            "n": len(split),
            "n_expected": split.expected,
            "n_media": len(split.media),
            "n_labels": len(each),
            "n_not_finite": int((~answered).sum()),
            "n_unknown_labels": int((asked.label_id < 0).sum()),
            "accuracy": _number(metrics.mean(right)),
            "accuracy_interval": [
                _number(end) for end in metrics.interval_by_video(right, asked.medium)
            ],
            f"top{top.shape[1]}_accuracy": _number(metrics.mean(in_top)),
            "mean_label_accuracy": _number(_mean_over_labels(right, asked.label)),
            "baselines": {
                "most_frequent": _number(metrics.mean(guessed[:, 0])) if frequent else None
            },
            "per_label": {
                name: {"n": n, "accuracy": accuracy} for name, (accuracy, n) in each.items()
            },
        }

    def table(self, answers: Answers, split: "Split", lexicon: "Lexicon") -> pa.Table:
        """Return one row per example: medium, label, what is predicted, and how probable it is."""
        asked = split.of(Labels)
        ranked = ranked_columns(answers, lexicon.of(LabelList).decode)
        types = {"predicted": pa.string(), "top": pa.list_(pa.string())}
        columns = {
            "medium": [split.media.id[row] for row in asked.medium],
            "label": asked.label,
            "correct": [
                found == label
                for found, label in zip(ranked["predicted"], asked.label, strict=True)
            ],
            **{name: pa.array(values, types.get(name)) for name, values in ranked.items()},
        }
        return pa.table(columns)

    def answers(self, table: pa.Table, split: "Split", lexicon: "Lexicon") -> Answers:
        """Return the labels and probabilities that a table shows.

        Raises:
            DataError: the table is about other media.
        """
        asked = [split.media.id[row] for row in split.of(Labels).medium]
        if table["medium"].to_pylist() != asked:
            raise DataError(
                f"the predictions are about other media than split {split.name!r} has now: the "
                "data has changed since; evaluate again"
            )
        return ranked_answers(table, lexicon.of(LabelList).encode)

    @classmethod
    def sheet(cls, metrics: Mapping[str, Any]) -> Sheet:
        """Return the accuracies, and the labels that are recognised least."""
        top = next(name for name in metrics if name.startswith("top"))
        low, high = metrics["accuracy_interval"]
        interval = None if low is None else f"{low:.3f} to {high:.3f}"
        least = sorted(metrics["per_label"].items(), key=lambda item: item[1]["accuracy"])[:WORST]
        frequent = metrics["baselines"]["most_frequent"]
        rows = [
            ("all", metrics["n"], metrics["accuracy"], interval, metrics[top]),
            ("mean over labels", metrics["n_labels"], metrics["mean_label_accuracy"], None, None),
            ("most frequent label", metrics["n"], frequent, None, None),
            *((name, row["n"], row["accuracy"], None, None) for name, row in least),
        ]
        return Sheet(("labels", "n", "accuracy", "95 % interval", top.replace("_", " ")), rows)

    @classmethod
    def cases(cls, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Case]]:
        """Return the labels that are most often taken for others, with media of each."""
        taken: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            if row["predicted"] is not None and not row["correct"]:
                taken.setdefault((row["label"], row["predicted"]), []).append(row["medium"])
        often = sorted(taken.items(), key=lambda item: -len(item[1]))[:CASES]
        return {
            "Labels that are taken for others most often": [
                Case(
                    f"{label}, taken for {other} ({len(media)})",
                    [(medium, label) for medium in media[:CASES]],
                )
                for (label, other), media in often
            ]
        }


def _is_right(answers: Answers, split: "Split") -> np.ndarray:
    right = answers["top"][:, 0] == split.of(Labels).label_id
    return np.asarray(right & metrics.is_finite(answers))


def _mean_over_labels(right: np.ndarray, labels: Sequence[str]) -> float:
    each = metrics.mean_of_each(right, labels)
    return metrics.mean(np.array([accuracy for accuracy, _ in each.values()]))


def _number(value: float) -> float | None:
    """Return the value, or None where there is none: JSON has no NaN."""
    return None if math.isnan(value) else value
