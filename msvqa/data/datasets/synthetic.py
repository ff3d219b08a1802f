"""Coloured shapes on drawn places, one of them moving: a small data set that needs its videos.

The files have the layout of MSVD-QA: mpeg4 `.avi` videos, question lists and the mapping of names.
Every answer is drawn evenly and independently of the others, so the words of a question alone are
worth no more than chance. Nothing depends on what happens late or early in a video, because models
see its clips as a set.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from msvqa.data.datasets.msvd_qa import MAPPING, MSVDQA
from msvqa.data.encoding import write_video
from msvqa.errors import DataError
from msvqa.files import folder_written_aside

WIDTH, HEIGHT = 96, 96
VIDEOS = {"train": 960, "val": 64, "test": 120}
NAME_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

SHAPES = ("circle", "ring", "cross", "bar")
COLORS = {
    "red": (225, 40, 45),
    "green": (45, 205, 75),
    "blue": (45, 75, 235),
    "yellow": (245, 225, 45),
}
CAST = {"red": "anna", "green": "ben", "blue": "clara", "yellow": "david"}
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
OUTLINE = (25, 25, 25)
RADII = (13.0, 19.0)
SMALLEST_RADIUS = 8.0
COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4}
PLACES = ("beach", "forest", "street", "room")
LIGHTS = {
    # Gain and offset of each colour channel.
    "morning": ((0.68, 0.72, 0.70), (62, 70, 78)),
    "noon": ((1.0, 1.0, 1.0), (0, 0, 0)),
    "evening": ((1.0, 0.68, 0.42), (18, 0, 0)),
    "night": ((0.46, 0.50, 0.74), (0, 0, 16)),
}

QUESTIONS = {
    "shape": ("what is moving?", "what moves?", "what shape is moving across the picture?"),
    "color": ("what color is moving?", "what color does the moving shape have?"),
    "name": ("who is moving?", "who moves?", "who is crossing the picture?"),
    "count": ("how many shapes are there?", "how many shapes are in the picture?"),
    "direction": ("how does it move?", "how is the shape moving?", "how does the shape move?"),
    "place": ("where is it?", "where does it happen?", "where is the shape moving?"),
    "light": ("when is it?", "when does it happen?", "when is the shape moving?"),
}
"""What is asked about every video, each in one of several ways."""


Light = Callable[[ArrayLike], np.ndarray]
"""Colours (..., 3) as the light shows them."""


@dataclass(frozen=True)
class Scene:
    """What a video shows, which is also what is asked about it."""

    shape: str
    color: str
    direction: str
    count: str
    place: str
    light: str

    @property
    def name(self) -> str:
        """The member of the cast who wears the colour of the moving shape."""
        return CAST[self.color]


@dataclass(frozen=True)
class Figure:
    """One drawn shape; positions and radius in pixels, angle in radians."""

    shape: str
    color: str
    x: float
    y: float
    radius: float
    angle: float


class Synthetic(MSVDQA):
    """The set at `root`, drawn there when the folder is absent or empty."""

    class Config(MSVDQA.Config):
        """How many videos are drawn; a set that exists is taken as it is."""

        name: str = "synthetic"
        train_videos: int = Field(default=VIDEOS["train"], ge=1)
        val_videos: int = Field(default=VIDEOS["val"], ge=1)
        test_videos: int = Field(default=VIDEOS["test"], ge=1)
        drawing_seed: int = Field(default=0, ge=0)
        """Chooses the videos and questions; independent of the seed of training."""

    config: Config

    def generate(self) -> None:
        """Draw the set unless it is there.

        Raises:
            DataError: the folder holds something else, or is in an object store.
        """
        if all(self.root.size(name) is not None for name in self.source_names()):
            return
        folder = self.root.writable()
        if folder is None:
            raise DataError(
                f"{self.root} has no generated data set, and one is drawn on a disk: name a folder "
                "there with data.root, or copy a set here that was drawn there"
            )
        sizes = {split: getattr(self.config, f"{split}_videos") for split in self.splits}
        generate(folder, self.config.drawing_seed, sizes)


def generate(root: str | Path, seed: int = 0, videos: Mapping[str, int] | None = None) -> Path:
    """Write the data set into `root`, with equal files for equal arguments.

    Args:
        root: folder that is absent or empty; it appears only when it is complete.
        seed: chooses scenes, drawings, names and phrasings.
        videos: number of videos of each split; `VIDEOS` where none is given.

    Raises:
        DataError: `root` holds something else.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} is not empty and has no annotations; name another folder")
    with folder_written_aside(root, MAPPING) as aside:
        _write(aside, seed, {**VIDEOS, **(videos or {})})
    return root


def _write(root: Path, seed: int, videos: Mapping[str, int]) -> None:
    (root / "video").mkdir()
    mapping, next_video, next_question = [], 1, 0
    for number, split in enumerate(VIDEOS):
        rng = np.random.default_rng([seed, number])
        rows: list[dict[str, Any]] = []
        for scene in _scenes(rng, videos[split]):
            stem = _stem(rng)
            _write_video(root / "video" / f"{stem}.avi", scene, rng)
            mapping.append(f"{stem} vid{next_video}")
            rows += _ask(scene, next_video, rng)
            next_video += 1
        for row in rows:
            row["id"] = next_question
            next_question += 1
        (root / f"{split}_qa.json").write_text(json.dumps(rows), encoding="utf-8")
    (root / MAPPING).write_text("\n".join(mapping), encoding="utf-8")


def _scenes(rng: np.random.Generator, count: int) -> Iterator[Scene]:
    """Draw scenes: the answers of a kind are equally frequent and independent of other kinds."""

    def evenly(options: Any) -> list[str]:
        options = tuple(options)
        chosen = [options[position % len(options)] for position in range(count)]
        return [chosen[position] for position in rng.permutation(count)]

    return map(
        Scene,
        evenly(SHAPES),
        evenly(COLORS),
        evenly(STEPS),
        evenly(COUNTS),
        evenly(PLACES),
        evenly(LIGHTS),
    )


def _stem(rng: np.random.Generator) -> str:
    """Return a file name like those of MSVD: eleven letters, first and last second of the cut."""
    letters = "".join(NAME_LETTERS[i] for i in rng.integers(len(NAME_LETTERS), size=11))
    start = int(rng.integers(0, 200))
    return f"{letters}_{start}_{start + int(rng.integers(3, 20))}"


def _ask(scene: Scene, video: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    kinds = list(QUESTIONS)
    questions = []
    for kind in (kinds[i] for i in rng.permutation(len(kinds))):
        text = QUESTIONS[kind][rng.integers(len(QUESTIONS[kind]))]
        answer = getattr(scene, kind)
        questions.append({"answer": answer, "id": -1, "question": text, "video_id": video})
    return questions


def _write_video(path: Path, scene: Scene, rng: np.random.Generator) -> None:
    rate = int(rng.integers(10, 31))
    write_video(path, _draw(scene, rng), Fraction(rate))


def _draw(scene: Scene, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) uint8."""
    frames = int(rng.integers(16, 25))
    mover, path = _route(scene, frames, rng)
    still = _background(scene.place, rng)
    for figure in _bystanders(mover, path, COUNTS[scene.count] - 1, rng):
        _paint(still, figure)
    exposure = rng.uniform(0.92, 1.08)
    gain, offset = (np.array(part) * exposure for part in LIGHTS[scene.light])

    def light(color: ArrayLike) -> np.ndarray:
        return np.asarray(np.asarray(color) * gain + offset, dtype=np.float32)

    # Light commutes with painting: once on all that stands, and on what the moving shape adds.
    still = light(still)
    for x, y in path:
        picture = still.copy()
        _paint(picture, replace(mover, x=x, y=y), light)
        yield np.clip(picture, 0, 255).astype(np.uint8)


def _route(scene: Scene, frames: int, rng: np.random.Generator) -> tuple[Figure, np.ndarray]:
    """Return the moving figure and its centre (frames, 2) in every frame."""
    radius = rng.uniform(*RADII)
    step = np.array(STEPS[scene.direction], dtype=np.float64)
    room = np.array([WIDTH, HEIGHT]) - 2 * radius
    start = int(rng.integers(0, 4))
    travelled = np.clip((np.arange(frames) - start) / (frames - 1 - start), 0, None)
    length = rng.uniform(0.65, 0.95) * room * np.abs(step)
    low = radius + rng.uniform(size=2) * (room - length)
    first = np.where(step < 0, low + length, low)
    path = first + travelled[:, None] * length * step
    angle = rng.uniform(-0.2, 0.2)
    return Figure(scene.shape, scene.color, path[0, 0], path[0, 1], radius, angle), path


def _bystanders(
    mover: Figure, path: np.ndarray, count: int, rng: np.random.Generator
) -> list[Figure]:
    """Draw figures that stand apart from each other and from the way of the moving one."""
    standing: list[Figure] = []
    radius = rng.uniform(*RADII)
    while len(standing) < count:
        x, y = rng.uniform(radius, [WIDTH - radius, HEIGHT - radius])
        clear = np.hypot(path[:, 0] - x, path[:, 1] - y).min() > mover.radius + radius + 3
        apart = all(np.hypot(f.x - x, f.y - y) > f.radius + radius + 3 for f in standing)
        if clear and apart:
            shape, color = rng.choice(SHAPES), rng.choice(list(COLORS))
            standing.append(Figure(shape, color, x, y, radius, rng.uniform(-0.2, 0.2)))
            radius = rng.uniform(*RADII)
        else:
            # Shrinking slowly, so that a crowded scene finds room in the end.
            radius = max(radius * 0.995, SMALLEST_RADIUS)
    return standing


def _paint(picture: np.ndarray, figure: Figure, light: Light = np.asarray) -> None:
    """Draw a figure with a dark outline and smooth edges into a float picture (H, W, 3)."""
    margin = figure.radius * 1.1 + 3
    top, bottom = max(int(figure.y - margin), 0), min(int(figure.y + margin) + 1, HEIGHT)
    left, right = max(int(figure.x - margin), 0), min(int(figure.x + margin) + 1, WIDTH)
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - figure.y
    x = np.arange(left, right, dtype=np.float32) - figure.x
    cosine, sine = np.cos(figure.angle), np.sin(figure.angle)
    outside = _distance(figure.shape, x * cosine + y * sine, y * cosine - x * sine, figure.radius)
    part = picture[top:bottom, left:right]
    for ink, edge in ((OUTLINE, 1.5), (COLORS[figure.color], 0.0)):
        cover = np.clip(0.5 + edge - outside, 0, 1)[..., None]
        part += cover * (light(ink) - part)


def _distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Return by how much points lie outside a shape; negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - radius * 0.9
    if shape == "ring":
        return np.abs(np.hypot(x, y) - radius * 0.72) - radius * 0.28
    level = np.maximum(np.abs(x) - radius, np.abs(y) - radius * 0.4)
    if shape == "bar":
        return level
    upright = np.maximum(np.abs(x) - radius * 0.4, np.abs(y) - radius)
    return np.minimum(level, upright)


def _background(place: str, rng: np.random.Generator) -> np.ndarray:
    """Return a picture (H, W, 3) float32 of a place; every drawing of it differs."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    shade = rng.uniform(-12, 12, size=3)
    horizon = HEIGHT * rng.uniform(0.3, 0.6)
    period, phase = rng.uniform(10, 22), rng.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi * x / period + phase)
    if place == "beach":
        upper, lower, mask = (120, 190, 235), (225, 205, 150), y > horizon + 3 * wave
    elif place == "forest":
        upper, lower, mask = (60, 115, 60), (85, 85, 50), wave > 0.4
    elif place == "street":
        dashes = (np.abs(y - horizon) < 3) & (wave > -0.2)
        upper, lower, mask = (115, 115, 120), (235, 235, 235), dashes
    else:
        tiles = wave * np.sin(2 * np.pi * y / period + phase) > 0
        upper, lower, mask = (190, 130, 165), (175, 112, 150), tiles
    picture = np.where(mask[..., None], np.array(lower), np.array(upper))
    grain = rng.normal(0, 5, size=(HEIGHT, WIDTH, 1))
    return np.asarray(picture + shade + grain, dtype=np.float32)
