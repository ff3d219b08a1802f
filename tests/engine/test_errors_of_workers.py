"""Every error, raised for real in every kind of process: one sentence, an exit code, no traceback.

The work of extraction, prediction and training is done for each error in a real worker process of
Ray; trials are those of a real search. Whole commands are run for some of the errors.
"""

import argparse
import pickle
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from msvqa import cli
from msvqa.data.dataset import Prepared
from msvqa.data.store import store_location, store_spec
from msvqa.engine import cluster
from msvqa.engine.actors import FAILURE, Messenger, Pool, Work, perform
from msvqa.engine.ingest import ShardJob, ShardWriter, Video
from msvqa.engine.loop import StageJob
from msvqa.engine.prediction import PredictionJob, Predictor
from msvqa.engine.trainer import _fit, _train_function
from msvqa.errors import MSVQAError, NonFiniteLossError, OutOfMemoryError, StoppedError
from msvqa.recipe import parse
from msvqa.run import Run
from tests.raising import ALL, CLASSES, WORDS
from tests.tiny import make_checkpoint, raw_recipe

pytestmark = pytest.mark.ray

ERROR = "stages.answer.objective.error"


@pytest.fixture
def folder(tiny, tmp_path):
    """The data of the tiny experiment, and runs of this test alone."""
    for name in ("data", "p"):
        (tmp_path / name).symlink_to(tiny / name)
    return tmp_path


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
    video = Video("1", str(next((folder / "data" / "video").glob("*.avi"))))
    store, spec = str(folder / "store"), store_spec(recipe).to_dict()
    job = ShardJob(recipe.clips, recipe.to_dict(), store, spec, {}, {0: [video]})
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
    return Work(worker=Predictor, arguments=(job,), parts=[[0, 1]])


def training(folder, name):
    recipe = parse(answering(folder, name))
    run = Run.create(recipe)
    prepared, store = str(folder / "p"), store_location(recipe)
    job = StageJob(
        recipe=recipe.to_dict(), stage=0, run=run.location, prepared=prepared, store=store
    )
    return job.to_dict()


def check_told(error, name, capsys):
    """Assert what a user sees whose command ends with an error."""
    assert isinstance(error, MSVQAError)
    assert type(error) is CLASSES.get(name, type(error)), error

    def verb(arguments):
        raise error

    code = cli._perform(argparse.Namespace(run=verb, traceback=False))
    said = capsys.readouterr().err
    assert code == (128 + signal.SIGTERM if name == "StoppedError" else 2)
    check_words(said)


def check_words(said):
    assert said.count(WORDS) == 1
    assert len(said.splitlines()) <= 3, said
    assert not [sign for sign in ("Traceback", "File ", "ray::", "Task") if sign in said], said


@pytest.mark.parametrize("place", [extraction, prediction])
def test_errors_of_actors(ray_local, folder, capsys, place):
    def act(work):
        return Messenger(work)({"part": np.array([0])})

    actor = ray_local.remote(act)
    # What an extractor says of a video goes into the store.
    names = [name for name in ALL if (place, name) != (extraction, "VideoError")]
    for name in names:
        (sent,) = ray_local.get(actor.remote(place(folder, name)))[FAILURE]
        check_told(pickle.loads(sent), name, capsys)


def test_errors_of_training_workers(ray_local, folder, capsys):
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import WorkerGroupError

    def train_each(config):
        return {name: ended(_train_function, job) for name, job in config.items()}

    trainer = TorchTrainer(
        train_each,
        train_loop_config={name: training(folder, name) for name in ALL},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="each", storage_path=str(folder / "each")),
    )
    for name, (raised, error) in trainer.fit().return_value.items():
        # What all workers raise together is returned, or Ray would start them again.
        assert raised != issubclass(CLASSES.get(name, object), (NonFiniteLossError, StoppedError))
        if raised:
            error = _fit(SimpleNamespace(fit=failing(WorkerGroupError("", {0: error}))), None, 3)
        check_told(error, name, capsys)


def ended(function, *arguments):
    """Return whether a function has raised an error, with what it has raised or returned."""
    try:
        return False, function(*arguments)
    except Exception as error:
        return True, error


def failing(error):
    def fit():
        raise error

    return fit


def test_errors_of_trials(ray_local, folder, capsys):
    recipe, space = folder / "recipe.yaml", folder / "space.yaml"
    recipe.write_text(yaml.safe_dump(answering(folder, "DataError") | {"name": "walk"}))
    fields = {ERROR: {"grid": ALL}}
    space.write_text(yaml.safe_dump({"name": "errors", "fields": fields, "samples": 1}))
    assert cli.main(["tune", str(recipe), str(space)]) == cli.EXIT_PROBLEMS
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if WORDS in line]
    for number, name in enumerate(ALL):
        state = "diverged" if name == "NonFiniteLossError" else "failed"
        said = [line for line in lines if line.startswith(f"trial-{number:04d} {state}: ")]
        if name != "RecipeError":  # whose problems have lines of their own
            assert len(said) == 1, (name, printed.out)
    assert len(lines) == len(ALL)
    assert "Traceback" not in printed.out + printed.err


COMMANDS = [
    ("extract", encoding, "RecipeError"),
    ("extract", encoding, "disk"),
    ("train", answering, "WeightsError"),
    ("train", answering, "gpu"),
    ("train", answering, "disk"),
]


@pytest.mark.parametrize(("verb", "recipe_of", "name"), COMMANDS)
def test_whole_commands_end_with_one_sentence(ray_local, folder, capsys, verb, recipe_of, name):
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(recipe_of(folder, name)))
    assert cli.main([verb, str(recipe)]) == cli.EXIT_ERROR
    check_words(capsys.readouterr().err)


def test_an_evaluation_ends_with_one_sentence(ray_local, folder, capsys):
    recipe = parse(answering(folder, "gpu"))
    run = Run.create(recipe)
    make_checkpoint(run.stage_dir("answer"), recipe, Prepared.open(folder / "p"), 1, finished=True)
    assert cli.main(["evaluate", run.location, "--split", "test"]) == cli.EXIT_ERROR
    check_words(capsys.readouterr().err)


def test_a_bug_keeps_its_lines_and_names_the_logs(ray_local, folder, caplog):
    work = replace(prediction(folder, "gpu"), arguments=("no job",))
    wrong = pytest.raises(Exception, match="'str' object has no attribute 'recipe'")
    with wrong, cluster.connected():
        list(perform(work, Pool(1)))
    assert "This must be a bug. The logs of all processes are in " in caplog.text


def test_out_of_memory_is_not_tried_again(ray_local, folder):
    (sent,) = Messenger(prediction(folder, "gpu"))({"part": np.array([0])})[FAILURE]
    error = pickle.loads(sent)
    assert isinstance(error, OutOfMemoryError)
    assert "the memory of the GPU is too small" in str(error)
