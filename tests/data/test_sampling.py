"""Which frames of a video become its clips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msvqa.data.sampling import (
    at_rate,
    candidates,
    middles,
    parts,
    sample_clips,
    shown_at_rate,
    within,
)


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


def test_equal_parts_are_those_of_umt(golden):
    data = np.load(golden / "umt/frame_sampling.npz", allow_pickle=False)
    for n, count in data["cases"].tolist():
        found, name = parts(n, count), f"{n}_{count}"
        kept = min(n, count)
        np.testing.assert_array_equal(found[:kept, 0], data[f"interval_lo_{name}"])
        np.testing.assert_array_equal(found[:kept, 1], data[f"interval_last_{name}"])
        np.testing.assert_array_equal(middles(n, count), data[f"middle_{name}"])


def test_spans_are_those_of_umt(golden):
    data = np.load(golden / "umt/frame_sampling.npz", allow_pickle=False)
    for number, (start, end, fps, n) in enumerate(data["clip_cases"].tolist()):
        first, stop = within(np.arange(int(n)) / fps, start, end)
        expected = data[f"clip{number}_middle8"]
        np.testing.assert_array_equal(first + middles(stop - first, 8), expected)


@given(n=st.integers(1, 500), count=st.integers(1, 40), each=st.sampled_from([1, 3, 5, 9]))
def test_candidates_are_of_their_part_and_the_middle_is_among_them(n, count, each):
    found = candidates(n, count, each).reshape(count, each)
    ranges = parts(n, count)
    assert (found >= ranges[:, :1]).all()
    assert (found <= ranges[:, 1:]).all()
    assert (np.diff(found, axis=1) >= 0).all()
    assert found[:, each // 2].tolist() == middles(n, count).tolist()


@given(n=st.integers(1, 300), start=st.floats(0, 12), length=st.floats(0.01, 12))
def test_a_span_has_a_frame_unless_it_lies_outside(n, start, length):
    first, stop = within(np.arange(n) / 25, start, start + length)
    if n > 1 and start >= n / 25:
        assert stop == 0
    elif n > 1:
        assert 0 <= first < stop <= n
        assert first / 25 <= start + 1e-5


def test_a_rate_takes_every_so_many_frames():
    times = np.arange(100) / 10
    assert at_rate(times, 5, 1.0).tolist() == [5, 25, 45, 65, 85]
    assert shown_at_rate(times, 1.0).tolist() == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert at_rate(times[:20], 4, 1.0).tolist() == [5, 15, 15, 15]
    assert at_rate(np.zeros(1), 3, 1.0).tolist() == [0, 0, 0]
