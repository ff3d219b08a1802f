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
CHUNK_BYTES = 8 * 1024**2
"""Frames in RGB at full size are made and resized in portions of this size: larger ones leave the
processor's cache and cost 10 % more."""

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

    def convert(self, reader: Reader, frames: Iterable[Any]) -> dict[int, np.ndarray]:
        """Return frames as they come from a reader in RGB, uint8 (N, size, size, 3) by size."""
        pixels = map(reader.to_rgb, frames)
        squares = map(_middle_square, pixels) if self.fit == "crop" else pixels
        return _convert(squares, self.sizes, self.fit)

    def repeated(self, small: dict[int, np.ndarray], planned: np.ndarray, probe: Probe) -> Decoded:
        """Repeat frames that are planned several times, after the work is done once for each."""
        numbers, position = np.unique(planned, return_inverse=True)
        if any(len(frames) != len(numbers) for frames in small.values()):
            problem = f"{self.path}: a second pass gave other frames than the first"
            raise VideoError("unreadable", problem)
        position = position.reshape(planned.shape)
        return Decoded({size: frames[position] for size, frames in small.items()}, probe)


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
        small = wanted.convert(reader, key_frames.pick(numbers))
    except AnnouncedOtherwise as reason:
        logger.debug("%s: %s; all frames are decoded", wanted.path, reason)
        return None
    return wanted.repeated(small, planned, _probed(reader, count))


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

    small = wanted.convert(reader, _pick(counted(), set(planned.ravel().tolist())))
    probe = _probed_or_refused(reader, wanted, count)
    truly_planned = wanted.plan(count)
    if not np.array_equal(planned, truly_planned):
        numbers = set(truly_planned.ravel().tolist())
        small = wanted.convert(reader, _pick(reader.frames(), numbers))
    return wanted.repeated(small, truly_planned, probe)


def _decoded_and_kept(reader: Reader, wanted: _Wanted) -> Decoded:
    """Return frames of a video all of whose frames are kept until their number is known."""
    kept, num_frames = _read(reader)
    probe = _probed_or_refused(reader, wanted, num_frames)
    planned = wanted.plan(num_frames)
    found = _pick(reader.frames() if kept is None else kept, set(planned.ravel().tolist()))
    return wanted.repeated(wanted.convert(reader, found), planned, probe)


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


def _pick(frames: Iterable[Any], wanted: set[int]) -> Iterator[Any]:
    return (frame for number, frame in enumerate(frames) if number in wanted)


def _middle_square(frame: np.ndarray) -> np.ndarray:
    height, width, _ = frame.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frame[top : top + side, left : left + side]


def _convert(frames: Iterable[np.ndarray], sizes: Sequence[int], fit: str) -> dict[int, np.ndarray]:
    """Return frames in RGB as uint8 (N, size, size, 3), or as `fit` has them, for every size.

    Raises:
        VideoError: outcome `sizes_differ`: whole pictures are of different sizes.
    """
    # With torch, which `probe` does without.
    from msvqa.data.resize import cover, resize, shrink

    convert = {"whole": shrink, "cover": cover}.get(fit, resize)
    parts: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
    for chunk in _chunks(frames):
        for size, done in parts.items():
            done.append(convert(chunk, size))
    if any(len({part.shape[1:] for part in done}) > 1 for done in parts.values()):
        raise VideoError("sizes_differ", "its frames are of different sizes")
    nothing = {size: np.zeros((0, size, size, 3), np.uint8) for size in sizes}
    return nothing | {size: np.concatenate(done) for size, done in parts.items() if done}


def _chunks(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    chunk: list[np.ndarray] = []
    for frame in frames:
        if chunk and frame.shape != chunk[0].shape:  # turned in the middle of the file
            yield np.stack(chunk)
            chunk = []
        chunk.append(frame)
        if len(chunk) * frame.nbytes >= CHUNK_BYTES:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)
