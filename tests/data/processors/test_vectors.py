"""Arrays of other programs: from .npy files and from records, checked one by one."""

import numpy as np
import pytest

from msvqa.data.medium import Medium
from msvqa.data.processors.vectors import Vectors
from msvqa.errors import VideoError

ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def read(medium, **fields):
    (arrays,) = Vectors(Vectors.Config(width=4, **fields)).arrays([medium])
    return arrays


def saved(folder, array):
    np.save(folder / "a.npy", array)
    return Medium("a", str(folder / "a.npy"))


def test_a_vector_comes_as_it_is(tmp_path):
    np.testing.assert_array_equal(read(saved(tmp_path, ROWS[0]))["vectors"], ROWS[0])


def test_fewer_rows_are_filled_up_and_of_more_the_middle_ones_are_taken(tmp_path):
    few = read(saved(tmp_path, ROWS), frames=8)
    np.testing.assert_array_equal(few["vectors"], np.concatenate([ROWS, np.zeros((2, 4))]))
    assert few["num_frames"] == 6
    many = read(saved(tmp_path, ROWS), frames=3)
    np.testing.assert_array_equal(many["vectors"], ROWS[[0, 2, 4]])
    assert many["num_frames"] == 3


def test_a_record_is_a_range_of_bytes(tmp_path):
    (tmp_path / "all.bin").write_bytes(ROWS.tobytes())
    medium = Medium("r", str(tmp_path / "all.bin"), "record", 16, 64)
    np.testing.assert_array_equal(read(medium, frames=3)["vectors"], ROWS[1:4])


@pytest.mark.parametrize(
    ("start", "end", "outcome"), [(0, 10, "bad_record"), (90, 200, "bad_record")]
)
def test_a_range_outside_or_of_broken_rows_is_named(tmp_path, start, end, outcome):
    (tmp_path / "all.bin").write_bytes(ROWS.tobytes())
    with pytest.raises(VideoError, match=r"all\.bin: bytes") as caught:
        read(Medium("r", str(tmp_path / "all.bin"), "record", start, end), frames=3)
    assert caught.value.outcome == outcome


@pytest.mark.parametrize(
    ("array", "outcome"),
    [(ROWS[:, :3], "bad_array"), (ROWS[:0], "bad_array"), (ROWS * np.nan, "not_finite")],
)
def test_bad_arrays_are_named(tmp_path, array, outcome):
    medium = saved(tmp_path, array)
    processor = Vectors(Vectors.Config(width=4, frames=8))
    entry = processor.extractor().extract(medium)
    assert (entry.outcome, entry.arrays) == (outcome, None)
    assert "a.npy" in entry.error


def test_what_is_no_array_is_named(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(VideoError, match="no array that can be read"):
        read(Medium("a", str(tmp_path / "a.npy")))
