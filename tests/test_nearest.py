"""The nearest by cosine are those of a brute force, whatever the blocks."""

import sys

import numpy as np
import pytest

from msvqa import nearest as module
from msvqa.errors import PackageError
from msvqa.metrics import cosines
from msvqa.nearest import nearest

VECTORS = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)


def brute(vectors, query, top):
    both = np.concatenate([query[None], vectors])
    pairs = np.array([[0, row + 1] for row in range(len(vectors))])
    found = cosines(both, pairs)
    rows = sorted(range(len(vectors)), key=lambda row: (-found[row], row))[:top]
    return rows, found[rows]


@pytest.mark.parametrize("block", [7, 50, 1000])
@pytest.mark.parametrize("top", [1, 9, 99])
def test_nearest_are_those_of_a_brute_force(monkeypatch, block, top):
    monkeypatch.setattr(module, "BLOCK", block)
    vectors = VECTORS.copy()
    vectors[13] = 0
    rows, found = nearest(vectors, VECTORS[4], top)
    expected = brute(vectors, VECTORS[4], top)
    assert rows.tolist() == expected[0]
    assert found == pytest.approx(expected[1])
    assert found[0] == pytest.approx(1) and rows[0] == 4


def test_zero_vectors_have_cosine_0_and_the_first_of_equals_comes_first():
    vectors = np.array([[0, 0], [-1, 0], [0, 0], [2, 0], [1, 0]], np.float16)
    rows, found = nearest(vectors, np.array([3.0, 0]), 5)
    assert rows.tolist() == [3, 4, 0, 2, 1]
    assert found.tolist() == [1, 1, 0, 0, -1]
    rows, found = nearest(vectors, np.zeros(2), 2)
    assert (rows.tolist(), found.tolist()) == ([0, 1], [0, 0])
    assert len(nearest(vectors[:0], np.zeros(2), 2)[0]) == 0


def test_very_many_are_searched_by_faiss():
    rows, found = nearest(VECTORS, VECTORS[4], 3, plain=49)
    expected = brute(VECTORS, VECTORS[4], 3)
    assert rows.tolist() == expected[0]
    assert found == pytest.approx(expected[1], abs=1e-6)


def test_without_faiss_very_many_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(PackageError, match=r"50 embeddings .*pip install faiss-cpu"):
        nearest(VECTORS, VECTORS[4], 3, plain=49)
