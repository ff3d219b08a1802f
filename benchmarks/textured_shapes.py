"""Shapes over textures, one of them moving: a small data set that the package does not know.

The files have the layout of MSVD-QA. Nothing is shared with the data set that the package itself
draws (`msvqa.data.datasets.synthetic`), so that settings which only suit that one show here.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw

VIDEOS = {"train": 160, "val": 40, "test": 160}
WIDTH, HEIGHT = 128, 96
FINER = 3
"""Shapes are drawn so many times larger, for smooth edges"""
FRAMES = (24, 40)
SHAPES = ("disc", "square", "triangle", "star")
COLORS = {
    "orange": (235, 140, 30),
    "purple": (150, 50, 190),
    "green": (50, 170, 60),
    "white": (240, 240, 240),
}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
COUNTS = {"one": 1, "two": 2, "three": 3}
QUESTIONS = {
    "color": ("what color has the shape that moves?", "which color is the moving shape?"),
    "shape": ("what is moving?", "which shape moves over the picture?"),
    "count": ("how many shapes can be seen?", "how many shapes are in the video?"),
    "direction": ("where does the shape go?", "in which direction does it move?"),
}
"""What is asked about every video, each in one of two ways"""


@dataclass(frozen=True)
class Scene:
    """What a video shows, which is also what is asked about it."""

    color: str
    shape: str
    count: str
    direction: str


@dataclass(frozen=True)
class Piece:
    """One shape of a scene and how large it is."""

    shape: str
    color: str
    radius: float
    angle: float


def generate(root: Path, seed: int = 0, videos: Mapping[str, int] | None = None) -> None:
    """Write the data set into `root`, with equal scenes for equal arguments."""
    (root / "video").mkdir(parents=True)
    mapping: list[str] = []
    questions = 0
    for number, (split, count) in enumerate({**VIDEOS, **(videos or {})}.items()):
        rng = np.random.default_rng([seed, number])
        rows: list[dict[str, Any]] = []
        for scene in _scenes(rng, count):
            video = len(mapping) + 1
            mapping.append(f"clip_{video:04d} vid{video}")
            _write_video(root / "video" / f"clip_{video:04d}.avi", scene, rng)
            for kind, texts in QUESTIONS.items():
                text, answer = str(rng.choice(texts)), getattr(scene, kind)
                row = {"id": questions, "video_id": video, "question": text, "answer": answer}
                rows.append(row)
                questions += 1
        (root / f"{split}_qa.json").write_text(json.dumps(rows), encoding="utf-8")
    (root / "youtube_mapping.txt").write_text("\n".join(mapping) + "\n", encoding="utf-8")


def kind_of(question: str) -> str:
    """Return which kind of question a text is."""
    return next(kind for kind, texts in QUESTIONS.items() if question in texts)


def _scenes(rng: np.random.Generator, count: int) -> Iterator[Scene]:
    """Draw scenes: the answers of a kind are equally frequent and independent of other kinds."""
    kinds = (COLORS, SHAPES, COUNTS, DIRECTIONS)
    columns = [rng.permutation(np.resize(np.array(list(kind)), count)) for kind in kinds]
    return (Scene(*map(str, row)) for row in zip(*columns, strict=True))


def _write_video(path: Path, scene: Scene, rng: np.random.Generator) -> None:
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=Fraction(int(rng.integers(12, 26))))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 1_500_000
        stream.codec_context.thread_count = 1
        for picture in _draw(scene, rng):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _draw(scene: Scene, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) uint8."""
    frames = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
    mover = _piece(rng, scene.shape, scene.color)
    path = _path(rng, mover.radius, DIRECTIONS[scene.direction], frames)
    still = Image.fromarray(_texture(rng))
    for piece, place in _standing(rng, mover, path, COUNTS[scene.count] - 1):
        _paint(still, piece, place)
    for place in path:
        picture = still.copy()
        _paint(picture, mover, place)
        noisy = np.asarray(picture) + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
        yield np.clip(noisy, 0, 255).astype(np.uint8)


def _piece(rng: np.random.Generator, shape: str, color: str) -> Piece:
    return Piece(shape, color, float(rng.uniform(13, 19)), float(rng.uniform(-0.3, 0.3)))


def _path(
    rng: np.random.Generator, radius: float, direction: tuple[int, int], frames: int
) -> np.ndarray:
    """Return the centres (frames, 2): a straight way at an even speed, with a slight drift."""
    step, room = np.array(direction, float), np.array([WIDTH, HEIGHT]) - 2 * radius - 4
    reach = room * np.where(step == 0, 0.08, rng.uniform(0.6, 0.95))
    signs = np.where(step == 0, rng.choice([-1, 1]), step)
    low = radius + 2 + rng.uniform(size=2) * (room - reach)
    first = np.where(signs < 0, low + reach, low)
    moved: np.ndarray = first + np.linspace(0, 1, frames)[:, None] * reach * signs
    return moved


def _standing(
    rng: np.random.Generator, mover: Piece, path: np.ndarray, count: int
) -> list[tuple[Piece, np.ndarray]]:
    """Draw pieces that stand still, apart from each other and from the way of the moving one."""
    chosen: list[tuple[Piece, np.ndarray]] = []
    shrunk = 1.0
    while len(chosen) < count:
        shrunk *= 0.998
        full = _piece(rng, str(rng.choice(SHAPES)), str(rng.choice(list(COLORS))))
        piece = Piece(full.shape, full.color, full.radius * shrunk, full.angle)
        place = rng.uniform(piece.radius, [WIDTH - piece.radius, HEIGHT - piece.radius])
        others = [(mover.radius, path)] + [(p.radius, at[None]) for p, at in chosen]
        gaps = [np.hypot(*(at - place).T).min() - radius for radius, at in others]
        if min(gaps) > piece.radius + 2:
            chosen.append((piece, place))
    return chosen


def _paint(picture: Image.Image, piece: Piece, place: np.ndarray) -> None:
    size = 2 * int(piece.radius + 2)
    mask = Image.new("L", (size * FINER, size * FINER))
    left, top = np.floor(place).astype(int) - size // 2
    centre = (place - (left, top)) * FINER
    corners = centre + _outline(piece.shape, piece.angle) * piece.radius * FINER
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners], fill=255)
    mask = mask.resize((size, size), Image.Resampling.BOX)
    picture.paste(COLORS[piece.color], (int(left), int(top)), mask)


def _outline(shape: str, angle: float) -> np.ndarray:
    """Return the corners (N, 2) of a shape of radius 1."""
    corners = {"disc": 32, "square": 4, "triangle": 3, "star": 10}[shape]
    turn = np.arange(corners) * 2 * np.pi / corners + angle - np.pi / 2
    length = np.where(np.arange(corners) % 2, 0.42, 1.0) if shape == "star" else 1.0
    return np.stack([np.cos(turn) * length, np.sin(turn) * length], axis=1)


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Return a picture (H, W, 3) uint8: clouds of two grains, and stripes in any direction."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    turn, period = rng.uniform(0, np.pi), rng.uniform(6, 30)
    waves = np.sin((x * np.cos(turn) + y * np.sin(turn)) * 2 * np.pi / period)
    field = rng.uniform(4, 14) * waves[..., None] + rng.uniform(80, 150)
    field = field + rng.uniform(-20, 20, size=3)
    for cells in (6, 24):
        grain = rng.normal(0, 9, size=(cells, cells, 3)).clip(-40, 40) + 128
        cloud = Image.fromarray(grain.astype(np.uint8)).resize(
            (WIDTH, HEIGHT), Image.Resampling.BICUBIC
        )
        field = field + np.asarray(cloud, float) - 128
    picture: np.ndarray = np.clip(field, 0, 255).astype(np.uint8)
    return picture
