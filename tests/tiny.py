"""A tiny experiment: a few generated videos and a model of a few thousand weights."""

from pathlib import Path
from typing import Any

from msvqa.data.datasets.synthetic import generate
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location, store_spec
from msvqa.data.store import Entry, Store, write_index, write_shard
from msvqa.engine.checkpoint import Content, Position, checkpoint_name, save_checkpoint
from msvqa.engine.inputs import model_sizes
from msvqa.engine.loop import StageJob
from msvqa.engine.origins import born
from msvqa.models.model import build_model
from msvqa.prepare import prepare
from msvqa.recipe import Recipe, parse
from msvqa.run import Run

VIDEOS = {"train": 6, "val": 3, "test": 3}


def raw_recipe(folder: Path) -> dict[str, Any]:
    """Return a recipe whose two stages take seconds."""
    encoder = {"base_width": 8, "batch_norm": "train", "scale": "unit", "stem": "small"}
    batch = {"videos": 2, "questions_per_video": 4}
    return {
        "name": "tiny",
        "runs": str(folder / "runs"),
        "data": {"name": "msvd_qa", "root": str(folder / "data"), "prepared": str(folder / "p")},
        "clips": {"num_clips": 2, "frames_per_clip": 4, "size_px": 32},
        "model": {
            "name": "msvqa",
            "hidden_size": 16,
            "heads": 2,
            "appearance": {"name": "resnet", "depth": 10, **encoder},
            "motion": {"name": "resnext3d", "depth": 14, "groups": 2, **encoder},
            "decoder": {"layer2": 8, "layer3": 8, "layer4": 8, "inner_dim": 8, "grid_px": 8},
        },
        "stages": [
            {
                "name": "reconstruct",
                "objective": {"name": "reconstruction"},
                "epochs": 1,
                "batch": batch,
                "optimizer": {"lr": 1e-3},
            },
            {
                "name": "answer",
                "objective": {"name": "answering"},
                "init_from": "reconstruct",
                "epochs": 2,
                "batch": batch,
                "optimizer": {"lr": 1e-3},
            },
        ],
    }


def make_recipe(folder: Path, *overrides: str) -> Recipe:
    """Return the recipe with overrides."""
    return parse(raw_recipe(folder), overrides)


def make_job(recipe: Recipe, stage: int, start: Path | None = None) -> tuple[Run, StageJob]:
    """Create the run of a recipe; return it with the job of one of its stages."""
    run = Run.create(recipe)
    job = StageJob(
        recipe=recipe.to_dict(),
        stage=stage,
        run=run.location,
        prepared=str(recipe.data.prepared),
        store=store_location(recipe),
        init_from=str(start) if start else None,
    )
    return run, job


def make_checkpoint(
    stage: Path, recipe: Recipe, prepared: Prepared, step: int, *, finished: bool = False
) -> Path:
    """Write a checkpoint of an untrained model into a stage's folder."""
    absent = next((one.absent for one in recipe.stages if one.name == stage.name), ())
    model = build_model(recipe, model_sizes(recipe, prepared), absent)
    content = Content(
        recipe=recipe,
        model=model,
        examples=prepared.kind.name,
        lexicon=prepared.lexicon,
        training_state={},
        position=Position(stage=stage.name, step=step),
        score=0.5 if finished else None,
        finished=finished,
        origins=born(model),
    )
    folder = stage / checkpoint_name(step)
    save_checkpoint(folder, content)
    return folder


def make_data(folder: Path, recipe: Recipe | None = None) -> tuple[Prepared, Store]:
    """Generate the videos, prepare them and extract their clips without Ray."""
    generate(folder / "data", videos=VIDEOS)
    recipe = recipe or make_recipe(folder)
    prepared = prepare(recipe.data)
    return prepared, make_store(recipe, prepared)


def make_store(recipe: Recipe, prepared: Prepared) -> Store:
    """Extract the media of all splits without Ray."""
    splits = [prepared.split(name) for name in prepared.splits]
    ids = [video for split in splits for video in split.media.id]
    arrays = processor_of(recipe).arrays(medium for split in splits for medium in split.media)
    entries = [
        Entry(video_id=i, outcome="ok", arrays=dict(a)) for i, a in zip(ids, arrays, strict=True)
    ]
    spec, path = store_spec(recipe), store_location(recipe)
    size = spec.videos_per_shard
    shards = [
        write_shard(path, n, spec, entries[start : start + size], {})
        for n, start in enumerate(range(0, len(entries), size))
    ]
    return write_index(path, spec, shards, {})
