"""A small VideoChat2 with drawn lessons, which several rows measure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows.setting import Setting
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.data.store import write_index, write_shard
from msvqa.engine.inputs import model_sizes
from msvqa.engine.stage_model import choose_trained
from msvqa.extract import videos_of
from msvqa.models.model import build_model
from msvqa.mvbench.lessons import LEAST, make_lessons
from msvqa.objectives.generation import Generation
from msvqa.recipe import Recipe, parse

STEPS, ROWS = 6, 16
SOURCES = ({"file": "instructions.json"},)


def lessons(setting: Setting) -> Path:
    """Return the folder of the lessons, which are drawn where they are absent."""
    root = setting.folder / "lessons"
    if not root.exists():
        make_lessons(root, items=LEAST, tested=1)
    return root


def recipe_of(setting: Setting, sources: Sequence[Mapping[str, str]] = SOURCES) -> Recipe:
    """Return the last stage of a small VideoChat2, of which all is trained, with its data.

    Args:
        setting: says how large the language model is.
        sources: files of conversations, of which a row may write others beside the lessons.
    """
    root = lessons(setting)
    width, layers = setting.size((256, 4), (32, 2))
    _widen(root / "language", width, layers)
    video = {"width": 96, "depth": 4, "heads": 4, "patch_px": 16, "mlp_ratio": 2.0}
    qformer = {"width": 96, "layers": 1, "heads": 4, "feed_forward": 192, "words": 512}
    return parse(
        {
            "name": "benchmark",
            "runs": str(setting.folder / "runs"),
            "data": {
                "name": "instructions",
                "root": str(root),
                "prepared": str(setting.folder / "prepared"),
                "sources": [*sources],
            },
            "processor": {"name": "frames", "frames": 8, "size_px": 32, "draw": "mvbench"},
            "model": {
                "name": "videochat2", "frames": 8, "video": video,
                "sources": {"qformer": str(root / "qformer"), "language": str(root / "language")},
                "qformer": {**qformer, "max_words": 64, "queries": 12, "extra_queries": 12},
            },
            "stages": [
                {
                    "name": "instruct",
                    "objective": {"name": "generation", "dialogue": {"reading": "none"}},
                    "parts": {"heads": "absent", "adapter": "absent", "text": "frozen"},
                    "steps": STEPS,
                    "batch": {"examples": ROWS},
                    "log_every_steps": 1_000_000,
                }
            ],
        }
    )  # fmt: skip


def _widen(folder: Path, width: int, layers: int) -> None:
    """Put a language model of another size into a folder, with the words that it has."""
    from transformers import AutoConfig, LlamaForCausalLM

    library: Any = AutoConfig
    config = library.from_pretrained(folder)
    config.update(
        {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 3 * width}
    )
    config.head_dim = width // config.num_attention_heads
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


def extract(recipe: Recipe, prepared: Prepared) -> None:
    """Write the store of a recipe."""
    processor, place = processor_of(recipe), store_location(recipe)
    spec, extractor, media = processor.spec(), processor.extractor(), videos_of(prepared)
    size = spec.videos_per_shard
    shards = [
        write_shard(place, n, spec, map(extractor.extract, media[start : start + size]), {})
        for n, start in enumerate(range(0, len(media), size))
    ]
    write_index(place, spec, shards, {})


def objective_of(recipe: Recipe, prepared: Prepared) -> Generation:
    """Return the objective of a recipe's only stage with its model, as trained from chance."""
    torch.manual_seed(0)
    (stage,) = recipe.stages
    model = build_model(recipe, model_sizes(recipe, prepared), stage.absent)
    objective = Generation(stage.objective, model)
    choose_trained(model, objective, stage)
    return objective
