"""Answers of a trained model, asked for as people ask: from scripts of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import msvqa
from msvqa.errors import CheckpointError
from msvqa.run import Run
from tests.tiny import make_checkpoint, make_data, make_recipe

SCRIPT = """
print("starts")
import os, threading
import msvqa

model = msvqa.from_pretrained({run!r})

def ask(video):
    print(len(model.answer(video, "what is it?", top_k=1)))

ask({video!r})
os.chdir({folder!r})
asking = threading.Thread(target=ask, args=({name!r},))
asking.start()
asking.join()
"""


@pytest.mark.long
def test_a_script_without_a_guard_gets_answers(tmp_path):
    prepared, _ = make_data(tmp_path)
    recipe = make_recipe(tmp_path)
    run = Run.create(recipe)
    make_checkpoint(run.stage_dir("answer"), recipe, prepared, 1, finished=True)
    video = Path(prepared.split("test").media.path[0])
    script = SCRIPT.format(
        run=run.location, video=str(video), folder=str(video.parent), name=video.name
    )
    done = subprocess.run(
        [sys.executable],
        input=script,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (done.stdout.split(), done.returncode) == (["starts", "1", "1"], 0), done.stderr


@pytest.mark.long
def test_an_answer_that_is_no_number_is_none(tmp_path):
    prepared, _ = make_data(tmp_path)
    recipe = make_recipe(tmp_path)
    run = Run.create(recipe)
    make_checkpoint(run.stage_dir("answer"), recipe, prepared, 1, finished=True)
    answerer = msvqa.from_pretrained(run.location)
    for weight in answerer.objective.model.parameters():
        weight.data.fill_(float("inf"))
    with pytest.raises(CheckpointError, match=r"step-00000001 answers with numbers that are not"):
        answerer.answer(prepared.split("test").media.path[0], "what is it?")
