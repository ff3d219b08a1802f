"""Numbers that are not finite are found in every type."""

import numpy as np
import pytest

from msvqa.data.finite import all_finite

EDGES = (0.0, -0.0, 1.0, -65504.0, 65504.0, 6e-8)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "f4", "f8"])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, -np.nan])
def test_each_number_counts(dtype, step, bad):
    array = np.array(EDGES, dtype)[::step]
    assert all_finite(array)
    for place in range(len(array)):
        damaged = array.copy()
        damaged[place] = bad
        assert not all_finite(damaged)


def test_whole_numbers_and_nothing_at_all_are_finite():
    assert all_finite(np.array([2**62]))
    assert all_finite(np.empty((0, 3), np.float16))
    assert not all_finite(np.array(np.inf, np.float16))
