"""Which frames of a medium are taken: those of clips, of equal parts, at a rate, of a span."""

import numpy as np

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
    """Return the frames that are shown in the middle of each 1/fps seconds, int64 (T,).

    Of more than T, the middle ones of T equal parts; of fewer the last one is repeated.

    Args:
        times: seconds (n,) at which each frame begins, the first at 0.
        count: T.
        fps: frames for each second.
    """
    wanted = np.arange(0.5 / fps, duration(times), 1 / fps)
    shown = np.searchsorted(times, wanted + TIME_ERROR_S, side="right") - 1
    if not len(shown):
        shown = np.zeros(1, dtype=np.int64)
    return shown[middles(len(shown), count)]


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
