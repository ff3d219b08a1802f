"""The benchmark: its table, its exact rows, the rows of a GPU, and how it judges."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import instrument
from benchmarks.instrument import Options, Outcome, as_table, measured
from benchmarks.measure import Count, Fact, Ratio, is_met
from benchmarks.rows.setting import CPU
from benchmarks.rows.table import PROFILES, ROWS, chosen, listed

ROOT = Path(__file__).parents[2]
EXACT = ("D3", "D4", "G1", "G3", "T1", "S1", "V5")
IDS = [row.id for row in ROWS]
NO_RAY = """
import runpy, sys
sys.modules.update(ray=None, decord=None, av=None)
sys.argv = ["benchmarks", "--profile", "gpu", "--tiny", "--rounds", "2", "--out", sys.argv[1]]
runpy.run_module("benchmarks", run_name="__main__")
"""


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_every_row_has_a_module_a_target_and_a_source(row):
    assert (ROOT / "benchmarks" / "rows" / f"{row.module}.py").is_file()
    assert callable(row.measurement())
    assert re.search(r"\d", row.target)
    assert re.match(r"measured|arithmetic|published|docs/", row.source)
    assert row.what
    assert set(row.profiles) <= set(PROFILES)
    assert row.profiles


def test_rows_have_names_of_their_own_and_stand_in_the_documents():
    assert len(set(IDS)) == len(IDS)
    assert listed(ROWS) in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("name", EXACT)
def test_counts_are_exact(name):
    (row,) = chosen([name], "cpu")
    assert row.is_exact
    found = measured([row], Options("cpu", rounds=2, is_tiny=True), CPU)
    counts = [finding for finding in found if isinstance(finding, Count)]
    assert counts
    assert [f"{c.name}: {c.value}" for c in counts if c.verdict != "exact"] == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["V1", "V2", "V4", "V6"])
def test_rows_of_chats_run(name):
    found = measured(chosen([name], "cpu"), Options("cpu", rounds=2, is_tiny=True), CPU)
    assert {finding.name.partition(" ")[0] for finding in found} >= {name}
    assert not [f.name for f in found if isinstance(f, Count) and f.verdict != "exact"]


@pytest.mark.long
def test_the_rows_of_a_gpu_need_neither_ray_nor_a_decoder(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", NO_RAY, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    (file,) = tmp_path.glob("*.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["failures"] == {}, done.stderr
    measured_rows = {finding["name"].partition(" ")[0] for finding in found["findings"]}
    assert measured_rows == {row.id for row in chosen([], "gpu")}


def outcome_of(finding, **failures):
    return Outcome(findings=[finding], failures=failures)


def test_a_wrong_count_or_a_row_that_fails_fails_the_run_and_a_slow_one_does_not():
    slow = Ratio("E1 plain / ours", 1.0, 1.0, 1.0, ">= 3.0")
    assert slow.verdict == "missed"
    assert outcome_of(slow).is_right
    assert not outcome_of(slow, E1="RuntimeError: no memory").is_right
    assert outcome_of(Count("G1 visits", 0, "== 0")).is_right
    assert not outcome_of(Count("G1 visits", 1, "== 0")).is_right


def test_a_ratio_that_varies_has_no_verdict():
    assert Ratio("r", 3.0, 2.0, 4.0, ">= 3.0").verdict == "unstable"
    assert Ratio("r", 3.0, 2.9, 3.1, ">= 3.0").verdict == "met"
    assert Ratio("r", 3.0, 2.9, 3.1).verdict == ""


@pytest.mark.parametrize(
    ("value", "target", "met"),
    [(3, ">= 3.0", True), (2.9, ">= 3.0", False), (1e-10, "<= 1e-9", True), (1, "== 0", False)],
)
def test_targets(value, target, met):
    assert is_met(value, target) == met


def test_what_is_left_of_a_missed_ratio_is_said():
    from benchmarks.rows.decoding import limits

    costs = {
        "pillow": [6.0] * 3, "pyav": [2.0] * 3, "decoding alone": [1.0] * 3,
        "without resizing": [1.5] * 3,
    }  # fmt: skip
    most, shares = limits("h264 320", costs)
    assert (most.value, shares.value) == ("6.00 (6.00 to 6.00)", "50%, 25%, 25%")


def test_unknown_rows_are_named_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"gpu has no row D1.*E1"):
        chosen(["D1"], "gpu")


def test_the_table_shows_what_could_not_be_measured(monkeypatch):
    def fails(setting):
        raise RuntimeError("no such device")

    monkeypatch.setattr(type(ROWS[0]), "measurement", lambda row: fails)
    outcome = Outcome()
    options = Options("cpu", rounds=2)
    instrument._run_measurement([ROWS[0]], options, CPU, outcome)
    outcome.findings.append(Fact("D1 seconds", "3"))
    table = as_table(ROWS[:1], {"load": 0.1}, options, outcome)
    assert "| D1 | | | | not measured: RuntimeError: no such device |" in table
    assert not outcome.is_right


def test_a_row_leaves_threads_and_cores_as_they_were():
    before = os.sched_getaffinity(0), torch.get_num_threads()
    with instrument.one_core(exempt=False):
        assert len(os.sched_getaffinity(0)) == torch.get_num_threads() == 1
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before
