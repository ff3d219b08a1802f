"""A small VideoChat2, trained in this process: its videos, its texts and its language model."""

import json
from pathlib import Path

import numpy as np

from msvqa.data.encoding import write_video
from msvqa.engine.loop import train_stage
from msvqa.engine.trainer import stage_job
from msvqa.models.videochat2 import STAGES
from msvqa.prepare import prepare_stages
from msvqa.recipe import Recipe, parse
from msvqa.run import Run
from tests.local_host import LocalHost, StoppingHost
from tests.models.small_videochat2 import CAPTIONS, TURNS, WORDS, language_folder
from tests.tiny import make_store

OF = {"align": "query_alignment", "connect": "generation", "instruct": "generation"}


def chat_root(folder):
    """Write videos, captions, questions and a language model of random weights."""
    folder.mkdir(exist_ok=True)
    draws = np.random.default_rng(0)
    for number in range(4):
        pictures = draws.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
        write_video(folder / f"{number}.mp4", iter(pictures), 4)
    captions = [{"video": f"{n}.mp4", "caption": text} for n, text in enumerate(CAPTIONS)]
    (folder / "train.json").write_text(json.dumps(captions))
    rows = [
        {"video": f"{n}.mp4", "QA": [dict(zip("qai", turn, strict=True)) for turn in turns]}
        for n, turns in enumerate(TURNS)
    ]
    (folder / "asked.json").write_text(json.dumps(rows))
    language_folder(folder / "language")
    return folder


def recipe_of(root, runs, name):
    captions = {"name": "caption_files", "root": str(root), "prepared": str(root / "captions")}
    stages = [
        {
            "name": stage, "objective": {"name": OF[stage]}, "steps": 2, "select": "last",
            "batch": {"examples": 2}, "checkpoint": {"every_steps": 1},
            "parts": {p: state for state in ("frozen", "absent") for p in table[state]},
        }
        for stage, table in STAGES.items()
    ]  # fmt: skip
    stages[0]["data"] = stages[1]["data"] = captions
    stages[1] |= {"init_from": "align", "fresh": ["extra_queries", "projection", "language"]}
    stages[2] |= {"init_from": "connect", "fresh": ["adapter"]}
    stages[2]["batch"] = {"examples": 2, "by_length": True}
    return parse(
        {
            "name": name, "runs": str(runs),
            "data": {
                "name": "instructions", "root": str(root), "prepared": str(root / "asked"),
                "sources": [{"file": "asked.json"}],
            },
            "processor": {
                "name": "frames", "frames": 2, "size_px": 16, "candidates": 1,
            },
            "model": {
                "name": "videochat2", "frames": 2, "heads": {"width": 16},
                "sources": {
                    "language": str(root / "language"), "qformer": str(root / "language/qformer"),
                },
                "video": {"width": 24, "depth": 3, "heads": 4, "patch_px": 8},
                "qformer": {
                    "width": 32, "layers": 2, "heads": 4, "feed_forward": 48,
                    "words": len(WORDS) + 1, "max_words": 32, "queries": 4, "extra_queries": 6,
                },
                "adapter": {"rank": 2, "alpha": 4},
            },
            "stages": stages,
        }
    )  # fmt: skip


def train(recipe, stage, reports=None):
    run = Run.create(recipe)
    folder = run.stage_dir(recipe.stages[stage].name)
    host = LocalHost(folder) if reports is None else StoppingHost(folder, reports)
    train_stage(stage_job(run, stage), host)


def connected(root: Path, runs: Path, language: Path, max_tokens: int) -> Run:
    """Return a run of one step of `connect` alone, with the language model of a folder."""
    raw = recipe_of(root, runs, "connected").to_dict()
    stage = raw["stages"][1] | {"steps": 1, "init_from": None, "fresh": []}
    stage["objective"] = {"name": "generation", "writing": {"max_tokens": max_tokens}}
    raw["model"]["sources"]["language"] = str(language)
    recipe: Recipe = parse(raw | {"stages": [stage]})
    make_store(recipe.of_stage(0), prepare_stages(recipe)[0])
    train(recipe, 0)
    return Run.open(recipe.run_location)
