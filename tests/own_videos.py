"""Tiny videos of a user with the tables that say their titles and how alike they are."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from msvqa.data.encoding import write_video

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 200)}
SIZE_PX, RATE = 32, 4
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_vocabulary(folder: Path, words: Sequence[str]) -> None:
    """Write the vocabulary of a small BERT."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*PIECES, *words]) + "\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))


def write_own_videos(root: Path, videos: int = 12) -> Path:
    """Write videos of 1 to 6 seconds, `videos.csv`, `pairs.csv` and a vocabulary."""
    root.mkdir()
    rng, titles = np.random.default_rng(0), ["video,title,tags,split"]
    names = [*COLOURS]
    for number in range(videos):
        colour, split = names[number % 3], "test" if number % 4 == 3 else "train"
        frames = np.tile(np.array(COLOURS[colour]), (RATE * (1 + number % 6), SIZE_PX, SIZE_PX, 1))
        noise = rng.integers(-30, 30, frames.shape)
        pictures = (frames + noise).clip(0, 255).astype(np.uint8)
        write_video(root / f"{number}.avi", pictures, Fraction(RATE))
        titles.append(f"{number}.avi,a {colour} thing,{colour}|thing,{split}")
    (root / "videos.csv").write_text("\n".join(titles))
    pairs = [
        f"{a},{b},{1.0 if a % 3 == b % 3 else 0.25}"
        for a in range(videos) for b in range(a)
    ]  # fmt: skip
    (root / "pairs.csv").write_text("\n".join(["video_a,video_b,similarity", *pairs]))
    write_vocabulary(root / "text", ["a", "thing", *COLOURS])
    return root
