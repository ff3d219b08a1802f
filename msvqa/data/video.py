"""Decoding: a video file to the frames of its clips, exactly those that the plan names.

Files are read from the first to the last frame. Seeking by frame number returns other frames than
asked for in several kinds of AVI, MPEG and WMV files (docs/decoding.md), and the frame count in a
header is a claim; so the plan is made from the number of frames that were really decoded.
Two back ends do this: PyAV, the default, and decord (`msvqa/data/readers.py`).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msvqa.data.isolation import Isolated
from msvqa.data.readers import Probe, Reader, open_reader
from msvqa.errors import VideoError
from msvqa.files import hash_file
from msvqa.storage import is_remote, on_this_disk

KEPT_BYTES = 256 * 1024**2
"""Decoded frames up to this size stay in memory; larger videos are decoded twice."""
CHUNK_BYTES = 8 * 1024**2
"""Frames in RGB at full size are made and resized in portions of this size: larger ones leave the
processor's cache and cost 10 % more."""

Plan = Callable[[int], np.ndarray]
"""From the number of frames to the frame numbers wanted, an array of any shape."""

logger = logging.getLogger(__name__)


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
    reader = open_reader(path, decoder)
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
        reader = open_reader(path)
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
        if chunk and frame.shape != chunk[0].shape:  # turned in the middle of the file
            yield np.stack(chunk)
            chunk = []
        chunk.append(frame)
        if len(chunk) * frame.nbytes >= CHUNK_BYTES:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)
