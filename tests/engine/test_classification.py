"""A tiny UMT learns two kinds of videos without Ray, from nothing and after its distillation."""

from pathlib import Path

import pytest

from msvqa.data.processors.processor import processor_of, store_location
from msvqa.engine.checkpoint import load_checkpoint
from msvqa.engine.inputs import open_inputs
from msvqa.engine.needs import Needs
from msvqa.engine.prediction import objective_of, predict_split
from msvqa.errors import RunError
from msvqa.evaluate import Asked, record, rescore
from msvqa.models.model import Sizes
from msvqa.predict import from_pretrained
from msvqa.prepare import prepare
from msvqa.recipe import parse
from msvqa.report import report
from msvqa.run import Run
from msvqa.train import check_initial_fit
from tests.engine.test_loop import train
from tests.labelled_folder import KINDS, write_folder
from tests.models.small_umt import SMALL
from tests.tiny import make_store

COUNTS = {"train": 8, "val": 4, "test": 4}
FRAMES = {"name": "frames", "frames": 4, "size_px": 32, "candidates": 3, "flip": False}
IDLE = ("text", "fusion", "projections")


def recipe_of(folder, *overrides):
    stage = {"batch": {"examples": 4}, "validate_every_epochs": 10}
    raw = {
        "name": "classified",
        "runs": str(folder / "runs"),
        "data": {
            "name": "labelled_videos", "root": str(folder / "data"), "prepared": str(folder / "p"),
        },
        "processor": FRAMES,
        "model": {"name": "umt", **SMALL, "classifier": {"init_scale": 1.0}},
        "stages": [
            {
                "name": "distil",
                "objective": {"name": "distillation"},
                "steps": 2,
                "parts": dict.fromkeys((*IDLE, "classifier"), "absent"),
                **stage,
            },
            {
                "name": "finetune",
                "objective": {"name": "classification"},
                "init_from": "distil",
                "fresh": ["classifier"],
                "steps": 30,
                "parts": dict.fromkeys((*IDLE, "teacher", "heads"), "absent"),
                "optimizer": {"name": "adamw", "lr": 3e-3, "layer_decay": 0.75},
                **stage,
            },
        ],
    }  # fmt: skip
    return parse(raw, overrides)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Videos of two kinds, prepared, with a store of their frames."""
    folder = tmp_path_factory.mktemp("classified")
    write_folder(folder / "data", COUNTS)
    recipe = recipe_of(folder)
    make_store(recipe, prepare(recipe.data))
    return folder


def asked(recipe):
    """Return answers about the test split, and what is recorded of them in the run."""
    prepared, run = prepare(recipe.data), Run.open(recipe.run_location)
    checkpoint = run.checkpoint("finetune", "last")
    view = recipe.of_stage(-1)
    inputs = open_inputs(view, prepared, store_location(view), "test")
    answers = predict_split(objective_of(load_checkpoint(checkpoint)), inputs, 4)
    del answers["row"]
    what = Asked.of(run, (), "test", None)
    return answers, record(what, checkpoint, prepared, inputs.split, answers)


def test_parts_that_the_data_has_no_words_for_may_be_dropped(folder):
    """A checkpoint that was aligned with texts has them, and one that classifies has labels."""
    for stage, known, dropped in (
        (1, {"labels": 2}, "text.words.weight"),
        (0, {"vocabulary": 9}, "classifier.head.weight"),
    ):
        view = recipe_of(folder).of_stage(stage)
        sizes = Sizes(**known, **processor_of(view).sizes())
        assert dropped in Needs.at_start(view, sizes).dropped


@pytest.mark.long
def test_a_tiny_model_learns_two_kinds_after_its_distillation(folder, tmp_path):
    recipe = recipe_of(folder, f"runs={tmp_path}")
    prepared = prepare(recipe.data)
    check_initial_fit(recipe, [prepared] * 2)
    train(recipe, 0)
    start = Run.open(recipe.run_location).checkpoint("distil", "last")
    assert train(recipe, 1, start=start).step == 30
    rows = Run.open(recipe.run_location).metrics()
    validated = [row for row in rows if row["kind"] == "validation" and "accuracy" in row]
    assert validated[-1]["accuracy"] == validated[-1]["mean_label_accuracy"] == 1.0
    answers, found = asked(recipe)
    assert (found["accuracy"], found["n"], found["n_labels"]) == (1.0, 4, len(KINDS))
    assert rescore(recipe.run_location, "test") == found
    page = Path(report(recipe.run_location)).read_text(encoding="utf-8")
    assert "mean over labels" in page and "1.000 to 1.000" in page
    with pytest.raises(RunError, match="was not trained on questions: it knows no answers"):
        from_pretrained(recipe.run_location)
    # Three views of each medium, of the same store.
    averaged, of_views = asked(recipe_of(folder, f"runs={tmp_path}", "processor.views=3"))
    assert of_views["accuracy"] == 1.0
    assert (averaged["probability"] != answers["probability"]).any()
