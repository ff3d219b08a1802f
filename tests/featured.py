"""A DualVGR experiment of seconds: questions without videos, and features that show answers."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic_features import Synthesis, write
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location, store_spec
from msvqa.data.store import Entry, Store, write_index, write_shard
from msvqa.prepare import prepare
from msvqa.recipe import Recipe, parse
from tests.msvd_folder import write_msvd

VIDEOS = {"train": 48, "val": 12, "test": 24}
ANSWERS = {
    "what is it?": ["cat", "dog", "cow", "hen", "fox", "owl"],
    "who is it?": ["man", "boy", "cook"],
    "where is it?": ["field", "house", "river"],
}
SYNTHESIS = Synthesis(
    num_clips=3, frames_per_clip=4, appearance_width=24, motion_width=16, noise=0.2, visible=0.8
)


def write_data(folder: Path) -> Path:
    """Write annotations whose answers no question gives away, and their feature files."""
    generator = np.random.default_rng(0)
    questions: dict[str, list[dict[str, Any]]] = {}
    stems, number = {}, 0
    for split, count in VIDEOS.items():
        questions[split] = []
        for _ in range(count):
            video = len(stems) + 1
            stems[video] = f"clip_{video}"
            for question, answers in ANSWERS.items():
                answer = answers[int(generator.integers(len(answers)))]
                row = {"id": number, "video_id": video, "question": question, "answer": answer}
                questions[split].append(row)
                number += 1
    write_msvd(folder / "data", questions, stems, videos=())
    write(make_recipe(folder).data, folder / "f.h5", SYNTHESIS)
    return folder


def raw_recipe(folder: Path) -> dict[str, Any]:
    """Return a recipe that trains in seconds."""
    return {
        "name": "featured",
        "runs": str(folder / "runs"),
        "data": {
            "name": "msvd_qa", "root": str(folder / "data"), "prepared": str(folder / "p"),
            "word_size": 16,
        },
        "clips": {"num_clips": SYNTHESIS.num_clips, "frames_per_clip": SYNTHESIS.frames_per_clip},
        "features": {
            "appearance_hdf5": str(folder / "f_appearance_feat.h5"),
            "motion_hdf5": str(folder / "f_motion_feat.h5"),
            "appearance_width": SYNTHESIS.appearance_width,
            "motion_width": SYNTHESIS.motion_width,
        },
        "model": {"name": "dualvgr", "hidden_size": 32, "heads": 2, "units": 1},
        "stages": [
            {
                "name": "answer",
                "objective": {"name": "answering"},
                "epochs": 1,
                "batch": {"videos": 8, "questions_per_video": 3},
                "optimizer": {"lr": 3e-3},
            }
        ],
    }  # fmt: skip


def make_recipe(folder: Path, *overrides: str) -> Recipe:
    """Return the recipe with overrides."""
    return parse(raw_recipe(folder), overrides)


def make_store(recipe: Recipe) -> tuple[Prepared, Store]:
    """Copy the feature files to a store without Ray."""
    prepared = prepare(recipe.data, need_videos=False)
    files, spec, path = processor_of(recipe).files(), store_spec(recipe), store_location(recipe)
    ids = [v for name in prepared.splits for v in prepared.split(name, False).media.id]
    entries = [Entry(video_id=v, outcome="ok", arrays=files.read(v)) for v in ids if v in files]
    size = spec.videos_per_shard
    shards = [
        write_shard(path, number, spec, entries[start : start + size], {})
        for number, start in enumerate(range(0, len(entries), size))
    ]
    return prepared, write_index(path, spec, shards, {})
