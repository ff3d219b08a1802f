"""A folder of `transformers`: asked through its own processor, without any network."""

import shutil
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch

from msvqa import cli
from msvqa.errors import DataError
from msvqa.mvbench.adapters.adapter import Source, open_adapter
from msvqa.mvbench.adapters.library import Transformers
from msvqa.mvbench.prompts import official
from msvqa.mvbench.results import read_results

pytest.importorskip("transformers")
PROMPT = official("Why?", ["this", "that", "both"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    from tests.mvbench.tiny_model import LAYOUTS, write_tiny_model

    root = tmp_path_factory.mktemp("models")
    return {layout: write_tiny_model(root / layout, layout) for layout in LAYOUTS}


@pytest.fixture(scope="module")
def folder(folders):
    return folders["qwen2_vl"]


@pytest.fixture(scope="module")
def adapter(folder):
    return opened(folder)


def opened(folder):
    return Transformers(Source(model=str(folder), max_new_tokens=6))


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3)).astype(np.uint8)


def test_the_words_reach_the_model_with_the_frames_and_the_begun_answer(adapter, frames):
    inputs = adapter._inputs(frames, PROMPT)
    text = adapter._tokenizer.decode(inputs["input_ids"][0])
    assert text.startswith(f"<|im_start|>system\n{PROMPT.system}<|im_end|>\n<|im_start|>user\n")
    assert text.endswith(f"{PROMPT.user}<|im_end|>\n<|im_start|>assistant\nBest option:(")
    # Frames in pairs, patches of 14 pixels, four of which are one token.
    ((pairs, high, wide),) = inputs["video_grid_thw"].tolist()
    assert pairs == 2
    assert text.count("<|video_pad|>") == pairs * high * wide // 4


@pytest.mark.long
@pytest.mark.parametrize("layout", ["qwen2_vl", "llava_onevision", "internvl"])
def test_an_answer_is_repeatable_and_depends_on_what_is_seen(folders, frames, layout):
    adapter, prompt = opened(folders[layout]), replace(PROMPT, seconds=2.5)
    first = adapter.generate(frames, prompt)
    assert first == adapter.generate(frames, prompt)
    assert "Best option" not in first
    others = [adapter.letter_logits(seen, prompt, "ABC") for seen in (frames, 255 - frames)]
    assert np.isfinite(others).all()
    assert not np.allclose(*others)


def test_processors_are_told_when_frames_are_shown(adapter, frames, monkeypatch):
    seen = {}
    processor = adapter._processor

    class Listening:
        apply_chat_template = processor.apply_chat_template

        def __call__(self, **words):
            seen.update(words)
            return processor(**words)

    monkeypatch.setattr(adapter, "_processor", Listening())
    adapter._inputs(frames, replace(PROMPT, seconds=8.0))
    ((metadata),) = seen["video_metadata"]
    assert (metadata["fps"], metadata["frames_indices"]) == (0.5, [0, 1, 2, 3])
    assert seen["do_sample_frames"] is False


def test_logits_of_letters_are_those_of_the_next_token(adapter, frames):
    found = adapter.letter_logits(frames, PROMPT, "ABC")
    with torch.inference_mode():
        logits = adapter._model(**adapter._inputs(frames, PROMPT)).logits[0, -1]
    tokens = [adapter._tokenizer.convert_tokens_to_ids(letter) for letter in "ABC"]
    assert found == pytest.approx(logits[tokens].numpy(), rel=1e-5)


def test_likelihoods_of_texts_are_those_of_their_tokens_one_by_one(adapter, frames):
    first, second = adapter.text_logprobs(frames, PROMPT, ["A) this", "B"])
    assert (first.shape, second.shape) == ((7,), (1,)), "every byte is a token of this model"
    letters = adapter.letter_logits(frames, PROMPT, ["A", "B"])
    assert first[0] - second[0] == pytest.approx(letters[0] - letters[1], rel=1e-4)
    after = replace(PROMPT, prefill=f"{PROMPT.prefill}A) thi")
    (last,) = adapter.text_logprobs(frames, after, ["s"])
    assert last == pytest.approx(first[-1:], rel=1e-4)
    assert (first < 0).all()


@pytest.mark.long
def test_the_command_asks_a_folder_without_network(folder, drawn, tmp_path, monkeypatch, capsys):
    def refuse(*arguments):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    out = tmp_path / "tiny.jsonl"
    words = ["--model", str(folder), "--frames", "2", "--tokens", "3", "--part", "1/12"]
    for predict in ("generate", "options_mean", "letters"):
        file = out.with_name(f"{predict}.jsonl")
        command = ["mvbench", "run", str(drawn), "--out", str(file), *words, "--predict", predict]
        assert cli.main(command) == 0, capsys.readouterr().err
        results = read_results(file)
        assert results.header.settings["model"] == "qwen2_vl"
        assert len(results.rows) == 5
    assert all(row.letter for row in results.rows.values()), "logits always give a letter"


@pytest.mark.long
def test_a_folder_that_is_no_model_is_told(folder, tmp_path):
    with pytest.raises(DataError, match="no folder of a model"):
        open_adapter("transformers", Source(model=str(tmp_path)))
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="no chat template"):
        open_adapter("transformers", Source(model=str(copy)))
    (copy / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match="cannot be read as a video-language model"):
        open_adapter("transformers", Source(model=str(copy)))
    with pytest.raises(DataError, match="unknown adapter 'transformer'"):
        open_adapter("transformer", Source(model=str(copy)))
