"""What is measured of starts and growth: every part is there, and sizes are what they should be."""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from benchmarks.first_step import Rows
from benchmarks.growth_of_verbs import FIRST, VERBS, exponent, generate, growing, measure
from benchmarks.instrument import Options, measured
from benchmarks.measure import Fact, Ratio
from benchmarks.rows.setting import CPU
from benchmarks.rows.table import chosen
from msvqa.data.datasets import synthetic
from tests.tiny import VIDEOS, raw_recipe

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_help_is_measured_in_seconds_of_its_own_process():
    ratio, alone = measured(chosen(["B1"], "cpu"), Options("cpu", rounds=2), CPU)
    assert isinstance(ratio, Ratio)
    assert isinstance(alone, Fact)
    # Python itself takes some milliseconds, wherever it is.
    assert 0.005 < float(alone.value) <= ratio.median < 10


def test_rows_are_seen_when_they_come(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [{"stage": "a", "kind": k} for k in ("validation", "train", "train")]
    lines.append({"stage": "b", "kind": "train"})
    with Rows(file) as rows:
        for number, row in enumerate(lines, start=1):
            with file.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps(row) + "\n")
            while len(rows.seen) < number:
                time.sleep(0.001)
    times = [at for *_, at in rows.seen]
    assert times == sorted(times)
    assert rows.first_step("a") == times[1]
    assert rows.last_of("a") == times[2]
    assert rows.first_step("b") == times[3]


@pytest.mark.slow
@pytest.mark.again
def test_a_command_says_what_its_parts_take(tmp_path):
    synthetic.generate(tmp_path / "data", videos=VIDEOS)
    raw = raw_recipe(tmp_path)
    raw["stages"] = [{**stage, "log_every_steps": 1} for stage in raw["stages"]]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(raw), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.first_step", str(recipe)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
    found = json.loads(done.stdout.splitlines()[-1])
    whole, second = found.pop("whole"), found.pop("second stage")
    assert set(found) == {
        "imports", "preparing", "connecting to Ray", "extraction", "first stage",
    }  # fmt: skip
    assert all(seconds > 0 for seconds in (*found.values(), second))
    assert sum(found.values()) == pytest.approx(whole)


def test_one_size_doubles_at_a_time():
    sizes = growing()
    assert sizes["clips", 3] == {**FIRST, "clips": 8 * FIRST["clips"]}
    assert all(sizes[axis, 0] == FIRST for axis in FIRST)
    assert exponent([9.0, 2.0, 4.0]) == 1
    assert exponent([2.0, 8.0]) == 2


@pytest.mark.slow
def test_verbs_do_their_work_without_ray(tmp_path):
    sizes = {"videos": 8, "questions": 9, "clips": 2}
    generate(tmp_path, sizes)
    asked = json.loads((tmp_path / "data" / "test_qa.json").read_text(encoding="utf-8"))
    assert set(Counter(row["video_id"] for row in asked).values()) == {9}
    assert len({row["id"] for row in asked}) == len(asked) == 72
    found = measure(tmp_path, sizes)
    assert tuple(found) == VERBS
    assert all(took["s"] > 0 and took["cpu_s"] > 0 for took in found.values())
    metrics = json.loads(next(tmp_path.rglob("evaluate/test/metrics.json")).read_text("utf-8"))
    assert metrics["n"] == 72


def test_what_measures_needs_none_of_the_decoders():
    code = (
        "import sys; sys.modules |= dict.fromkeys(('av', 'decord', 'ray', 'transformers'));"
        "from benchmarks import measure; print(measure.machine()['gemm_gflops'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert re.fullmatch(r"\{'float32': \d+, 'bfloat16': \d+\}", done.stdout.strip())
