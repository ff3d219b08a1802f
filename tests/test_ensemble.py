"""Ensembles: folds, models, and vectors beside each other."""

import numpy as np
import pytest

from msvqa.ensemble import concatenated, mean_of_folds, reduced, weighted_sum
from msvqa.metrics import cosines

VECTORS = np.random.default_rng(0).normal(size=(2, 6, 4))
PAIRS = np.array([[0, 1], [2, 3], [4, 5]])


def test_folds_are_averaged_as_they_are_stored():
    folds = [np.full((2, 2), 0.1, np.float32), np.full((2, 2), 0.3, np.float32)]
    found = mean_of_folds(folds)
    assert found.dtype == np.float64
    assert found[0, 0] == (float(np.float16(0.1)) + float(np.float16(0.3))) / 2


def test_long_vectors_count_for_more_in_a_sum_and_not_beside_each_other():
    weights = np.array([0.5, 0.5])
    longer = VECTORS * np.array([1, 1000.0])[:, None, None]
    second = cosines(VECTORS[1], PAIRS)
    assert cosines(weighted_sum(longer, weights), PAIRS) == pytest.approx(second, abs=1e-2)
    mean = (cosines(VECTORS[0], PAIRS) + second) / 2
    assert cosines(concatenated(longer, weights), PAIRS) == pytest.approx(mean)


def test_fewer_columns_keep_the_inner_products_that_they_can():
    whole = concatenated(VECTORS, np.array([0.3, 0.7]))
    same = reduced(whole, 8)
    assert same @ same.T == pytest.approx(whole @ whole.T)
    assert reduced(whole, 3).shape == (6, 3)
    assert reduced(-whole, 3) == pytest.approx(reduced(whole, 3)), "signs are settled"


def test_a_zero_vector_stays_one():
    vectors = VECTORS.copy()
    vectors[0, 2] = 0
    found = concatenated(vectors, np.array([0.5, 0.5]))
    assert not found[2, :4].any()
    assert np.isfinite(found).all()
