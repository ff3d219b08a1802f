"""Work of every kind in which an error is raised, and what a user must see of it."""

import argparse
import signal

from msvqa import cli
from msvqa.data.medium import Medium
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location, store_spec
from msvqa.engine.actors import Work
from msvqa.engine.asking import Question
from msvqa.engine.ingest import ShardJob, ShardWriter
from msvqa.engine.prediction import Part, PredictionJob, Predictor
from msvqa.errors import MSVQAError
from msvqa.recipe import parse
from tests.raising import CLASSES, WORDS
from tests.tiny import make_checkpoint, raw_recipe


def answering(folder, name):
    """Return the tiny recipe with a stage that raises an error."""
    raw = raw_recipe(folder)
    objective = {"name": "tests.raising:RaisingObjective", "error": name}
    answer = raw["stages"][1] | {"objective": objective, "init_from": None}
    faults = {"max_failures": 0}
    return raw | {"name": f"run-{name}", "stages": [answer], "faults": faults}


def encoding(folder, name):
    """Return a recipe whose encoder raises an error."""
    appearance = {"name": "tests.raising:RaisingEncoder", "depth": 10, "base_width": 8}
    features = {
        "appearance": appearance | {"error": name}, "motion": {"name": "resnext3d", "depth": 50},
        "appearance_px": 32, "motion_px": 32, "appearance_width": 64,
    }  # fmt: skip
    raw = answering(folder, name)
    stages = [raw["stages"][0] | {"objective": {"name": "answering"}}]
    return raw | {"model": {"name": "dualvgr"}, "features": features, "stages": stages}


def extraction(folder, name):
    recipe = parse(encoding(folder, name))
    video = Medium("1", str(next((folder / "data" / "video").glob("*.avi"))))
    store, spec = str(folder / "store"), store_spec(recipe).to_dict()
    job = ShardJob(processor_of(recipe), store, spec, {}, {0: [video]})
    return Work(worker=ShardWriter, arguments=(job,), parts=[0])


def prediction(folder, name):
    recipe = parse(answering(folder, name))
    prepared = Prepared.open(folder / "p")
    checkpoint = make_checkpoint(folder / name / "answer", recipe, prepared, 1, finished=True)
    store = store_location(recipe)
    job = PredictionJob(
        checkpoint=str(checkpoint), prepared=prepared.location, store=store, split="test",
        recipe=recipe.to_dict(),
    )  # fmt: skip
    return Work(
        worker=Predictor, arguments=(job,), parts=[Part(Question("predict", "both"), [0, 1])]
    )


def check_told(error, name, capsys):
    """Assert what a user sees whose command ends with an error."""
    assert isinstance(error, MSVQAError)
    assert type(error) is CLASSES.get(name, type(error)), error

    def verb(arguments):
        raise error

    code = cli._perform(
        argparse.Namespace(command="train", run=verb, traceback=False, profile=None)
    )
    said = capsys.readouterr().err
    assert code == (128 + signal.SIGTERM if name == "StoppedError" else 2)
    check_words(said)


def check_words(said):
    assert said.count(WORDS) == 1
    assert len(said.splitlines()) <= 3, said
    assert not [sign for sign in ("Traceback", "File ", "ray::", "Task") if sign in said], said
