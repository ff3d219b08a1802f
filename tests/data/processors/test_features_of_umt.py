"""Features of a small UMT: of its checkpoint, for systems that answer questions."""

import numpy as np
import pytest
import torch

from msvqa.checks.recipe import width_problems
from msvqa.checks.sources import source_problems
from msvqa.data.medium import Medium
from msvqa.data.processors.processor import processor_of, store_spec
from msvqa.engine.checkpoint import load_checkpoint
from msvqa.recipe import parse
from tests.aligned_run import make_run
from tests.labelled_folder import SIDE, write_video
from tests.models.small_umt import SMALL

pytestmark = pytest.mark.long

WIDTH = SMALL["video"]["width"]
FRAMES, CLIPS = 4, 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("umt")).checkpoint("align")


def encoder_of(checkpoint, **changes):
    video = SMALL["video"] | {"trained_frames": 4, "trained_px": 32} | changes
    return {"name": "umt", "video": video, "weights": f"{checkpoint}/weights.safetensors"}


def recipe_of(folder, encoder, *overrides):
    return parse(
        {
            "name": "features", "runs": str(folder / "runs"),
            "data": {"name": "msvd_qa", "root": str(folder)},
            "clips": {"num_clips": CLIPS, "frames_per_clip": FRAMES, "size_px": SIDE},
            "features": {
                "appearance": encoder, "motion": encoder, "appearance_px": 32, "motion_px": 32,
                "appearance_width": WIDTH, "motion_width": WIDTH, "dtype": "float32",
            },
            "model": {"name": "dualvgr"},
            "stages": [{"name": "answer", "objective": {"name": "answering"}, "epochs": 1}],
        },
        overrides,
    )  # fmt: skip


def test_a_checkpoint_makes_features_of_frames_and_clips(tmp_path, checkpoint):
    recipe = recipe_of(tmp_path, encoder_of(checkpoint))
    assert not source_problems(recipe) and not width_problems(recipe)
    file = str(write_video(tmp_path / "v.avi", "large", seed=1))
    processor = processor_of(recipe)
    (made,) = processor.arrays([Medium("v", file)])
    (pictures,) = processor.pictures.arrays([Medium("v", file)])
    clips = torch.from_numpy(pictures["clips"])  # (C, F, S, S, 3)
    model = load_checkpoint(checkpoint).model
    with torch.inference_mode():
        motion = model.watch({"frames": clips}).tokens.mean(dim=1)
        images = model.watch({"frames": clips.flatten(0, 1)[:, None]}).tokens.mean(dim=1)
    assert made["appearance"].shape == (CLIPS, FRAMES, WIDTH)
    np.testing.assert_allclose(made["motion"], motion, atol=1e-5)
    np.testing.assert_allclose(made["appearance"].reshape(-1, WIDTH), images, atol=1e-5)
    assert set(store_spec(recipe).encoders["motion"]) >= {"weights_sha256", "video"}


def test_frame_features_take_it_too(tmp_path, checkpoint):
    recipe = recipe_of(tmp_path, encoder_of(checkpoint)).to_dict()
    frames = {
        "name": "frame_features", "encoder": encoder_of(checkpoint), "encoder_width": WIDTH,
        "frames": 3, "fps": 10, "size_px": 32,
    }  # fmt: skip
    recipe |= {"processor": frames, "features": None, "clips": {}}
    file = str(write_video(tmp_path / "v.avi", "small", seed=1))
    (made,) = processor_of(parse(recipe)).arrays([Medium("v", file)])
    assert made["vectors"].shape == (3, WIDTH)


def test_weights_of_another_size_are_named_before_anything_starts(tmp_path, checkpoint):
    recipe = recipe_of(tmp_path, encoder_of(checkpoint, depth=2, width=16))
    problems = "\n".join(source_problems(recipe))
    assert "features.appearance.weights" in problems and "of another shape" in problems
    assert "features.motion" in "\n".join(width_problems(recipe))
