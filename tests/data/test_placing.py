"""Planned frames at their places: what `decode` and `look` make of frames that come one by one."""

import numpy as np
import pytest
from PIL import Image

from msvqa.data import video
from msvqa.data.media import Medium
from msvqa.data.video import View, look
from msvqa.errors import VideoError
from tests import barcode_video

# Legend: N frames of a portion, H x W pixels.

RGB = 3


def all_of(times):
    return np.arange(len(times))


def numbered(*numbers):
    """Return frames (N, 2, 2, 3), every value of which is the frame's number."""
    return np.broadcast_to(
        np.array(numbers, np.uint8)[:, None, None, None], (len(numbers), 2, 2, RGB)
    )


def test_frames_go_to_all_their_places():
    placed = video._Placed(np.array([[3, 1], [3, 7]]))
    placed.add(2, {2: numbered(1, 3)})
    assert not placed.is_whole
    placed.add(1, {2: numbered(7)})
    assert placed.is_whole
    assert placed.frames(2)[..., 0, 0, 0].tolist() == [[3, 1], [3, 7]]
    placed.add(1, {2: numbered(9)})
    assert not placed.is_whole


def test_a_plan_of_no_frames_gives_none():
    placed = video._Placed(np.zeros((0, 4), int))
    assert placed.is_whole and placed.frames(8).shape == (0, 4, 8, 8, RGB)


def test_portions_hold_frames_of_one_shape(monkeypatch):
    wide, high = np.zeros((4, 6, RGB), np.uint8), np.zeros((6, 4, RGB), np.uint8)
    monkeypatch.setattr(video, "CHUNK_BYTES", 2.5 * wide.nbytes)
    given = [np.full_like(wide, number) for number in range(5)] + [high + 5, wide + 6]
    copies = [chunk.copy() for chunk in video._chunks(given)]
    assert [chunk.shape[0] for chunk in copies] == [3, 2, 1, 1]
    for frame, expected in zip([f for chunk in copies for f in chunk], given, strict=True):
        np.testing.assert_array_equal(frame, expected)


def test_frames_that_are_not_made_smaller_are_no_view_of_the_next_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "CHUNK_BYTES", 1)
    path = barcode_video.write(tmp_path / "a.avi", 20)
    view = View(choose=all_of, size_px=1000, fit="whole")
    frames = look(path, Medium("a"), view).frames[1000]
    assert [barcode_video.read(frame) for frame in frames] == list(range(20))


@pytest.mark.parametrize("fit", ["whole", "cover"])
def test_pictures_of_different_sizes_have_no_common_size_unless_cut(tmp_path, fit):
    for number, size in enumerate([(40, 20), (20, 40)]):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    folder = Medium("folder", kind="frames")
    with pytest.raises(VideoError, match="different sizes") as caught:
        look(tmp_path, folder, View(choose=all_of, size_px=16, fit=fit))
    assert caught.value.outcome == "sizes_differ"
    cut = look(tmp_path, folder, View(choose=all_of, size_px=16))
    assert cut.frames[16].shape == (2, 16, 16, RGB)
