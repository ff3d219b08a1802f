"""The page of a run that embeds videos: a table with the interval, and a point for each pair."""

from pathlib import Path

import numpy as np
import pytest

from msvqa.evaluate import Asked, record
from msvqa.report import report
from tests.similar_run import make_run


@pytest.mark.long
def test_the_page_has_the_interval_and_a_point_for_each_pair(tmp_path):
    run = make_run(tmp_path)
    asked = Asked.of(run, [], "train", None)
    prepared = asked.prepare()
    split = prepared.split("train")
    noise = np.random.default_rng(0).normal(size=len(split)) * 0.1
    found = {"cosine": split.examples.similarity + noise}
    metrics = record(asked, run.checkpoint(), prepared, split, found)
    page = Path(report(run.location)).read_text(encoding="utf-8")
    low, high = metrics["spearman_interval"]
    assert f"{low:.3f} to {high:.3f}" in page
    assert f"{len(split)} pairs</span>" in page
    drawing = page[page.index('aria-label="Pairs"') :].partition("</svg>")[0]
    assert "cosine of the model" in drawing
    assert drawing.count("<use ") >= len(split)
