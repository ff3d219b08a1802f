"""Pictures: single images, and folders of images that are the frames of a video."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from msvqa.content import START_BYTES, stand_in
from msvqa.data.medium import IMAGE_SUFFIXES
from msvqa.data.readers import MAX_PIXELS, Probe, to_upright_rgb
from msvqa.errors import VideoError

IMAGE_FORMATS = ("png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "apng", "gif", "mjpeg")
"""Containers of single pictures, by FFmpeg's names; none opens another file."""


class PictureReader:
    """Images as the frames of a medium; each is read when its pixels are wanted."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self.path, self.files = path, files

    def survey(self, large_bytes: int) -> None:
        """Nothing is decoded before it is wanted."""

    def frames(self) -> Iterator[Path]:
        """Yield the files."""
        return iter(self.files)

    def size_bytes(self, frame: Path) -> int:
        """Return the memory that a file's name holds: next to none."""
        return 0

    def to_rgb(self, frame: Path) -> np.ndarray:
        """Return uint8 (height, width, 3)."""
        return read_picture(frame)

    def times(self, num_frames: int) -> np.ndarray:
        """Return when each frame is shown, (n,): of several nobody knows."""
        return np.zeros(1) if num_frames == 1 else np.full(num_frames, np.nan)

    def rate(self) -> float:
        """Pictures say nothing of a rate."""
        return 0.0

    def probe(self, num_frames: int) -> Probe:
        """Return how many images there are."""
        if num_frames:
            return Probe(outcome="ok", num_frames=num_frames)
        problem = f"no images ({', '.join(IMAGE_SUFFIXES)}) in the folder {self.path.name}"
        return Probe(outcome="empty_folder", problem=problem)


def open_pictures(path: Path, kind: str) -> PictureReader:
    """Return the reader of an image, or of a folder of images in the order of their names."""
    if kind == "image":
        return PictureReader(path, [path])
    if not path.is_dir():
        raise VideoError("unreadable", f"{path}: no such folder")
    found = (file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    return PictureReader(path, sorted(file for file in found if not file.name.startswith(".")))


def read_picture(path: Path) -> np.ndarray:
    """Return an image as uint8 (height, width, 3), upright.

    Raises:
        VideoError: outcome `bad_image`: it is none, is damaged or too large.
    """
    if not path.is_file():
        raise VideoError("unreadable", f"{path}: no such file")
    try:
        content = path.read_bytes()
        # As bytes: FFmpeg would read a name with a number in it as that of a series.
        options = {"format_whitelist": ",".join(IMAGE_FORMATS)}
        with av.open(io.BytesIO(content), options=options, metadata_errors="ignore") as container:
            context = container.streams.video[0].codec_context
            if context.width * context.height > MAX_PIXELS:
                raise VideoError("bad_image", f"{path}: more than {MAX_PIXELS} pixels are refused")
            frame = next(container.decode(video=0))
    except (av.error.FFmpegError, OSError, ValueError, IndexError, StopIteration) as error:
        raise VideoError("bad_image", _said(path, error)) from None
    if frame.is_corrupt:
        raise VideoError("bad_image", f"{path}: this image is damaged")
    return to_upright_rgb(frame)


def _said(path: Path, error: Exception) -> str:
    """Say why a file is no image, by its content where that tells."""
    try:
        with path.open("rb") as file:
            head = file.read(START_BYTES)
    except OSError:
        head = b""
    if found := stand_in(head):
        return f"{path} {found}"
    reason = getattr(error, "strerror", None) or str(error) or "it holds no picture"
    return f"{path}: no image that can be read ({reason})"
