"""Populations: what is kept of a trial while others may go on from it."""

import json

import pytest

from msvqa.engine.checkpoint import checkpoint_name
from msvqa.engine.population import may_be_handed_over, remove_surplus
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
