"""Which frames of a video become its clips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msvqa.data.sampling import sample_clips


@pytest.mark.parametrize("clips", [8, 16, 24])
def test_equals_the_reference_for_every_length(golden, clips):
    data = np.load(golden / "videoqa/frame_sampling.npz", allow_pickle=False)
    expected = data[f"idx_clips{clips}_frames16"]
    lengths = data["num_frames_in_video"]
    found = np.stack([sample_clips(int(n), clips, 16) for n in lengths])
    np.testing.assert_array_equal(found, expected)


def test_worked_examples():
    clips = sample_clips(40, 8, 16)
    assert clips[0].tolist() == [0, 0, 0, 0, *range(12)]
    assert clips[7].tolist() == [*range(27, 39), 39, 39, 39, 39]
    clips = sample_clips(9, 8, 16)
    assert clips[0].tolist() == [0] * 8 + list(range(1, 9))
    assert clips[7].tolist() == [0] * 9 + list(range(1, 8))


def test_one_frame_is_repeated():
    assert sample_clips(1, 3, 4).tolist() == [[0] * 4] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 8, 16), "without frames"), ((10, 8, 15), "even"), ((10, 0, 16), "num_clips")],
)
def test_refuses_what_cannot_be_sampled(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_clips(*arguments)


@given(st.integers(1, 5000), st.integers(1, 24), st.integers(1, 16).map(lambda n: 2 * n))
def test_frames_exist_and_rise(num_frames, clips, frames):
    numbers = sample_clips(num_frames, clips, frames)
    assert numbers.shape == (clips, frames)
    assert numbers.dtype == np.int64
    assert numbers.min() >= 0
    assert numbers.max() < num_frames
    assert (np.diff(numbers, axis=1) >= 0).all()
