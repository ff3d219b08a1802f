"""The parts of a GPU's rows that need none: counts, forecasts, and what is left out."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import __main__ as program
from benchmarks.measure import Fact
from benchmarks.rows import encoders, forecast, grouping, ladder, large_chat
from benchmarks.rows.compiling import left_out
from benchmarks.rows.counting import operations
from benchmarks.rows.memory import memory_facts, peaks
from benchmarks.rows.setting import Setting
from benchmarks.rows.training import lone_step
from msvqa.data.order import count_visits
from msvqa.models.encoders.resnet import ResNet


def test_epochs_follow_from_visits():
    assert forecast.VISITS[1] == grouping.QUESTIONS
    assert forecast.hours_of_epoch(7200 / 30_933, k=1) == pytest.approx(2.0)
    # A visit takes as long with eight questions: so many times fewer hours.
    assert forecast.hours_of_epoch(7200 / 30_933, k=8) == pytest.approx(2.0 / 7.0623, rel=1e-4)
    assert forecast.DUALVGR.beside(4.2) == "4.2; published 84 s on an RTX 3080, 20 times as long"


def test_drawn_questions_are_as_many_as_those_of_the_data_set(tmp_path):
    medium = grouping.asked_videos(Setting(folder=tmp_path))
    counts = np.bincount(medium)
    assert (len(medium), len(counts)) == (30_933, 1_161)
    assert counts.min() >= 5
    assert counts.max() <= 63
    for k, visits in forecast.VISITS.items():
        assert count_visits(medium, k) == pytest.approx(visits, rel=0.01)


def test_questions_of_a_file_are_grouped_by_their_video(tmp_path):
    file = tmp_path / "train_qa.json"
    rows = [{"video_id": video, "question": "who?"} for video in (7, 7, 1200, 3, 7)]
    file.write_text(json.dumps(rows), encoding="utf-8")
    found = grouping.asked_videos(Setting(folder=tmp_path, questions=file))
    assert found.tolist() == [1, 1, 2, 0, 1]


def test_a_file_of_questions_that_is_absent_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--questions", str(tmp_path / "none.json")])
    with pytest.raises(SystemExit):
        program.main()
    assert "none.json: there is no such file" in capsys.readouterr().err


def test_without_a_compiler_the_highest_rung_is_left_out(monkeypatch, tmp_path):
    config = ResNet.Config(depth=10, base_width=4)
    tiny = Setting(folder=tmp_path, is_tiny=True)
    assert list(ladder._networks("appearance", config, tiny)) == list(ladder.PRECISIONS)
    assert left_out("E5", tiny) == []
    monkeypatch.setenv("CXX", "no-such-compiler")
    usual = Setting(folder=tmp_path)
    assert ladder.COMPILED not in ladder._networks("appearance", config, usual)
    (said,) = left_out("E5", usual)
    assert said.name == "E5 compiled"
    assert said.value.startswith("left out: there is no C++ compiler")


def test_steps_that_do_not_fit_are_left_out(monkeypatch, tmp_path):
    held = {"now": 3e9, "most": 0.0}

    def step(extra):
        held["most"] = max(held["most"], held["now"] + extra)
        if extra > 20e9:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: held["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: held["most"])
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: held.update(most=held["now"])
    )
    steps = {"large": lambda: step(40e9), "small": lambda: step(5e9)}
    found = peaks(steps, Setting(folder=tmp_path, device=torch.device("cuda")))
    assert found == {"small": pytest.approx(5.0)}
    label = "Q1 GB that a step takes beyond the weights, "
    assert memory_facts("Q1", steps, found) == [
        Fact(label + "small", "5.0"), Fact(label + "large", "left out: more than there is")
    ]  # fmt: skip
    # Nothing is known of a processor, and nothing is said.
    assert memory_facts("Q1", steps, peaks(steps, Setting(folder=tmp_path))) == []


def test_a_product_in_tf32_leaves_the_precision_of_others_as_it_was():
    before = torch.get_float32_matmul_precision()
    a, b = torch.randn(2, 16, 16)
    torch.testing.assert_close(encoders._in_tf32(a, b), a @ b, rtol=1e-2, atol=1e-2)
    assert torch.get_float32_matmul_precision() == before


def test_repeated_layers_are_no_work_and_rows_cost_alike(tmp_path):
    setting = Setting(folder=tmp_path, is_tiny=True)
    objective = large_chat._objective(setting)
    one, many = (large_chat._batch(rows, setting) for rows in (1, large_chat.ROWS))
    needed = large_chat._needed(objective, one)
    assert operations(lone_step(objective, one, "bf16")) > needed
    assert large_chat._needed(objective, many) == large_chat.ROWS * needed
    trained = [p for p in objective.chat.language.parameters() if p.requires_grad]
    assert (
        0
        < sum(p.numel() for p in trained)
        < 0.2 * sum(p.numel() for p in objective.chat.language.parameters())
    )


def test_answers_have_as_many_tokens_as_are_counted(tmp_path):
    setting = Setting(folder=tmp_path, is_tiny=True)
    objective = large_chat._objective(setting).eval()
    written = []
    head = objective.chat.language.get_output_embeddings()
    head.register_forward_hook(lambda module, given, logits: written.append(len(logits)))
    large_chat._writing(objective, 3, 5, setting)()
    assert written == [3] * 5
