"""A shape that moves over a texture, with captions: a small set that needs looks and time.

The layout is that of `caption_files`, and `caption_files` reads it too. A caption says what the
shape looks like and where it goes. There are few videos, and many looks that are much alike; every
look comes with every direction, all about the middle of the frame: who sees one frame finds one
video of four, and who sees frames without their order confuses two. `backwards.json` has the
captions of the test with the same videos played backwards. `pictures.json` has images by the
thousand, with captions that say looks and places, for a teacher of single frames: from them looks
are learned, and what the words of directions are about, and nothing of time. Every row names the
color, shape, direction or place that its captions say, see `kinds` of `caption_files`.

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
from msvqa.files import folder_written_aside, read_json, write_json

MARKER = "generated.json"
"""Written last, with the settings of the set."""
VERSION = 2
"""Of what is drawn: the same settings gave other sets before."""
BACKWARDS, PICTURES = "backwards", "pictures"
SIZE_PX, RATE, LENGTHS = 48, Fraction(12), (20, 29)
"""Height and width; frames a second; fewest frames and one more than most"""
RADII = (7.5, 8.5)

COLORS = {
    "red": (215, 45, 45), "green": (45, 185, 65), "blue": (55, 80, 225), "yellow": (235, 215, 50),
}  # fmt: skip
SHAPES = ("square", "disc", "ring", "diamond", "cross", "saltire")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
REACH, OFF_CENTRE = (11.0, 13.0), 2.0
"""Pixels from the middle of a way to its ends, and at most from there to the frame's middle."""
FAR, JITTER = (7.0, 13.0), 4.0
"""Pixels from the middle of a picture to a place that has a name, and at most from there."""
TEMPLATES = (
    "a {look} goes {direction}",
    "the {look} is moving {direction}",
    "here a {look} runs {direction}",
)
LOOKS = tuple(f"{color} {shape}" for color, shape in product(COLORS, SHAPES))
PICTURE_TEMPLATES = ("a {look}", "a picture of a {look}")
PLACES = ("", *DIRECTIONS)
"""Where things are in pictures; about the middle there is no word for it."""
SETTINGS = (
    "train_videos", "train_images", "pictures", "val_videos", "test_videos", "drawing_seed",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What a video shows."""

    look: str
    direction: str

    @property
    def captions(self) -> list[str]:
        """What people may say of it."""
        return [text.format(look=self.look, direction=self.direction) for text in TEMPLATES]

    @property
    def kinds(self) -> dict[str, str]:
        """What its captions say, by kinds of words."""
        return kinds_of(self.look) | {"direction": self.direction}


def kinds_of(look: str) -> dict[str, str]:
    """Return the words of a look by their kinds."""
    return dict(zip(("color", "shape"), look.split(), strict=True))


class SyntheticCaptions(CaptionFiles):
    """The set at `root`, drawn there when the folder is absent or empty."""

    class Config(CaptionFiles.Config):
        """How much is drawn; a set of this version that exists is taken as it is."""

        name: str = "synthetic_captions"
        train_videos: int = Field(default=384, ge=1)
        train_images: int = Field(default=0, ge=0)
        """Images beside the videos of `train.json`."""
        pictures: int = Field(default=4000, ge=0)
        """Images of `pictures.json`, which only those read who name it in `files` or
        `preferred`."""
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
            self._refuse_other_version()
            return
        folder = self.root.writable()
        if folder is None:
            raise DataError(
                f"{self.root} has no {MARKER}: a set is drawn on a disk; name a folder there with "
                "data.root, or copy one here that was drawn there"
            )
        generate(folder, self.config)

    def _refuse_other_version(self) -> None:
        marker = self.root.source(MARKER)
        if (read_json(marker.path) or {}).get("version") != VERSION:
            raise DataError(
                f"{marker} is of a set that another version has drawn: name another data.root, or "
                "remove the folder"
            )


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
            rows.append({"video": name, "caption": scene.captions, "kinds": scene.kinds})
            if split == "test":
                name = f"{BACKWARDS}/{number:04d}.avi"
                write_video(root / name, frames[::-1], RATE)
                reverse.append({"video": name, "caption": scene.captions, "kinds": scene.kinds})
            number += 1
        if split == "train":
            rows += _images(root, "images", config.train_images, rng)
        write_json(root / f"{split}.json", rows)
        if reverse:
            write_json(root / f"{BACKWARDS}.json", reverse)
    rng = np.random.default_rng([config.drawing_seed, len(counts)])
    if config.pictures:
        write_json(root / f"{PICTURES}.json", _images(root, PICTURES, config.pictures, rng))
    settings = {key: getattr(config, key) for key in SETTINGS}
    write_json(root / MARKER, {"version": VERSION, "settings": settings})


def deal(rng: np.random.Generator, count: int) -> list[Scene]:
    """Return scenes: all directions of a look, of the next look, and so on, looks by chance."""
    looks = [LOOKS[n] for n in rng.permutation(len(LOOKS))]
    scenes = [Scene(look, direction) for look in looks for direction in DIRECTIONS]
    return list(islice(cycle(scenes), count))


def _images(root: Path, folder: str, count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        look, name = LOOKS[number % len(LOOKS)], f"{folder}/{number:04d}.png"
        place, radius = PLACES[rng.integers(len(PLACES))], rng.uniform(*RADII)
        where = SIZE_PX / 2 + rng.uniform(-JITTER, JITTER, size=2)
        if place:
            where += np.array(DIRECTIONS[place]) * rng.uniform(*FAR)
        where = np.clip(where, radius, SIZE_PX - radius)
        Image.fromarray(_paint(look, where[None], radius, rng)[0]).save(root / name)
        told = f"{look} far {place}" if place else look
        kinds = kinds_of(look) | ({"place": place} if place else {})
        captions = [text.format(look=told) for text in PICTURE_TEMPLATES]
        rows.append({"image": name, "caption": captions, "kinds": kinds})
    return rows


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return the frames of a scene, uint8 (F, H, W, 3)."""
    radius = rng.uniform(*RADII)
    return _paint(scene.look, _path(scene.direction, rng), radius, rng)


def _path(direction: str, rng: np.random.Generator) -> np.ndarray:
    """Return the centres (F, 2) in x and y."""
    count = int(rng.integers(*LENGTHS))
    # About the same place when half of the time is over: the frame in the middle tells nothing.
    middle = SIZE_PX / 2 + rng.uniform(-OFF_CENTRE, OFF_CENTRE, size=2)
    moved = np.linspace(-1, 1, count)[:, None] * rng.uniform(*REACH)  # (F, 1)
    path: np.ndarray = middle + moved * np.array(DIRECTIONS[direction])
    return path


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
    if shape == "disc":
        return np.hypot(x, y) - 0.95 * radius
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.75 * radius) - 0.25 * radius
    if shape == "diamond":
        return (np.abs(x) + np.abs(y) - 1.2 * radius) / np.sqrt(2)
    if shape == "saltire":
        x, y = (x + y) / np.sqrt(2), (x - y) / np.sqrt(2)
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
