"""Controls: the same questions with less to see, which say how much a score needs the video."""

import hashlib

import numpy as np

CONTROLS = ("none", "blind", "shuffled", "reversed")
"""`blind`: black frames; `shuffled`: in another order; `reversed`: from the last to the first."""


def controlled(frames: np.ndarray, control: str, name: str) -> np.ndarray:
    """Return frames (T, H, W, 3) as a control shows them.

    Args:
        frames: of a clip.
        control: one of `CONTROLS`.
        name: of the clip, which alone decides the order of `shuffled`.
    """
    if control == "blind":
        return np.zeros_like(frames)
    if control == "reversed":
        return np.ascontiguousarray(frames[::-1])
    if control == "shuffled":
        return np.ascontiguousarray(frames[_order(len(frames), name)])
    return frames


def _order(count: int, name: str) -> np.ndarray:
    """Return an order that is not the one of time, where there is another."""
    digest = hashlib.sha256(name.encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    order = generator.permutation(count)
    while count > 1 and (np.diff(order) > 0).all():
        order = generator.permutation(count)
    return order
