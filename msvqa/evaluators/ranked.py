"""Ranked answers as columns of a table, and back: for all that is answered with one of a list.

Legend: n rows, K best answers of each.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from msvqa import metrics
from msvqa.evaluators.evaluator import Answers


def ranked_columns(answers: Answers, decode: Callable[[int], str]) -> dict[str, list[Any]]:
    """Return `predicted`, `top` and `probability` of answers with `top` and `probability` (n, K).

    What is not finite is no answer, and has no probability.
    """
    finite = metrics.is_finite(answers)
    top = [
        [decode(answer) for answer in row] if answered else []
        for row, answered in zip(answers["top"].tolist(), finite, strict=True)
    ]
    probability = answers["probability"].astype(np.float32).tolist()
    return {
        "predicted": [next(iter(best), None) for best in top],
        "top": top,
        "probability": [
            row if answered else [] for row, answered in zip(probability, finite, strict=True)
        ],
    }


def ranked_answers(table: pa.Table, encode: Callable[[str], int]) -> Answers:
    """Return the classes and probabilities that a table with `ranked_columns` shows."""
    rows = table.select(["top", "probability"]).to_pylist()
    width = max((len(row["top"]) for row in rows), default=1)
    top = np.zeros((len(rows), width), dtype=np.int64)
    probability = np.full((len(rows), width), np.nan)
    for number, row in enumerate(rows):
        if row["top"]:
            top[number] = [encode(text) for text in row["top"]]
            probability[number] = row["probability"]
    return {"top": top, "probability": probability}
