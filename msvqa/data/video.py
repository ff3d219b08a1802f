"""Decoding: a video file to the frames of its clips, exactly those that the plan names.

Files are read from the first to the last frame. Seeking by frame number returns other frames than
asked for in several kinds of AVI, MPEG and WMV files (docs/decoding.md), and the frame count in a
header is a claim; so the plan is made from the number of frames that were really decoded.
Two back ends do this: PyAV, the default, and decord.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from msvqa.data.isolation import Isolated
from msvqa.errors import VideoError, one_of
from msvqa.files import hash_file
from msvqa.storage import is_remote, on_this_disk

OUTCOMES = ("ok", "partial", "no_video_stream", "unreadable", "timeout")
DECODERS = ("pyav", "decord")

KEPT_BYTES = 256 * 1024**2
"""Decoded frames up to this size stay in memory; larger videos are decoded twice."""
CHUNK_BYTES = 8 * 1024**2
"""Frames in RGB at full size are made and resized in portions of this size: larger ones leave the
processor's cache and cost 10 % more."""
MAX_PIXELS = 8192 * 8192

Plan = Callable[[int], np.ndarray]
"""From the number of frames to the frame numbers wanted, an array of any shape."""

# Conversion with threads costs more processor time; older versions of PyAV have no such choice.
_ONE_THREAD = {"threads": 1} if "threads" in (VideoReformatter.reformat.__doc__ or "") else {}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What reading a file from end to end found."""

    outcome: str
    """One of `OUTCOMES`."""
    num_frames: int = 0
    """Frames decoded."""
    header_frames: int = 0
    """Frames that the container claims; 0 where it says nothing."""
    bad_packets: int = 0
    """Packets that could not be decoded."""
    corrupt_frames: int = 0
    """Frames that the decoder marked as damaged; they are delivered."""
    stream: int = -1
    """Index of the video stream: the one that ffmpeg's rule for the best stream chooses."""
    codec: str = ""
    width: int = 0
    """Pixels of the decoded picture, before it is turned upright."""
    height: int = 0
    problem: str = ""
    """Why the outcome is not ok."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Frames of one video."""

    frames: dict[int, np.ndarray]
    """uint8 (*plan, size, size, 3) for every size, RGB, contiguous"""
    probe: Probe

    @property
    def outcome(self) -> str:
        """`ok`, or `partial` where a part of the file is damaged or absent."""
        return self.probe.outcome

    @property
    def num_frames(self) -> int:
        """Frames of the whole video."""
        return self.probe.num_frames


def decode(path: str | Path, plan: Plan, sizes: Sequence[int], decoder: str = "pyav") -> Decoded:
    """Read the planned frames in all sizes in one pass.

    Args:
        path: a video file.
        plan: from the number of decoded frames to the frame numbers wanted.
        sizes: heights, equal to widths, of the frames to return.
        decoder: `pyav` or `decord`.

    Raises:
        VideoError: there are no frames to be had; its `outcome` says of what kind the trouble is.
    """
    reader = _open(path, decoder)
    kept, num_frames = _read(reader)
    probe = reader.probe(num_frames)
    if num_frames == 0:
        raise VideoError(probe.outcome, f"{path}: {probe.problem}")
    planned = plan(num_frames)
    wanted, position = np.unique(planned, return_inverse=True)
    found = _pick(reader.frames() if kept is None else kept, set(wanted.tolist()))
    small = _convert(reader, found, sizes)
    if any(len(frames) != len(wanted) for frames in small.values()):
        raise VideoError("unreadable", f"{path}: a second pass gave other frames than the first")
    # Repeated numbers are filled in last, after the work is done once for each frame.
    position = position.reshape(planned.shape)
    return Decoded({size: frames[position] for size, frames in small.items()}, probe)


def probe(path: str | Path) -> Probe:
    """Read a file from end to end without making pixels; never raises for a bad file."""
    try:
        reader = PyAVReader(path)
        return reader.probe(sum(1 for _ in reader.frames()))
    except VideoError as error:
        return Probe(outcome=error.outcome, problem=str(error))


def source_facts(path: Path) -> dict[str, Any]:
    """Return size and hash of a video file; nothing where it is no file that can be read."""
    try:
        # To open a pipe would wait for its other end.
        return {"bytes": path.stat().st_size, "sha256": hash_file(path)} if path.is_file() else {}
    except OSError:
        return {}


@contextmanager
def video_file(location: str | Path) -> Iterator[Path]:
    """Give the path of a video on this machine for the block; its errors name the location.

    Raises:
        StorageError: the object store that has the video cannot be read.
    """
    with on_this_disk(location) as path:
        try:
            yield path
        except VideoError as error:
            if not is_remote(location):
                raise
            message = str(error).replace(str(path), str(location))
            raise VideoError(error.outcome, message) from None


class IsolatedDecoder:
    """`decode`, `probe` and `source_facts` in a child process, with a time limit for every call.

    A decoder or a disk that hangs gives the outcome `timeout`, a decoder that dies `unreadable`;
    the next call gets a new child.
    """

    def __init__(self, timeout_s: float = 60.0, pixels: bool = True) -> None:
        """Prepare the child.

        Args:
            timeout_s: longest time of one call.
            pixels: import what `decode` needs before the first file; `probe` does without.
        """
        modules = [__name__, "msvqa.data.resize"] if pixels else [__name__]
        self._isolated = Isolated(timeout_s, modules)

    def __call__(
        self, path: str | Path, plan: Plan, sizes: Sequence[int], decoder: str = "pyav"
    ) -> Decoded:
        """Decode as `decode` does, also what is in an object store.

        The plan must be importable by name.

        Raises:
            VideoError: there are no frames to be had, or the decoder hung or died.
            StorageError: the object store cannot be read.
        """
        try:
            with video_file(path) as file:
                decoded: Decoded = self._isolated.call(decode, file, plan, list(sizes), decoder)
        except VideoError as error:
            raise _with_path(error, path) from None
        return decoded

    def probe(self, path: str | Path) -> Probe:
        """Read a file from end to end without making pixels; never raises for a bad file."""
        try:
            found: Probe = self._isolated.call(probe, path)
        except VideoError as error:
            return Probe(outcome=error.outcome, problem=str(_with_path(error, path)))
        return found

    def facts(self, path: Path) -> dict[str, Any]:
        """Return size and hash of a file on this machine, as `source_facts` does.

        Raises:
            VideoError: the file cannot be read to its end in time.
        """
        try:
            found: dict[str, Any] = self._isolated.call(source_facts, path)
        except VideoError as error:
            if error.outcome != "timeout":
                raise _with_path(error, path) from None
            limit = f"{self._isolated.timeout_s:g} s"
            message = f"{path}: cannot be read to its end within {limit}; does its disk answer?"
            raise VideoError("timeout", message) from None
        return found

    def close(self) -> None:
        """End the child."""
        self._isolated.close()


class Reader(Protocol):
    """A back end: frames in the order they are shown, converted to RGB one by one on demand."""

    def frames(self) -> Iterator[Any]:
        """Yield every frame from the first on; may be called again."""

    def size_bytes(self, frame: Any) -> int:
        """Return the memory that a frame holds."""

    def to_rgb(self, frame: Any) -> np.ndarray:
        """Return uint8 (height, width, 3), upright."""

    def probe(self, num_frames: int) -> Probe:
        """Return what the last complete pass found."""


class PyAVReader:
    """Frames by PyAV: damaged packets are counted and skipped."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reformatter = VideoReformatter()
        self._found = Probe(outcome="unreadable")
        self._packets = 0
        self._cut_off = ""

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield every frame as decoded, in its own pixel format."""
        with _container(self.path) as container:
            stream = _best_stream(container, self.path)
            self._start(stream)
            for packet in self._packets_of(container, stream):
                yield from self._decode(packet)

    def count_shown(self) -> int:
        """Return the number of packets that are to be shown; decodes nothing."""
        with _container(self.path) as container:
            stream = _best_stream(container, self.path)
            self._start(stream)
            packets = [p for p in self._packets_of(container, stream) if p.size > 0]
        self._packets = len(packets)
        return sum(not packet.is_discard for packet in packets)

    def size_bytes(self, frame: av.VideoFrame) -> int:
        """Return the memory of all planes."""
        return sum(plane.buffer_size for plane in frame.planes)

    def to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """Return uint8 (height, width, 3), turned as the container asks."""
        # A stream may change its size; all frames get that of the stream.
        width, height = self._found.width or frame.width, self._found.height or frame.height
        rgb = self._reformatter.reformat(frame, width, height, "rgb24", **_ONE_THREAD)
        return np.rot90(rgb.to_ndarray(), k=frame.rotation // 90)

    def probe(self, num_frames: int) -> Probe:
        """Return counts and outcome of the last complete pass."""
        found = replace(self._found, num_frames=num_frames)
        if num_frames == 0:
            return replace(found, outcome="unreadable", problem="not one frame can be decoded")
        problem = self._damage(found)
        return replace(found, outcome="partial" if problem else "ok", problem=problem)

    def _start(self, stream: av.VideoStream) -> None:
        # Videos are decoded in parallel, one process each; threads within one cost 7 to 15 % more.
        stream.thread_type = "SLICE"
        context = stream.codec_context
        context.thread_count = 1
        self._packets, self._cut_off = 0, ""
        self._found = Probe(
            outcome="unreadable", header_frames=stream.frames, stream=stream.index,
            codec=context.name, width=context.width, height=context.height,
        )  # fmt: skip
        if context.width * context.height > MAX_PIXELS:
            size = f"{context.width} x {context.height}"
            raise VideoError("unreadable", f"{self.path}: pictures of {size} pixels are refused")

    def _packets_of(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[Any]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                self._cut_off = f"reading stops: {_reason(error)}"
                return
            if packet.is_corrupt:
                self._cut_off = self._cut_off or "a packet is cut off"
            yield packet

    def _decode(self, packet: Any) -> list[av.VideoFrame]:
        self._packets += packet.size > 0
        found = self._found
        try:
            frames: list[av.VideoFrame] = packet.decode()
        except av.error.FFmpegError:
            self._found = replace(found, bad_packets=found.bad_packets + 1)
            return []
        corrupt = sum(frame.is_corrupt for frame in frames)
        if corrupt:
            self._found = replace(found, corrupt_frames=found.corrupt_frames + corrupt)
        return frames

    def _damage(self, found: Probe) -> str:
        # Headers of intact files exceed the packets by a few where B-frames are packed in pairs.
        missing = found.header_frames - self._packets
        truncated = missing > max(2, 0.02 * found.header_frames)
        facts = [
            f"truncated: {self._packets} packets of {found.header_frames}" if truncated else "",
            self._cut_off,
            f"{found.bad_packets} bad packets" if found.bad_packets else "",
            f"{found.corrupt_frames} damaged frames" if found.corrupt_frames else "",
        ]
        return ", ".join(fact for fact in facts if fact)


class DecordReader:
    """Frames by decord, from the first to the last.

    decord repeats a neighbour, without a word, where it cannot decode a frame and where its count
    exceeds what can be shown. Both are excluded here: it must deliver as many frames as PyAV finds
    packets to show, and may not replace any. A file on which it cannot is refused.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader = PyAVReader(path)

    @cached_property
    def _shown(self) -> int:
        return self._reader.count_shown()

    def frames(self) -> Iterator[np.ndarray]:
        """Yield every frame in RGB."""
        shown = self._shown
        import decord  # seldom used, and it must not be needed to use PyAV

        decord.logging.set_level(decord.logging.QUIET)
        count = 0
        try:
            # Any tolerance between 0 and 1 is a share of the frames: this one allows no repetition.
            video = decord.VideoReader(str(self.path), num_threads=1, fault_tol=1e-9)
            while count < shown:
                frame = video.next().asnumpy()
                count += 1
                yield frame
        except StopIteration:
            raise self._refusal(count, "it ends") from None
        except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError) as error:
            raise self._refusal(count, str(error).strip().splitlines()[-1][-200:]) from None

    def size_bytes(self, frame: np.ndarray) -> int:
        """Return the memory of a frame."""
        return frame.nbytes

    def to_rgb(self, frame: np.ndarray) -> np.ndarray:
        """Return the frame, which is RGB and upright as decord delivers it."""
        return frame

    def probe(self, num_frames: int) -> Probe:
        """Return counts and outcome; decord does not tell of damaged frames."""
        return self._reader.probe(num_frames)

    def _refusal(self, count: int, why: str) -> VideoError:
        return VideoError(
            "unreadable",
            f"{self.path}: decord delivers {count} of {self._shown} frames ({why}); "
            "the decoder pyav may read this file",
        )


def _open(path: str | Path, decoder: str) -> Reader:
    if decoder == "pyav":
        return PyAVReader(path)
    if decoder == "decord":
        return DecordReader(path)
    raise ValueError(f"unknown decoder {decoder!r}; known: {one_of(DECODERS)}")


def _container(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        why = "not a regular file" if path.exists() else "no such file"
        raise VideoError("unreadable", f"{path}: {why}")
    try:
        # Playlists inside a file that poses as a video must not reach the network.
        options = {"protocol_whitelist": "file"}
        return av.open(str(path.absolute()), options=options, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError("unreadable", f"{path}: {_reason(error)}") from None


def _best_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
        raise VideoError("no_video_stream", f"{path}: there is no video stream in this file")
    if stream.codec_context is None:
        raise VideoError("unreadable", f"{path}: no decoder for the codec of the video stream")
    return stream


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


def _with_path(error: VideoError, path: str | Path) -> VideoError:
    message = str(error)
    return VideoError(error.outcome, message if str(path) in message else f"{path}: {message}")


def _read(reader: Reader) -> tuple[list[Any] | None, int]:
    """Return all frames, or None where they are too large to be kept, and their number."""
    kept: list[Any] | None = []
    size, count = 0, 0
    for frame in reader.frames():
        count += 1
        if kept is None:
            continue
        kept.append(frame)
        size += reader.size_bytes(frame)
        if size > KEPT_BYTES:
            kept = None
    return kept, count


def _pick(frames: Iterable[Any], wanted: set[int]) -> Iterator[Any]:
    return (frame for number, frame in enumerate(frames) if number in wanted)


def _convert(reader: Reader, frames: Iterable[Any], sizes: Sequence[int]) -> dict[int, np.ndarray]:
    """Return uint8 (N, size, size, 3) for every size."""
    from msvqa.data.resize import resize  # torch, which `probe` does without

    parts: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
    for chunk in _chunks(reader.to_rgb(frame) for frame in frames):
        for size, done in parts.items():
            done.append(resize(chunk, size))
    return {size: np.concatenate(done) for size, done in parts.items()}


def _chunks(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    chunk: list[np.ndarray] = []
    for frame in frames:
        chunk.append(frame)
        if len(chunk) * frame.nbytes >= CHUNK_BYTES:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)
