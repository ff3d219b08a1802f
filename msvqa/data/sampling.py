"""Which frames of a video become its clips."""

import numpy as np


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
