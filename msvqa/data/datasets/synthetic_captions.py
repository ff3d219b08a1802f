"""A shape that moves twice over a texture, with captions: a small set that needs the order of time.

The layout is that of `caption_files`, and `caption_files` reads it too. A caption says what the
shape looks like, how fast it moves in which direction first, and how then. Every look comes with
every motion, and every motion beside the one that it is when played backwards: who sees one frame
finds one video of twelve, and who sees frames without their order confuses two. `backwards.json`
has the captions of the test with the same videos played backwards. Images beside the videos of
training have captions of looks alone; `pictures.json`, if it is wanted, has many more of these, for
a teacher that knows pictures better than those who have captions of videos.

Legend: F frames, H x W pixels.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice, product
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
BACKWARDS, PICTURES = "backwards", "pictures"
SIZE_PX, RATE, LENGTHS = 48, Fraction(12), (20, 29)
"""Height and width; frames a second; fewest frames and one more than most"""
RADII = (5.5, 6.5)

COLORS = {
    "red": (215, 45, 45), "green": (45, 185, 65), "blue": (55, 80, 225), "yellow": (235, 215, 50),
}  # fmt: skip
SHAPES = ("square", "ring", "cross")
STEPS = {"left": -1, "right": 1}
OPPOSITE = {"left": "right", "right": "left"}
SPEEDS = {"slowly": 5.0, "quickly": 14.0}
"""Pixels in half of a video, on the average"""
SPREAD, OFF_CENTRE = 1.0, np.array([2.0, 4.0])
ADJECTIVES = {"slowly": "slow", "quickly": "quick", "left": "leftward", "right": "rightward"}
"""Words for the first move; the second has adverbs, so that no word's place must be understood."""
TEMPLATES = (
    "after a {first} move the {look} goes {then}",
    "a {look} makes a {first} move, then it goes {then}",
    "a {first} move of a {look}, and then it runs {then}",
)
LOOKS = tuple(f"{color} {shape}" for color, shape in product(COLORS, SHAPES))
LOOK_TEMPLATES = ("a {look}", "a picture of a {look}")
SETTINGS = (
    "train_videos", "train_images", "pictures", "val_videos", "test_videos", "drawing_seed",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Move:
    """How a shape moves in half of a video."""

    speed: str
    direction: str

    @property
    def undone(self) -> "Move":
        """The same move played backwards."""
        return Move(self.speed, OPPOSITE[self.direction])


Motion = tuple[Move, Move]


def backwards(motion: Motion) -> Motion:
    """Return the motion that a video shows when it is played backwards."""
    first, then = motion
    return then.undone, first.undone


def motions() -> list[Motion]:
    """Return all motions but those that are their own when played backwards."""
    moves = [Move(speed, direction) for speed, direction in product(SPEEDS, STEPS)]
    return [motion for motion in product(moves, moves) if motion != backwards(motion)]


@dataclass(frozen=True)
class Scene:
    """What a video shows."""

    look: str
    motion: Motion

    @property
    def captions(self) -> list[str]:
        """What people may say of it."""
        before, after = self.motion
        first = f"{ADJECTIVES[before.speed]} {ADJECTIVES[before.direction]}"
        then = f"{after.speed} {after.direction}"
        return [text.format(look=self.look, first=first, then=then) for text in TEMPLATES]


class SyntheticCaptions(CaptionFiles):
    """The set at `root`, drawn there when the folder is absent or empty."""

    class Config(CaptionFiles.Config):
        """How much is drawn; a set that exists is taken as it is."""

        name: str = "synthetic_captions"
        train_videos: int = Field(default=1008, ge=1)
        train_images: int = Field(default=120, ge=0)
        pictures: int = Field(default=0, ge=0)
        """Images of `pictures.json`, which only those read who name it in `files`."""
        val_videos: int = Field(default=48, ge=1)
        test_videos: int = Field(default=96, ge=1)
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
    for name in ("videos", "images", BACKWARDS, PICTURES):
        (root / name).mkdir()
    number = 0
    for place, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng([config.drawing_seed, place])
        rows: list[dict[str, Any]] = []
        reverse: list[dict[str, Any]] = []
        for scene in deal(rng, count):
            name, frames = f"videos/{number:04d}.avi", draw(scene, rng)
            write_video(root / name, frames, RATE)
            rows.append({"video": name, "caption": scene.captions})
            if split == "test":
                name = f"{BACKWARDS}/{number:04d}.avi"
                write_video(root / name, frames[::-1], RATE)
                reverse.append({"video": name, "caption": scene.captions})
            number += 1
        if split == "train":
            rows += _images(root, "images", config.train_images, rng)
        write_json(root / f"{split}.json", rows)
        if reverse:
            write_json(root / f"{BACKWARDS}.json", reverse)
    rng = np.random.default_rng([config.drawing_seed, len(counts)])
    if config.pictures:
        write_json(root / f"{PICTURES}.json", _images(root, PICTURES, config.pictures, rng))
    write_json(root / MARKER, {"settings": {key: getattr(config, key) for key in SETTINGS}})


def deal(rng: np.random.Generator, count: int) -> list[Scene]:
    """Return scenes: all motions of a look, those of the next look, and so on, looks by chance."""
    looks = [LOOKS[n] for n in rng.permutation(len(LOOKS))]
    scenes = [Scene(look, motion) for look in looks for motion in motions()]
    return list(islice(cycle(scenes), count))


def _images(root: Path, folder: str, count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        look, name = LOOKS[number % len(LOOKS)], f"{folder}/{number:04d}.png"
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
    first, then = (n * STEPS[move.direction] for n, move in zip(lengths, motion, strict=True))
    moved = np.interp(np.linspace(0, 2, count), range(3), (-first, 0.0, then))
    # About the same place when half of the time is over: the frame in the middle tells nothing.
    across, down = SIZE_PX / 2 + rng.uniform(-1, 1, size=2) * OFF_CENTRE
    return np.stack([across + moved, np.full(count, down)], axis=1)


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
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.85 * radius
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.75 * radius) - 0.25 * radius
    across = np.maximum(np.abs(x) - radius, np.abs(y) - 0.3 * radius)
    return np.minimum(across, np.maximum(np.abs(x) - 0.3 * radius, np.abs(y) - radius))


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Return a picture (H, W, 3) of stripes and grain."""
    down, across = np.mgrid[:SIZE_PX, :SIZE_PX]
    turn, period, phase = rng.uniform(0, np.pi), rng.uniform(6, 20), rng.uniform(0, 2 * np.pi)
    waves = np.sin((across * np.cos(turn) + down * np.sin(turn)) * 2 * np.pi / period + phase)
    tint = rng.uniform(80, 150) + rng.uniform(-12, 12, size=3)
    grain = rng.normal(0, 6, size=(SIZE_PX, SIZE_PX, 1))
    texture: np.ndarray = tint + rng.uniform(6, 18) * waves[..., None] + grain
    return texture
