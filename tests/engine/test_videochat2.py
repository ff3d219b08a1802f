"""Three stages, small, one after another: what each starts from, resume, adapters, talking."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForCausalLM

from msvqa.engine.checkpoint import read_info
from msvqa.models.videochat2 import STAGES
from msvqa.mvbench.adapters.adapter import Source, open_adapter
from msvqa.mvbench.prompts import lmms_eval
from msvqa.predict import from_pretrained
from msvqa.prepare import prepare_stages
from msvqa.recipe import load
from msvqa.report import report
from msvqa.run import Run
from msvqa.talker import Talker
from tests.chat_run import chat_root, recipe_of, train
from tests.engine.test_loop import assert_equal, final_weights
from tests.test_architecture import RECIPES
from tests.tiny import make_store

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return chat_root(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    whole, cut = (recipe_of(root, runs, name) for name in ("whole", "cut"))
    captions, _, asked = prepare_stages(whole)
    for view, prepared in ((whole.of_stage(0), captions), (whole, asked)):
        make_store(view, prepared)
    for number, stage in enumerate(whole.stages):
        train(whole, number)
        with pytest.raises(KeyboardInterrupt):
            train(cut, number, reports=1)
        train(cut, number)
        assert_equal(final_weights(whole, stage.name), final_weights(cut, stage.name))
    return Run.open(whole.run_location)


def test_a_frozen_language_model_is_in_no_checkpoint_and_adapters_are_for_others(run, root):
    folder = run.checkpoint("instruct")
    parts = read_info(folder)["parts"]
    assert [part for part, origin in parts.items() if not origin["stored"]] == ["language"]
    plain = AutoModelForCausalLM.from_pretrained(root / "language")
    adapted = PeftModel.from_pretrained(plain, str(folder)).eval()
    own = from_pretrained(run.location).objective.chat.language
    ids = torch.tensor([[3, 5, 7]])
    with torch.no_grad():
        assert torch.allclose(adapted(ids).logits, own(ids).logits, atol=1e-5)


def test_the_page_of_a_run_tells_of_its_conversations(run):
    page = Path(report(run.location)).read_text(encoding="utf-8")
    assert '<th class="n">conversations expected</th>' in page
    assert "<h3>Stage instruct</h3>" in page
    assert ">Loss<" in page.partition("<h3>Stage instruct</h3>")[2]


def test_a_run_is_talked_to(run, root, tmp_path):
    talker = from_pretrained(run.location)
    assert isinstance(talker, Talker)
    words = []
    messages = [
        {"role": "user", "content": "what is it ?"}, {"role": "assistant", "content": "a cup"},
        {"role": "user", "content": "is it red ?"},
    ]  # fmt: skip
    whole = talker.answer(root / "0.mp4", messages, on_words=words.append)
    assert "".join(words).strip() == whole
    asked = iter([False, False, True])
    short = talker.answer(root / "0.mp4", messages, stops=lambda: next(asked))
    assert whole.startswith(short)
    assert len(short.split()) <= 3
    assert isinstance(talker.answer(None, "what is it ?"), str)
    Image.new("RGB", (32, 32)).save(tmp_path / "still.png")
    assert isinstance(talker.answer(tmp_path / "still.png", "what is it ?"), str)


def test_a_run_is_asked_on_mvbench(run):
    adapter = open_adapter("run", Source(model=run.location, max_new_tokens=4))
    frames = np.zeros((2, 20, 24, 3), dtype=np.uint8)
    prompt = lmms_eval("what is it ?", ["a cup", "red"])
    assert adapter.letter_logits(frames, prompt, "AB").shape == (2,)
    assert len(adapter.generate(frames, prompt).split()) <= 4


@pytest.mark.parametrize(
    "file", [f for f in RECIPES if f.stem in ("vicuna", "mistral")], ids=lambda f: f.stem
)
def test_recipes_train_what_the_table_says(file):
    recipe = load(file)
    for stage in recipe.stages:
        table = STAGES[stage.name]
        assert {state: set(getattr(stage, state)) for state in table} == {
            state: set(parts) for state, parts in table.items()
        }
