"""Which frames are taken, and that other ways take others."""

import numpy as np
import pytest

from msvqa.data.medium import Medium
from msvqa.data.sampling import mvbench_frames, numbered
from msvqa.errors import VideoError
from msvqa.mvbench.sampling import SAMPLERS, is_repaired, official


def test_a_folder_of_frames_is_counted_from_one_at_three_frames_a_second():
    medium = Medium("", "", "frames", 8.4, 9.6)
    # Frames 25 to 29 of 30; places count from 0.
    assert mvbench_frames(30, 0.0, medium, 4).tolist() == [24, 25, 26, 27]


@pytest.mark.parametrize("span", [(90.0, 99.0), (5.0, 2.0), (-3.0, -1.0)])
def test_odd_bounds_are_moved_into_the_video(span):
    medium = Medium("", "", "video", *span)
    found = mvbench_frames(100, 10.0, medium, 8)
    assert (found >= 0).all()
    assert (found < 100).all()
    assert (np.diff(found) >= 0).all()
    assert is_repaired(numbered(100, 10.0, medium), medium)


def test_sound_bounds_are_those_of_the_released_evaluation():
    medium = Medium("", "", "video", 2.0, 7.5)
    assert (
        mvbench_frames(100, 10.0, medium, 16).tolist() == official(100, 10.0, medium, 16).tolist()
    )
    assert not is_repaired(numbered(100, 10.0, medium), medium)


def test_the_three_ways_differ_and_stay_within_the_video():
    found = {name: rule(101, 25.0, Medium(""), 8) for name, rule in SAMPLERS.items()}
    assert found["demo"].tolist() == [6, 18, 31, 44, 56, 68, 81, 94]
    assert found["evaluation"].tolist() == [6, 18, 31, 44, 56, 68, 81, 94]
    for n in range(1, 60):
        for rule in SAMPLERS.values():
            frames = rule(n, 25.0, Medium(""), 8)
            assert frames.min() >= 0
            assert frames.max() < n
    spanned = Medium("", "", "video", 1.0, 2.0)
    assert len({tuple(rule(101, 25.0, spanned, 8)) for rule in SAMPLERS.values()}) > 1


def test_a_span_of_a_video_without_a_rate_is_refused():
    with pytest.raises(VideoError, match="nothing of its rate"):
        mvbench_frames(100, 0.0, Medium("", "", "video", 1.0, 2.0), 8)
