"""Several embeddings of the same videos become one: over folds, and over models.

Legend: F folds, M models, N videos, E width of an embedding.
"""

from collections.abc import Iterable

import numpy as np


def mean_of_folds(folds: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean (N, E) of a model's folds, F of (N, E), as they are and not normalised.

    In double precision, after what the folds are stored as, which in the reference is float16.
    """
    stored = np.stack([fold.astype(np.float16) for fold in folds])
    return np.asarray(stored.mean(axis=0, dtype=np.float64))


def weighted_sum(models: Iterable[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the sum (N, E) of models' embeddings, M of (N, E), times their weights (M,).

    As in the reference nothing is normalised: a model with long vectors counts for more, and
    coordinates of unrelated spaces are added. `concatenated` has neither.
    """
    total: np.ndarray = np.einsum("mne,m->ne", np.stack([*models]), weights)
    return total


def concatenated(models: Iterable[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return unit vectors of all models beside each other, (N, M·E), times roots of their weights.

    Their inner products are the weighted sums of the models' cosines (Ma, Lou and Ouyang, 2021,
    https://arxiv.org/abs/2111.01677). A zero vector stays one.
    """
    parts = []
    for vectors, weight in zip(models, weights, strict=True):
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms != 0)
        parts.append(np.sqrt(weight) * unit)
    return np.concatenate(parts, axis=1)


def reduced(vectors: np.ndarray, width: int) -> np.ndarray:
    """Return (N, width) whose inner products are nearest to those of vectors (N, D): their SVD.

    Vectors are not centred; signs of the columns are arbitrary, and set so that the largest number
    of each is positive. No more columns than there are numbers are made.
    """
    left, values, _ = np.linalg.svd(vectors, full_matrices=False)
    found: np.ndarray = (left * values)[:, :width]
    largest = np.abs(found).argmax(axis=0)
    found *= np.where(found[largest, np.arange(found.shape[1])] < 0, -1.0, 1.0)
    return found
