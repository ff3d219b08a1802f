"""Readers: the frames of a video file in the order they are shown, by PyAV, decord or Pillow.

Each reads from the first to the last frame and says what it found. A file is damaged only where
its demuxer or decoder shows it: headers count frames that were dropped or are never shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from msvqa.data.containers import describe_cut
from msvqa.data.key_frames import CONTAINERS, KeyFrames, PacketScan, Survey
from msvqa.data.non_video import animated_webp_size, describe, is_playlist
from msvqa.data.orientation import Orientation
from msvqa.errors import VideoError, one_of

if TYPE_CHECKING:
    from PIL.Image import Image

OUTCOMES = (
    *("ok", "partial", "no_video_stream", "unreadable", "timeout"),
    *("bad_image", "empty_folder", "outside_video"),
)
DECODERS = ("pyav", "decord", "nvdec")
MAX_PIXELS = 8192 * 8192
FORMATS = (
    *("avi", "mov", "matroska", "mpeg", "mpegts", "mpegvideo", "asf", "flv", "ogg", "gif", "apng"),
    *("rm", "nut", "ivf", "mxf", "gxf", "dv", "wtv", "nsv", "nuv", "swf", "flic", "yuv4mpegpipe"),
    *("h261", "h263", "h264", "hevc", "vvc", "m4v", "av1", "obu", "vc1", "dirac", "mjpeg"),
    *("mp3", "wav", "w64", "aac", "ac3", "flac", "aiff", "au", "amr", "caf"),
)
"""Containers that are read, by FFmpeg's names, with those of sound, to say that it is alone.

None of them opens another file. Playlists, which do, and single pictures are not among them."""
LISTING_FORMATS = ("avi", "mov")
"""Containers whose index lists every packet. Where frames were dropped, no packet is in it."""
LONG_FRAMES = 1000
"""Videos of so many frames may be read by key frames. Shorter ones are decoded from end to end,
which shows all damage, and most of their frames are wanted."""
WHITE = (255, 255, 255, 255)

# Conversion with threads costs more processor time; older versions of PyAV have no such choice.
_ONE_THREAD = {"threads": 1} if "threads" in (VideoReformatter.reformat.__doc__ or "") else {}


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
    duration_s: float = 0.0
    """How long the frames are shown; 0 where nobody has asked."""
    fps: float = 0.0
    """Frames for each second by the container; 0 where it says nothing, or nobody has asked."""
    problem: str = ""
    """Why the outcome is not ok."""
    by_pyav: str = ""
    """Why PyAV read the file in place of the back end that was asked for; else empty."""


class Reader(Protocol):
    """A back end: frames in the order they are shown, converted to RGB one by one on demand."""

    def survey(self, large_bytes: int) -> Survey | None:
        """Look through the packets of a long video, after which `times` are those they announce.

        Args:
            large_bytes: videos that decoded take more are long in any case.

        Returns:
            What they announce; None for a short video, and where nothing is announced.
        """

    def frames(self) -> Iterator[Any]:
        """Yield every frame from the first on; may be called again."""

    def size_bytes(self, frame: Any) -> int:
        """Return the memory that a frame holds."""

    def to_rgb(self, frame: Any) -> np.ndarray:
        """Return uint8 (height, width, 3), upright."""

    def times(self, num_frames: int) -> np.ndarray:
        """Return seconds (n,) from the first frame to each; what is not known is not a number."""

    def rate(self) -> float:
        """Return the frames for each second by the container, 0 where it says nothing."""

    def probe(self, num_frames: int) -> Probe:
        """Return what the last complete pass found."""


class PyAVReader:
    """Frames by PyAV: damaged packets are counted and skipped."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reformatter = VideoReformatter()
        self._found = Probe(outcome="unreadable")
        self._packets, self._listed = 0, 0
        self._cut_off = ""
        self._times: list[float | None] = []
        self._rate = 0.0
        self._unread: av.container.InputContainer | None = None
        """What a survey has opened and not read."""

    def survey(self, large_bytes: int) -> Survey | None:
        """Look through the packets of a long video."""
        container = _container(self.path)
        stream = self._start(container)
        if not self._is_long(container, large_bytes):
            self._unread = container
            return None
        return self._scanned(container, stream, PacketScan(stream))

    def scan(self) -> Survey:
        """Look through the packets of a video of any length, and into those of H.264 and HEVC."""
        container = _container(self.path)
        stream = self._start(container)
        return self._scanned(container, stream, PacketScan(stream, looks_inside=True))

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield every frame as decoded, in its own pixel format."""
        opened, self._unread = self._unread, None
        with opened or _container(self.path) as container:
            stream = self._start(container)
            for packet in self._packets_of(container, stream):
                yield from self._decode(packet)

    def count_shown(self) -> int:
        """Return the number of packets that are to be shown; decodes nothing."""
        with _container(self.path) as container:
            stream = self._start(container)
            packets = [p for p in self._packets_of(container, stream) if p.size > 0]
        self._packets = len(packets)
        return sum(not packet.is_discard for packet in packets)

    def orientation(self) -> Orientation:
        """Return how the first frame is to be shown."""
        with _container(self.path) as container:
            stream = self._start(container)
            frames = (f for p in self._packets_of(container, stream) for f in self._decode(p))
            first = next(frames, None)
        return Orientation() if first is None else orientation_of(first)

    def size_bytes(self, frame: av.VideoFrame) -> int:
        """Return the memory of all planes."""
        return sum(plane.buffer_size for plane in frame.planes)

    def to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """Return uint8 (height, width, 3), turned and mirrored as the file asks."""
        # A stream may change its size; all frames get that of the stream.
        width, height = self._found.width or frame.width, self._found.height or frame.height
        rgb = self._reformatter.reformat(frame, width, height, "rgb24", **_ONE_THREAD)
        return orientation_of(frame).apply(rgb.to_ndarray())

    def times(self, num_frames: int) -> np.ndarray:
        """Return the times of the last complete pass, else what the usual rate makes of them."""
        times = np.array(self._times, dtype=float)  # None becomes not a number
        if len(times) == num_frames and (np.diff(times) > 0).all() and not np.isnan(times).any():
            return times - times[:1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.arange(num_frames) / (self._rate or np.nan)

    def rate(self) -> float:
        """Return the average rate of the stream, as the container has it."""
        return self._rate

    def probe(self, num_frames: int) -> Probe:
        """Return counts and outcome of the last complete pass."""
        found = replace(self._found, num_frames=num_frames)
        problem = self._damage(found)
        if num_frames == 0:
            problem = ": ".join(["not one frame can be decoded", *([problem] if problem else [])])
            return replace(found, outcome="unreadable", problem=problem)
        return replace(found, outcome="partial" if problem else "ok", problem=problem)

    def _scanned(
        self, container: av.container.InputContainer, stream: av.VideoStream, scan: PacketScan
    ) -> Survey:
        count = 0
        for packet in self._packets_of(container, stream):
            if packet.size > 0:
                scan.note(packet)
                self._packets += 1
                count += not packet.is_discard
        is_sound = _format(container) in CONTAINERS and not self._damage(self._found)
        index = scan.index() if is_sound else None
        if index is None:
            container.close()
            return Survey(num_frames=count)
        assert stream.time_base is not None, "FFmpeg gives every stream one"
        self._times = [*index.times(stream.time_base)]
        return Survey(num_frames=count, key_frames=KeyFrames(container, stream, index))

    def _is_long(self, container: av.container.InputContainer, large_bytes: int) -> bool:
        """Whether a video is long by its header."""
        found = self._found
        lasts_s = (container.duration or 0) / av.time_base
        frames = max(found.header_frames, lasts_s * self._rate)
        return frames >= LONG_FRAMES or frames * found.width * found.height * 1.5 > large_bytes

    def _start(self, container: av.container.InputContainer) -> av.VideoStream:
        stream = _best_stream(container, self.path)
        # Videos are decoded in parallel, one process each; threads within one cost 7 to 15 % more.
        stream.thread_type = "SLICE"
        context = stream.codec_context
        context.thread_count = 1
        self._packets, self._cut_off, self._times = 0, "", []
        self._rate = float(stream.average_rate or 0)
        # Before reading: some demuxers add what they read to it.
        self._listed = _listed_packets(container, stream)
        self._found = Probe(
            outcome="unreadable", header_frames=stream.frames, stream=stream.index,
            codec=context.name, width=context.width, height=context.height,
        )  # fmt: skip
        _check_size(self.path, context.width, context.height)
        return stream

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
        self._times += [frame.time for frame in frames]
        corrupt = sum(frame.is_corrupt for frame in frames)
        if corrupt:
            self._found = replace(found, corrupt_frames=found.corrupt_frames + corrupt)
        return frames

    def _damage(self, found: Probe) -> str:
        facts = [
            self._absence(found),
            self._cut_off,
            f"{found.bad_packets} bad packets" if found.bad_packets else "",
            f"{found.corrupt_frames} damaged frames" if found.corrupt_frames else "",
        ]
        return ", ".join(fact for fact in facts if fact)

    def _absence(self, found: Probe) -> str:
        """Say what the file lacks, by the demuxer's index and by the container's length."""
        if self._listed == self._packets > 0:
            return ""
        end = describe_cut(self.path)
        claimed = max(self._listed, found.header_frames if end else 0)
        counts = f"{self._packets} packets of {claimed}" if claimed > self._packets else ""
        facts = ", ".join(fact for fact in (counts, end) if fact)
        return facts and f"{'truncated' if end or self._cut_off else 'incomplete'}: {facts}"


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
        # The FFmpeg in decord opens what a playlist names, whatever comes after its first lines.
        if is_playlist(self.path):
            raise VideoError("unreadable", f"{self.path} {describe(self.path)}")
        if self._reader.orientation().is_mirrored:
            asks = "this file asks for mirrored pictures, which decord does not make"
            raise VideoError("unreadable", f"{self.path}: {asks}; the decoder pyav does")
        return self._reader.count_shown()

    def survey(self, large_bytes: int) -> Survey | None:
        """Count the frames; decord reads them from the first on."""
        shown = self._shown
        found = self._reader.probe(shown)
        is_large = 3 * shown * found.width * found.height > large_bytes
        return Survey(num_frames=shown) if is_large else None

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
                yield _without_padding(frame)
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

    def times(self, num_frames: int) -> np.ndarray:
        """Return what the usual rate makes of the times."""
        return self._reader.times(num_frames)

    def rate(self) -> float:
        """Return the average rate of the stream."""
        return self._reader.rate()

    def probe(self, num_frames: int) -> Probe:
        """Return counts and outcome; decord does not tell of damaged frames."""
        return self._reader.probe(num_frames)

    def _refusal(self, count: int, why: str) -> VideoError:
        return VideoError(
            "unreadable",
            f"{self.path}: decord delivers {count} of {self._shown} frames ({why}); "
            "the decoder pyav may read this file",
        )


class PillowReader:
    """Frames of an animated WebP by Pillow: FFmpeg reads none."""

    def __init__(self, path: str | Path, size: tuple[int, int]) -> None:
        self.path = Path(path)
        width, height = size
        self._found = Probe(
            outcome="unreadable", stream=0, codec="webp", width=width, height=height
        )
        self._problem = ""
        self._durations_s: list[float] = []
        # Pillow takes the memory for a picture before it says how large it is.
        _check_size(self.path, width, height)

    def survey(self, large_bytes: int) -> None:
        """Nothing is announced."""

    def frames(self) -> Iterator[np.ndarray]:
        """Yield every frame in RGB, put on those before it."""
        from PIL import Image  # seldom used

        self._problem, self._durations_s = "", []
        try:
            with Image.open(self.path, formats=["WEBP"]) as image:
                count = getattr(image, "n_frames", 1)
                self._found = replace(self._found, header_frames=count)
                for number in range(count):
                    image.seek(number)
                    picture = _on_white(image)
                    self._durations_s.append(image.info.get("duration", 0) / 1000)
                    yield picture
        except (OSError, EOFError, ValueError) as error:
            self._problem = f"reading stops: {_reason(error)}"

    def size_bytes(self, frame: np.ndarray) -> int:
        """Return the memory of a frame."""
        return frame.nbytes

    def to_rgb(self, frame: np.ndarray) -> np.ndarray:
        """Return the frame, which is RGB."""
        return frame

    def times(self, num_frames: int) -> np.ndarray:
        """Return when each picture of the last complete pass begins."""
        shown = np.array(self._durations_s[:num_frames])
        return np.cumsum(shown) - shown if shown.all() else np.full(num_frames, np.nan)

    def rate(self) -> float:
        """Return the mean rate: each picture has a duration of its own."""
        total_s = sum(self._durations_s)
        return len(self._durations_s) / total_s if total_s else 0.0

    def probe(self, num_frames: int) -> Probe:
        """Return counts and outcome of the last complete pass."""
        problem = ", ".join(fact for fact in (describe_cut(self.path), self._problem) if fact)
        found = replace(self._found, num_frames=num_frames, problem=problem)
        if num_frames:
            return replace(found, outcome="partial" if problem else "ok")
        return replace(found, problem=problem or "not one frame can be decoded")


def open_reader(path: str | Path, decoder: str = "pyav") -> Reader:
    """Return the back end for a file; nothing is decoded yet.

    Raises:
        VideoError: there is no such file, or its pictures are too large.
        PackageError: this machine lacks something that the back end needs.
        ValueError: there is no such back end.
    """
    if decoder not in DECODERS:
        raise ValueError(f"unknown decoder {decoder!r}; known: {one_of(DECODERS)}")
    _check_file(Path(path))
    try:
        size = animated_webp_size(Path(path))
    except OSError as error:
        raise VideoError("unreadable", f"{path}: {_reason(error)}") from None
    if size is not None:
        return PillowReader(path, size)
    if decoder == "nvdec":
        from msvqa.data.nvdec import NvdecReader  # seldom used, and it is made of this module

        return NvdecReader(path)
    return PyAVReader(path) if decoder == "pyav" else DecordReader(path)


def _check_file(path: Path) -> None:
    # To open a pipe would wait for its other end.
    if not path.is_file():
        why = "not a regular file" if path.exists() else "no such file"
        raise VideoError("unreadable", f"{path}: {why}")


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        size = f"{width} x {height}"
        raise VideoError("unreadable", f"{path}: pictures of {size} pixels are refused")


def _container(path: Path) -> av.container.InputContainer:
    _check_file(path)
    # A file that poses as a video must reach neither the network nor other files.
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}
    try:
        return av.open(str(path.absolute()), options=options, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError("unreadable", _explain(path, error)) from None


def _explain(path: Path, error: Exception) -> str:
    """Say why a file cannot be opened, by its content where FFmpeg alone knows no reason."""
    message = f"{path}: {_reason(error)}"
    if not isinstance(error, (av.error.InvalidDataError, av.error.ArgumentError)):
        return message
    try:
        what = describe(path)
    except OSError:
        return message
    unknown = f"{message}; no format of videos that is read here begins like this file"
    return f"{path} {what}" if what else unknown


def _best_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
        raise VideoError("no_video_stream", f"{path}: there is no video stream in this file")
    if stream.codec_context is None:
        raise VideoError("unreadable", f"{path}: no decoder for the codec of the video stream")
    return stream


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


def _listed_packets(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Return the packets that the index lists; 0 for containers in which it does not list all."""
    if _format(container) not in LISTING_FORMATS:
        return 0
    return sum(entry.size > 0 for entry in stream.index_entries)


def _format(container: av.container.InputContainer) -> str:
    """Return the first of FFmpeg's names of a container."""
    return container.format.name.partition(",")[0]


def to_upright_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Return a picture as uint8 (height, width, 3), turned and mirrored as its file asks."""
    return orientation_of(frame).apply(frame.to_ndarray(format="rgb24"))


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return how a frame is to be shown, as its file asks."""
    try:
        # A frame keeps `frame.side_data`, which refers to the frame: both, with the pixels, would
        # stay until the garbage collection of many videos later.
        matrix: Any = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    except ValueError:
        # PyAV up to 18 gives no side data at all where it does not know the name of one.
        return Orientation.of_angle(frame.rotation)
    if matrix is None:
        return Orientation()
    return Orientation.of_matrix(np.frombuffer(bytes(matrix), dtype=np.int32).tolist())


def _without_padding(frame: np.ndarray) -> np.ndarray:
    """Return three channels: of narrow turned pictures decord takes the padding for a fourth."""
    height, width, channels = frame.shape
    if channels == 3:
        return frame
    return frame.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)


def _on_white(image: "Image") -> np.ndarray:
    """Return a picture in RGB; white is below what is transparent, as FFmpeg has it for GIF."""
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    from PIL import Image

    ground = Image.new("RGBA", image.size, WHITE)
    return np.asarray(Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB"))
