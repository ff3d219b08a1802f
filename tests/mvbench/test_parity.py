"""Equal to what was recorded of MVBench's programs; a changed recording is found."""

import json
import shutil

import numpy as np
import pytest

from benchmarks import parity

CHECKS = sorted(parity.checks_of("mvbench"))


def test_every_recorded_file_agrees(golden):
    files = parity.recordings_of(golden / "mvbench")
    assert {path.stem for path in files} == set(CHECKS)
    results = [result for path in files for result in parity.compare_file(path)]
    assert [result for result in results if not result.passed] == []
    assert len(results) > 130


def changed_json(content, name):
    if name == "prompts":
        content["samples"][1]["lmms_eval_user_text"] += " "
    else:
        content[1]["robust_letter"] = "D"
    return content


@pytest.mark.parametrize("name", ["prompts", "answer_matching"])
def test_a_damaged_json_file_fails(golden, tmp_path, name):
    (tmp_path / "mvbench").mkdir()
    path = tmp_path / "mvbench" / f"{name}.json"
    shutil.copyfile(golden / "mvbench" / path.name, path)
    assert all(result.passed for result in parity.compare_file(path))
    path.write_text(json.dumps(changed_json(json.loads(path.read_text()), name)))
    assert not all(result.passed for result in parity.compare_file(path))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("answer_matching", "robust_letter"),
        ("answer_matching", "vlmevalkit_exact"),
        ("answer_matching", "robust_reason"),
        ("frame_index", "case10_robust"),
        ("frame_index", "case10_official"),
        ("frame_index", "table"),
        ("aggregation", "per_task"),
        ("aggregation", "coverage"),
        ("aggregation", "correct"),
        ("loglik", "sum_score"),
        ("loglik", "letter_prob"),
        ("loglik", "pick_char"),
    ],
)
def test_a_damaged_copy_fails(golden, tmp_path, name, array):
    (tmp_path / "mvbench").mkdir()
    path = tmp_path / "mvbench" / f"{name}.npz"
    arrays = dict(np.load(golden / "mvbench" / path.name, allow_pickle=False))
    values = arrays[array].copy()
    first = (0,) * values.ndim
    if values.dtype.kind == "U":
        values[first] = "x"
    else:
        values[first] = not values[first] if values.dtype.kind == "b" else values[first] + 1
    np.savez(path, **arrays | {array: values})
    assert not all(result.passed for result in parity.compare_file(path))
