"""A drawn data set of the shape of MSVD-QA: as many videos, of that size, and as many questions.

Some videos are encoded one by one; all others are packets of those in files of their own, which
differ in the title of the container. So every file has to be read and decoded, none is equal to
another byte for byte, and drawing all takes minutes.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

VIDEOS = {"train": 1_200, "val": 250, "test": 520}
QUESTIONS = {"train": 30_933, "val": 6_415, "test": 13_157}
FIRST_ID = {"train": 1, "val": 1_201, "test": 1_451}
"""Of the videos of a split, as published"""
MAPPING = "youtube_mapping.txt"
WIDTH, HEIGHT = 320, 240
FRAMES, RATES = (250, 300), (25, 30)
BITS_PER_S = 700_000
ENCODED = 200
"""So many videos have pixels of their own."""
FEWEST_QUESTIONS = 5
SPREAD = 6.0
"""Of the questions of a video: 5 to about 60 at this concentration, and 5 to 63 as published"""
FIRST_WORDS = {"what": 0.63, "who": 0.34, "how": 0.022, "when": 0.005, "where": 0.003}
WORDS, ANSWERS, LENGTHS = 4_800, 1_850, (3, 9)

Row = dict[str, Any]
Rows = Mapping[str, list[Row]]


@dataclass(frozen=True)
class Shape:
    """How many videos and questions each split has."""

    videos: Mapping[str, int]
    questions: Mapping[str, int]
    encoded: int = ENCODED

    @property
    def size(self) -> int:
        """Videos of all splits."""
        return sum(self.videos.values())

    def part(self, videos: int) -> "Shape":
        """Return a shape of so many videos with their share of the questions."""
        share = videos / self.size
        counts = [
            {split: round(count * share) for split, count in of.items()}
            for of in (self.videos, self.questions)
        ]
        return Shape(*counts, min(self.encoded, videos))

    def ids(self, split: str) -> range:
        """Return the ids of the videos of a split, which are those of MSVD-QA."""
        return range(FIRST_ID[split], FIRST_ID[split] + self.videos[split])


WHOLE = Shape(VIDEOS, QUESTIONS)


def generate(root: Path, shape: Shape, annotations: Path | None = None) -> Rows:
    """Write videos and questions in the layout of MSVD-QA; return the questions of each split.

    Args:
        root: a new folder.
        shape: how many of both.
        annotations: folder with the published files: their questions about the videos of `shape`
            are taken and none is drawn.
    """
    folder = root / "video"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    stems = _stems(shape, annotations)
    (root / MAPPING).write_text(
        "".join(f"{stem} vid{video}\n" for video, stem in stems.items()), encoding="utf-8"
    )
    rows = draw_questions(shape, rng) if annotations is None else _published(shape, annotations)
    for split, asked in rows.items():
        (root / f"{split}_qa.json").write_text(json.dumps(asked), encoding="utf-8")
    files = [folder / f"{stem}.avi" for stem in stems.values()]
    for number, file in enumerate(files):
        if number < shape.encoded:
            _encode(file, rng)
        else:
            _copy(files[number % shape.encoded], file, title=f"copy {number}")
    return rows


def mapping(root: Path) -> dict[int, str]:
    """Return the name of the file of every video without its ending, by id."""
    lines = (root / MAPPING).read_text(encoding="utf-8").splitlines()
    return {int(video.removeprefix("vid")): stem for stem, video in map(str.split, lines)}


# Questions


def draw_questions(shape: Shape, rng: np.random.Generator) -> dict[str, list[Row]]:
    """Return random words as questions and answers, as often as those of MSVD-QA on the whole."""
    rows: dict[str, list[Row]] = {}
    number = 0
    for split, questions in shape.questions.items():
        counts = _questions_of_videos(shape.videos[split], questions, rng)
        about = np.repeat(shape.ids(split), counts)
        texts = zip(_texts(questions, rng), _ranked(ANSWERS, questions, rng), strict=True)
        rows[split] = [
            {
                "id": number + place,
                "video_id": int(video),
                "question": text,
                "answer": f"answer{answer}",
            }
            for place, (video, (text, answer)) in enumerate(zip(about, texts, strict=True))
        ]
        number += questions
    return rows


def _questions_of_videos(videos: int, questions: int, rng: np.random.Generator) -> np.ndarray:
    shares = rng.dirichlet(np.full(videos, SPREAD))
    drawn: np.ndarray = rng.multinomial(questions - FEWEST_QUESTIONS * videos, shares)
    return FEWEST_QUESTIONS + drawn


def _texts(count: int, rng: np.random.Generator) -> Iterator[str]:
    chances = np.array([*FIRST_WORDS.values()])
    firsts = rng.choice([*FIRST_WORDS], size=count, p=chances / chances.sum())
    lengths = rng.integers(*LENGTHS, size=count)
    words = _ranked(WORDS, int(lengths.sum()), rng)
    for first, length, end in zip(firsts, lengths, np.cumsum(lengths), strict=True):
        yield " ".join([first, *(f"word{word}" for word in words[end - length : end])]) + "?"


def _ranked(kinds: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return numbers (count,) below `kinds`, of which each is rarer than the one before it."""
    chances = 1 / (np.arange(kinds) + 5)
    numbers: np.ndarray = rng.choice(kinds, size=count, p=chances / chances.sum())
    return numbers


def _published(shape: Shape, annotations: Path) -> dict[str, list[Row]]:
    rows = {}
    for split in shape.videos:
        found = json.loads((annotations / f"{split}_qa.json").read_text(encoding="utf-8"))
        rows[split] = [row for row in found if row["video_id"] in shape.ids(split)]
    return rows


def _stems(shape: Shape, annotations: Path | None) -> dict[int, str]:
    """Return the name of the file of every video, by id."""
    ids = [video for split in shape.videos for video in shape.ids(split)]
    if annotations is None:
        return {video: f"clip_{video:04d}" for video in ids}
    named = mapping(annotations)
    return {video: named[video] for video in ids}


# Videos


def _encode(file: Path, rng: np.random.Generator) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=int(rng.integers(RATES[0], RATES[1] + 1)))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = BITS_PER_S
        stream.codec_context.thread_count = 1
        for picture in _pictures(int(rng.integers(FRAMES[0], FRAMES[1] + 1)), rng):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _pictures(frames: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) uint8: a camera passes over a wall, a patch goes its own way."""
    cells = rng.integers(0, 256, (2 * HEIGHT // 16, 2 * WIDTH // 16, 3))
    wall = np.kron(cells, np.ones((16, 16, 1), np.int64)).astype(np.int16)
    grain = rng.normal(0, 6, (8, HEIGHT, WIDTH, 3)).astype(np.int16)
    patch = rng.integers(0, 256, 3)
    ways = rng.uniform(0, 1, (4, 2))
    for number, place in enumerate(np.linspace(0, 1, frames)[:, None]):
        camera, left = ways[0] + place * (ways[1] - ways[0]), ways[2] + place * (ways[3] - ways[2])
        top, side = (camera * (HEIGHT, WIDTH)).astype(int)
        picture = wall[top : top + HEIGHT, side : side + WIDTH].copy()
        y, x = (left * (HEIGHT - 60, WIDTH - 60)).astype(int)
        picture[y : y + 60, x : x + 60] = patch
        yield (picture + grain[number % len(grain)]).clip(0, 255).astype(np.uint8)


def _copy(source: Path, target: Path, title: str) -> None:
    """Write the packets of a video into another file, whose header has a title."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        written.metadata["title"] = title
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)
