"""Decoding: a video file to the frames of its clips, exactly those that the plan names.

Files are read from the first to the last frame. Seeking by frame number returns other frames than
asked for in several kinds of AVI, MPEG and WMV files (docs/decoding.md), and the frame count in a
header is a claim; so the plan is made from the number of frames that were really decoded. Of long
videos, whose packets are looked through first, the few frames wanted are decoded from the key
frames before them where that gives exactly the same, as `msvqa/data/key_frames.py` has it.
Three back ends do this: PyAV, the default, decord (both in `msvqa/data/readers.py`), and that
of a GPU (`msvqa/data/nvdec.py`).
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msvqa.data.isolation import Isolated
from msvqa.data.key_frames import AnnouncedOtherwise, Picker
from msvqa.data.medium import Medium
from msvqa.data.pictures import open_pictures
from msvqa.data.readers import Probe, Reader, open_reader
from msvqa.data.sampling import duration, within
from msvqa.errors import VideoError
from msvqa.files import hash_file
from msvqa.storage import is_remote, on_this_disk, open_folder

KEPT_BYTES = 256 * 1024**2
"""Decoded frames up to this size stay in memory. Of larger videos those are kept that a plan for
the announced number of frames wants; where another number comes, they are decoded twice."""
CHUNK_BYTES = 2 * 1024**2
"""Frames in RGB at full size are made and resized in portions of this size: larger ones leave the
processor's cache and cost 5 to 15 % more."""

Choice = Callable[[np.ndarray], np.ndarray]
"""From seconds (n,) at which frames begin, the first at 0, to the frame numbers wanted."""
Selection = Callable[[int, float, Medium], np.ndarray]
"""From the number of frames of a file, frames for each second (0: not known) and the medium with
its span to the frame numbers wanted, for rules that find spans in a way of their own."""
Plan = Callable[[int], np.ndarray]
"""From the number of frames to the frame numbers wanted, an array of any shape."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Decoded:
    """Frames of one video."""

    frames: dict[int, np.ndarray]
    """uint8 (*plan, size, size, 3) for every size, RGB, contiguous; with `fit: whole` the longer
    side has the size, with `cover` the shorter one"""
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
        decoder: one of `msvqa.data.readers.DECODERS`.

    Raises:
        VideoError: there are no frames to be had; its `outcome` says of what kind the trouble is.
    """
    return _decoded(open_reader(path, decoder), _Wanted(path, plan, sizes))


@dataclass(frozen=True, kw_only=True)
class View:
    """What is wanted of a medium: some of its frames, in one size."""

    choose: Choice | None = None
    """Must be importable by name."""
    select: Selection | None = None
    """In place of `choose`; must be importable by name."""
    size_px: int
    fit: str = "crop"
    """`crop` keeps the square in the middle, `stretch` all; then the aspect ratio is lost. `whole`
    keeps both: no square, and only what is larger is made smaller. `cover` keeps both too, and
    makes the shorter side `size_px`."""
    decoder: str = "pyav"


def look(path: Path, medium: Medium, view: View) -> Decoded:
    """Read the frames of a medium that a view wants: of a video, a span, an image or a folder.

    Raises:
        VideoError: there are no frames to be had; its `outcome` says of what kind the trouble is.
    """
    reader = _open(path, medium.kind, view.decoder)

    def plan(num_frames: int) -> np.ndarray:
        if view.select is not None:
            return view.select(num_frames, reader.rate(), medium)
        assert view.choose is not None
        times = reader.times(num_frames)
        first, stop = 0, num_frames
        if medium.has_span:
            _need_times(path, times)
            first, stop = within(times, medium.start, medium.end)
            if stop == 0:
                raise VideoError("outside_video", f"{path}: {outside(medium, duration(times))}")
        chosen: np.ndarray = first + view.choose(times[first:stop] - times[first])
        return chosen

    return _decoded(reader, _Wanted(path, plan, [view.size_px], view.fit))


def outside(medium: Medium, duration_s: float) -> str:
    """Say that a span is not in its video."""
    end = "the end" if medium.end is None else f"{medium.end:g} s"
    return (
        f"the span from {medium.start or 0:g} s to {end} lies outside the video, "
        f"which lasts {duration_s:.2f} s"
    )


def _need_times(path: Path, times: np.ndarray) -> None:
    if np.isnan(times).any():
        raise VideoError("no_times", f"{path}: nobody knows when its frames are shown")


def _probed(reader: Reader, num_frames: int) -> Probe:
    lasts_s = duration(reader.times(num_frames))
    duration_s = 0.0 if np.isnan(lasts_s) else lasts_s
    return replace(reader.probe(num_frames), duration_s=duration_s, fps=reader.rate())


def _open(path: Path, kind: str, decoder: str = "pyav") -> Reader:
    return open_reader(path, decoder) if kind == "video" else open_pictures(path, kind)


@dataclass(frozen=True)
class _Wanted:
    """Which frames of a video are wanted, and how they are to come out."""

    path: str | Path
    plan: Plan
    sizes: Sequence[int]
    fit: str = "stretch"

    def convert(self, reader: Reader, frames: Iterable[Any], planned: np.ndarray) -> "_Placed":
        """Return frames as they come from a reader in RGB and in all sizes.

        Args:
            reader: what they come from.
            frames: those planned, each once and in their order.
            planned: their numbers, any of which may be there several times.
        """
        pixels = map(reader.to_rgb, frames)
        squares = map(_middle_square, pixels) if self.fit == "crop" else pixels
        return _convert(squares, planned, self.sizes, self.fit)

    def decoded(self, placed: "_Placed", probe: Probe) -> Decoded:
        """Return all of them with what a complete pass found."""
        if not placed.is_whole:
            problem = f"{self.path}: a second pass gave other frames than the first"
            raise VideoError("unreadable", problem)
        return Decoded({size: placed.frames(size) for size in self.sizes}, probe)


class _Placed:
    """Frames in all sizes, each of which is put where the plan has it as it comes."""

    def __init__(self, planned: np.ndarray) -> None:
        numbers, position = np.unique(planned, return_inverse=True)
        self._shape, self._position = planned.shape, position.ravel()
        self._wanted, self._count = len(numbers), 0
        self._whole: dict[int, np.ndarray] = {}

    @property
    def is_whole(self) -> bool:
        """Whether all frames have come, and no other."""
        return self._count == self._wanted

    def add(self, count: int, parts: dict[int, np.ndarray]) -> None:
        """Take the next frames.

        Args:
            count: how many, N.
            parts: uint8 (N, height, width, 3) by size.

        Raises:
            VideoError: outcome `sizes_differ`: they are of another size than those before.
        """
        first, stop = self._count, self._count + count
        places = np.flatnonzero((self._position >= first) & (self._position < stop)).tolist()
        for size, part in parts.items():
            whole = self._room(size, part.shape[1:])
            for place in places:
                whole[place] = part[self._position[place] - first]
        self._count = stop

    def frames(self, size: int) -> np.ndarray:
        """Return uint8 (*plan, height, width, 3)."""
        whole = self._whole.get(size)
        if whole is None:
            return np.empty((*self._shape, size, size, 3), np.uint8)  # a plan of no frames
        return whole.reshape(*self._shape, *whole.shape[1:])

    def _room(self, size: int, shape: tuple[int, ...]) -> np.ndarray:
        whole = self._whole.get(size)
        if whole is None:
            whole = self._whole[size] = np.empty((len(self._position), *shape), np.uint8)
        if whole.shape[1:] != shape:
            raise VideoError("sizes_differ", "its frames are of different sizes")
        return whole


def _decoded(reader: Reader, wanted: _Wanted) -> Decoded:
    survey = reader.survey(KEPT_BYTES)
    if survey is None:
        return _decoded_and_kept(reader, wanted)
    try:
        planned = wanted.plan(survey.num_frames) if survey.num_frames else np.zeros(0, int)
    except VideoError:
        planned = np.zeros(0, int)  # the frames themselves may tell another story
    found = None
    if planned.size and survey.key_frames is not None:
        found = _decoded_by_key_frames(reader, wanted, survey.key_frames, planned)
    return found or _decoded_as_announced(reader, wanted, planned)


def _decoded_by_key_frames(
    reader: Reader, wanted: _Wanted, key_frames: Picker, planned: np.ndarray
) -> Decoded | None:
    """Return frames that are decoded from the key frames before them; None: all must be decoded."""
    numbers, count = np.unique(planned).tolist(), len(key_frames.index.pts)
    if not key_frames.pays(numbers):
        return None
    try:
        placed = wanted.convert(reader, key_frames.pick(numbers), planned)
    except AnnouncedOtherwise as reason:
        logger.debug("%s: %s; all frames are decoded", wanted.path, reason)
        return None
    return wanted.decoded(placed, _probed(reader, count))


def _decoded_as_announced(reader: Reader, wanted: _Wanted, planned: np.ndarray) -> Decoded:
    """Return frames of a video that is too large to be kept, all of which are decoded.

    Args:
        reader: of the video.
        wanted: which frames.
        planned: their numbers, if there are as many frames as the packets announce.
    """
    count = 0

    def counted() -> Iterator[Any]:
        nonlocal count
        for frame in reader.frames():
            count += 1
            yield frame

    placed = wanted.convert(reader, _pick(counted(), planned), planned)
    probe = _probed_or_refused(reader, wanted, count)
    truly_planned = wanted.plan(count)
    if not np.array_equal(planned, truly_planned):
        del placed  # before there is room for others
        placed = wanted.convert(reader, _pick(reader.frames(), truly_planned), truly_planned)
    return wanted.decoded(placed, probe)


def _decoded_and_kept(reader: Reader, wanted: _Wanted) -> Decoded:
    """Return frames of a video all of whose frames are kept until their number is known."""
    kept, num_frames = _read(reader)
    probe = _probed_or_refused(reader, wanted, num_frames)
    planned = wanted.plan(num_frames)
    found = _pick(reader.frames() if kept is None else kept, planned)
    return wanted.decoded(wanted.convert(reader, found, planned), probe)


def _probed_or_refused(reader: Reader, wanted: _Wanted, num_frames: int) -> Probe:
    probe = _probed(reader, num_frames)
    if num_frames == 0:
        raise VideoError(probe.outcome, f"{wanted.path}: {probe.problem}")
    return probe


def probe(path: str | Path, kind: str = "video") -> Probe:
    """Read a medium from end to end; pixels are made of images alone. Never raises for a bad one.

    Args:
        path: a file, or a folder of images.
        kind: see `msvqa.data.media.KINDS`.
    """
    try:
        reader = _open(Path(path), kind)
        count = 0
        for frame in reader.frames():
            count += 1
            if kind != "video":
                reader.to_rgb(frame)
        return _probed(reader, count)
    except VideoError as error:
        return Probe(outcome=error.outcome, problem=str(error))


def source_facts(path: Path) -> dict[str, Any]:
    """Return size and hash of a video file; nothing where it is no file that can be read."""
    try:
        # To open a pipe would wait for its other end.
        return {"bytes": path.stat().st_size, "sha256": hash_file(path)} if path.is_file() else {}
    except OSError:
        return {}


def video_file(location: str | Path) -> AbstractContextManager[Path]:
    """Give the path of a video on this machine for the block; its errors name the location.

    Raises:
        StorageError: the object store that has the video cannot be read.
    """
    return _remote_file(location) if is_remote(location) else on_this_disk(location)


@contextmanager
def _remote_file(location: str | Path) -> Iterator[Path]:
    with on_this_disk(location) as path:
        try:
            yield path
        except VideoError as error:
            message = str(error).replace(str(path), str(location))
            raise VideoError(error.outcome, message) from None


def medium_file(medium: Medium) -> AbstractContextManager[Path]:
    """Give the path of a medium's file or folder on this machine for the block, as `video_file`."""
    if medium.kind != "frames" or not is_remote(medium.path):
        return video_file(medium.path)
    folder = open_folder(medium.path)
    folder.get(*folder.sizes())
    return nullcontext(folder.path)


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

    def look(self, path: Path, medium: Medium, view: View) -> Decoded:
        """Read what is wanted of a medium that is on this machine, as `look` does.

        Raises:
            VideoError: there are no frames to be had, or the decoder hung or died.
        """
        try:
            decoded: Decoded = self._isolated.call(look, path, medium, view)
        except VideoError as error:
            raise _with_path(error, path) from None
        return decoded

    def probe(self, path: str | Path, kind: str = "video") -> Probe:
        """Read a medium from end to end, as `probe` does."""
        try:
            found: Probe = self._isolated.call(probe, path, kind)
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


def _pick(frames: Iterable[Any], planned: np.ndarray) -> Iterator[Any]:
    wanted = set(planned.ravel().tolist())
    return (frame for number, frame in enumerate(frames) if number in wanted)


def _middle_square(frame: np.ndarray) -> np.ndarray:
    height, width, _ = frame.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frame[top : top + side, left : left + side]


def _convert(
    frames: Iterable[np.ndarray], planned: np.ndarray, sizes: Sequence[int], fit: str
) -> _Placed:
    """Put frames in RGB where the plan has them, square or as `fit` has them, for every size.

    Raises:
        VideoError: outcome `sizes_differ`: whole pictures are of different sizes.
    """
    # With torch, which `probe` does without.
    from msvqa.data.resize import cover, resize, shrink

    fitted = {"whole": shrink, "cover": cover}.get(fit, resize)
    placed = _Placed(planned)
    for chunk in _chunks(frames):
        placed.add(len(chunk), {size: fitted(chunk, size) for size in sizes})
    return placed


def _chunks(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield uint8 (N, height, width, 3), which the next one overwrites."""
    chunk, count = np.empty((0, 0, 0, 3), np.uint8), 0
    for frame in frames:
        if count and frame.shape != chunk.shape[1:]:  # turned in the middle of the file
            yield chunk[:count]
            count = 0
        if frame.shape != chunk.shape[1:]:
            chunk = np.empty((math.ceil(CHUNK_BYTES / frame.nbytes), *frame.shape), np.uint8)
        chunk[count] = frame
        count += 1
        if count == len(chunk):
            yield chunk
            count = 0
    if count:
        yield chunk[:count]
