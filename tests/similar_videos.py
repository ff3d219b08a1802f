"""A small generated set of videos and pairs."""

from pathlib import Path
from typing import Any

from msvqa.data.datasets.synthetic_similarity import SyntheticSimilarity, generate
from msvqa.recipe import Recipe, load

RECIPES = Path(__file__).parents[1] / "configs" / "similarity"

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


def small_recipe(root: Path, runs: Path, model: str, *overrides: str) -> Recipe:
    """Return a shipped recipe for a small set, of few steps, which reads records directly."""
    dealt = ["stages.finetune.folds.by=example"]
    short = [
        f"stages.{stage}.{field}"
        for stage in ("pretrain", "finetune")
        for field in (
            "steps=6", "batch.examples=8", "checkpoint.every_steps=2", "validate.every_steps=4",
        )
    ]  # fmt: skip
    place = [f"data.root={root}", f"data.prepared={root.parent}/prepared", f"runs={runs}"]
    sizes = [f"data.{key}={value}" for key, value in SIZES.items()]
    read = [f"processor.width={SIZES['width']}", "processor.cache=none"]
    return load(RECIPES / f"{model}.yaml", [*place, *sizes, *read, *dealt, *short, *overrides])
