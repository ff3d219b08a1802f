"""Equal to the reference: every recorded file at its tolerance."""

import numpy as np
import pytest

from benchmarks import parity

SLOW = {"full_dims_formula", "resnext3d_formula", "questions_full"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in sorted(parity.CHECKS)],
)
def test_equals_the_reference(golden, name):
    results = parity.compare_file(golden / "videoqa" / f"{name}.npz")
    assert results
    assert [result for result in results if not result.passed] == []


def test_every_recorded_file_is_compared(golden):
    assert {path.stem for path in (golden / "videoqa").glob("*.npz")} == set(parity.CHECKS)


def test_an_unknown_file_fails(tmp_path):
    np.savez(tmp_path / "new.npz", a=1)
    assert not parity.compare_file(tmp_path / "new.npz")[0].passed
