"""Populations: what is kept of a trial while others may go on from it."""

import json
import shutil
from pathlib import Path

import pytest

from msvqa.engine import population
from msvqa.engine.checkpoint import checkpoint_name
from msvqa.engine.population import become_donor, may_be_handed_over, remove_surplus
from msvqa.run import Run
from msvqa.space import SchedulerConfig
from tests.tiny import make_recipe

SCORES = [0.1, 0.9, None, 0.2, 0.8, 0.3, None, 0.4, 0.5, 0.3, 0.2, None]
"""Of checkpoints at steps 0, 1, ...; those without one were written within an epoch."""


@pytest.fixture
def run(tmp_path):
    run = Run.create(make_recipe(tmp_path, "stages.answer.checkpoint.keep=2"))
    for step, score in enumerate(SCORES):
        folder = run.stage_dir("answer") / checkpoint_name(step)
        folder.mkdir(parents=True)
        info = {"score": score, "finished": False, "files": {}, "position": {"step": step}}
        (folder / "checkpoint.json").write_text(json.dumps(info))
    return run


def steps(run):
    return [info["position"]["step"] for _, info in run.checkpoints("answer")]


def test_the_best_the_newest_and_what_may_be_handed_over_stay(run):
    every = SchedulerConfig(name="pbt", every_epochs=1)
    remove_surplus(run, "answer", may_be_handed_over(every))
    assert steps(run) == [1, 4, 7, 8, 9, 10, 11]
    remove_surplus(run, "answer", may_be_handed_over(SchedulerConfig(name="asha")))
    assert steps(run) == [1, 4, 11]
    remove_surplus(run, "answer")
    assert steps(run) == [1, 4, 11]


def test_at_least_two_comparisons_stay():
    kept = [may_be_handed_over(SchedulerConfig(name="pbt", every_epochs=n)) for n in (1, 2, 5)]
    assert kept == [4, 6, 12]


def test_a_stage_without_checkpoints_has_no_surplus(run):
    remove_surplus(run, "reconstruct")
    assert run.checkpoints("reconstruct") == []


@pytest.fixture
def other(tmp_path, run, monkeypatch):
    """A trial to which the checkpoint of step 5 of the run is handed over."""
    place = {"run": run.location, "stage": "answer", "name": checkpoint_name(5)}
    monkeypatch.setattr(population, "_handed_over", lambda: place)
    return Run.create(make_recipe(tmp_path, "name=other"))


@pytest.fixture
def pruned(run, monkeypatch):
    """What the run removes, one after another, while a checkpoint is being copied."""
    copies, left = shutil.copytree, []

    def copytree(source, place, **besides):
        if left:
            # A part has been copied by then.
            Path(place).mkdir(parents=True)
            Path(place, "part").touch()
            run.folder.remove(f"answer/{checkpoint_name(left.pop(0))}")
        return copies(source, place, **besides)

    monkeypatch.setattr(shutil, "copytree", copytree)
    return left


def test_a_trial_goes_on_from_what_it_was_given(run, other, pruned):
    become_donor(other)
    assert steps(other) == [5]


def test_what_a_donor_removes_while_it_is_copied_is_replaced_by_its_newest(run, other, pruned):
    pruned += [5, 10]
    become_donor(other)
    assert steps(other) == [9]
    assert {path.name for path in other.stage_dir("answer").iterdir()} == {checkpoint_name(9)}


def test_another_failure_of_a_copy_is_one(run, other, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", refuse)
    with pytest.raises(OSError, match="No space"):
        become_donor(other)
