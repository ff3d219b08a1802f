"""Tiny videos of two kinds: a bright square that moves is large or small."""

from pathlib import Path

import av
import numpy as np

KINDS = {"large": 20, "small": 8}
"""Pixels of the square of each kind."""
SIDE, FRAMES = 32, 6


def write_video(file: Path, kind: str, seed: int) -> Path:
    """Write a video of `FRAMES` frames with some noise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draw, size = np.random.default_rng(seed), KINDS[kind]
    top, *places = draw.integers(0, SIDE - size, FRAMES + 1)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for left in places:
            picture = draw.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
            picture[top : top + size, left : left + size] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def write_folder(root: Path, counts: dict[str, int]) -> Path:
    """Write videos of both kinds for each split, and the lists of their labels."""
    for place, (split, count) in enumerate(counts.items()):
        lines = []
        for number in range(count):
            kind = [*KINDS][number % 2]
            name = f"v/{split}{number}.avi"
            write_video(root / name, kind, seed=1000 * place + number)
            lines.append(f"{name},{kind}\n")
        (root / f"{split}.csv").write_text("".join(lines), encoding="utf-8")
    return root
