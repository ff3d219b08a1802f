"""A run that ends with an alignment of tiny videos and their captions."""

import torch

from msvqa.prepare import prepare
from msvqa.recipe import parse
from msvqa.run import Run
from tests.caption_folder import write_captions
from tests.labelled_folder import write_video
from tests.models.small_umt import SMALL
from tests.tiny import make_checkpoint

CAPTIONS = {"a.avi": "a red ball", "b.avi": "the blue dog is rolling", "c.avi": "a man"}


def make_run(folder, *overrides, tokenizer=None):
    """Write three videos with captions, and a run with a checkpoint of an untrained model."""
    rows = [{"video": name, "caption": text} for name, text in CAPTIONS.items()]
    root = write_captions(folder / "data", {"train": rows[:2], "val": rows[2:]})
    for number, name in enumerate(CAPTIONS):
        write_video(root / name, ("large", "small")[number % 2], seed=number)
    raw = {
        "name": "aligned", "runs": str(folder / "runs"),
        "data": {
            "name": "caption_files", "root": str(root), "prepared": str(folder / "p"),
            "tokenizer": tokenizer, "text_length": 8,
        },
        "processor": {"name": "frames", "frames": 4, "size_px": 32, "candidates": 3},
        "model": {"name": "umt", **SMALL},
        "stages": [
            {"name": "align", "objective": {"name": "alignment", "matching": 1.0}, "steps": 2,
             "parts": {"teacher": "absent", "heads": "absent"}}
        ],
    }  # fmt: skip
    recipe = parse(raw, overrides)
    run, prepared = Run.create(recipe), prepare(recipe.data)
    torch.manual_seed(0)
    make_checkpoint(run.stage_dir("align"), recipe, prepared, 1, finished=True)
    return run
