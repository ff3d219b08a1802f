"""A small generated set of videos and pairs."""

from pathlib import Path
from typing import Any

from msvqa.data.datasets.synthetic_similarity import SyntheticSimilarity, generate

SIZES = {
    "pointwise_videos": 40, "pairwise_videos": 48, "pairs": 60, "test_videos": 24,
    "test_pairs": 20, "width": 16,
}  # fmt: skip


def config_of(root: Path, **fields: Any) -> SyntheticSimilarity.Config:
    """Return the data section of a small set."""
    place = {"root": str(root), "prepared": str(root.parent / f"{root.name}-prepared")}
    return SyntheticSimilarity.Config(**{**place, **SIZES, **fields})


def write_similar(root: Path, **fields: Any) -> SyntheticSimilarity.Config:
    """Write a small set and return its data section."""
    config = config_of(root, **fields)
    generate(root, config)
    return config
