"""Writing videos: equal files for equal pictures, for sets that are drawn."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path, pictures: Iterable[np.ndarray], rate: Fraction, *, quality: int = 4
) -> None:
    """Write pictures, uint8 (H, W, 3) of even sizes, as an mpeg4 video.

    Args:
        path: the file; its ending says which container.
        pictures: at least one; all have the size of the first.
        rate: pictures for each second.
        quality: quantiser, from 1, the best.
    """
    pictures = iter(pictures)
    first = next(pictures)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        # B-frames and rare key frames, as in MSVD; one thread makes the bytes repeatable.
        stream.codec_context.max_b_frames = 2
        stream.codec_context.gop_size = 30
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"qscale": str(quality), "flags": "+bitexact+qscale"}
        stream.codec_context.qmin = stream.codec_context.qmax = quality
        for picture in chain([first], pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
