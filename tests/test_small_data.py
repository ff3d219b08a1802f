"""The benchmark of few videos: its drawing, and both learners for equal time."""

import json

import numpy as np
import pytest

from benchmarks import small_data
from benchmarks.textured_shapes import COLORS, COUNTS, DIRECTIONS, QUESTIONS, SHAPES, generate

VIDEOS = {"train": 12, "val": 4, "test": 12}
SHORT = (
    "stages.reconstruct.steps=1",
    "stages.answer.steps=4",
    "clips.frames_per_clip=4",
    "clips.size_px=32",
)


@pytest.mark.long
def test_equal_arguments_draw_equal_videos(tmp_path):
    for name in ("first", "second"):
        generate(tmp_path / name, seed=3, videos={"train": 2, "val": 1, "test": 1})
    files = sorted(p.relative_to(tmp_path / "first") for p in (tmp_path / "first").rglob("*.*"))
    assert len(files) == 8
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


@pytest.mark.long
def test_answers_are_as_frequent_as_each_other(tmp_path):
    generate(tmp_path / "data", videos=VIDEOS)
    rows = json.loads((tmp_path / "data" / "test_qa.json").read_text())
    assert len(rows) == VIDEOS["test"] * len(QUESTIONS)
    for answers in (COLORS, SHAPES, COUNTS, DIRECTIONS):
        counts = [sum(row["answer"] == answer for row in rows) for answer in answers]
        assert counts == [VIDEOS["test"] // len(answers)] * len(answers)


@pytest.mark.long
def test_both_learners_are_trained_for_equal_time_and_counted(tmp_path, monkeypatch):
    summary = small_data.run(tmp_path, (0,), VIDEOS, *SHORT)
    ours, plain = summary["rows"]
    assert (ours["learner"], plain["learner"]) == ("msvqa", "plain")
    assert ours["cpu_s"] == plain["cpu_s"] > 0
    for row in summary["rows"]:
        assert np.isclose(row["accuracy"], np.mean([row[kind] for kind in QUESTIONS]), atol=1e-3)
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]
    assert np.isclose(summary["lead"], ours["accuracy"] - plain["accuracy"], atol=1e-3)
    monkeypatch.setattr(small_data, "RESULTS", tmp_path / "results")
    table = small_data.write(summary)
    assert table.read_text().count("| msvqa |") == 1
    assert json.loads(table.with_suffix(".json").read_text())["rows"] == summary["rows"]
