"""A real search on Ray: trials are runs, the best becomes a recipe, a killed search goes on."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from msvqa.data.datasets.synthetic import generate
from msvqa.data.processors.processor import store_location
from msvqa.engine import waiting
from msvqa.engine.checkpoint import read_weights
from msvqa.engine.loop import StageJob, train_stage
from msvqa.errors import DataError, RecipeError, RunError
from msvqa.evaluate import evaluate
from msvqa.extract import extract
from msvqa.recipe import load, parse
from msvqa.report import report
from msvqa.run import Run
from msvqa.space import parse_space
from msvqa.tune import check_search, tune
from tests.faults.bench import Command
from tests.forked_python import program
from tests.local_host import LocalHost
from tests.marks import again
from tests.said import when_said
from tests.tiny import VIDEOS, make_recipe, raw_recipe

LR = "stages.answer.optimizer.lr"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    generate(folder / "data", videos=VIDEOS)
    return folder


def space(name, fields=None, **changes):
    fields = fields or {LR: {"log_uniform": [1e-4, 1e-2]}}
    return parse_space({"name": name, "fields": fields, "samples": 3, **changes})


@pytest.mark.long
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


@pytest.mark.long
def test_a_misspelt_metric_is_found_before_ray_starts(folder):
    misspelt = space("metric", metric="acuracy", mode="max")
    with pytest.raises(RecipeError) as caught:
        check_search(make_recipe(folder), misspelt)
    [problem] = caught.value.problems
    assert problem == (
        "metric: validation of stage 'answer' yields no 'acuracy' (did you mean 'accuracy'?), "
        "but accuracy"
    )
    assert check_search(make_recipe(folder), space("metric", metric="accuracy", mode="max"))


@pytest.mark.long
def test_a_population_of_trials_with_more_workers_is_refused(folder):
    recipe = make_recipe(folder, "scaling.workers=2", "scaling.cpus_per_worker=0.5")
    with pytest.raises(RecipeError, match="pbt needs trials of one worker"):
        check_search(recipe, space("group", scheduler={"name": "pbt"}))


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ("stages.answer.init_from={folder}/nowhere", RunError, "nowhere is not a run"),
        ("data.root={folder}/typo", DataError, "typo"),
        ("data.root={folder}/empty", DataError, "none of the 6 training videos is present"),
    ],
)
def test_what_train_refuses_is_refused_and_leaves_no_search(folder, change, kind, words):
    annotations = shutil.ignore_patterns("*.avi", "*.mp4")
    shutil.copytree(folder / "data", folder / "empty", ignore=annotations, dirs_exist_ok=True)
    changes = [change.format(folder=folder), "data.allow_missing=true"]
    recipe = make_recipe(folder, "name=refused", f"data.prepared={folder}/p2", *changes)
    with pytest.raises(kind, match=words):
        tune(recipe, space("early"))
    assert not Path(recipe.runs, "refused-early").exists()


@pytest.mark.ray
def test_trials_are_runs_and_the_best_is_a_recipe(folder, ray_local):
    said = []
    asha = {"name": "asha", "grace_epochs": 2, "reduction": 2}
    # The last one begins when another has reported, and learns nothing.
    searched = space("lr", {LR: {"grid": [1e-2, 3e-3, 1e-8]}}, samples=1, scheduler=asha)
    recipe = make_recipe(folder, "stages.answer.epochs=4")
    result = tune(recipe, searched, on_trial=said.append)
    states = {trial.name: trial.state for trial in result.trials}
    assert set(states.values()) <= {"finished", "stopped"}
    assert result.trials[0].state == "finished" and states["trial-0002"] == "stopped"
    values = [trial.value for trial in result.trials]
    assert values == sorted(values, reverse=True) and None not in values
    ends = [trial.name for trial in said if trial.ended]
    assert sorted(ends) == sorted(trial.name for trial in result.trials), "each once"

    shared = Run.open(result.sweep.path / "shared")
    for trial in result.trials:
        run = Run.open(trial.location)
        assert run.recipe.stages[1].optimizer.lr == trial.values[LR]
        assert run.checkpoint("reconstruct").samefile(shared.checkpoint("reconstruct"))
        assert {row["stage"] for row in run.metrics()} == {"reconstruct", "answer"}
    table = pq.read_table(result.sweep.path / "trials.parquet")
    assert table.column("accuracy").to_pylist() == values
    assert Path(result.page).read_text().count("<svg") == 2
    metrics = evaluate(result.trials[0].location, "val")
    assert metrics["accuracy"] == pytest.approx(result.best.value)
    assert "answer" in Path(report(result.trials[-1].location)).read_text(), "of the worst"

    assert load(result.sweep.path / "best.yaml").stages[1].optimizer.lr == result.best.values[LR]

    said.clear()
    again = tune(recipe, searched, on_trial=said.append)
    assert again.trials == result.trials and not said


# A search that has dropped the exception of a signal could otherwise finish in its time of grace.
HASTE = "from msvqa.interruption import Interruption as i; i.__init__.__defaults__ = (3.0,); "


class CommandLine:
    """`msvqa tune` with three trials of one stage in processes of its own; two run at once."""

    def __init__(self, folder):
        self.folder, self.sweep = folder, folder / "runs" / "tiny-killed"
        raw = raw_recipe(folder)
        raw["stages"] = [raw["stages"][0] | {"epochs": 12}]
        (folder / "recipe.yaml").write_text(yaml.safe_dump(raw))
        fields = {"stages.reconstruct.optimizer.lr": {"log_uniform": [1e-4, 1e-2]}}
        content = {"name": "killed", "fields": fields, "samples": 3}
        (folder / "space.yaml").write_text(yaml.safe_dump(content))

    def start(self, *, plain=False):
        files = (str(self.folder / "recipe.yaml"), str(self.folder / "space.yaml"))
        log = self.folder / "tune.log"
        return Command("tune", *files, log=log, before=HASTE, plain=plain)

    def trials(self):
        return [Run.open(file.parent) for file in sorted(self.sweep.glob("trial-*/recipe.yaml"))]

    def reported(self):
        return any(validation_steps(run) for run in self.trials())

    def finished(self):
        return [run for run in self.trials() if run.is_finished("reconstruct")]

    def trained_alone(self, run):
        """Train a trial once more, in this process and without any break."""
        folder = self.folder / "alone" / run.path.name
        job = StageJob(
            recipe=run.recipe.to_dict(),
            stage=0,
            run=str(folder),
            prepared=str(run.recipe.data.prepared),
            store=str(store_location(run.recipe)),
        )
        folder.mkdir(parents=True)
        train_stage(job, host := LocalHost(folder / "reconstruct"))
        return read_weights(host.latest_checkpoint())


def validation_steps(run):
    return [row["step"] for row in run.metrics() if row["kind"] == "validation"]


def results_of(run):
    """Return what changes when a file of the last or best checkpoint is written again.

    A trial that is finished may still be about to remove older ones.
    """
    kept = {run.checkpoint("reconstruct", which) for which in ("last", "best")}
    stats = {file: file.stat() for folder in kept for file in folder.iterdir()}
    return {file: (stat.st_ino, stat.st_mtime_ns) for file, stat in stats.items()}


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_goes_on_after_an_interrupt_and_a_kill(folder):
    search = CommandLine(folder)
    command = search.start()
    command.until(search.reported, "a trial has reported")
    command.kill(signal.SIGINT, group=True)  # what Ctrl-C on a terminal does
    assert command.ends() == 130, command.said()
    assert command.said().splitlines()[-1].startswith("Interrupted")

    command = search.start()
    command.until(search.finished, "a trial is finished")
    done = [(run, results_of(run)) for run in search.finished()]
    command.kill()  # the driver alone; its trials find out by themselves
    command.ends()
    assert len(done) < 3
    search.start().ends_well()

    table = pq.read_table(search.sweep / "trials.parquet").to_pylist()
    assert [row["state"] for row in table] == ["finished"] * 3
    assert all(results_of(run) == before for run, before in done)
    for run in search.trials():
        steps = validation_steps(run)
        assert len(steps) == 12 and steps == sorted(set(steps))
        found, alone = (
            read_weights(run.checkpoint("reconstruct", "last")),
            search.trained_alone(run),
        )
        assert all(torch.equal(found[name], value) for name, value in alone.items())


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.1, 2.5, 5.5, *again((1.0, 4.0, 7.0))])
def test_a_search_ends_when_it_is_interrupted_at_any_moment(folder, after_s):
    command = CommandLine(folder).start(plain=True)
    command.until(command.answers_signals, "it answers signals")
    time.sleep(after_s)
    command.kill(signal.SIGINT, group=True)
    assert command.ends() == 130, command.said()


@pytest.mark.ray
def test_a_search_without_room_says_so_and_goes_on(folder, ray_local, caplog, monkeypatch):
    monkeypatch.setattr(waiting, "TRIALS_START_WITHIN_S", 1.0)
    raw = make_recipe(folder, "name=waits").to_dict()
    recipe = parse(raw | {"stages": raw["stages"][:1]})
    extract(recipe)
    fields = {"stages.reconstruct.optimizer.lr": {"choice": [1e-3]}}
    # A placement group holds the CPUs until it is removed.
    taken = ray_local.util.placement_group([{"CPU": 2}])
    ray_local.get(taken.ready(), timeout=60)
    waits = "no trial runs: each waits for 1 workers x (1 CPUs, 0 GPUs): the cluster has 2 CPUs"
    with when_said(waits, caplog, lambda: ray_local.util.remove_placement_group(taken)):
        result = tune(recipe, space("room", fields, samples=1))
    assert [trial.state for trial in result.trials] == ["finished"]
    assert "the search goes on" in caplog.text


@pytest.mark.ray
@pytest.mark.slow
def test_trials_that_diverge_are_over(folder, ray_local):
    fields, median = {LR: {"grid": [1e-3, 1e30]}}, {"name": "median"}
    searched = space("diverging", fields, samples=1, scheduler=median)
    result = tune(make_recipe(folder, "stages.answer.epochs=4"), searched)
    assert [trial.state for trial in result.trials] == ["finished", "diverged"]
    assert "loss is not finite" in result.trials[1].message


@pytest.mark.ray
@pytest.mark.slow
def test_optuna_with_trials_that_are_stopped(folder, ray_local):
    searched = space("optuna", search="optuna", scheduler={"name": "median"})
    result = tune(make_recipe(folder, "stages.answer.epochs=4"), searched)
    states = {trial.state for trial in result.trials}
    assert states <= {"finished", "stopped"} and "finished" in states
    assert all(1e-4 <= trial.values[LR] <= 1e-2 for trial in result.trials)
    for trial in result.trials:
        assert Run.open(trial.location).checkpoint("answer")
        assert recipe_lr(trial) == pytest.approx(trial.values[LR])


def recipe_lr(trial):
    kept = yaml.safe_load(Path(trial.location, "recipe.yaml").read_text())
    return kept["stages"][-1]["optimizer"]["lr"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_population_goes_on_from_copies_and_every_trial_ends(folder, ray_local):
    epochs, said = 6, []
    searched = space("pbt", samples=3, scheduler={"name": "pbt", "every_epochs": 2})
    raw = make_recipe(folder, f"stages.1.epochs={epochs}", "stages.1.checkpoint.keep=1").to_dict()
    recipe = parse(raw | {"stages": [raw["stages"][1] | {"init_from": None}]})
    result = tune(recipe, searched, on_trial=said.append)
    trials = sorted(result.trials, key=lambda trial: trial.name)
    assert [trial.state for trial in trials] == ["finished"] * 3
    assert [trial.epochs for trial in trials] == [epochs] * 3
    drawn = [point[LR] for point in searched.points()]
    assert [trial.values[LR] for trial in trials] != pytest.approx(drawn)
    for trial, own in zip(trials, drawn, strict=True):
        run = Run.open(trial.location)
        rows = [row for row in run.metrics() if row["stage"] == "answer"]
        validated = [row["epoch"] for row in rows if row["kind"] == "validation"]
        assert validated == list(range(epochs))
        assert recipe_lr(trial) == pytest.approx(trial.values[LR])
        logged = "".join(file.read_text() for file in run.path.glob("logs/answer-worker0.log"))
        copied = "goes on from a copy of" in logged
        assert f"copy of {trial.location}/" not in logged
        assert copied == (trial.values[LR] != own)
        # The newest and the best of the others.
        assert 1 <= len(run.checkpoints("answer")) <= 2
    assert len({(t.name, t.state) for t in said if t.ended}) == sum(t.ended for t in said) == 3


@pytest.mark.ray
@pytest.mark.slow
def test_values_that_optuna_has_suggested_are_kept(folder, ray_local):
    """One of three trials has lost its checkpoints, another its whole run."""
    recipe, by_optuna = make_recipe(folder), space("suggested", search="optuna")
    before = {trial.name: trial for trial in tune(recipe, by_optuna).trials}
    shutil.rmtree(Path(before["trial-0001"].location) / "answer")
    shutil.rmtree(before["trial-0002"].location)
    after = {trial.name: trial for trial in tune(recipe, by_optuna).trials}
    assert after["trial-0000"] == before["trial-0000"]
    assert after["trial-0001"].values == before["trial-0001"].values
    assert after["trial-0001"].value == before["trial-0001"].value
    assert {trial.state for trial in after.values()} == {"finished"}
    assert len({trial.values[LR] for trial in after.values()}) == 3


NESTED = """
import sys
from pathlib import Path
from tests.forked_python import fork_ray
fork_ray(sys.argv[2])
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
    command = [program(), "-c", NESTED, str(folder), program()]
    subprocess.run(command, env=environment, check=True, timeout=400)
    table = pq.read_table(folder / "runs" / "tiny-nested" / "trials.parquet").to_pylist()
    said = [(row["trial"], row["state"], row["message"]) for row in table]
    assert len(table) == 3 and {row["state"] for row in table} <= {"finished", "stopped"}, said
    assert None not in [row["accuracy"] for row in table]
