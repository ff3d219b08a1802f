"""A model that is cut over workers trains as a whole one does, and is written whole."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from msvqa.data.processors.processor import store_location
from msvqa.engine.checkpoint import load_checkpoint, read_training_state
from msvqa.engine.loop import train_stage
from msvqa.engine.parallel import layers_of
from msvqa.engine.trainer import stage_job
from msvqa.prepare import check_places, prepare_stages, prepare_validations
from msvqa.recipe import parse
from msvqa.run import Run
from tests.captioned_shapes import small_quickstart, write_captioned
from tests.engine.gloo import run_in_processes
from tests.engine.test_loop import GroupHost, assert_equal, end_loading, final_weights
from tests.engine.test_videochat2 import recipe_of, root  # noqa: F401
from tests.tiny import make_recipe, make_store

NEVER = 10**6
"""Reports of a host that does not die."""
CLOSE: Mapping[str, float] = {"rtol": 1e-5, "atol": 1e-6}


def train_stages(rank: int, raw: dict[str, Any], reports: Mapping[str, int]) -> torch.Tensor:
    """Train the stages of a recipe as one of two workers; `reports`: after how many one dies."""
    recipe = parse(raw)
    for number, stage in enumerate(recipe.stages):
        run = Run.create(recipe)
        host = GroupHost(run.stage_dir(stage.name), reports.get(stage.name, NEVER), rank)
        with suppress(KeyboardInterrupt):
            train_stage(stage_job(run, number), host)
        end_loading()
        if stage.name in reports:
            break
    return torch.tensor(rank)


def losses(location: str) -> list[dict[str, Any]]:
    """Return the rows of a run without what depends on the machine."""
    rows = [json.loads(line) for line in (Path(location) / "metrics.jsonl").open()]
    kept = ("loss", "mse", "accuracy", "gradient_norm", "step")
    return [{name: row[name] for name in kept if name in row} for row in rows]


def assert_alike(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected) > 0
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-5, abs=1e-7)


def both_ways(raw: dict[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train a recipe on two workers, whole and cut; return the two recipes."""
    ways = []
    for sharding in ("ddp", "fsdp"):
        stages = [{**stage, "sharding": sharding} for stage in raw["stages"]]
        way = {**raw, "name": sharding, "stages": stages}
        run_in_processes(2, train_stages, folder, way, {})
        ways.append(way)
    return ways[0], ways[1]


@pytest.mark.again
@pytest.mark.slow
def test_losses_validations_and_weights_of_cut_models_are_those_of_whole_ones(tiny, tmp_path):
    options = (
        f"runs={tmp_path}", "stages.0.log_every_steps=1", "stages.0.optimizer.eps=1e-3",
        "stages.0.checkpoint.every_steps=4", "stages.0.validate.at_start=true",
        "stages.0.channels_last=false",
    )  # fmt: skip
    raw = make_recipe(tiny, *options).to_dict()
    raw["stages"] = raw["stages"][:1]
    whole, cut = both_ways(raw, tmp_path)
    assert_alike(losses(f"{tmp_path}/fsdp"), losses(f"{tmp_path}/ddp"))
    expected = final_weights(parse(whole), "reconstruct")
    for name, value in final_weights(parse(cut), "reconstruct").items():
        torch.testing.assert_close(value, expected[name], **CLOSE, msg=name)
    # One process alone reads what two have written, and it can go on from it.
    run = Run.open(f"{tmp_path}/fsdp")
    assert load_checkpoint(run.checkpoint("reconstruct", "last")).info["finished"]
    states = [read_training_state(Run.open(f"{tmp_path}/{way}").checkpoint("reconstruct", "last"))
              ["optimizer"]["state"] for way in ("ddp", "fsdp")]  # fmt: skip
    assert states[0].keys() == states[1].keys()
    for number, moments in states[0].items():
        for name, value in moments.items():
            torch.testing.assert_close(states[1][number][name], value, **CLOSE)
    # A worker that has died: from its last checkpoint the cut stage goes on, bit for bit.
    again = {**cut, "name": "again"}
    run_in_processes(2, train_stages, tmp_path, again, {"reconstruct": 2})
    run_in_processes(2, train_stages, tmp_path, again, {})
    assert_equal(*[final_weights(parse(raw), "reconstruct") for raw in (again, cut)])


@pytest.mark.slow
def test_frozen_external_and_adapted_parts_are_cut_too(root, tmp_path):  # noqa: F811
    raw = recipe_of(root, tmp_path, "chat").to_dict()
    for stage in raw["stages"]:
        stage |= {"log_every_steps": 1, "steps": 2}
        stage["optimizer"]["eps"] = 1e-3
        stage["batch"]["streams"] = "apart"
    recipe = parse(raw)
    captions, _, asked = prepare_stages(recipe)
    for view, prepared in ((recipe.of_stage(0), captions), (recipe, asked)):
        make_store(view, prepared)
    whole, cut = both_ways(raw, tmp_path)
    assert_alike(losses(f"{tmp_path}/fsdp"), losses(f"{tmp_path}/ddp"))
    for stage in ("align", "connect", "instruct"):
        expected = final_weights(parse(whole), stage)
        found = final_weights(parse(cut), stage)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], **CLOSE, msg=name)
    adapters = [Run.open(f"{tmp_path}/{way}").checkpoint("instruct") / "adapter_model.safetensors"
                for way in ("ddp", "fsdp")]  # fmt: skip
    assert adapters[1].stat().st_size == adapters[0].stat().st_size > 0


@pytest.mark.slow
def test_a_validation_in_which_a_worker_has_nothing_to_ask(tiny, tmp_path):
    """Nor does the way of the first change with the number of workers or how they share a model."""
    options = (
        f"runs={tmp_path}", "name=few", "stages.0.checkpoint.every_steps=1",
        "stages.0.sharding=fsdp", "stages.0.validate.every_steps=1",
        "folds.count=6", "folds.index=0",
    )  # fmt: skip
    raw = make_recipe(tiny, *options).to_dict()
    raw["stages"] = raw["stages"][:1]
    run_in_processes(2, train_stages, tmp_path, raw, {"reconstruct": 2})
    raw["stages"][0]["sharding"] = "ddp"
    train_stages(0, raw, {})
    assert Run.open(f"{tmp_path}/few").checkpoint("reconstruct")


@pytest.mark.again
@pytest.mark.slow
def test_a_teacher_that_is_never_cut_and_its_students(tmp_path):
    captioned = tmp_path / "set"
    write_captioned(captioned)
    recipe = small_quickstart(captioned, tmp_path)
    check_places(recipe)
    prepared = prepare_stages(recipe)
    prepare_validations(recipe)
    stores = {}
    for view, of_stage in zip(recipe.views(), prepared, strict=True):
        stores.setdefault(store_location(view), (view, of_stage))
    for view, of_stage in stores.values():
        make_store(view, of_stage)
    raw = recipe.to_dict()
    for stage in raw["stages"]:
        stage |= {"log_every_steps": 1, "channels_last": False}
        stage["optimizer"]["eps"] = 1e-3
    both_ways(raw, tmp_path)
    assert_alike(losses(f"{tmp_path}/fsdp"), losses(f"{tmp_path}/ddp"))


def test_the_layers_of_a_model_are_the_outermost_of_its_lists():
    inner = nn.ModuleList([nn.Linear(2, 2)])
    lists = nn.ModuleList([nn.Sequential(inner), nn.ReLU(), nn.ModuleList([nn.Linear(1, 1)])])
    model = nn.Sequential(nn.Linear(2, 2), lists)
    assert list(layers_of(model)) == [lists[0], lists[2][0]]
