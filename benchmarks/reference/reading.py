"""Reading a video as programs do that know nothing of what is wanted: everything, in sequence."""

from pathlib import Path

import av
import numpy as np
from PIL import Image

from msvqa.data.video import Plan


def read_all_with_pillow(path: Path, plan: Plan, size: int) -> np.ndarray:
    """Return the planned frames, uint8 (n, size, size, 3): all become RGB, then some are resized.

    As DualVGR does for each of its two sizes, from the beginning both times.
    """
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "SLICE"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    shape, bicubic = (size, size), Image.Resampling.BICUBIC
    return np.stack(
        [
            np.asarray(Image.fromarray(frames[number]).resize(shape, bicubic))
            for number in plan(len(frames)).ravel()
        ]
    )


def pick_in_sequence(path: Path, numbers: np.ndarray) -> np.ndarray:
    """Return some frames at full size, uint8 (n, H, W, 3): all are decoded, these become RGB."""
    wanted = set(numbers.tolist())
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "SLICE", 1
        shown = enumerate(container.decode(stream))
        found = {n: frame.to_ndarray(format="rgb24") for n, frame in shown if n in wanted}
    return np.stack([found[number] for number in numbers.tolist()])
