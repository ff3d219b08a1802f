"""Every metric: functions of arrays."""

import numpy as np

UNKNOWN_CLASSES = 2
"""Class ids below this stand for answers outside the list: of train questions 0, of others 1."""


def is_right(predicted: np.ndarray, answer: np.ndarray, unknown_counts: bool = False) -> np.ndarray:
    """Return for each question whether the predicted class is its answer.

    An answer outside the list is wrong whatever is predicted. With `unknown_counts` predicting
    the unknown class is right for it, as in DualVGR's program.
    """
    right: np.ndarray = predicted == answer
    return right if unknown_counts else right & (answer >= UNKNOWN_CLASSES)


def mean(values: np.ndarray) -> float:
    """Return the mean, or NaN without values."""
    return float(np.mean(values)) if len(values) else float("nan")


def r_squared(squared_error: float, variation: float) -> float:
    """Return 1 - error / variation: 0 for the best constant, 1 if perfect, NaN if undefined."""
    return float(1 - squared_error / variation) if variation > 0 else float("nan")
