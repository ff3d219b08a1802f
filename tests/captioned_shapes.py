"""A small generated set of captions, and the quick start of UMT on it, of few steps."""

from pathlib import Path
from typing import Any

from msvqa.data.datasets.synthetic_captions import SyntheticCaptions, generate
from msvqa.recipe import Recipe, load

QUICKSTART = Path(__file__).parents[1] / "configs" / "umt" / "quickstart.yaml"
SIZES = {"train_videos": 20, "train_images": 8, "pictures": 48, "val_videos": 4, "test_videos": 16}
STAGES = ("teacher", "distil", "align", "whole")


def write_captioned(root: Path, **fields: Any) -> SyntheticCaptions.Config:
    """Write a small set and return its data section."""
    config = SyntheticCaptions.Config(root=str(root), **{**SIZES, **fields})
    generate(root, config)
    return config


def small_quickstart(root: Path, runs: Path, *overrides: str) -> Recipe:
    """Return the quick start for a small set, of four steps each."""
    short = [
        f"stages.{stage}.{field}"
        for stage in STAGES
        for field in (
            "steps=4", "batch.examples=8", "checkpoint.every_steps=2", "validate.every_steps=4",
        )
    ]  # fmt: skip
    place = [f"data.root={root}", f"data.prepared={root.parent}/prepared", f"runs={runs}"]
    return load(QUICKSTART, [*place, *short, *overrides])
