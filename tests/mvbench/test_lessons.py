"""Lessons for a small model: what is learned is not what is tested, and all of it can be read."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from msvqa.errors import DataError
from msvqa.mvbench.lessons import make_lessons
from msvqa.prepare import prepare
from msvqa.recipe import parse_data

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_lessons(tmp_path_factory.mktemp("lessons") / "set", items=10, tested=2)


def test_no_video_is_learned_and_tested_or_seen_twice(root):
    tested = json.loads((root / "mvbench/manifest.json").read_text())["media"]
    files = [root / "mvbench" / medium["path"] for medium in tested if medium["kind"] == "video"]
    learned = sorted((root / "videos").glob("*.mp4"))
    contents = {file.read_bytes() for file in learned}
    assert len(contents) == len(learned) > 100
    assert not contents & {file.read_bytes() for file in files}


def test_both_data_sets_read_them(root, tmp_path):
    sources = [{"file": "instructions.json"}, {"file": "instructions_val.json", "split": "val"}]
    asked = prepare(
        parse_data("instructions", [], root=str(root), prepared=str(tmp_path / "asked"),
                   sources=sources, measure={"tokenizer": str(root / "language")})
    )  # fmt: skip
    told = prepare(parse_data("caption_files", [], root=str(root), prepared=str(tmp_path / "told")))
    assert len(asked.split("val")) == 2 * len(told.split("val")) > 0
    assert len(asked.split("train")) / 2 > len(told.split("train")) > 0
    assert not [note for note in asked.info["notes"] if "dropped" in note or "cut" in note]


def test_the_language_model_knows_every_word(root):
    tokenizer = AutoTokenizer.from_pretrained(root / "language")
    model = AutoModelForCausalLM.from_pretrained(root / "language")
    assert model.config.vocab_size == len(tokenizer)
    rows = json.loads((root / "instructions.json").read_text())
    ids = {
        number for row in rows for turn in row["QA"] for number in tokenizer(turn["q"]).input_ids
    }
    assert tokenizer.unk_token_id not in ids


def test_a_folder_that_holds_something_is_left_alone(root):
    with pytest.raises(DataError, match="not empty"):
        make_lessons(root)
