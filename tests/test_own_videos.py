"""Videos of the user, from two tables to a model of titles and frame features, without Ray."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from msvqa.checks.recipe import width_problems
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.data.store import write_index, write_shard
from msvqa.engine.inputs import model_sizes, open_inputs
from msvqa.engine.rehearsal import rehearse
from msvqa.extract import videos_of
from msvqa.models.model import build_model
from msvqa.prepare import prepare, prepare_stages
from msvqa.recipe import Recipe, parse
from msvqa.strict_yaml import read_yaml
from tests.own_videos import write_own_videos

FRAMES, WIDTH, EMBEDDING = 4, 32, 16
TEXT = {
    "vocabulary": 10, "positions": 16, "width": 16, "layers": 1, "heads": 2, "inner_width": 16,
}  # fmt: skip
MODELS = {
    "mix_nextvlad": {
        "experts": 2, "hidden_size": 8, "clusters": 2, "groups": 2, "reduction": 4,
    },
    "uniter": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_own_videos(tmp_path_factory.mktemp("own") / "data")


def recipe_of(root, tmp_path, model) -> Recipe:
    table = {"name": "table", "root": str(root), "text_length": 6}
    titled = table | {"annotations": str(root / "videos.csv"), "prepared": str(tmp_path / "t")}
    pairs = table | {
        "annotations": str(root / "pairs.csv"), "titles": str(root / "videos.csv"),
        "prepared": str(tmp_path / "p"),
    }  # fmt: skip
    encoder = {
        "name": "resnet", "depth": 10, "base_width": 4, "stem": "small", "scale": "unit",
    }  # fmt: skip
    stage = {"steps": 2, "batch": {"examples": 4}, "optimizer": {"lr": 1e-3}}
    return parse(
        {
            "name": "own",
            "runs": str(tmp_path / "runs"),
            "data": pairs,
            "processor": {
                "name": "frame_features", "encoder": encoder, "encoder_width": WIDTH,
                "frames": FRAMES, "size_px": 32,
            },
            "model": {
                "name": model, "text": TEXT, "embedding_size": EMBEDDING, **MODELS[model],
            },
            "stages": [
                {"name": "tag", "data": titled, "objective": {"name": "tagging"}, **stage},
                {"name": "tell", "objective": {"name": "similarity"}, "init_from": "tag", **stage},
            ],
        }
    )  # fmt: skip


def extract(view: Recipe, prepared: Prepared) -> None:
    """Write the store of a stage in this process."""
    processor, location = processor_of(view), store_location(view)
    extractor = processor.extractor()
    entries = [extractor.extract(medium) for medium in videos_of(prepared)]
    extractor.close()
    shard = write_shard(location, 0, processor.spec(), entries, {})
    write_index(location, processor.spec(), [shard], {})


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_a_model_describes_videos_of_the_user(root, tmp_path, name):
    recipe = recipe_of(root, tmp_path, name)
    prepared = prepare(recipe.data)
    split, processor = prepared.split("test"), processor_of(recipe)
    assert (len(split), len(split.media)) == (3, 3)
    made = [processor.draw(arrays, None) for arrays in processor.arrays(split.media)]
    # Videos 3, 7 and 11 last 4, 2 and 6 seconds.
    assert [int(arrays["num_frames"]) for arrays in made] == [2, 4, 4]
    batch = {key: torch.from_numpy(np.stack([m[key] for m in made])) for key in made[0]}
    batch |= split.examples.of_media(np.arange(3))
    torch.manual_seed(0)
    model = build_model(recipe, model_sizes(recipe, prepared)).eval()
    with torch.no_grad():
        found = model.describe(batch)
    assert found.embedding.shape == (3, EMBEDDING)
    assert found.logits.shape == (3, 4), "blue, green, red and thing"
    assert torch.isfinite(found.embedding).all()
    assert found.embedding.std(dim=0).max() > 0


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_both_stages_take_steps_on_what_is_extracted(root, tmp_path, name):
    recipe = recipe_of(root, tmp_path, name)
    folders = prepare_stages(recipe)
    for view, folder in zip(recipe.views(), folders, strict=True):
        extract(view, folder)
    estimates = rehearse(recipe, folders)
    assert [estimate.stage for estimate in estimates] == ["tag", "tell"]
    assert all(math.isfinite(estimate.loss) for estimate in estimates)
    last = recipe.views()[-1]
    inputs = open_inputs(last, folders[-1], store_location(last), "train")
    (batch,) = inputs.source.batches([[0, 1]])
    assert batch["vectors"].shape == (2, FRAMES, WIDTH)
    assert batch["num_frames"].dtype == torch.int64


def test_the_recipe_of_the_documentation_is_one(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "similarity.md").read_text(encoding="utf-8")
    section = text.partition("## Your own videos")[2].partition("\n## ")[0]
    (written,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    recipe = parse({"name": "own", "runs": str(tmp_path), **read_yaml(written, "docs")})
    assert recipe.data.titles == recipe.data.annotations.replace("pairs", "videos")
    assert processor_of(recipe).sizes() == {"width": 1536, "frames": 32}
    assert not width_problems(recipe)
