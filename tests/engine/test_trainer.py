"""What surrounds Ray Train: its list of checkpoints, and errors that come out of its wrappers."""

import json

import pytest

from msvqa.engine.trainer import SNAPSHOT, forget_unusable_snapshot
from msvqa.run import Run
from tests.tiny import make_recipe


def listed(*names: str) -> str:
    return json.dumps({"checkpoint_results": [{"checkpoint_dir_name": name} for name in names]})


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        (listed("step-00000002"), True),
        (listed("step-00000002", "step-00000004"), False),
        (listed("step-00000002")[:-5], False),
        ("", False),
    ],
)
def test_a_list_that_ray_would_stumble_over_is_removed(tmp_path, text, stays):
    stage = tmp_path / "answer"
    (stage / "step-00000002").mkdir(parents=True)
    (stage / "step-00000002" / "checkpoint.json").touch()
    (stage / SNAPSHOT).write_text(text)
    forget_unusable_snapshot(Run(tmp_path, make_recipe(tmp_path)), "answer")
    assert (stage / SNAPSHOT).exists() == stays


def test_no_list_is_fine(tmp_path):
    forget_unusable_snapshot(Run(tmp_path, make_recipe(tmp_path)), "answer")
