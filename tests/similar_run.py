"""A run of an untrained model that embeds the small generated videos."""

from pathlib import Path
from typing import Any

from msvqa.prepare import prepare
from msvqa.recipe import parse
from msvqa.run import Run
from tests.similar_videos import write_similar
from tests.tiny import make_checkpoint

VECTORS = {"name": "vectors", "frames": 8, "width": 16, "sampling": "strided"}


def make_run(folder: Path, processor: dict[str, Any] = VECTORS) -> Run:
    """Write the videos, and a run with a finished checkpoint."""
    data = write_similar(folder / "data", part="pairwise").model_dump(mode="json")
    recipe = parse(
        {
            "name": "alike", "runs": str(folder / "runs"), "data": data,
            "processor": processor,
            "model": {
                "name": "uniter", "embedding_size": 8,
                "text": {"kind": "bert", "layers": 1, "width": 16, "heads": 2, "inner_width": 32},
            },
            "stages": [{"name": "finetune", "objective": {"name": "similarity"}, "steps": 2}],
        }
    )  # fmt: skip
    run = Run.create(recipe)
    make_checkpoint(run.stage_dir("finetune"), recipe, prepare(recipe.data), 1, finished=True)
    return run
