"""A tiny UMT answers questions about videos without Ray: trained, resumed, evaluated, asked."""

import json

import pytest
import torch

from msvqa.checks.checkpoints import check_initial_fit
from msvqa.data.datasets.synthetic import generate
from msvqa.data.pieces import clean
from msvqa.data.processors.processor import store_location
from msvqa.engine.checkpoint import load_checkpoint, read_weights
from msvqa.engine.inputs import open_inputs
from msvqa.engine.prediction import objective_of, predict_split
from msvqa.engine.rehearsal import rehearse
from msvqa.engine.stage_model import start_model
from msvqa.errors import CheckpointError
from msvqa.evaluate import Asked, record, rescore
from msvqa.predict import from_pretrained
from msvqa.prepare import prepare
from msvqa.recipe import parse
from msvqa.run import Run
from tests.aligned_run import make_run
from tests.bert_folder import PIECES, write_vocabulary
from tests.engine.test_loop import assert_equal, final_weights, train
from tests.local_host import StoppingHost
from tests.models.small_umt import SMALL
from tests.tiny import make_job, make_store

ABSENT = ("teacher", "heads", "projections", "classifier")


def recipe_of(folder, *overrides):
    raw = {
        "name": "asked", "runs": str(folder / "runs"),
        "data": {
            "name": "msvd_qa", "root": str(folder / "data"), "prepared": str(folder / "p"),
            "tokenizer": str(folder / "bert"), "text_length": 9,
        },
        "processor": {"name": "frames", "frames": 2, "size_px": 32, "candidates": 1},
        "model": {"name": "umt", **SMALL},
        "stages": [
            {
                "name": "answer", "objective": {"name": "answer_ranking", "candidates": 8},
                "steps": 8, "parts": dict.fromkeys(ABSENT, "absent"),
                "batch": {"videos": 2, "questions_per_video": 4},
                "optimizer": {"name": "adamw", "lr": 3e-3},
                "checkpoint": {"every_steps": 2}, "validate_every_epochs": 10,
            }
        ],
    }  # fmt: skip
    return parse(raw, overrides)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Generated videos with questions, a vocabulary that has all of their words, and a store."""
    folder = tmp_path_factory.mktemp("asked")
    generate(folder / "data", videos={"train": 6, "val": 2, "test": 2})
    rows = json.loads((folder / "data" / "train_qa.json").read_text())
    words = {w for row in rows for w in (*clean(row["question"]).split(), row["answer"])}
    write_vocabulary(folder / "bert", [*PIECES, *sorted(words - {*PIECES})])
    recipe = recipe_of(folder)
    make_store(recipe, prepare(recipe.data))
    return folder


@pytest.mark.long
def test_it_trains_resumes_exactly_and_is_asked(folder, tmp_path):
    whole, cut = (recipe_of(folder, f"runs={tmp_path}", f"name={n}") for n in ("whole", "cut"))
    train(whole, 0)
    run, _ = make_job(cut, 0)
    with pytest.raises(KeyboardInterrupt):
        train(cut, 0, StoppingHost(run.stage_dir("answer"), 2))
    train(cut, 0)
    assert_equal(final_weights(whole, "answer"), final_weights(cut, "answer"))
    prepared, run = prepare(whole.data), Run.open(whole.run_location)
    validated = [row for row in run.metrics() if row["kind"] == "validation"]
    assert 0 <= validated[-1]["accuracy"] <= 1
    checkpoint = run.checkpoint("answer", "last")
    inputs = open_inputs(whole.of_stage(0), prepared, store_location(whole), "test")
    answers = predict_split(objective_of(load_checkpoint(checkpoint)), inputs, 4)
    del answers["row"]
    found = record(Asked.of(run, (), "test", None), checkpoint, prepared, inputs.split, answers)
    assert found["n"] == len(inputs.split) and found["n_not_finite"] == 0
    assert rescore(whole.run_location, "test") == found
    medium, question = inputs.split.media.medium(0), "what is moving?"
    given = from_pretrained(whole.run_location, device="cpu").answer(medium.path, question, top_k=3)
    assert len(given) == 3 and all(answer.text[0] != "<" for answer in given)
    assert given[0].probability >= given[1].probability > 0


def test_a_rehearsal_needs_no_weights(folder, tmp_path):
    recipe = recipe_of(folder, f"runs={tmp_path}")
    (estimate,) = rehearse(recipe, [prepare(recipe.data)])
    assert estimate.loss > 0


@pytest.mark.long
def test_the_decoder_is_new_after_an_alignment_and_begins_as_its_fusion_half(folder, tmp_path):
    aligned = make_run(tmp_path, tokenizer=str(folder / "bert"))
    start = aligned.checkpoint("align")
    recipe = recipe_of(
        folder, f"stages.0.init_from={aligned.location}", "stages.0.fresh=[decoder]",
        "processor.frames=4",
    )  # fmt: skip
    prepared = prepare(recipe.data)
    model, origins = start_model(recipe.of_stage(0), prepared, start)
    weights = read_weights(start)
    assert torch.equal(model.decoder.words.weight, weights["text.words.weight"])
    assert torch.equal(
        model.decoder.layers[0].own.query.weight, weights["fusion.layers.0.own.query.weight"]
    )
    assert (model.decoder.answers[2:, 1] >= 5).all(), "every answer has pieces"
    check_initial_fit(recipe, [prepared])
    assert origins["fusion"].source == "checkpoint" and origins["decoder"].source == "chance"


def test_a_start_of_another_vocabulary_as_large_is_refused(folder, tmp_path):
    pieces = (folder / "bert" / "vocab.txt").read_text().splitlines()
    other = write_vocabulary(tmp_path / "bert", [*pieces[:-2], pieces[-1], pieces[-2]])
    start = make_run(tmp_path, tokenizer=other).location
    overrides = (f"runs={tmp_path}/other", f"stages.0.init_from={start}", "processor.frames=4")
    recipe = recipe_of(folder, "stages.0.fresh=[decoder]", *overrides)
    with pytest.raises(CheckpointError, match=r"other pieces of words than data\.tokenizer has"):
        check_initial_fit(recipe, [prepare(recipe.data)])
