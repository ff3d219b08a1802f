"""Videos made of two topics, one seen and one read: a small set that needs both to tell likeness.

The files have the layout of `qq_browser`. What a video is about is a direction that belongs to the
pair of its topics; only a part of it is the sum of what each topic means by itself. So frames
alone, and titles alone, tell a little of how alike two videos are, and both together nearly all.

Legend: F topics of frames, G of titles, L directions, D numbers of a frame.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from msvqa.data.datasets.qq_browser import LABELS, TAGS, QQBrowser
from msvqa.data.records import as_example, write_records
from msvqa.errors import DataError
from msvqa.files import folder_written_aside

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FIRST_CHARACTER = 0x4E00
"""The words of titles are single Chinese characters: for BERT and for RoFormer a piece each."""
TOPICS, DIRECTIONS = 8, 6
WORDS_OF_TOPIC, TITLE_WORDS, OWN_WORDS = 8, 8, 0.8
"""Characters that a topic has for itself; characters of a title; the part of them from its topic"""
MOST_FRAMES = 12
ALONE = 0.7
"""How much each topic means by itself, beside 1 for what both mean together."""
TAGS_KNOWN, TAGS_GIVEN = 40, 4
BLOCK, LEVELS, LABEL_NOISE = 24, 20, 0.02
"""Pairs are of videos of one block, so that folds need not cut many; values that labels take."""
FIRST_ID = 2_300_000_000_000_000_000


class SyntheticSimilarity(QQBrowser):
    """The set at `root`, written there when the folder is absent or empty."""

    class Config(QQBrowser.Config):
        """How much is made; a set that exists is taken as it is."""

        name: str = "synthetic_similarity"
        pointwise_videos: int = Field(default=3000, ge=1)
        pairwise_videos: int = Field(default=2400, ge=BLOCK)
        pairs: int = Field(default=6000, ge=1)
        test_videos: int = Field(default=600, ge=BLOCK)
        test_pairs: int = Field(default=1500, ge=1)
        width: int = Field(default=64, ge=8, le=4096)
        """D"""
        drawing_seed: int = Field(default=0, ge=0)
        """Chooses topics, frames, titles and pairs; independent of the seed of training."""

    config: Config

    def generate(self) -> None:
        """Write the set unless it is there.

        Raises:
            DataError: the folder holds something else, or is in an object store.
        """
        if self.root.size(TAGS) is not None:
            return
        folder = self.root.writable()
        if folder is None:
            raise DataError(
                f"{self.root} has no generated data set, and one is written on a disk: name a "
                "folder there with data.root, or copy a set here that was written there"
            )
        generate(folder, self.config)


@dataclass(frozen=True)
class World:
    """What topics mean, and how they look and read."""

    meaning: np.ndarray
    """(F, G, L) unit vectors"""
    look: np.ndarray
    """(F, D) mean frames"""
    words: list[str]
    """All characters; those of topic g begin at g · `WORDS_OF_TOPIC`."""
    tags: np.ndarray
    """(`TAGS_KNOWN`, L) directions of the tags"""

    @classmethod
    def of(cls, seed: int, width: int) -> "World":
        """Draw a world."""
        rng = np.random.default_rng([seed, 0])
        seen, read = (_units(rng, TOPICS, DIRECTIONS) for _ in range(2))
        both = _units(rng, TOPICS * TOPICS, DIRECTIONS).reshape(TOPICS, TOPICS, DIRECTIONS)
        meaning = both + ALONE * (seen[:, None] + read[None])
        # Activations of a network: small, some large, as the published ones.
        pattern = seen @ rng.normal(size=(DIRECTIONS, width)) / np.sqrt(DIRECTIONS)
        return cls(
            meaning=meaning / np.linalg.norm(meaning, axis=-1, keepdims=True),
            look=0.08 + 0.25 * pattern,
            words=[chr(FIRST_CHARACTER + n) for n in range(TOPICS * WORDS_OF_TOPIC)],
            tags=_units(rng, TAGS_KNOWN, DIRECTIONS),
        )


@dataclass(frozen=True)
class Videos:
    """n videos of one part."""

    ids: list[str]
    seen: np.ndarray
    """(n,) topics of the frames"""
    read: np.ndarray
    """(n,) topics of the titles"""

    @classmethod
    def drawn(cls, rng: np.random.Generator, first: int, count: int) -> "Videos":
        """Draw videos whose ids are numbers from `first` on."""
        ids = [str(FIRST_ID + first + n) for n in range(count)]
        return cls(ids, rng.integers(TOPICS, size=count), rng.integers(TOPICS, size=count))


def generate(root: str | Path, config: SyntheticSimilarity.Config) -> Path:
    """Write the data set into `root`, with equal files for equal arguments.

    Args:
        root: folder that is absent or empty; it appears only when it is complete.
        config: how much is made.

    Raises:
        DataError: `root` holds something else.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} is not empty and has no {TAGS}; name another folder")
    with folder_written_aside(root, TAGS) as aside:
        _write(aside, config)
    return root


def _write(root: Path, config: SyntheticSimilarity.Config) -> None:
    world = World.of(config.drawing_seed, config.width)
    counts = {
        "pointwise": (config.pointwise_videos, 0),
        "pairwise": (config.pairwise_videos, config.pairs),
        "test_a": (config.test_videos, 0),
        "test_b": (config.test_videos, config.test_pairs),
    }
    first = 0
    for number, (part, (count, pairs)) in enumerate(counts.items(), start=1):
        rng = np.random.default_rng([config.drawing_seed, number])
        videos = Videos.drawn(rng, first, count)
        (root / part).mkdir()
        name = "pretrain_0" if part == "pointwise" else part
        tagged = not part.startswith("test")
        write_records(root / part / f"{name}.tfrecords", _records(world, videos, rng, tagged))
        if pairs:
            lines = _labels(world, videos, rng, pairs)
            (root / part / LABELS).write_text("".join(lines), encoding="utf-8")
        first += count
    # Not in order: the columns of models are in that of the numbers.
    tags = np.random.default_rng(config.drawing_seed).permutation(_tag_ids())
    (root / "text").mkdir()
    pieces = [*PIECES, *world.words]
    (root / "text" / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    model = {"model_type": "bert", "vocab_size": len(pieces)}
    (root / "text" / "config.json").write_text(json.dumps(model, indent=1), encoding="utf-8")
    (root / TAGS).write_text("".join(f"{tag}\n" for tag in tags), encoding="utf-8")


def _records(
    world: World, videos: Videos, rng: np.random.Generator, tagged: bool
) -> Iterator[bytes]:
    for video, seen, read in zip(videos.ids, videos.seen, videos.read, strict=True):
        n, width = int(rng.integers(3, MOST_FRAMES + 1)), world.look.shape[1]
        own = world.look[seen] + 0.1 * rng.normal(size=width)
        frames = own + 0.13 * rng.normal(size=(n, width))
        features: dict[str, list[bytes | int | float]] = {
            "id": [video.encode()],
            "title": [_title(world, int(read), rng).encode()],
            "frame_feature": [frame.tobytes() for frame in frames.astype("<f2")],
            "asr_text": [b"nan"],
        }
        if tagged:
            scores = world.tags @ world.meaning[seen, read] + 0.1 * rng.normal(size=TAGS_KNOWN)
            features["tag_id"] = [_tag_ids()[tag] for tag in np.argsort(-scores)[:TAGS_GIVEN]]
            features["category_id"] = [10_100 + int(seen)]
        yield as_example(features)


def _title(world: World, topic: int, rng: np.random.Generator) -> str:
    own = topic * WORDS_OF_TOPIC + rng.integers(WORDS_OF_TOPIC, size=TITLE_WORDS)
    other = rng.integers(len(world.words), size=TITLE_WORDS)
    chosen = np.where(rng.random(TITLE_WORDS) < OWN_WORDS, own, other)
    return "".join(world.words[word] for word in chosen)


def _labels(world: World, videos: Videos, rng: np.random.Generator, count: int) -> Iterator[str]:
    meaning = world.meaning[videos.seen, videos.read]
    blocks = len(videos.ids) // BLOCK
    seen: set[tuple[int, int]] = set()
    possible = blocks * BLOCK * (BLOCK - 1) // 2
    if count > possible // 2:
        raise DataError(f"{count} different pairs of {len(videos.ids)} videos are too many")
    while len(seen) < count:
        block = int(rng.integers(blocks)) * BLOCK
        a, b = (block + int(n) for n in rng.choice(BLOCK, size=2, replace=False))
        if (min(a, b), max(a, b)) in seen:
            continue
        seen.add((min(a, b), max(a, b)))
        likeness = (1 + meaning[a] @ meaning[b]) / 2 + LABEL_NOISE * rng.normal()
        label = np.clip(np.round(LEVELS * likeness) / LEVELS, 0, 1)
        yield f"{videos.ids[a]}\t{videos.ids[b]}\t{label:g}\n"


def _tag_ids() -> list[int]:
    return [1_000 + 37 * tag for tag in range(TAGS_KNOWN)]


def _units(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    vectors = rng.normal(size=(count, size))
    units: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units
