"""A real search on Ray: trials are runs, the best becomes a recipe, a killed search goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from msvqa.data.datasets.synthetic import generate
from msvqa.errors import RecipeError
from msvqa.evaluate import evaluate
from msvqa.recipe import load
from msvqa.run import Run
from msvqa.space import parse_space
from msvqa.tune import check_search, tune
from tests.tiny import VIDEOS, make_recipe

LR = "stages.answer.optimizer.lr"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    generate(folder / "data", videos=VIDEOS)
    return folder


def space(name, fields=None, **changes):
    fields = fields or {LR: {"log_uniform": [1e-4, 1e-2]}}
    return parse_space({"name": name, "fields": fields, "samples": 3, **changes})


def test_problems_of_values_are_found_before_ray_starts(folder):
    fields = {"model.heads": {"choice": [2, 3]}, "stages.0.batch.videos": {"choice": [3]}}
    recipe = make_recipe(
        folder,
        "stages.0.batch.accumulate=2",
        "clips.cache=none",
        "scaling.workers={min: 1, max: 2}",
    )
    with pytest.raises(RecipeError) as caught:
        check_search(recipe, space("wrong", fields, samples=20))
    text = str(caught.value)
    assert "clips.cache: none" in text
    assert "scaling.workers: the trials of a search need one number" in text
    assert "stages.0.batch.videos: 3 is not a multiple" in text
    assert "heads" in text


@pytest.mark.ray
def test_trials_are_runs_and_the_best_is_a_recipe(folder, ray_local):
    said = []
    asha = {"name": "asha", "grace_epochs": 1, "reduction": 2}
    result = tune(make_recipe(folder), space("lr", scheduler=asha), on_trial=said.append)
    assert {trial.state for trial in result.trials} <= {"finished", "stopped"}
    assert result.trials[0].state == "finished"
    values = [trial.value for trial in result.trials]
    assert values == sorted(values, reverse=True) and None not in values
    assert {trial.name for trial in said} == {trial.name for trial in result.trials}

    shared = Run.open(result.sweep.path / "shared")
    for trial in result.trials:
        run = Run.open(trial.path)
        assert run.recipe.stages[1].optimizer.lr == trial.values[LR]
        assert run.checkpoint("reconstruct").samefile(shared.checkpoint("reconstruct"))
        assert {row["stage"] for row in run.metrics()} == {"reconstruct", "answer"}
    table = pq.read_table(result.sweep.path / "trials.parquet")
    assert table.column("accuracy").to_pylist() == values
    assert result.page.read_text().count("<svg") == 2
    metrics = evaluate(result.trials[0].path, "val")
    assert metrics["accuracy"] == pytest.approx(result.best.value)

    assert load(result.sweep.path / "best.yaml").stages[1].optimizer.lr == result.best.values[LR]

    said.clear()
    again = tune(make_recipe(folder), space("lr", scheduler=asha), on_trial=said.append)
    assert again.trials == result.trials and not said


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("search", ["optuna", "pbt", "diverging"])
def test_other_searches(folder, ray_local, search):
    changes = {
        "optuna": {"search": "optuna", "scheduler": {"name": "median"}},
        "pbt": {"samples": 4, "scheduler": {"name": "pbt"}},
        "diverging": {"fields": {LR: {"grid": [1e-3, 1e30]}}, "samples": 1},
    }[search]
    recipe = make_recipe(folder, "stages.answer.epochs=4")
    result = tune(recipe, space(search, **changes))
    states = sorted(trial.state for trial in result.trials)
    if search == "diverging":
        assert states == ["diverged", "finished"]
        assert "loss is not finite" in result.trials[1].message
        return
    assert set(states) <= {"finished", "stopped"} and "finished" in states
    assert all(1e-4 <= trial.values[LR] <= 1e-2 for trial in result.trials)
    for trial in result.trials:
        assert Run.open(trial.path).checkpoint("answer")
        kept = yaml.safe_load((trial.path / "recipe.yaml").read_text())
        assert kept["stages"][1]["optimizer"]["lr"] == pytest.approx(trial.values[LR])


NESTED = """
import sys
from pathlib import Path
from msvqa.tune import tune
from tests.test_tune import space
from tests.tiny import make_recipe
recipe = make_recipe(Path(sys.argv[1]), "scaling.workers=2", "scaling.cpus_per_worker=0.5")
asha = {"name": "asha", "grace_epochs": 1, "reduction": 2}
tune(recipe, space("nested", scheduler=asha))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_trials_with_two_workers_are_stopped_early_and_leave_nothing(folder):
    """In its own process: this cluster needs a dashboard."""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", NESTED, str(folder)]
    subprocess.run(command, env=environment, check=True, timeout=400)
    table = pq.read_table(folder / "runs" / "tiny-nested" / "trials.parquet").to_pylist()
    assert len(table) == 3 and {row["state"] for row in table} <= {"finished", "stopped"}
    assert all(json.dumps(row["accuracy"]) for row in table)
