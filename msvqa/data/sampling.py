"""Which frames of a medium are taken: those of clips, of equal parts, at a rate, of a span."""

from dataclasses import dataclass

import numpy as np

from msvqa.data.medium import Medium
from msvqa.errors import VideoError

FRAMES_FPS, FIRST_FRAME = 3.0, 1
"""Folders of frames in MVBench: their rate, and the number of the first frame."""
TIME_ERROR_S = 1e-6
"""Times of frames are sums of fractions that binary numbers do not hold exactly."""


def sample_clips(num_frames: int, num_clips: int, frames_per_clip: int) -> np.ndarray:
    """Return the frame numbers of every clip, int64 (clips, frames).

    Clips are centred at equal distances and overlap in short videos. Where a clip reaches over the
    start or the end, the first or last frame is repeated. The arithmetic is that of DualVGR and
    HCRN, with its asymmetry at the end: a clip that overflows ends before the last frame and is
    filled up with it.

    Raises:
        ValueError: there is no frame, or `frames_per_clip` is odd.
    """
    if num_frames < 1:
        raise ValueError("a video without frames cannot be sampled")
    if frames_per_clip < 2 or frames_per_clip % 2:
        raise ValueError(f"frames_per_clip must be even and at least 2, it is {frames_per_clip}")
    if num_clips < 1:
        raise ValueError(f"num_clips must be at least 1, it is {num_clips}")
    if num_frames == 1:  # the original fails here
        return np.zeros((num_clips, frames_per_clip), dtype=np.int64)
    # linspace itself, because exact integer division differs for some lengths.
    centres = np.linspace(0, num_frames, num_clips + 2, dtype=np.int32)[1:-1]
    return np.stack([_clip_around(int(c), num_frames, frames_per_clip) for c in centres])


def _clip_around(centre: int, num_frames: int, size: int) -> np.ndarray:
    last = num_frames - 1
    start, end = max(centre - size // 2, 0), centre + size // 2
    if end > num_frames:
        end = last
    missing = size - (end - start)
    before = missing if start == 0 else 0
    after = missing if end == last else 0
    chosen = np.concatenate([np.zeros(before), np.arange(start, end), np.full(after, last)])
    return chosen[:size].astype(np.int64)


# T frames are wanted of a medium of n frames. The arithmetic of parts is that of UMT.


def parts(num_frames: int, count: int) -> np.ndarray:
    """Return the first and the last frame of each of T equal parts, int64 (T, 2).

    Of fewer than T frames each is a part, and the last one is repeated.
    """
    if num_frames < 1:
        raise ValueError("a medium without frames cannot be sampled")
    found = min(num_frames, count)
    ends = np.linspace(0, num_frames, found + 1).astype(np.int64)
    ranges = np.stack([ends[:-1], ends[1:] - 1], axis=1)  # (found, 2)
    return ranges[np.minimum(np.arange(count), found - 1)]


def middles(num_frames: int, count: int) -> np.ndarray:
    """Return the middle frame of each of T equal parts, int64 (T,)."""
    return parts(num_frames, count).sum(axis=1) // 2


def evenly(num_frames: int, count: int) -> np.ndarray:
    """Return frames that are spread over a whole video, int64 (T,) or all where there are fewer.

    As in the winning system of the contest of the QQ Browser, Ma, Lou and Ouyang, 2021,
    https://arxiv.org/abs/2111.01677
    """
    if num_frames <= count:
        return np.arange(num_frames)
    return np.rint((np.arange(count) + 0.5) * (num_frames - 1) / count).astype(np.int64)


def strided(num_frames: int, count: int) -> np.ndarray:
    """Return T frames at a whole number of frames from each other, int64 (T,).

    The last of fewer than T is repeated. The arithmetic is that of the similarity system of team
    618 (QQ Browser AI Algorithm Competition, 2021): of up to 2T - 1 frames the first T are taken,
    and what comes after them is left out.
    """
    if num_frames < 1:
        raise ValueError("a medium without frames cannot be sampled")
    stride = num_frames // count
    if not stride:
        return np.minimum(np.arange(count), num_frames - 1)
    return np.arange(count) * stride + stride // 2


def candidates(num_frames: int, count: int, each: int) -> np.ndarray:
    """Return K frames of each of T equal parts in their order, int64 (T·K,).

    Training draws one of each K, evaluation takes the one in the middle: K is odd, and that one is
    exactly the middle frame of its part.
    """
    first, last = parts(num_frames, count).T[:, :, None]  # (T, 1) each
    steps = 2 * np.arange(each) + 1
    found = first + steps * (last - first + 1) // (2 * each)  # (T, K)
    found[:, each // 2] = middles(num_frames, count)
    return found.ravel()


def at_rate(times: np.ndarray, count: int, fps: float) -> np.ndarray:
    """Return the frames of `shown_at_rate`, int64 (T,).

    Of more than T, the middle ones of T equal parts; of fewer the last one is repeated.

    Args:
        times: seconds (n,) at which each frame begins, the first at 0.
        count: T.
        fps: frames for each second.
    """
    shown = shown_at_rate(times, fps)
    return shown[middles(len(shown), count)]


def shown_at_rate(times: np.ndarray, fps: float) -> np.ndarray:
    """Return the frames that are shown in the middle of each 1/fps seconds, at least one, int64."""
    wanted = np.arange(0.5 / fps, duration(times), 1 / fps)
    shown = np.searchsorted(times, wanted + TIME_ERROR_S, side="right") - 1
    return shown if len(shown) else np.zeros(1, dtype=np.int64)


def duration(times: np.ndarray) -> float:
    """Return how long frames are shown, the last one as long as most."""
    if len(times) < 2:
        return 0.0
    return float(times[-1] - times[0] + np.median(np.diff(times)))


def within(times: np.ndarray, start: float | None, end: float | None) -> tuple[int, int]:
    """Return the first frame of a span and the one after its last; both alike where it has none.

    A span begins with the frame that is shown at its start, and from there lasts as long as it is
    said to, in whole frames, as in UMT; it has at least one, unless it lies outside.
    """
    start, end = start or 0.0, np.inf if end is None else end
    length = duration(times)
    if start >= max(length, TIME_ERROR_S) or end <= 0:
        return 0, 0
    first = max(0, int(np.searchsorted(times, start + TIME_ERROR_S, side="right")) - 1)
    until = times[first] + end - start
    if until >= length - TIME_ERROR_S:
        return first, len(times)
    stop = int(np.searchsorted(times, until + TIME_ERROR_S, side="right")) - 1
    return first, max(stop, first + 1)


@dataclass(frozen=True)
class Numbered:
    """The frames of a medium as annotations count them, which need not begin with 0."""

    first: int
    last: int
    fps: float

    def span(self, start_s: float | None, end_s: float | None) -> tuple[int, int]:
        """Return the numbers of the first and the last frame of a span, within the medium or not.

        Halves are rounded to even numbers.
        """
        first = self.first if start_s is None else max(self.first, round(start_s * self.fps))
        last = self.last if end_s is None else min(round(end_s * self.fps), self.last)
        return first, last

    def repaired(self, first: int, last: int) -> tuple[int, int]:
        """Return a span that lies within the medium and does not end before it begins."""
        first = min(max(first, self.first), self.last)
        return first, max(min(max(last, self.first), self.last), first)


def segments(first: int, last: int, count: int) -> np.ndarray:
    """Return a frame of each of T equal segments between two frames, int64 (T,).

    The arithmetic is that of MVBench's evaluation, which rounds halves to even numbers and repeats
    frames where there are fewer than T.
    """
    size = (last - first) / count
    offsets = np.round(size * np.arange(count))
    return np.trunc(first + size / 2 + offsets).astype(np.int64)


def numbered(num_frames: int, fps: float, medium: Medium) -> Numbered:
    """Return how MVBench counts the frames of a medium: videos from 0, folders from 1 at 3 fps.

    Raises:
        VideoError: outcome `no_times`: a span of a video whose rate nobody knows.
    """
    if medium.kind == "frames":
        return Numbered(FIRST_FRAME, num_frames, FRAMES_FPS)
    if medium.has_span and not fps > 0:
        raise VideoError("no_times", "the file says nothing of its rate, and a span is wanted")
    return Numbered(0, num_frames - 1, fps)


def mvbench_frames(num_frames: int, fps: float, medium: Medium, count: int) -> np.ndarray:
    """Return the places of T frames of a medium by MVBench's evaluation, from 0, int64 (T,).

    Its own arithmetic wherever the bounds are sound; else they are moved into the medium.
    """
    frames = numbered(num_frames, fps, medium)
    span = frames.repaired(*frames.span(medium.start, medium.end))
    return np.clip(segments(*span, count), frames.first, frames.last) - frames.first
