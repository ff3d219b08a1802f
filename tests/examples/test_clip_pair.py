"""The example of a model outside the package: its data, its recipe, and that both ends learn."""

import json
from pathlib import Path

import pytest
import torch

from msvqa.checks.recipe import check_settings
from msvqa.errors import RecipeError
from msvqa.models.model import Sizes, build_model
from msvqa.objectives.alignment import Alignment
from msvqa.prepare import prepare
from msvqa.recipe import load

FOLDER = Path(__file__).parents[2] / "examples" / "clip_pair"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


@pytest.mark.long
def test_every_held_out_scene_is_new_and_another(tmp_path, monkeypatch):
    from generate import VIDEOS, generate

    generate(tmp_path)
    said = {
        split: [row["caption"] for row in json.loads((tmp_path / f"{split}.json").read_text())]
        for split in VIDEOS
    }
    assert {split: len(captions) for split, captions in said.items()} == VIDEOS
    held_out = said["val"] + said["test"]
    assert len(set(held_out)) == len(held_out)
    assert not set(held_out) & set(said["train"])
    recipe = load(FOLDER / "recipe.yaml", [f"data.root={tmp_path}", f"data.prepared={tmp_path}/p"])
    assert len(prepare(recipe.data).split("test")) == VIDEOS["test"]
    other = load(FOLDER / "recipe.yaml", [f"evaluations.backwards.data.root={tmp_path}"])
    monkeypatch.chdir(tmp_path)
    backwards = prepare(other.of_evaluation("backwards").data, trains=False)
    assert len(backwards.split("test")) == VIDEOS["test"]


def test_the_loss_reaches_every_weight_and_is_that_of_guessing_at_first():
    recipe = load(FOLDER / "recipe.yaml")
    torch.manual_seed(0)
    model = build_model(recipe, Sizes(vocabulary=9, frames=4, size_px=32))
    rows, words = 8, torch.randint(2, 9, (8, 5))
    batch = {
        "frames": torch.randint(0, 256, (rows, 4, 32, 32, 3), dtype=torch.uint8),
        "text": words, "text_length": torch.full((rows,), 5), "text_id": torch.arange(rows),
        "video": torch.arange(rows), "video_index": torch.arange(rows),
        "weight": torch.ones(rows), "normalizer": torch.tensor(float(rows)),
    }  # fmt: skip
    loss = Alignment(Alignment.Config(), model)(batch)["loss"]
    loss.backward()
    assert 1.0 < float(loss.detach()) < 6.0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    with torch.no_grad():
        still = batch["frames"][:, :1].expand(rows, 4, 32, 32, 3)
        images = model.eval().encode_video({"frames": batch["frames"][:, :1]})
        torch.testing.assert_close(images, model.encode_video({"frames": still}))


def test_passes_over_parts_of_a_batch_are_refused_where_the_loss_compares_all_of_it():
    check_settings(load(FOLDER / "recipe.yaml"))
    with pytest.raises(RecipeError, match=r"stages\.0\.batch\.accumulate: objective alignment"):
        check_settings(load(FOLDER / "recipe.yaml", ["stages.0.batch.accumulate=2"]))
