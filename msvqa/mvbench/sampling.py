"""Which frames of a clip a model sees: the evaluation's way, and two others that are in use.

They give different frames, and so different scores: a result says which one it was made with.
"""

from collections.abc import Callable

import numpy as np

from msvqa.data.medium import Medium
from msvqa.data.sampling import Numbered, mvbench_frames, numbered, segments

Sampler = Callable[[int, float, Medium, int], np.ndarray]
"""From how many frames there are, at which rate, a medium with its span, and T, to the places of T
frames, from 0."""


def official(num_frames: int, fps: float, medium: Medium, count: int) -> np.ndarray:
    """Return what the released evaluation takes.

    It does not check bounds: one beyond the end gives frames that do not exist, and a start after
    the end frames in reverse. Used to compare, and never to read.
    """
    frames = numbered(num_frames, fps, medium)
    return segments(*frames.span(medium.start, medium.end), count) - frames.first


def demo(num_frames: int, fps: float, medium: Medium, count: int) -> np.ndarray:
    """Return what the demonstration of VideoChat2 takes; it knows no spans."""
    size = (num_frames - 1) / count
    return (int(size / 2) + np.round(size * np.arange(count))).astype(np.int64)


def vlmevalkit(num_frames: int, fps: float, medium: Medium, count: int) -> np.ndarray:
    """Return what VLMEvalKit's variant of cut MP4 files takes; it knows no spans."""
    return segments(0, num_frames - 1, count)


SAMPLERS: dict[str, Sampler] = {
    "evaluation": mvbench_frames,
    "demo": demo,
    "vlmevalkit": vlmevalkit,
}
"""Ways to sample by name; the first is the default. `evaluation` is that of the released evaluation
with sound bounds."""


def select(num_frames: int, fps: float, medium: Medium, sampler: str, count: int) -> np.ndarray:
    """Return the places of T frames by a sampler of the table, from 0, int64 (T,)."""
    return SAMPLERS[sampler](num_frames, fps, medium, count)


def is_repaired(frames: Numbered, medium: Medium) -> bool:
    """Whether the bounds of a medium had to be moved into it."""
    span = frames.span(medium.start, medium.end)
    return frames.repaired(*span) != span
