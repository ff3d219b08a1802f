"""Compiled stages and encoders: the same names, nearly the same numbers, or one clear refusal."""

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from msvqa.checks.recipe import check
from msvqa.compilation import compile_forward, lacking
from msvqa.data.medium import Medium
from msvqa.data.processors import frozen_encoder
from msvqa.data.processors.frozen_encoder import FrozenEncoder, encoder_identity
from msvqa.embedder import open_embedder
from msvqa.engine.checkpoint import read_weights
from msvqa.engine.loop import StageLoop, train_stage
from msvqa.errors import PackageError, RecipeError
from msvqa.extract import check_extraction
from msvqa.models.encoders.resnet import ResNet
from msvqa.prepare import prepare
from msvqa.recipe import parse
from tests import barcode_video
from tests.engine.test_classification import COUNTS, recipe_of
from tests.labelled_folder import write_folder
from tests.local_host import LocalHost
from tests.similar_run import make_run
from tests.tiny import make_job, make_recipe, make_store, raw_recipe

SMALL = ResNet.Config(depth=10, base_width=8, scale="unit", stem="small")
COMPILES = pytest.mark.skipif(bool(lacking("cpu")), reason=lacking("cpu") or "it compiles")


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_what_a_machine_lacks_is_said_before_anything_starts(no_compiler, tmp_path):
    recipe = make_recipe(tmp_path, "stages.0.compile=true", "stages.1.compile=true")
    with pytest.raises(RecipeError) as caught:
        check(recipe)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "stages.0.compile", "stages.1.compile",
    ]  # fmt: skip
    assert "no C++ compiler 'no-such-compiler'" in str(caught.value)
    assert "compile=false" in str(caught.value)
    check(make_recipe(tmp_path))


def test_extraction_says_so_too(no_compiler, tmp_path):
    encoder = {"name": "resnet", "depth": 10}
    raw = raw_recipe(tmp_path) | {
        "processor": {
            "name": "frame_features", "encoder": encoder, "encoder_width": 512, "compile": True,
        }
    }  # fmt: skip
    del raw["clips"]
    with pytest.raises(RecipeError, match=r"processor\.compile: there is no C\+\+ compiler"):
        check_extraction(parse(raw))


def test_a_worker_without_a_compiler_says_so(no_compiler):
    with pytest.raises(PackageError, match="stages answer: there is no C"):
        compile_forward(torch.nn.Linear(2, 2), "stages answer")


def test_absent_headers_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert "Python.h" in lacking("cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stages": [{"sharding": "fsdp", "compile": True}]}, "compile: of a model in parts"),
        ({"features": {"appearance_hdf5": "a.h5", "motion_hdf5": "m.h5"}}, "compile: is for enc"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, change, words):
    raw = raw_recipe(tmp_path)
    for stage, fields in zip(raw["stages"], change.get("stages", ()), strict=False):
        stage |= fields
    if "features" in change:
        raw["features"] = {"compile": True, **change["features"]}
    with pytest.raises(RecipeError, match=words):
        parse(raw)


def test_stores_of_compiled_encoders_are_others():
    plain, compiled = (
        encoder_identity(SMALL, 0, "float32", compiles=compiles) for compiles in (False, True)
    )
    assert compiled == {**plain, "compile": True}
    assert plain == encoder_identity(SMALL, 0, "float32")


@COMPILES
@pytest.mark.slow
def test_a_compiled_encoder_gives_nearly_the_same_features():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    counters.clear()
    # The last pass has fewer frames.
    plain, compiled = (
        FrozenEncoder("frame", SMALL, 0, "float32", compiles).encode(pixels, 4, "float32")
        for compiles in (False, True)
    )
    assert counters["inductor"]
    np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-4)


def test_nothing_is_compiled_for_single_videos(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("it is compiled")

    monkeypatch.setattr(frozen_encoder, "compile_forward", refuse)
    encoder = SMALL.model_dump() | {"name": "resnet"}
    processor = {
        "name": "frame_features", "frames": 8, "encoder": encoder, "encoder_width": 64,
        "size_px": 32, "compile": True,
    }  # fmt: skip
    model = open_embedder(make_run(tmp_path, processor).location, device="cpu")
    video = barcode_video.write(tmp_path / "a.avi", 12)
    assert model.embed(video, "a title").shape == (8,)
    # That of many, as `msvqa similar` reads them from a folder, is.
    with pytest.raises(AssertionError, match="it is compiled"):
        model.processor.extractor().arrays(Medium.of_file(video))


@COMPILES
@pytest.mark.slow
def test_a_compiled_stage_learns_the_same_and_has_checkpoints_like_any_other(tmp_path):
    write_folder(tmp_path / "data", COUNTS)
    losses, names = {}, {}
    for compiles in (False, True):
        counters.clear()
        recipe = recipe_of(
            tmp_path, f"name=of-{compiles}", f"stages.1.compile={str(compiles).lower()}",
            "stages.1.steps=4", "stages.1.log_every_steps=1",
        )  # fmt: skip
        if not compiles:
            make_store(recipe, prepare(recipe.data))
        run, job = make_job(recipe, 1)
        host = LocalHost(run.stage_dir("finetune"))
        assert train_stage(job, host).step == 4
        assert bool(counters["inductor"]) == compiles
        rows = [row for row in run.metrics() if row["kind"] == "train"]
        losses[compiles] = [row["loss"] for row in rows]
        names[compiles] = list(read_weights(host.latest_checkpoint()))
    assert names[True] == names[False]
    assert len(losses[True]) == 4
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-3)
    assert StageLoop(job, host).position.step == 4


def test_activations_that_are_computed_again_are_not_compiled(tmp_path):
    raw = raw_recipe(tmp_path)
    raw["model"] |= {"checkpoint_activations": True, "encoder_chunk": 2}
    raw["stages"][1]["compile"] = True
    with pytest.raises(RecipeError, match=r"stages\.1\.compile: model\.checkpoint_activations"):
        check(parse(raw))
