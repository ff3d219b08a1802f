"""Columns of tags are the same however many lists are looked at together."""

import numpy as np
import pyarrow as pa
import pytest

from msvqa.data import tags
from msvqa.data.tags import TagList

LISTS = [["7", "3"], [], None, ["3", "3", "unknown"], ["10"], ["unknown"]]


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_each_list_has_its_columns_once_and_ascending(monkeypatch, at_once):
    monkeypatch.setattr(tags, "LISTS_AT_ONCE", at_once)
    columns, counts = TagList.ascending(["10", "3", "7"]).columns(
        pa.array([[], *LISTS], pa.list_(pa.string())).slice(1)
    )
    assert (columns.tolist(), counts.tolist()) == ([0, 1, 0, 2], [2, 0, 0, 1, 1, 0])
    assert columns.dtype == np.int32


def test_no_lists_have_no_columns():
    columns, counts = TagList.ascending(["3"]).columns(pa.array([], pa.list_(pa.string())))
    assert (len(columns), len(counts)) == (0, 0)
