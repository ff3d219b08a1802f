"""The back end nvdec: frames that a GPU's own video decoder makes, by torchcodec.

Asked for frames by number alone, torchcodec returns others than are meant in several containers
(docs/decoding.md). Here the packets, as PyAV reads them, say which frames there are and where
decoding may begin; of files of which they do not, PyAV reads all. Every frame that comes back must
have the time announced for it, and two must be the pictures that PyAV decodes; else PyAV reads the
file, too, and the probe says why.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from msvqa.data.key_frames import AnnouncedOtherwise, KeyFrames, PacketIndex, Survey
from msvqa.data.nvdec_needs import lacking
from msvqa.data.readers import Probe, PyAVReader, orientation_of
from msvqa.errors import PackageError

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder

# Legend: n frames of a video in the order they are shown, m of them wanted; H x W pixels, upright.

DEVICE = "cuda"
"""Where frames are decoded; `cpu` lets the same code run where there is no GPU, for tests."""
CODECS = ("h264", "hevc", "vp9", "av1")
"""Codecs whose decoding the standards fix to the last bit, and that GPUs have."""
PIXELS = "yuv420p"
"""Pixels that both convert alike: of 8 bits, one colour for four, not of the full range."""
BT709, UNSPECIFIED, BT470BG, SMPTE170M = 1, 2, 5, 6
MATRICES = (BT709, UNSPECIFIED, BT470BG, SMPTE170M)
"""Matrices of colours (ISO/IEC 23091-2) that both know; without one both take BT.601."""
FULL_RANGE = 2
FRAMES_AT_ONCE = 16
MOST_DIFFERENCE = 3
"""Of 255, by which a colour may differ from the one that PyAV makes: what rounding does is less."""


class NvdecReader:
    """Frames by torchcodec where these are certain to be the ones that are shown, else by PyAV."""

    def __init__(self, path: str | Path) -> None:
        """Prepare for a file.

        Raises:
            PackageError: this machine lacks something.
        """
        if problem := lacking(DEVICE):
            raise PackageError(f"the decoder nvdec cannot be used here: {problem}")
        self.path = Path(path)
        self._pyav = PyAVReader(path)
        self._frames: _Frames | None = None
        self._refusal = ""

    def survey(self, large_bytes: int) -> Survey | None:
        """Look through the packets, and prepare the decoder where they say all that it needs."""
        try:
            self._frames = self._prepared()
        except _Unfit as reason:
            self._refusal = str(reason)
            self._pyav = PyAVReader(self.path)
            return self._pyav.survey(large_bytes)
        return Survey(num_frames=len(self._frames.index.pts), key_frames=self._frames)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield every frame by PyAV."""
        return self._pyav.frames()

    def size_bytes(self, frame: av.VideoFrame) -> int:
        """Return the memory of a frame of PyAV; those of torchcodec are not kept."""
        return self._pyav.size_bytes(frame)

    def to_rgb(self, frame: Any) -> np.ndarray:
        """Return uint8 (H, W, 3): torchcodec has turned its frames already."""
        return frame if isinstance(frame, np.ndarray) else self._pyav.to_rgb(frame)

    def times(self, num_frames: int) -> np.ndarray:
        """Return the times that the packets announce, else those that PyAV finds."""
        return self._pyav.times(num_frames)

    def rate(self) -> float:
        """Return the average rate of the stream."""
        return self._pyav.rate()

    def probe(self, num_frames: int) -> Probe:
        """Return what the packets say, or what PyAV found; and why PyAV was needed."""
        failure = self._frames.failure if self._frames else ""
        return replace(self._pyav.probe(num_frames), by_pyav=self._refusal or failure)

    def _prepared(self) -> "_Frames":
        """Return the frames of a file that torchcodec reads as PyAV does.

        Raises:
            _Unfit: says what is in the way.
            VideoError: there is nothing to be read.
        """
        by_packets = self._pyav.scan().key_frames
        if not isinstance(by_packets, KeyFrames):
            raise _Unfit("its packets do not say for certain which frames it shows")
        if problem := _unlike(by_packets.stream):
            raise _Unfit(problem)
        starts = by_packets.index.starts
        # The first picture of a video is often black, and tells nothing of colours.
        sample = sorted({0, int(starts[len(starts) // 2])})
        try:
            expected = list(by_packets.pick(sample))
        except AnnouncedOtherwise as reason:
            raise _Unfit(str(reason)) from None
        if orientation_of(expected[0]).is_mirrored:
            raise _Unfit("it asks for mirrored pictures")
        frames = _Frames(self.path, by_packets)
        frames.compare(sample, [self._pyav.to_rgb(frame) for frame in expected])
        return frames


class _Unfit(Exception):
    """A file is left to PyAV."""


class _Frames:
    """Frames by torchcodec, held to the times that the packets announce."""

    def __init__(self, path: Path, by_packets: KeyFrames) -> None:
        self.index = by_packets.index
        self.failure = ""
        """Why frames that were asked for are not those that were announced."""
        unit = by_packets.stream.time_base
        assert unit is not None, "FFmpeg gives every stream one"
        self._unit_s = float(unit)
        self._announced_s = np.array(self.index.times(unit))  # (n,)
        try:
            self._decoder = _opened(path, by_packets.stream.index, self.index)
            fallback = self._decoder.cpu_fallback
        except (RuntimeError, ValueError) as error:
            raise _Unfit(f"torchcodec: {_first_line(error)}") from None
        if fallback:
            raise _Unfit("this GPU does not decode such a video")

    def pays(self, wanted: Sequence[int]) -> bool:
        """Whether to read frames so: always, since frames on the way stay on the GPU."""
        return True

    def pick(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the frames of numbers (m,), ascending, uint8 (H, W, 3), upright.

        Raises:
            AnnouncedOtherwise: torchcodec gives others, or none.
        """
        for begin in range(0, len(wanted), FRAMES_AT_ONCE):
            yield from self._read(wanted[begin : begin + FRAMES_AT_ONCE])

    def compare(self, sample: Sequence[int], expected: Sequence[np.ndarray]) -> None:
        """Hold frames to those that PyAV makes, each (H, W, 3).

        Raises:
            _Unfit: one is another picture.
        """
        try:
            found = list(self.pick(sample))
        except AnnouncedOtherwise as reason:
            raise _Unfit(str(reason)) from None
        if any(ours.shape != theirs.shape for ours, theirs in zip(found, expected, strict=True)):
            raise _Unfit("torchcodec gives its pictures another size")
        differences = [np.abs(o.astype(np.int16) - e) for o, e in zip(found, expected, strict=True)]
        if max(int(difference.max()) for difference in differences) > MOST_DIFFERENCE:
            raise _Unfit("torchcodec makes other pictures of it than pyav")

    def _read(self, wanted: Sequence[int]) -> np.ndarray:
        """Return frames uint8 (m, H, W, 3)."""
        try:
            batch = self._decoder.get_frames_at(list(wanted))
            pixels: np.ndarray = batch.data.cpu().numpy()
            found_s = batch.pts_seconds.cpu().numpy()  # (m,)
        except (RuntimeError, ValueError, IndexError) as error:
            self.failure = f"torchcodec: {_first_line(error)}"
            raise AnnouncedOtherwise(self.failure) from None
        others = np.abs(found_s - self._announced_s[list(wanted)]) > self._unit_s / 2
        if others.any():
            self.failure = "torchcodec gives other frames than its packets announce"
            raise AnnouncedOtherwise(self.failure)
        return pixels


def _unlike(stream: av.VideoStream) -> str:
    """Say why torchcodec and PyAV would not make the same of a stream; or nothing."""
    context = stream.codec_context
    codec = context.codec.canonical_name
    if codec not in CODECS:
        return f"its codec is {codec}"
    if context.pix_fmt != PIXELS or context.color_range == FULL_RANGE:
        return f"its pixels are not {PIXELS} of limited range"
    if context.colorspace not in MATRICES:
        return "its colours are neither of BT.601 nor of BT.709"
    # Of these PyAV interpolates the colours.
    return "its height is odd" if context.height % 2 else ""


def _opened(path: Path, stream: int, index: PacketIndex) -> "VideoDecoder":
    """Return a decoder that knows frames and starts from the packets."""
    from torchcodec.decoders import VideoDecoder  # seldom used, and need not be there

    shown = index.shown
    lasting = np.diff(shown, append=2 * shown[-1] - shown[-2] if len(shown) > 1 else shown[-1] + 1)
    starts = {*index.pts[index.starts].tolist()}
    frames = [
        {"pts": pts, "duration": duration, "key_frame": int(pts in starts)}
        for pts, duration in zip(shown.tolist(), lasting.tolist(), strict=True)
    ]
    return VideoDecoder(
        path, stream_index=stream, dimension_order="NHWC", num_ffmpeg_threads=1, device=_device(),
        custom_frame_mappings=json.dumps({"frames": frames}),
    )  # fmt: skip


def _device() -> str:
    """Return the GPU of this process; those that Ray has not divided are taken by turns."""
    if DEVICE != "cuda":
        return DEVICE
    import torch

    return f"cuda:{os.getpid() % torch.cuda.device_count()}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
