"""Media that a manifest describes: squares that move over plain backgrounds.

    {"path", "kind": "video" or "frame", "fps", "n_frames",
     "background": [{"rgb", "first", "last"}],
     "squares": [{"rgb", "size", "x", "y", "dx", "dy", "first", "last"}]}

Frames are counted from 0, `last` is the first frame that is no longer meant. Later squares are
drawn over earlier ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from msvqa.data.encoding import write_video
from msvqa.data.sampling import FIRST_FRAME

JPEG_QUALITY = 97
VIDEO_QUALITY = 2


def pictures(medium: Mapping[str, Any], size: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the frames of a medium, uint8 (H, W, 3).

    Args:
        medium: its description.
        size: H and W.
    """
    for time in range(medium["n_frames"]):
        picture = np.zeros((*size, 3), dtype=np.uint8)
        for ground in medium["background"]:
            if ground["first"] <= time < ground["last"]:
                picture[:] = ground["rgb"]
        for square in medium["squares"]:
            if square["first"] <= time < square["last"]:
                _paint(picture, square, time - square["first"])
        yield picture


def _paint(picture: np.ndarray, square: Mapping[str, Any], time: int) -> None:
    left, top = square["x"] + square["dx"] * time, square["y"] + square["dy"] * time
    right, bottom = left + square["size"], top + square["size"]
    picture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = square["rgb"]


def write_media(root: Path, manifest: Mapping[str, Any]) -> None:
    """Write all media of a manifest below a root."""
    for medium in manifest["media"]:
        path = root / medium["path"]
        frames = pictures(medium, manifest["frame_size"])
        if medium["kind"] == "frame":
            path.mkdir(parents=True, exist_ok=True)
            for number, picture in enumerate(frames, start=FIRST_FRAME):
                file = path / f"{number:05d}.jpg"
                Image.fromarray(picture).save(file, quality=JPEG_QUALITY, subsampling=0)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            rate = Fraction(medium["fps"]).limit_denominator(1001)
            write_video(path, frames, rate, quality=VIDEO_QUALITY)
