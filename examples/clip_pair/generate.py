"""Draw videos of a shape that moves over a ground, each with a caption that says so.

python examples/clip_pair/generate.py FOLDER [--seed N]

Every held-out video shows another scene, and none that is in training. `backwards.json` has the
test captions with the same videos played backwards, where the directions that they name are wrong.
"""

import argparse
import itertools
import json
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

VIDEOS = {"val": 60, "test": 60, "train": 400}
"""The held-out ones first: training gets what they leave."""
SIZE_PX, FRAMES, RADIUS = 48, 12, 9
COLORS = {
    "red": (220, 40, 40), "green": (40, 190, 60), "blue": (50, 80, 220), "yellow": (230, 210, 40),
    "white": (240, 240, 240), "purple": (150, 50, 170),
}  # fmt: skip
GROUNDS = {
    "grass": (70, 110, 60),
    "sand": (180, 160, 110),
    "night": (20, 20, 40),
    "ice": (170, 200, 210),
}
SHAPES = ("circle", "square", "diamond")
STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
Scene = tuple[str, str, str, str]
"""Color, shape, direction and ground."""


def caption_of(scene: Scene) -> str:
    """Return what a person would say of a scene."""
    color, shape, direction, ground = scene
    place = "at night" if ground == "night" else f"on {ground}"
    return f"a {color} {shape} moves {direction} {place}"


def draw(scene: Scene, chance: random.Random) -> np.ndarray:
    """Return the frames of a scene, uint8 (FRAMES, SIZE_PX, SIZE_PX, 3)."""
    color, shape, direction, ground = scene
    noise = np.random.default_rng(chance.getrandbits(32))
    backdrop = np.array(GROUNDS[ground]) + noise.normal(0, 12, (SIZE_PX, SIZE_PX, 3))
    down, across = np.mgrid[:SIZE_PX, :SIZE_PX]
    start = np.array([chance.uniform(0.35, 0.65) * SIZE_PX for _ in range(2)])
    step = np.array(STEPS[direction]) * chance.uniform(1.0, 2.0)
    frames = []
    for number in range(FRAMES):
        y, x = start + step * (number - FRAMES / 2)
        dy, dx = np.abs(down - y), np.abs(across - x)
        inside = {
            "circle": dy**2 + dx**2 < RADIUS**2,
            "square": np.maximum(dy, dx) < 0.85 * RADIUS,
            "diamond": dy + dx < 1.25 * RADIUS,
        }[shape]
        frames.append(np.where(inside[..., None], COLORS[color], backdrop))
    return np.clip(frames, 0, 255).astype(np.uint8)


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write frames as a video of 12 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(12))
        stream.width = stream.height = SIZE_PX
        stream.bit_rate = 400_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def generate(folder: Path, seed: int = 0) -> None:
    """Write the videos of all splits and their captions."""
    chance = random.Random(seed)
    scenes: list[Scene] = list(itertools.product(COLORS, SHAPES, STEPS, GROUNDS))
    chance.shuffle(scenes)
    for name in ("videos", "backwards"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    number = 0
    for split, count in VIDEOS.items():
        if split == "train":
            chosen = [chance.choice(scenes) for _ in range(count)]
        else:
            chosen, scenes = scenes[:count], scenes[count:]
        rows, backwards = [], []
        for scene in chosen:
            name, caption = f"videos/{number:04d}.mp4", caption_of(scene)
            frames = draw(scene, chance)
            write_video(folder / name, frames)
            rows.append({"video": name, "caption": caption})
            if split == "test":
                name = f"backwards/{number:04d}.mp4"
                write_video(folder / name, frames[::-1])
                backwards.append({"video": name, "caption": caption})
            number += 1
        _write_rows(folder / f"{split}.json", rows)
        if backwards:
            _write_rows(folder / "backwards.json", backwards)


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text(json.dumps(rows, indent=0), encoding="utf-8")


def main() -> None:
    """Generate into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Draw videos with captions.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generate(arguments.folder, arguments.seed)


if __name__ == "__main__":
    main()
