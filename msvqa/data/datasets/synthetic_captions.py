"""A shape that moves twice over a texture, with captions: a small set that needs the order of time.

The layout is that of `caption_files`, and `caption_files` reads it too. A caption says what the
shape looks like, how fast it moves in which direction first, and how then. Every look comes with
many motions, of held-out videos always beside the motion that is the same played backwards: who
sees one frame finds one of `MOTIONS_OF_LOOK` videos, who sees frames without their order confuses
two. `backwards.json` has the captions of the test with the same videos played backwards. Images
beside the videos of training have captions of looks alone.

Legend: F frames, H x W pixels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from msvqa.data.datasets.caption_files import CaptionFiles
from msvqa.data.encoding import write_video
from msvqa.errors import DataError
from msvqa.files import folder_written_aside, write_json

MARKER = "generated.json"
"""Written last, with the settings of the set."""
BACKWARDS = "backwards"
SIZE_PX, RATE, LENGTHS = 48, Fraction(12), (20, 29)
"""Height and width; frames a second; fewest frames and one more than most"""
RADII = (5.0, 6.5)

COLORS = {
    "red": (215, 45, 45), "green": (45, 185, 65), "blue": (55, 80, 225), "yellow": (235, 215, 50),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle")
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
SPEEDS = {"slowly": 6.0, "quickly": 15.0}
"""Pixels in half of a video, on the average"""
SPREAD = 1.0
TEMPLATES = (
    "a {look} moves {first} and then {then}",
    "first the {look} moves {first}, then it moves {then}",
    "the {look} goes {first}, and after that it goes {then}",
)
LOOKS = tuple(f"{color} {shape}" for color, shape in product(COLORS, SHAPES))
LOOK_TEMPLATES = ("a {look}", "a picture of a {look}")
MOTIONS_OF_LOOK = 16
"""Motions of each look in a held-out split, but for the last look of it"""
SETTINGS = ("train_videos", "train_images", "val_videos", "test_videos", "drawing_seed")


@dataclass(frozen=True, order=True)
class Move:
    """How a shape moves in half of a video."""

    speed: str
    direction: str

    def __str__(self) -> str:
        return f"{self.speed} {self.direction}"

    @property
    def undone(self) -> "Move":
        """The same move played backwards."""
        return Move(self.speed, OPPOSITE[self.direction])


Motion = tuple[Move, Move]


def backwards(motion: Motion) -> Motion:
    """Return the motion that a video shows when it is played backwards."""
    first, then = motion
    return then.undone, first.undone


def pairs_of_motions() -> list[tuple[Motion, Motion]]:
    """Return each motion once, beside the one that it is backwards; none is its own."""
    moves = [Move(speed, direction) for speed, direction in product(SPEEDS, STEPS)]
    motions: list[Motion] = list(product(moves, moves))
    return [(motion, backwards(motion)) for motion in motions if motion < backwards(motion)]


@dataclass(frozen=True)
class Scene:
    """What a video shows."""

    look: str
    motion: Motion

    @property
    def captions(self) -> list[str]:
        """What people may say of it."""
        first, then = self.motion
        return [text.format(look=self.look, first=first, then=then) for text in TEMPLATES]


class SyntheticCaptions(CaptionFiles):
    """The set at `root`, drawn there when the folder is absent or empty."""

    class Config(CaptionFiles.Config):
        """How much is drawn; a set that exists is taken as it is."""

        name: str = "synthetic_captions"
        train_videos: int = Field(default=900, ge=1)
        train_images: int = Field(default=120, ge=0)
        val_videos: int = Field(default=48, ge=1, le=200)
        test_videos: int = Field(default=96, ge=1, le=200)
        drawing_seed: int = Field(default=0, ge=0)
        """Chooses scenes and drawings; independent of the seed of training."""

    config: Config

    def generate(self) -> None:
        """Draw the set unless it is there.

        Raises:
            DataError: the folder holds something else, or is in an object store.
        """
        if self.root.size(MARKER) is not None:
            return
        folder = self.root.writable()
        if folder is None:
            raise DataError(
                f"{self.root} has no {MARKER}: a set is drawn on a disk; name a folder there with "
                "data.root, or copy one here that was drawn there"
            )
        generate(folder, self.config)


def generate(root: str | Path, config: SyntheticCaptions.Config) -> Path:
    """Draw the data set into `root`, with equal files for equal arguments.

    Args:
        root: folder that is absent or empty; it appears only when it is complete.
        config: how much is drawn.

    Raises:
        DataError: `root` holds something else.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(
            f"{root} is not empty and has no {MARKER}: name another folder, or with data.name="
            "caption_files read what is there"
        )
    with folder_written_aside(root, MARKER) as aside:
        _write(aside, config)
    return root


def _write(root: Path, config: SyntheticCaptions.Config) -> None:
    counts = {split: getattr(config, f"{split}_videos") for split in SyntheticCaptions.splits}
    for name in ("videos", "images", BACKWARDS):
        (root / name).mkdir()
    chance = np.random.default_rng([config.drawing_seed, 0])
    number = 0
    for place, (split, scenes) in enumerate(deal(chance, counts).items(), start=1):
        rng = np.random.default_rng([config.drawing_seed, place])
        rows: list[dict[str, Any]] = []
        reverse: list[dict[str, Any]] = []
        for scene in scenes:
            name, frames = f"videos/{number:04d}.avi", draw(scene, rng)
            write_video(root / name, frames, RATE)
            rows.append({"video": name, "caption": scene.captions})
            if split == "test":
                name = f"{BACKWARDS}/{number:04d}.avi"
                write_video(root / name, frames[::-1], RATE)
                reverse.append({"video": name, "caption": scene.captions})
            number += 1
        if split == "train":
            rows += _images(root, config.train_images, rng)
        write_json(root / f"{split}.json", rows)
        if reverse:
            write_json(root / f"{BACKWARDS}.json", reverse)
    write_json(root / MARKER, {"settings": {key: getattr(config, key) for key in SETTINGS}})


def deal(rng: np.random.Generator, counts: Mapping[str, int]) -> dict[str, list[Scene]]:
    """Return the scenes of all splits; look and motion of held-out ones are not in training."""
    looks = [LOOKS[n] for n in rng.permutation(len(LOOKS))]
    pairs = pairs_of_motions()
    left = {look: [pairs[n] for n in rng.permutation(len(pairs))] for look in looks}
    turns, few = cycle(looks), MOTIONS_OF_LOOK // 2
    found: dict[str, list[Scene]] = {}
    for split in ("test", "val"):
        scenes: list[Scene] = []
        while len(scenes) < counts[split]:
            look = next(turns)
            taken, left[look] = left[look][:few], left[look][few:]
            scenes += [Scene(look, motion) for pair in taken for motion in pair]
        found[split] = scenes[: counts[split]]
    rest = [Scene(look, m) for look, pairs in left.items() for pair in pairs for m in pair]
    found["train"] = [rest[n] for n in _evenly(rng, len(rest), counts["train"])]
    return found


def _evenly(rng: np.random.Generator, options: int, count: int) -> Iterator[int]:
    """Yield numbers of options in a random order, none again before all have come."""
    for start in range(0, count, options):
        yield from rng.permutation(options)[: count - start].tolist()


def _images(root: Path, count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        look, name = LOOKS[number % len(LOOKS)], f"images/{number:04d}.png"
        radius = rng.uniform(*RADII)
        place = rng.uniform(radius + 1, SIZE_PX - radius - 1, size=(1, 2))
        Image.fromarray(_paint(look, place, radius, rng)[0]).save(root / name)
        rows.append({"image": name, "caption": [t.format(look=look) for t in LOOK_TEMPLATES]})
    return rows


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return the frames of a scene, uint8 (F, H, W, 3)."""
    radius = rng.uniform(*RADII)
    return _paint(scene.look, _path(scene.motion, radius, rng), radius, rng)


def _path(motion: Motion, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Return the centres (F, 2) in x and y; half of the frames for each move."""
    count = int(rng.integers(*LENGTHS))
    lengths = [SPEEDS[move.speed] + rng.uniform(-SPREAD, SPREAD) for move in motion]
    steps = [np.array(STEPS[move.direction]) for move in motion]
    knots = np.cumsum([np.zeros(2), *(n * step for n, step in zip(lengths, steps, strict=True))], 0)
    edge = radius + 0.5
    start = rng.uniform(edge - knots.min(axis=0), SIZE_PX - edge - knots.max(axis=0))
    times = np.linspace(0, 2, count)
    return np.stack([np.interp(times, range(3), start[n] + knots[:, n]) for n in range(2)], axis=1)


def _paint(look: str, path: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Return frames (F, H, W, 3) of a shape at the places (F, 2), over one texture."""
    color, shape = look.split()
    ground = _texture(rng)
    paint = np.array(COLORS[color]) + rng.normal(0, 8, size=3)
    down, across = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float32)
    x, y = (across - path[:, :1, None], down - path[:, 1:, None])  # (F, H, W)
    cover = np.clip(0.5 - _distance(shape, x, y, radius), 0, 1)[..., None]
    frames: np.ndarray = np.clip(ground + cover * (paint - ground), 0, 255).astype(np.uint8)
    return frames


def _distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Return by how many pixels points lie outside a shape; negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - 0.95 * radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.85 * radius
    sides = [np.pi / 2 + n * 2 * np.pi / 3 for n in range(3)]
    return np.max([np.cos(a) * x + np.sin(a) * y for a in sides], axis=0) - 0.62 * radius


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Return a picture (H, W, 3) of stripes and grain."""
    down, across = np.mgrid[:SIZE_PX, :SIZE_PX]
    turn, period, phase = rng.uniform(0, np.pi), rng.uniform(6, 20), rng.uniform(0, 2 * np.pi)
    waves = np.sin((across * np.cos(turn) + down * np.sin(turn)) * 2 * np.pi / period + phase)
    tint = rng.uniform(80, 150) + rng.uniform(-12, 12, size=3)
    grain = rng.normal(0, 6, size=(SIZE_PX, SIZE_PX, 1))
    texture: np.ndarray = tint + rng.uniform(6, 18) * waves[..., None] + grain
    return texture
