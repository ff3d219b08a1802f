"""Videos whose frame i shows the number i as a barcode, to prove which frames a decoder returns."""

from pathlib import Path

import av
import numpy as np

BITS = 10
WIDTH, HEIGHT = 320, 240
UNREADABLE = -1

KINDS = {
    "mpeg4_bframes.avi": ("mpeg4", {"bf": "2", "g": "30"}),
    "mpeg4_long_gop.avi": ("mpeg4", {"bf": "2", "g": "250"}),
    "h264_bframes.mp4": ("libx264", {"bf": "2", "g": "30"}),
    "h264.mkv": ("libx264", {"g": "30"}),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2", "g": "12"}),
    "wmv2.wmv": ("wmv2", {"g": "30"}),
}


def write(path: Path, num_frames: int, kind: str = "mpeg4_bframes.avi", scale: int = 1) -> Path:
    """Write a video of one of `KINDS`, of 320 x 240 pixels times `scale`."""
    codec, options = KINDS[kind]
    return encode(path, num_frames, codec, options, scale)


def encode(
    path: Path, num_frames: int, codec: str, options: dict[str, str], scale: int = 1
) -> Path:
    """Write a video with a codec and its options; numbers begin again after all bits are used."""
    texture = np.random.default_rng(0).integers(60, 190, (HEIGHT // 8, WIDTH // 8, 3))
    texture = texture.repeat(8, 0).repeat(8, 1).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH * scale, HEIGHT * scale, "yuv420p"
        stream.bit_rate = 2_000_000
        for number in range(num_frames):
            picture = np.roll(texture, number, axis=1).astype(np.uint8)
            draw(picture, number)
            picture = picture.repeat(scale, 0).repeat(scale, 1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def draw(picture: np.ndarray, number: int) -> None:
    """Draw the bits of a number, the lowest first, with their complement below."""
    for bit in range(BITS):
        left, is_set = 10 + 30 * bit, number >> bit & 1
        picture[10:42, left : left + 28] = 255 if is_set else 0
        picture[60:92, left : left + 28] = 0 if is_set else 255


def read(picture: np.ndarray) -> int:
    """Return the number that a picture of any size shows, or `UNREADABLE`."""
    y, x = picture.shape[0] / HEIGHT, picture.shape[1] / WIDTH
    number = 0
    for bit in range(BITS):
        columns = slice(round((14 + 30 * bit) * x), round((34 + 30 * bit) * x))
        top = picture[round(14 * y) : round(38 * y), columns].mean()
        bottom = picture[round(64 * y) : round(88 * y), columns].mean()
        if abs(top - bottom) < 60:
            return UNREADABLE
        number |= int(top > bottom) << bit
    return number
