"""Every error, raised for real in every kind of process: one sentence, an exit code, no traceback.

The work of extraction, prediction and training is done for each error in a real worker process of
Ray; trials are those of a real search. Whole commands are run for some of the errors.
"""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from msvqa import cli
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import store_location
from msvqa.engine import cluster
from msvqa.engine.actors import FAILURE, Messenger, Pool, perform
from msvqa.engine.cluster import Placement
from msvqa.engine.loop import StageJob
from msvqa.engine.search import SearchJob, run_trial
from msvqa.engine.sweep import Sweep
from msvqa.engine.trainer import _fit, _train_function
from msvqa.errors import NonFiniteLossError, OutOfMemoryError, StoppedError
from msvqa.recipe import parse
from msvqa.run import Run
from msvqa.space import parse_space
from tests.engine.raising_work import (
    answering,
    check_told,
    check_words,
    encoding,
    extraction,
    prediction,
)
from tests.raising import ALL, CLASSES, WORDS
from tests.tiny import make_checkpoint

pytestmark = pytest.mark.ray

ERROR = "stages.answer.objective.error"


@pytest.fixture
def folder(tiny, tmp_path):
    """The data of the tiny experiment, and runs of this test alone."""
    for name in ("data", "p"):
        (tmp_path / name).symlink_to(tiny / name)
    return tmp_path


def training(folder, name):
    recipe = parse(answering(folder, name))
    run = Run.create(recipe)
    prepared, store = str(folder / "p"), store_location(recipe)
    job = StageJob(
        recipe=recipe.to_dict(), stage=0, run=run.location, prepared=prepared, store=store
    )
    return job.to_dict()


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
    recipe = parse(answering(folder, "DataError") | {"name": "walk"})
    fields = {ERROR: {"grid": ALL}}
    space = parse_space({"name": "each", "fields": fields, "search": "grid"})
    sweep = Sweep.create(recipe, space)
    job = SearchJob(
        recipe=recipe.to_dict(), space=space.model_dump(mode="json"),
        placement=Placement(1, 1.0, 0.0),
    )  # fmt: skip
    trials = {f"trial-{number:04d}": name for number, name in enumerate(ALL)}

    def run_each():
        return {
            trial: ended(run_trial, job, trial, {ERROR: name}) for trial, name in trials.items()
        }

    for trial, (raised, error) in ray_local.get(ray_local.remote(run_each).remote()).items():
        name = trials[trial]
        told = sweep.trial(trial, {ERROR: name}, "running")
        assert told.state == ("diverged" if name == "NonFiniteLossError" else "failed")
        assert told.message.count(WORDS) == 1
        assert "Traceback" not in told.message
        if raised:
            check_told(error, name, capsys)


def test_a_search_tells_of_trials_that_fail(ray_local, folder, capsys):
    recipe, space = folder / "recipe.yaml", folder / "space.yaml"
    recipe.write_text(yaml.safe_dump(answering(folder, "DataError") | {"name": "walk"}))
    names = ["DataError", "NonFiniteLossError", "gpu"]
    fields = {ERROR: {"grid": names}}
    space.write_text(yaml.safe_dump({"name": "errors", "fields": fields, "samples": 1}))
    assert cli.main(["tune", str(recipe), str(space)]) == cli.EXIT_PROBLEMS
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if WORDS in line]
    assert len(lines) == len(names)
    for number, name in enumerate(names):
        state = "diverged" if name == "NonFiniteLossError" else "failed"
        said = [line for line in lines if line.startswith(f"trial-{number:04d} {state}: ")]
        assert len(said) == 1, (name, printed.out)
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
