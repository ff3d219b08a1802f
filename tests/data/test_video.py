"""Decoding: exact frames, true counts, an outcome for every file."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import av
import numpy as np
import pytest
from PIL import Image

from msvqa.data import video
from msvqa.data.isolation import Isolated
from msvqa.data.resize import resize
from msvqa.data.sampling import sample_clips
from msvqa.data.video import IsolatedDecoder, decode, probe
from msvqa.errors import VideoError
from tests import barcode_video
from tests.back_ends import DECODERS

PLAN = partial(sample_clips, num_clips=8, frames_per_clip=16)

# File: outcome and frames. Header and packets may say something else.
EXPECTED = {
    "01_h264_bframes_bikes.mp4": ("ok", 250),
    "02_h264_pancake.mkv": ("ok", 310),
    "03_h264_two_video_streams_nasa.mp4": ("ok", 390),
    "04_mpeg4_bframes_g30_pancake.avi": ("ok", 300),
    "05_xvid_packed_bikes.avi": ("ok", 298),
    "06_vp9_bikes.webm": ("ok", 100),
    "07_hevc_10frames.mp4": ("ok", 10),
    "08_av1.mkv": ("ok", 125),
    "09_portrait_rotated_3frames.mov": ("ok", 3),
    "10_three_frames.avi": ("ok", 3),
    "11_one_frame.avi": ("ok", 1),
    "12_truncated.avi": ("partial", 181),
    "13_truncated_no_index.mp4": ("unreadable", 0),
    "14_zero_byte.avi": ("unreadable", 0),
    "15_text_renamed.avi": ("unreadable", 0),
    "16_audio_only.mp4": ("no_video_stream", 0),
    "17_corrupted_h264.mp4": ("partial", 49),
    "18_vfr_carphone.mp4": ("ok", 80),
    "19_stream_copied_cut_editlist.mp4": ("ok", 102),
    "20_barcode_mpeg4_bframes.avi": ("ok", 300),
    "21_barcode_h264_bframes.mp4": ("ok", 300),
    "22_barcode_xvid_packed.avi": ("ok", 298),
}
REFUSED_BY_DECORD = {"08_av1.mkv", "17_corrupted_h264.mp4"}


def every_frame(num_frames):
    return np.arange(num_frames)


def sleep_for_ever():
    time.sleep(1000)


def exit_like_a_crash():
    os._exit(139)


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def test_every_known_file_is_in_the_table(clips):
    assert sorted(EXPECTED) == sorted(p.name for p in clips.iterdir() if p.suffix != ".md")


@pytest.mark.long
@pytest.mark.parametrize("name", EXPECTED)
def test_outcome_by_probe(clips, name):
    outcome, num_frames = EXPECTED[name]
    found = probe(clips / name)
    assert (found.outcome, found.num_frames) == (outcome, num_frames), found
    assert (found.problem == "") == (outcome == "ok")


@pytest.mark.long
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", EXPECTED)
def test_outcome_by_decoding(clips, name, decoder):
    outcome, num_frames = EXPECTED[name]
    if num_frames == 0 or (decoder == "decord" and name in REFUSED_BY_DECORD):
        with pytest.raises(VideoError, match=name) as caught:
            decode(clips / name, PLAN, [32], decoder)
        assert caught.value.outcome == (outcome if num_frames == 0 else "unreadable")
        assert num_frames == 0 or "pyav" in str(caught.value)
        return
    decoded = decode(clips / name, PLAN, [32, 16], decoder)
    assert (decoded.outcome, decoded.num_frames) == (outcome, num_frames), decoded.probe
    for size in (32, 16):
        frames = decoded.frames[size]
        assert frames.shape == (8, 16, size, size, 3)
        assert frames.dtype == np.uint8
        assert frames.flags.c_contiguous


def test_details_of_damage_and_streams(clips):
    truncated = probe(clips / "12_truncated.avi")
    assert "truncated: 181 packets of 300" in truncated.problem
    corrupted = probe(clips / "17_corrupted_h264.mp4")
    assert (corrupted.bad_packets, corrupted.header_frames) == (1, 50)
    assert probe(clips / "03_h264_two_video_streams_nasa.mp4").stream == 3
    assert "no such file" in probe(clips / "absent.avi").problem


@pytest.mark.parametrize("decoder", DECODERS)
def test_rotated_video_is_upright(clips, decoder):
    file = clips / "09_portrait_rotated_3frames.mov"
    container = av.open(str(file))
    first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    expected = resize(np.ascontiguousarray(np.rot90(first, k=-1))[None], 64)[0]
    frames = decode(file, every_frame, [64], decoder).frames[64]
    assert np.abs(frames[0].astype(int) - expected).mean() < 2


@pytest.mark.long
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "name",
    ["20_barcode_mpeg4_bframes.avi", "21_barcode_h264_bframes.mp4", "22_barcode_xvid_packed.avi"],
)
def test_barcodes_of_reference_clips(clips, name, decoder):
    expected = np.arange(EXPECTED[name][1])
    if "packed" in name:
        expected[-1] = 298
    frames = decode(clips / name, every_frame, [128], decoder).frames[128]
    assert [barcode_video.read(frame) for frame in frames] == expected.tolist()


@pytest.mark.long
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", barcode_video.KINDS)
def test_barcodes_of_every_container(tmp_path, kind, decoder):
    file = barcode_video.write(tmp_path / kind, 75, kind)
    decoded = decode(file, PLAN, [96], decoder)
    numbers = [barcode_video.read(frame) for frame in decoded.frames[96].reshape(-1, 96, 96, 3)]
    assert decoded.num_frames == 75
    assert numbers == PLAN(75).ravel().tolist()


@pytest.mark.long
@pytest.mark.parametrize("decoder", DECODERS)
def test_two_passes_equal_one(tmp_path, monkeypatch, decoder):
    file = barcode_video.write(tmp_path / "a.avi", 60)
    once = decode(file, PLAN, [48, 96], decoder)
    monkeypatch.setattr(video, "KEPT_BYTES", 1_000_000)
    monkeypatch.setattr(video, "CHUNK_BYTES", 1_000_000)
    twice = decode(file, PLAN, [48, 96], decoder)
    assert twice.probe == once.probe
    for size in (48, 96):
        np.testing.assert_array_equal(once.frames[size], twice.frames[size])


@pytest.mark.long
def test_pixels_equal_pillow(clips):
    file = clips / "01_h264_bframes_bikes.mp4"
    container = av.open(str(file))
    frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    found = decode(file, every_frame, [112, 224]).frames
    for size in (112, 224):
        sample = range(0, 250, 25)
        pillow = [
            np.asarray(Image.fromarray(frames[i]).resize((size, size), Image.Resampling.BICUBIC))
            for i in sample
        ]
        error = (np.stack(pillow).astype(float) - found[size][list(sample)]) ** 2
        assert 10 * np.log10(255**2 / error.mean()) >= 60


def test_clips_equal_the_reference(golden):
    data = np.load(golden / "videoqa/pixels.npz", allow_pickle=False)
    frames = np.ascontiguousarray(data["frames_bgr"][..., ::-1])
    small = resize(frames, 24)[sample_clips(len(frames), 3, 16)]  # (C, F, H, W, 3)
    for name, axes in (("clips_appearance", (0, 1, 4, 2, 3)), ("clips_motion", (0, 4, 1, 2, 3))):
        difference = np.abs(small.transpose(axes).astype(int) - data[name])
        # Pillow and torch round the weights of the filter differently.
        assert difference.max() <= 2
        assert (difference > 1).mean() < 1e-4


def test_unknown_decoder():
    with pytest.raises(ValueError, match="pyav"):
        decode("a.avi", PLAN, [32], "opencv")


@pytest.mark.long
def test_probe_does_not_import_torch():
    code = "import sys, msvqa.data.video as v; v.probe('x.avi'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture(scope="module")
def isolated_decoder():
    decoder = IsolatedDecoder(timeout_s=60)
    yield decoder
    decoder.close()


def test_isolated_decoding_equals_decoding(isolated_decoder, tmp_path):
    file = barcode_video.write(tmp_path / "a.avi", 20)
    expected = decode(file, PLAN, [32])
    found = isolated_decoder(file, PLAN, [32])
    assert found.probe == expected.probe == isolated_decoder.probe(file)
    np.testing.assert_array_equal(found.frames[32], expected.frames[32])


def test_isolated_decoding_of_a_bad_file(isolated_decoder, tmp_path):
    file = tmp_path / "bad.avi"
    file.write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"bad\.avi") as caught:
        isolated_decoder(file, PLAN, [32])
    assert caught.value.outcome == "unreadable"
    assert isolated_decoder.probe(file).outcome == "unreadable"


@pytest.mark.long
@pytest.mark.parametrize(
    ("function", "outcome", "message"),
    [
        (sleep_for_ever, "timeout", "no result after 1 s"),
        (exit_like_a_crash, "unreadable", "exit code 139"),
        (crash, "unreadable", "SIGSEGV"),
    ],
)
def test_a_hang_or_a_crash_ends_one_call(function, outcome, message):
    with Isolated(1.0) as isolated:
        start = time.monotonic()
        with pytest.raises(VideoError, match=message) as caught:
            isolated.call(function)
        assert caught.value.outcome == outcome
        assert isolated.call(abs, -3) == 3
        assert time.monotonic() - start < 20


def arrays_of(sizes):
    return [np.full(size, size % 251, dtype=np.uint8) for size in sizes]


@pytest.mark.long
def test_large_results_arrive_whole_and_writable():
    sizes = [3_000_000, 0, 7]
    with Isolated(60.0) as isolated:
        first = isolated.call(arrays_of, sizes)
        second = isolated.call(arrays_of, sizes[::-1])
    for found, expected in zip(first + second[::-1], arrays_of(sizes) * 2, strict=True):
        np.testing.assert_array_equal(found, expected)
        found += 1
