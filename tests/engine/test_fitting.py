"""Checkpoints of another model: refused by name before Ray starts and before there is a run."""

import shutil
from pathlib import Path

import pytest
import ray
import torch
from safetensors.torch import load_file, save_file

from msvqa.data.prepared import Prepared
from msvqa.engine.checkpoint import load_weights, newest_checkpoint, read_weights
from msvqa.engine.inputs import model_sizes
from msvqa.engine.loop import train_stage
from msvqa.errors import CheckpointError
from msvqa.models.model import build_model
from msvqa.recipe import parse
from msvqa.run import Run
from msvqa.train import check_initial_fit, check_own, train
from tests.local_host import LocalHost
from tests.tiny import make_checkpoint, make_job, make_recipe, raw_recipe

WIDE = "model.hidden_size=24"
STAGE, PREVIOUS = "reconstruct", "faults.damaged_checkpoint=previous"


@pytest.fixture(scope="module")
def prepared(tiny):
    return Prepared.open(make_recipe(tiny).data.prepared)


@pytest.fixture(scope="module")
def foreign(tiny, prepared, tmp_path_factory):
    """Whole checkpoints that are not of the tiny model, and what is said of them."""
    folder = tmp_path_factory.mktemp("foreign")
    features = {"appearance_hdf5": "a.h5", "motion_hdf5": "m.h5"}
    stages = [raw_recipe(tiny)["stages"][1] | {"init_from": None}]
    other = {"model": {"name": "dualvgr"}, "features": features, "stages": stages}
    wide, dualvgr = make_recipe(tiny, WIDE), parse(raw_recipe(tiny) | other)
    return {
        "width": (
            make_checkpoint(folder / "wide" / STAGE, wide, prepared, 8),
            r"network.\S+ has shape \(24\,?.*\), needed is \(16",
        ),
        "finished": (
            make_checkpoint(folder / "finished" / STAGE, wide, prepared, 8, finished=True),
            r"network.\S+ has shape \(24\,?.*\), needed is \(16",
        ),
        "model": (
            make_checkpoint(folder / "dualvgr" / STAGE, dualvgr, prepared, 8),
            r"a checkpoint of model 'dualvgr', not of 'msvqa'",
        ),
    }


def refused_before_ray(recipe, words):
    was_running = ray.is_initialized()
    with pytest.raises(CheckpointError, match=words) as caught:
        train(recipe)
    assert ray.is_initialized() == was_running
    assert not Path(recipe.run_location, "recipe.yaml").exists(), "it could not be put right"
    return str(caught.value)


@pytest.mark.long
def test_a_start_of_other_widths_leaves_no_run_and_the_right_one_is_taken(
    tiny, prepared, foreign, tmp_path
):
    wide, words = foreign["finished"]
    recipe = make_recipe(tiny, f"runs={tmp_path}", f"stages.0.init_from={wide}")
    said = refused_before_ray(recipe, words)
    assert said.startswith(f"stages.0.init_from: {wide}/weights.safetensors does not fit")
    assert f"{wide}/recipe.yaml" in said
    right = make_checkpoint(tmp_path / "right" / "answer", make_recipe(tiny), prepared, 5)
    corrected = make_recipe(tiny, f"runs={tmp_path}", f"stages.0.init_from={right}")
    check_own(Run(corrected.run_location, corrected), [prepared] * 2)
    check_initial_fit(corrected, [prepared] * 2)
    run, job = make_job(corrected, 0, right)
    assert train_stage(job, LocalHost(run.stage_dir(STAGE))).step > 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "stage"), [("width", STAGE), ("finished", "answer"), ("model", STAGE)]
)
def test_a_foreign_checkpoint_in_a_run_is_refused_or_the_one_before_it_taken(
    tiny, prepared, foreign, tmp_path, what, stage
):
    path, words = foreign[what]
    recipe = make_recipe(tiny, f"runs={tmp_path}", PREVIOUS)
    run = Run(recipe.run_location, recipe)
    own = make_checkpoint(run.stage_dir(stage), recipe, prepared, 4)
    placed = Path(shutil.copytree(path, own.with_name(path.name)))
    said = refused_before_ray(make_recipe(tiny, f"runs={tmp_path}"), words)
    assert said.startswith(f"{placed}/weights.safetensors does not fit the model")
    assert f"the folder of stage {stage!r}" in said and PREVIOUS in said
    check_own(run, [prepared] * 2)
    assert newest_checkpoint(run.stage_dir(stage)) == str(own)
    assert not run.is_finished(stage)
    assert (own.parent / f".foreign-{path.name}" / "weights.safetensors").is_file()


@pytest.mark.long
def test_what_is_damaged_is_said_to_be_damaged(tiny, prepared, tmp_path):
    recipe = make_recipe(tiny, f"runs={tmp_path}")
    stage = Run(recipe.run_location, recipe).stage_dir(STAGE)
    weights = make_checkpoint(stage, recipe, prepared, 4) / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content.replace(b'"shape":[16', b'"shape":[24', 1))
    assert weights.read_bytes() != content
    refused_before_ray(recipe, r"weights\.safetensors is damaged: its content has changed")


@pytest.mark.long
def test_a_start_inside_the_run_is_looked_at_before_ray_starts(tiny, prepared, tmp_path):
    recipe = make_recipe(tiny, f"runs={tmp_path}")
    stage = Run(recipe.run_location, recipe).stage_dir(STAGE)
    weights = make_checkpoint(stage, recipe, prepared, 4, finished=True) / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused_before_ray(recipe, r"weights\.safetensors is damaged: its content has changed")


@pytest.mark.long
def test_what_can_be_loaded_is_not_refused(tiny, prepared, tmp_path):
    """Also from clips of another number, and stored with fewer digits."""
    change = "clips.num_clips=3"
    start = make_checkpoint(tmp_path / "answer", make_recipe(tiny, change), prepared, 1)
    weights = load_file(start / "weights.safetensors")
    rounded = {name: value.to(torch.bfloat16) for name, value in weights.items()}
    recipe = make_recipe(tiny, f"runs={tmp_path}", f"stages.0.init_from={start}")
    for stored in (weights, rounded):
        save_file(stored, start / "weights.safetensors", metadata={"format": "pt"})
        check_initial_fit(recipe, [prepared] * len(recipe.stages))
        load_weights(build_model(recipe, model_sizes(recipe, prepared)), read_weights(start), "")


def test_a_stage_with_checkpoints_needs_no_start(tiny, prepared, foreign, tmp_path):
    recipe = make_recipe(tiny, f"runs={tmp_path}", f"stages.0.init_from={foreign['width'][0]}")
    make_checkpoint(Run(recipe.run_location, recipe).stage_dir(STAGE), recipe, prepared, 4)
    check_initial_fit(recipe, [prepared] * len(recipe.stages))
