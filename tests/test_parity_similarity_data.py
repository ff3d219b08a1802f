"""Data of video similarity equals the reference: every recorded file at its tolerance."""

import shutil

import numpy as np
import pytest

from benchmarks import parity
from benchmarks.parity.similarity import data

NAMES = sorted(data.CHECKS)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_reference(golden, name):
    results = parity.compare_file(golden / "similarity" / f"{name}.npz")
    assert results
    assert [result for result in results if not result.passed] == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("frame_sampling", "indices"),
        ("mlm_masking", "out_labels"),
        ("folds", "small_train"),
        ("folds", "full_val_sha256"),
        ("tiny_pointwise_expected", "frames_1"),
        ("tiny_pointwise_expected", "titles"),
    ],
)
def test_a_damaged_copy_fails(golden, tmp_path, name, quantity):
    arrays = dict(np.load(golden / "similarity" / f"{name}.npz", allow_pickle=False))
    values = arrays[quantity]
    is_number = np.issubdtype(values.dtype, np.number)
    arrays[quantity] = values + np.ones_like(values) if is_number else np.char.add(values, "x")
    (tmp_path / "similarity").mkdir()
    np.savez(tmp_path / "similarity" / f"{name}.npz", **arrays)
    shutil.copy(golden / "similarity" / data.RECORDS, tmp_path / "similarity")
    failed = [
        r for r in parity.compare_file(tmp_path / "similarity" / f"{name}.npz") if not r.passed
    ]
    assert failed
    assert all(quantity in result.quantity for result in failed)
