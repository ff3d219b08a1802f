"""The back end nvdec: the frames that PyAV shows, or PyAV itself, with the reason."""

import re
from itertools import islice

import av
import numpy as np
import pytest

from msvqa.data import nvdec
from msvqa.data.isolation import Isolated
from msvqa.data.medium import Medium
from msvqa.data.nvdec_needs import INSTEAD, lacking
from msvqa.data.video import Decoded, IsolatedDecoder, View, decode, look
from msvqa.errors import PackageError
from tests import barcode_video
from tests.back_ends import needs_gpu, needs_torchcodec
from tests.data.test_key_frames import COUNT, KINDS, X264, first_and_last, five
from tests.data.test_readers import ORIENTATIONS, corners_of, four_corners, turn, write
from tests.data.test_video import EXPECTED, every_frame

BY_PYAV = {
    "vp8.webm": "its packets", "mpeg4.mp4": "its codec is mpeg4", "mpeg4.mkv": "its codec is mpeg4",
    "mpeg2.mkv": "its codec is mpeg2video", "mpeg4.avi": "its packets", "mpeg2.mpg": "its packets",
}  # fmt: skip
"""Kinds that are left to PyAV, and why."""
CLIPS_BY_PYAV = {
    "04_mpeg4_bframes_g30_pancake.avi": "its packets",
    "05_xvid_packed_bikes.avi": "its packets",
    "10_three_frames.avi": "its packets",
    "11_one_frame.avi": "its packets",
    "12_truncated.avi": "its packets",
    "17_corrupted_h264.mp4": "its packets",
    "19_stream_copied_cut_editlist.mp4": "its packets",
    "20_barcode_mpeg4_bframes.avi": "its packets",
    "22_barcode_xvid_packed.avi": "its packets",
}
DEVICES = [
    pytest.param("cpu", marks=needs_torchcodec),
    pytest.param("cuda", marks=needs_gpu),
]
MEAN, MOST = 1.0, nvdec.MOST_DIFFERENCE
"""By which frames may differ from those of PyAV, of 255: colours are rounded otherwise."""


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    monkeypatch.setattr(nvdec, "DEVICE", request.param)
    return request.param


def assert_alike(found: Decoded, expected: Decoded) -> None:
    """Compare with what PyAV gives: equal where PyAV has read it, else but for rounding."""
    assert found.outcome == expected.outcome
    assert found.num_frames == expected.num_frames
    for size, frames in expected.frames.items():
        difference = np.abs(found.frames[size].astype(int) - frames)
        if found.probe.by_pyav:
            assert not difference.any()
        assert difference.mean() <= MEAN
        assert difference.max() <= MOST


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_its_barcodes(tmp_path, kind, device):
    codec, options, _ = KINDS[kind]
    try:
        path = barcode_video.encode(tmp_path / kind, COUNT, codec, options)
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg has no {codec}")
    for plan in (every_frame, five):
        found = decode(path, plan, [96], "nvdec")
        numbers = [barcode_video.read(f) for f in found.frames[96].reshape(-1, 96, 96, 3)]
        assert numbers == plan(COUNT).ravel().tolist()
        assert_alike(found, decode(path, plan, [96]))
        assert BY_PYAV.get(kind, "") in found.probe.by_pyav
        assert bool(found.probe.by_pyav) == (kind in BY_PYAV), found.probe.by_pyav


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, (_, count) in EXPECTED.items() if count])
def test_real_and_damaged_files_give_what_pyav_gives(clips, name, device):
    found = decode(clips / name, five, [64], "nvdec")
    assert_alike(found, decode(clips / name, five, [64]))
    assert bool(found.probe.by_pyav) == (name in CLIPS_BY_PYAV), found.probe.by_pyav


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_pictures_are_turned_and_mirrored_as_the_file_asks(tmp_path, name, device):
    matrix, corners = ORIENTATIONS[name]
    pictures = four_corners(96, 192)
    file = turn(write(tmp_path / "a.mov", pictures, "libx264"), matrix)
    found = decode(file, every_frame, [32], "nvdec")
    assert [corners_of(frame) for frame in found.frames[32]] == [corners] * 3
    mirrored = np.linalg.det(np.reshape(matrix, (2, 2))) < 0
    assert found.probe.by_pyav == ("it asks for mirrored pictures" if mirrored else "")


def test_a_span_is_that_of_pyav(clips, device):
    path = clips / "18_vfr_carphone.mp4"
    medium = Medium("v", str(path), "video", 0.7, 2.9)
    views = (View(choose=first_and_last, size_px=40, decoder=name) for name in ("nvdec", "pyav"))
    found, expected = (look(path, medium, view) for view in views)
    assert found.probe == expected.probe
    assert_alike(found, expected)


@needs_torchcodec
def test_damage_inside_a_packet_is_seen_before_anything_is_decoded(tmp_path):
    path = barcode_video.encode(tmp_path / "d.mp4", COUNT, "libx264", {**X264, "bf": "2"})
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        at, size = packets[COUNT // 2].pos, packets[COUNT // 2].size
    raw = bytearray(path.read_bytes())
    raw[at + 4 : at + size] = bytes(size - 4)
    path.write_bytes(raw)
    expected = decode(path, five, [48])
    found = decode(path, five, [48], "nvdec")
    assert expected.outcome == "partial"
    assert "its packets" in found.probe.by_pyav
    assert_alike(found, expected)


@pytest.fixture
def barcodes(tmp_path):
    return barcode_video.encode(tmp_path / "b.mp4", 60, "libx264", {**X264, "bf": "2"})


def give(monkeypatch, change):
    """Let torchcodec give what `change` makes of numbers and frames."""
    from torchcodec.decoders import VideoDecoder

    read = VideoDecoder.get_frames_at
    monkeypatch.setattr(
        VideoDecoder, "get_frames_at", lambda self, numbers: change(read, self, numbers)
    )


def next_ones(read, decoder, numbers):
    """Return the frames after those that were asked for, but for the first frame."""
    return read(decoder, [n + 1 if 0 < n < 59 else n for n in numbers])


def no_more(read, decoder, numbers):
    if max(numbers) > 40:
        raise RuntimeError("Requested next frame while there are no more frames left to decode.")
    return read(decoder, numbers)


def inverted(read, decoder, numbers):
    batch = read(decoder, numbers)
    batch.data = 255 - batch.data
    return batch


@needs_torchcodec
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (next_ones, "torchcodec gives other frames than its packets announce"),
        (no_more, "torchcodec: Requested next frame"),
        (inverted, "torchcodec makes other pictures of it than pyav"),
    ],
)
def test_pyav_reads_what_torchcodec_gives_otherwise(barcodes, monkeypatch, change, reason):
    expected = decode(barcodes, every_frame, [48])
    give(monkeypatch, change)
    found = decode(barcodes, every_frame, [48], "nvdec")
    assert reason in found.probe.by_pyav
    assert_alike(found, expected)


@needs_torchcodec
def test_a_video_that_the_gpu_does_not_decode_is_left_to_pyav(barcodes, monkeypatch):
    """torchcodec would decode it on the CPU, without a word."""
    from torchcodec.decoders import VideoDecoder

    monkeypatch.setattr(VideoDecoder, "cpu_fallback", True)
    found = decode(barcodes, five, [48], "nvdec")
    assert found.probe.by_pyav == "this GPU does not decode such a video"


def decoded_on_the_cpu(path):
    nvdec.DEVICE = "cpu"
    return decode(path, every_frame, [48], "nvdec")


@needs_torchcodec
def test_it_works_in_a_forked_child(barcodes):
    with Isolated(60.0, ["msvqa.data.video", "msvqa.data.resize"]) as isolated:
        found = isolated.call(decoded_on_the_cpu, barcodes)
    assert found.probe.by_pyav == ""
    assert_alike(found, decode(barcodes, every_frame, [48]))


@needs_gpu
def test_a_gpu_works_in_forked_children_one_after_another(barcodes):
    expected = decode(barcodes, every_frame, [48])
    for _ in range(2):
        decoder = IsolatedDecoder(timeout_s=60)
        for _ in range(2):
            found = decoder(barcodes, every_frame, [48], "nvdec")
            assert found.probe.by_pyav == ""
            assert_alike(found, expected)
        decoder.close()


def encode(path, codec, options, *, size=(64, 48), pixels="yuv420p", **colours):
    """Write a video of noise with pixels and colours of some kind."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode())
    return path


FAST_VP9 = {"deadline": "realtime", "cpu-used": "8"}
BT2020_NCL = 9


@needs_torchcodec
@pytest.mark.parametrize(
    ("codec", "options", "changes", "reason"),
    [
        ("libvpx-vp9", FAST_VP9, {"size": (65, 49)}, "its height is odd"),
        ("libx264", {}, {"pixels": "yuv444p"}, "its pixels are not yuv420p of limited range"),
        ("libx264", {}, {"pixels": "yuv420p10le"}, "its pixels are not yuv420p of limited"),
        ("libx264", {}, {"pixels": "yuvj420p"}, "its pixels are not yuv420p of limited range"),
        ("libx264", {}, {"colorspace": BT2020_NCL}, "its colours are neither of BT.601"),
    ],
)
def test_pyav_reads_what_the_gpu_would_convert_otherwise(tmp_path, codec, options, changes, reason):
    path = encode(tmp_path / "a.mkv", codec, options, **changes)
    found = decode(path, every_frame, [32], "nvdec")
    assert reason in found.probe.by_pyav
    assert_alike(found, decode(path, every_frame, [32]))


BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


def of_cuda(frame: av.VideoFrame, matrix: tuple[float, float]) -> np.ndarray:
    """Return RGB as the CUDA kernel of torchcodec 0.17 computes it, in float32 and cut off."""
    y, u, v = (
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    )
    u, v = (plane.repeat(2, 0).repeat(2, 1).astype(np.float32) - 128 for plane in (u, v))
    luma = np.float32(255 / 219) * (y.astype(np.float32) - 16)
    of_red, of_blue = matrix
    of_green = 1 - of_red - of_blue
    red, blue = 2 * (1 - of_red) * 255 / 224 * v, 2 * (1 - of_blue) * 255 / 224 * u
    green = -(of_blue * blue + of_red * red) / of_green
    rgb = np.stack([luma + red, luma + green, luma + blue], axis=-1)
    return np.clip(rgb, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "matrix"), [("01_h264_bframes_bikes.mp4", BT601), ("08_av1.mkv", BT709)]
)
def test_colours_of_the_gpu_differ_by_rounding_from_those_of_pyav(clips, name, matrix):
    """What a GPU would give, without one: decoding is exact, and this is its conversion."""
    with av.open(str(clips / name)) as container:
        frames = list(islice(container.decode(video=0), 20))
    differences = [
        np.abs(of_cuda(frame, matrix).astype(int) - frame.to_ndarray(format="rgb24"))
        for frame in frames
    ]
    assert np.mean(differences) <= MEAN
    assert np.max(differences) < MOST


@pytest.fixture
def machine(monkeypatch):
    """A machine as a test describes it."""
    lacking.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    lacking.cache_clear()


def test_without_torchcodec_one_error_says_what_to_install(machine, barcodes):
    machine.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PackageError, match=r"nvdec cannot .* pip install 'msvqa\[nvdec\]'.*pyav"):
        decode(barcodes, five, [48], "nvdec")


@needs_torchcodec
@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("importlib.metadata.version", lambda name: "0.9.1", r"0\.9\.1 is too old"),
        ("torchcodec.ffmpeg_major_version", None, r"finds no libraries of FFmpeg \(apt install"),
        ("torch.cuda.is_available", lambda: False, "torch finds no GPU"),
    ],
)
def test_what_is_lacking_is_said(machine, place, value, said):
    machine.setattr(place, value)
    assert INSTEAD in lacking("cuda")
    assert re.search(said, lacking("cuda"))


@needs_torchcodec
def test_a_container_without_the_video_part_of_the_driver_is_told(machine):
    def refuse(name):
        raise OSError(name)

    machine.setattr("torch.cuda.is_available", lambda: True)
    machine.setattr("ctypes.CDLL", refuse)
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in lacking("cuda")
