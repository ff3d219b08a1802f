"""Key frames: a few frames of a long video equal those of decoding everything, or that is done."""

import av
import numpy as np
import pytest

from msvqa.data import readers, video
from msvqa.data.key_frames import PacketIndex
from msvqa.data.medium import Medium
from msvqa.data.video import View, decode, look
from msvqa.errors import VideoError
from tests import barcode_video
from tests.data.test_video import EXPECTED

COUNT, GROUP = 130, 13
SHORT_GROUPS = {"g": str(GROUP)}
X264 = {**SHORT_GROUPS, "keyint_min": str(GROUP), "sc_threshold": "0", "preset": "veryfast"}
X265 = {"preset": "ultrafast"}
X265_CLOSED = f"keyint={GROUP}:min-keyint={GROUP}:open-gop=0:log-level=none"
X265_OPEN = f"keyint={GROUP}:open-gop=1:log-level=none"
LIVE = {**SHORT_GROUPS, "deadline": "realtime", "cpu-used": "8"}
# File: codec, options, and whether key frames lead to single frames; None: as the encoder likes.
KINDS = {
    "h264.mp4": ("libx264", {**X264, "bf": "2"}, True),
    "h264.mov": ("libx264", {**X264, "bf": "0"}, True),
    "h264.mkv": ("libx264", {**X264, "bf": "2"}, True),
    "h264_pyramid.mp4": ("libx264", {**X264, "bf": "3", "refs": "6", "b-pyramid": "strict"}, True),
    "h264_open.mp4": ("libx264", {**X264, "bf": "2", "x264-params": "open-gop=1"}, False),
    "h264_refresh.mp4": ("libx264", {**SHORT_GROUPS, "x264-params": "intra-refresh=1"}, False),
    "h264_one_group.mp4": ("libx264", {**X264, "g": "1000", "keyint_min": "1000"}, False),
    "hevc.mp4": ("libx265", {**X265, "x265-params": X265_CLOSED}, True),
    "hevc_open.mkv": ("libx265", {**X265, "x265-params": X265_OPEN}, None),
    "vp9.webm": ("libvpx-vp9", LIVE, True),
    "vp8.webm": ("libvpx", LIVE, False),
    "av1.mkv": ("libsvtav1", {**SHORT_GROUPS, "preset": "12"}, True),
    "mpeg4.mp4": ("mpeg4", {**SHORT_GROUPS, "bf": "2"}, None),
    "mpeg4.mkv": ("mpeg4", SHORT_GROUPS, True),
    "mpeg2.mkv": ("mpeg2video", {**SHORT_GROUPS, "bf": "2"}, None),
    "mpeg4.avi": ("mpeg4", {**SHORT_GROUPS, "bf": "2"}, False),
    "mpeg2.mpg": ("mpeg2video", SHORT_GROUPS, False),
}  # fmt: skip


def five(num_frames):
    """Return frames of a clip in the middle, and the last ones."""
    last = num_frames - 1
    middle = np.minimum(last // 2 + np.array([0, 1, 1]), last)
    return np.stack([middle, np.maximum(last - np.array([1, 0, 0]), 0)])


def first_and_last(times):
    return np.array([0, len(times) // 3, len(times) - 1])


@pytest.fixture
def all_are_long(monkeypatch):
    monkeypatch.setattr(readers, "LONG_FRAMES", 1)


def in_sequence(path, plan, sizes):
    """Decode with every frame kept, as short videos are."""
    reader = readers.open_reader(path)
    return video._decoded_and_kept(reader, video._Wanted(path, plan, sizes))


def assert_equal(found, expected):
    assert found.probe == expected.probe
    assert found.frames.keys() == expected.frames.keys()
    for size, frames in expected.frames.items():
        np.testing.assert_array_equal(found.frames[size], frames)


@pytest.fixture
def sequences(monkeypatch):
    """Paths of what was decoded from the first frame on."""
    seen, frames = [], readers.PyAVReader.frames
    monkeypatch.setattr(
        readers.PyAVReader, "frames", lambda self: seen.append(self.path.name) or frames(self)
    )
    return seen


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_decoding_everything(kind, tmp_path, all_are_long, sequences):
    codec, options, by_key_frames = KINDS[kind]
    try:
        path = barcode_video.encode(tmp_path / kind, COUNT, codec, options)
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg has no {codec}")
    expected = in_sequence(path, five, [96, 48])
    sequences.clear()
    found = decode(path, five, [96, 48])
    assert_equal(found, expected)
    assert found.num_frames == COUNT
    assert [barcode_video.read(f) for f in found.frames[96][0]] == five(COUNT)[0].tolist()
    if by_key_frames is not None:
        assert (not sequences) == by_key_frames


@pytest.mark.long
@pytest.mark.parametrize("name", EXPECTED)
def test_real_files_give_what_decoding_everything_gives(clips, name, all_are_long):
    _, count = EXPECTED[name]
    if not count:
        with pytest.raises(VideoError):
            decode(clips / name, five, [32])
        return
    assert_equal(decode(clips / name, five, [32]), in_sequence(clips / name, five, [32]))


def test_times_are_those_of_the_decoded_frames(clips, all_are_long, monkeypatch, sequences):
    """A span of a video whose frames last differently long."""
    path = clips / "18_vfr_carphone.mp4"
    medium = Medium("v", str(path), "video", 0.7, 2.9)
    view = View(choose=first_and_last, size_px=40)
    found = look(path, medium, view)
    monkeypatch.setattr(readers, "LONG_FRAMES", 10**6)
    assert_equal(found, look(path, medium, view))


def test_short_videos_are_read_to_their_end(tmp_path, sequences):
    path = barcode_video.encode(tmp_path / "short.mp4", 40, "libx264", {"g": "5"})
    decode(path, five, [32])
    assert sequences == ["short.mp4"]


@pytest.mark.parametrize("name", ["large.avi", "large.mp4"])
def test_large_videos_are_decoded_once(tmp_path, monkeypatch, sequences, name):
    path = barcode_video.encode(tmp_path / name, 60, "mpeg4", {"g": "60", "bf": "2"})
    expected = in_sequence(path, five, [48, 32])
    sequences.clear()
    monkeypatch.setattr(video, "KEPT_BYTES", 1_000_000)
    assert_equal(decode(path, five, [48, 32]), expected)
    assert sequences == [name]


def test_large_videos_that_announce_other_frames_are_decoded_twice(clips, monkeypatch, sequences):
    path = clips / "05_xvid_packed_bikes.avi"
    expected = in_sequence(path, five, [48])
    sequences.clear()
    monkeypatch.setattr(video, "KEPT_BYTES", 1_000_000)
    assert_equal(decode(path, five, [48]), expected)
    assert 1 <= len(sequences) <= 2


@pytest.mark.long
def test_a_damaged_group_on_the_way_is_noticed(tmp_path, all_are_long, sequences):
    path = barcode_video.encode(tmp_path / "d.mp4", COUNT, "libx264", KINDS["h264.mp4"][1])
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        at, size = packets[COUNT // 2 - 3].pos, packets[COUNT // 2 - 3].size
    raw = bytearray(path.read_bytes())
    raw[at + 4 : at + size] = bytes(size - 4)
    path.write_bytes(raw)
    expected = in_sequence(path, five, [48])
    assert expected.outcome == "partial"
    sequences.clear()
    assert_equal(decode(path, five, [48]), expected)
    assert sequences


def test_runs_begin_at_the_last_start_before_a_frame_and_go_on_without_one_between():
    index = PacketIndex(np.arange(50), np.array([0, 10, 20, 40]))
    assert index.runs([3, 9, 10, 27, 29, 45]) == [(0, [3, 9, 10]), (20, [27, 29]), (40, [45])]
    assert index.cost([3, 9, 10, 27, 29, 45]) == 11 + 10 + 6
