"""What a conversation says of the frames of its video."""

from collections.abc import Sequence

import numpy as np


def frame_message(times_s: Sequence[float] | np.ndarray) -> str:
    """Return the sentence about the frames, with the space before it.

    Args:
        times_s: seconds at which they are shown, from the start of the span where the medium is
            one. (The reference counts from the start of the file also then.)
    """
    times = ", ".join(decimal(time) for time in times_s)
    return f" The video contains {len(times_s)} frames sampled at {times} seconds."


def decimal(seconds: float) -> str:
    """Return seconds with one decimal; halves go to the even one."""
    return f"{np.round(float(seconds), 1):.1f}"
