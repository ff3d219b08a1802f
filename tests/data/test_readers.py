"""Back ends: what counts as damage, how pictures are turned, and what is never opened."""

import gc
import struct

import av
import numpy as np
import pytest
from PIL import Image

from msvqa.data import readers
from msvqa.data.video import decode, probe
from msvqa.errors import VideoError
from tests import barcode_video
from tests.back_ends import DECODERS

RED, GREEN, BLUE, WHITE, GRAY = (220, 0, 0), (0, 220, 0), (0, 0, 220), (235,) * 3, (120,) * 3
CORNERS = {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE}
# Numbers a, b, c, d of the matrix; corners from left to right, the upper ones first.
ORIENTATIONS = {
    "as stored": ((1, 0, 0, 1), "RGBW"),
    "90 degrees": ((0, 1, -1, 0), "BRWG"),
    "180 degrees": ((-1, 0, 0, -1), "WBGR"),
    "270 degrees": ((0, -1, 1, 0), "GWRB"),
    "left to right": ((-1, 0, 0, 1), "GRWB"),
    "upside down": ((1, 0, 0, -1), "BWRG"),
    "transposed": ((0, 1, 1, 0), "RBGW"),
    "transposed the other way": ((0, -1, -1, 0), "WGBR"),
}
PLAYLISTS = {
    "M3U": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile other.ts\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
}


def every_frame(num_frames):
    return np.arange(num_frames)


def write(path, pictures, codec="mpeg4", times=None):
    """Write pictures, shown at the given times, numbered in frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for time, picture in zip(times or range(len(pictures)), pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def plain(count, height=48, width=64):
    return [np.full((height, width, 3), 60 + number, dtype=np.uint8) for number in range(count)]


def claim_frames(path, count):
    """Write a number of frames into both headers of an AVI."""
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, raw.find(b"avih") + 24, count)
    struct.pack_into("<I", raw, raw.find(b"strh") + 40, count)
    path.write_bytes(raw)
    return path


def turn(path, matrix):
    """Write the display matrix of an MP4 or MOV."""
    raw = bytearray(path.read_bytes())
    start = raw.find(b"tkhd") + 44
    for place, value in zip((0, 1, 3, 4), matrix, strict=True):
        struct.pack_into(">i", raw, start + 4 * place, value << 16)
    path.write_bytes(raw)
    return path


def four_corners(height, width):
    picture = np.empty((height, width, 3), dtype=np.uint8)
    for number, colour in enumerate(CORNERS.values()):
        rows, columns = divmod(number, 2)
        halves = [slice(None, height // 2), slice(height // 2, None)][rows]
        picture[halves, [slice(None, width // 2), slice(width // 2, None)][columns]] = colour
    return [picture] * 3


def corners_of(frame):
    shown = [frame[y, x].astype(int) for y in (3, -4) for x in (3, -4)]
    return "".join(min(CORNERS, key=lambda c: np.abs(CORNERS[c] - rgb).sum()) for rgb in shown)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("claim", [0, 1, 39, 41, 400])
def test_an_avi_whose_header_counts_other_frames_is_whole(tmp_path, claim, decoder):
    file = claim_frames(write(tmp_path / "a.avi", plain(40)), claim)
    if decoder == "decord" and claim == 0:
        with pytest.raises(VideoError, match="pyav may read this file"):
            decode(file, every_frame, [16], decoder)
        return
    decoded = decode(file, every_frame, [16], decoder)
    assert (decoded.outcome, decoded.num_frames) == ("ok", 40), decoded.probe
    assert decoded.probe.header_frames == claim


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv"])
def test_a_file_with_dropped_frames_is_whole(tmp_path, name, decoder):
    times = [number if number < 20 else 3 * number for number in range(40)]
    decoded = decode(write(tmp_path / name, plain(40), times=times), every_frame, [16], decoder)
    assert (decoded.outcome, decoded.num_frames, decoded.probe.problem) == ("ok", 40, "")


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("mpeg4_bframes.avi", "truncated: {packets} packets of 90, it ends after {size:,} of "),
        ("h264.mkv", "truncated: it ends after {size:,} of "),
    ],
)
def test_a_file_that_was_cut_off_is_not(tmp_path, kind, said):
    whole = barcode_video.write(tmp_path / f"whole-{kind}", 90, kind)
    content = whole.read_bytes()
    # Just before a frame: the demuxer itself has no word on it.
    end = content.rfind(b"00dc", 0, len(content) // 2) if "avi" in kind else len(content) // 2
    file = tmp_path / kind
    file.write_bytes(content[:end])
    found = probe(file)
    assert found.outcome == "partial"
    assert 20 < found.num_frames < 80
    with av.open(str(file)) as container:
        packets = sum(packet.size > 0 for packet in container.demux(video=0))
    assert found.problem.startswith(said.format(packets=packets, size=end))


def test_frames_that_the_index_lists_and_the_file_lacks_are_damage(tmp_path):
    file = barcode_video.write(tmp_path / "a.avi", 90)
    raw = bytearray(file.read_bytes())
    start, end = len(raw) * 2 // 5, len(raw) * 3 // 5
    raw[start:end] = bytes(end - start)
    file.write_bytes(raw)
    found = probe(file)
    assert found.outcome == "partial"
    assert found.problem.startswith("incomplete: ")
    assert " packets of 90" in found.problem


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_pictures_are_turned_and_mirrored_as_the_file_asks(tmp_path, name):
    matrix, corners = ORIENTATIONS[name]
    file = turn(write(tmp_path / "a.mov", four_corners(48, 96)), matrix)
    for frame in decode(file, every_frame, [32]).frames[32]:
        assert corners_of(frame) == corners


@pytest.mark.parametrize("width", [48, 50, 96])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_decord_shows_the_same_or_refuses(tmp_path, name, width):
    matrix, _ = ORIENTATIONS[name]
    file = turn(write(tmp_path / "a.mov", four_corners(width, 2 * width)), matrix)
    if np.linalg.det(np.reshape(matrix, (2, 2))) < 0:
        with pytest.raises(VideoError, match=r"mirrored pictures.*pyav"):
            decode(file, every_frame, [32], "decord")
        return
    found, expected = (decode(file, every_frame, [32], name) for name in ("decord", "pyav"))
    np.testing.assert_array_equal(found.frames[32], expected.frames[32])


def test_side_data_without_a_name_does_not_hide_the_angle(monkeypatch):
    class Frame:
        rotation = -90

    def without_a_name(frame):
        raise ValueError("29 is not a valid Type")

    monkeypatch.setattr(readers, "SideDataContainer", without_a_name)
    assert readers.orientation_of(Frame()) == readers.Orientation.of_angle(-90)


def test_frames_go_as_soon_as_a_video_is_decoded(tmp_path):
    """In a cycle they would wait for a garbage collection, and with them gigabytes."""
    file = turn(write(tmp_path / "a.mov", plain(12)), ORIENTATIONS["90 degrees"][0])
    decode(file, every_frame, [32])  # What it imports leaves tracebacks with all that was going on.
    gc.collect()
    gc.disable()
    try:
        assert len(decode(file, every_frame, [32]).frames[32]) == 12
        left = [found for found in gc.get_objects() if type(found) is av.VideoFrame]
    finally:
        gc.enable()
    assert left == []


def test_transparent_parts_of_a_gif_show_what_is_below(tmp_path):
    below = Image.new("P", (32, 32), 0)
    below.putpalette([*GRAY, *RED, 0, 0, 0])
    above = Image.new("P", (32, 32), 2)
    above.putpalette([*GRAY, *RED, 0, 0, 0])
    above.paste(1, (8, 8, 16, 16))
    below.save(
        tmp_path / "a.gif", save_all=True, append_images=[above], transparency=2, duration=[40, 90],
        disposal=1, optimize=False,
    )  # fmt: skip
    decoded = decode(tmp_path / "a.gif", every_frame, [32])
    assert (decoded.outcome, decoded.num_frames) == ("ok", 2)
    first, second = decoded.frames[32]
    assert (first == GRAY).all()
    assert second[12, 12].tolist() == list(RED)
    assert second[2, 2].tolist() == second[-3, -3].tolist() == list(GRAY)


def test_a_gif_that_was_cut_off_is_not_whole(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(10)]
    file = write(tmp_path / "a.gif", pictures, "gif")
    assert (probe(file).outcome, probe(file).num_frames) == ("ok", 10)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found = probe(file)
    assert found.outcome == "partial"
    assert "inside a picture" in found.problem


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_animated_webp_is_read_frame_by_frame(tmp_path, decoder):
    pictures = [Image.new("RGBA", (64, 48), (0, 0, 0, 0)) for _ in range(5)]
    for number, picture in enumerate(pictures):
        picture.paste((*RED, 255), (8 * number, 8, 8 * number + 8, 24))
        picture.paste((*RED, 255), (60, 44, 64, 48))
    file = tmp_path / "a.webp"
    pictures[0].save(file, save_all=True, append_images=pictures[1:], lossless=True, duration=40)
    decoded = decode(file, every_frame, [48], decoder)
    assert (decoded.outcome, decoded.num_frames) == ("ok", 5)
    found = probe(file)
    assert (found.codec, found.width, found.height, found.header_frames) == ("webp", 64, 48, 5)
    for number, frame in enumerate(decoded.frames[48]):
        # Resized to squares: columns are narrower by a quarter.
        assert frame[16, 6 * number + 3].tolist() == list(RED)
        assert frame[40, 24].tolist() == [255, 255, 255]
    file.write_bytes(file.read_bytes()[:-100])
    assert "it ends after" in probe(file).problem


@pytest.mark.parametrize("size", [(9000, 9000), (16384, 16384)])
def test_a_huge_webp_is_refused_before_its_memory_is_taken(tmp_path, size):
    width, height = ((value - 1).to_bytes(3, "little") for value in size)
    header = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + width + height
    file = tmp_path / "a.webp"
    file.write_bytes(b"RIFF" + struct.pack("<I", len(header)) + header)
    assert f"{size[0]} x {size[1]} pixels are refused" in probe(file).problem


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ts"])
def test_no_other_file_is_opened_for_a_playlist(tmp_path, kind, suffix, decoder):
    write(tmp_path / "other.ts", plain(10), "mpeg2video")
    file = tmp_path / f"list{suffix}"
    file.write_text(PLAYLISTS[kind], encoding="ascii")
    with pytest.raises(VideoError, match=rf"list{suffix} is a playlist .{kind}") as caught:
        decode(file, every_frame, [16], decoder)
    assert caught.value.outcome == "unreadable"


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_with_a_video_behind_it_does_not_reach_decord(tmp_path, kind):
    other = write(tmp_path / "other.ts", plain(10), "mpeg2video")
    file = tmp_path / "list.ts"
    file.write_bytes(PLAYLISTS[kind].encode("ascii") + other.read_bytes())
    with pytest.raises(VideoError, match=r"list\.ts is a playlist"):
        decode(file, every_frame, [16], "decord")


def test_a_picture_or_sound_with_the_name_of_a_video_is_said(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.jpg")
    file = (tmp_path / "a.jpg").rename(tmp_path / "a.mp4")
    found = probe(file)
    assert found.outcome == "unreadable"
    assert "a JPEG picture" in found.problem
    with av.open(str(tmp_path / "b.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.rate = 8000
        container.mux([*stream.encode(sound), *stream.encode()])
    file = (tmp_path / "b.wav").rename(tmp_path / "b.mp4")
    assert probe(file).outcome == "no_video_stream"
