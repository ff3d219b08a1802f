"""Videos and texts compared from Python, by a run that ends with an alignment."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

import msvqa
from msvqa.data.medium import Medium
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.engine.asking import Question, ask
from msvqa.engine.inputs import open_inputs
from msvqa.errors import CheckpointError, DataError, RunError, VideoError
from msvqa.matcher import Matcher
from msvqa.predict import predict
from msvqa.prepare import prepare
from msvqa.recipe import parse
from msvqa.run import Run
from tests.aligned_run import CAPTIONS, make_run
from tests.bert_folder import write_vocabulary
from tests.tiny import make_store


@pytest.fixture(scope="module", params=["words", "pieces"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligned")
    pieces = write_vocabulary(folder / "bert") if request.param == "pieces" else None
    return make_run(folder, tokenizer=pieces)


@pytest.fixture(scope="module")
def model(run):
    return msvqa.from_pretrained(run.location, device="cpu")


@pytest.mark.long
def test_files_and_texts_have_the_vectors_that_evaluation_sees(run, model):
    prepared = prepare(run.recipe.data)
    store = make_store(run.recipe, prepared)
    inputs = open_inputs(run.recipe.of_stage(0), prepared, store_location(run.recipe), "train")
    assert store and isinstance(model, Matcher)
    seen = ask(model.objective, inputs, Question("encode_video", "media"), [0, 1], 2)["vector"]
    said = ask(model.objective, inputs, Question("encode_text", "examples"), [0, 1], 2)["vector"]
    scores = ask(model.objective, inputs, Question("match", "both"), [0, 1], 2)["score"]
    for row, (name, text) in enumerate([*CAPTIONS.items()][:2]):
        file = f"{run.recipe.data.root}/{name}"
        np.testing.assert_allclose(model.encode_video(file), seen[row], atol=1e-5)
        np.testing.assert_allclose(model.encode_text(text), said[row], atol=1e-5)
        assert model.match(file, text) == pytest.approx(1 / (1 + np.exp(-scores[row])), abs=1e-5)
    vector = model.encode_text("a ball")
    assert vector.dtype == np.float32 and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_an_image_is_one_frame(model, tmp_path, ending):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file := tmp_path / f"still.{ending}")
    (arrays,) = processor_of(model.loaded.view).arrays([Medium.of_file(file)])
    batch = {"frames": torch.from_numpy(arrays["frames"][None, :1])}
    alone = model.objective.encode_video(batch)["vector"][0].detach().numpy()
    np.testing.assert_allclose(model.encode_video(file), alone, atol=1e-5)


def test_what_cannot_be_compared_is_said(run, model):
    with pytest.raises(DataError, match="'\\?' has no words"):
        model.encode_text("?")
    with pytest.raises(VideoError):
        model.encode_video("no.avi")
    with pytest.raises(RunError, match=r"has encode_video, encode_text and match"):
        predict(run.location, "a.avi", "what is it?")


def test_words_that_are_not_known_are_logged(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    model = msvqa.from_pretrained(make_run(tmp_path).location)
    model.encode_text("a purple ball")
    assert "not among the words of training: purple" in caplog.text


@pytest.mark.long
def test_matching_that_nothing_trained_is_said_and_what_is_not_there_refused(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    run = make_run(tmp_path / "a", "stages.0.objective.matching=0")
    model, file = msvqa.from_pretrained(run.location), f"{run.recipe.data.root}/a.avi"
    assert 0 < model.match(file, "a ball") < 1
    assert "trained without `matching`" in caplog.text
    absent = ("stages.0.objective.matching=0", "stages.0.parts.fusion=absent")
    other = msvqa.from_pretrained(make_run(tmp_path / "b", *absent).location)
    with pytest.raises(RunError, match="no part that sees a video beside a text"):
        other.match(file, "a ball")
    for weight in other.objective.model.parameters():
        weight.data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="numbers that are not finite"):
        other.encode_video(file)


def test_a_run_that_distils_has_no_answers(tmp_path):
    run = make_run(tmp_path)
    raw = run.recipe.to_dict()
    stage = raw["stages"][0] | {
        "name": "distil",
        "objective": {"name": "distillation"},
        "parts": {},
    }
    distilled = Run.create(parse(raw | {"name": "distilled", "stages": [stage]}))
    with pytest.raises(RunError, match=r"'distil' \(distillation\), answers no questions"):
        msvqa.from_pretrained(distilled.location)
