"""Pictures as data URIs, so that the page is one file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

GAP_PX = 2
MAX_FRAME_PX = 160
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Picture:
    """An image for the `src` of an `img`."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Filmstrips:
    """Frames of one medium in several ways, one below the other."""

    said: str
    """Of which medium they are."""
    strips: Sequence[tuple[str, Picture]]
    """Label and frames."""


def spread(clips: np.ndarray, count: int) -> np.ndarray:
    """Return frames (count, H, W, 3) spread evenly over clips (C, F, H, W, 3)."""
    frames = clips.reshape(-1, *clips.shape[2:])
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    spread_out: np.ndarray = frames[chosen]
    return spread_out


def enlarged(frames: np.ndarray, least_px: int) -> np.ndarray:
    """Return frames (n, H, W, 3) whose pixels are repeated until they are so high, or higher."""
    times = -(-least_px // frames.shape[1])
    return frames.repeat(times, axis=1).repeat(times, axis=2)


def strip(frames: np.ndarray) -> Picture:
    """Return frames (n, H, W, 3) side by side, large ones made smaller."""
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    for image in images:
        image.thumbnail((MAX_FRAME_PX, MAX_FRAME_PX))
    width, height = images[0].size
    whole = Image.new("RGB", (len(images) * (width + GAP_PX) - GAP_PX, height), "white")
    for number, image in enumerate(images):
        whole.paste(image, (number * (width + GAP_PX), 0))
    content = BytesIO()
    # Full colour resolution: frames are small, and coloured edges are what one looks at.
    whole.save(content, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return Picture(f"data:image/jpeg;base64,{encoded}", whole.width, whole.height)
