"""Run directories: found by name, refused with a reason, never read half-written."""

import json
import subprocess
import sys

import pytest

from msvqa.errors import CheckpointError, RecipeError, RunError, StorageError
from msvqa.files import write_json, written_aside
from msvqa.run import Run, only_one
from msvqa.storage import open_folder
from tests.tiny import make_recipe


def test_a_run_is_opened_again_by_the_same_recipe_and_refused_by_another(tmp_path):
    recipe = make_recipe(tmp_path)
    run = Run.create(recipe)
    assert Run.create(recipe).path == run.path
    assert Run.open(run.path).recipe.to_dict() == recipe.to_dict()
    # Other resources compute the same.
    assert Run.create(make_recipe(tmp_path, "scaling.workers=2")).path == run.path
    with pytest.raises(RunError, match=r"recipe has changed \(seed: 0 -> 1\): choose another name"):
        Run.create(make_recipe(tmp_path, "seed=1"))


def test_a_folder_that_is_no_run_names_the_runs_beside_it(tmp_path):
    run = Run.create(make_recipe(tmp_path))
    with pytest.raises(RunError, match=r"is not a run.*tiny"):
        Run.open(run.path.parent / "tinny")


def test_a_damaged_checkpoint_is_passed_over_only_where_that_is_asked_for(tmp_path):
    run = Run.create(make_recipe(tmp_path, "faults.damaged_checkpoint=previous"))
    for step, score, size in ((1, 0.5, 3), (2, 0.9, 3), (3, 0.1, 3), (4, 1.0, 99)):
        folder = run.stage_dir("answer") / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"abc")
        info = {"score": score, "finished": False, "files": {"weights": {"bytes": size}}}
        write_json(folder / "checkpoint.json", info)
    assert run.checkpoint("answer").name == "step-00000002"
    assert run.checkpoint("answer", "last").name == "step-00000003"
    assert not run.is_finished("answer")
    strict = Run.create(make_recipe(tmp_path))
    with pytest.raises(CheckpointError, match=r"step-00000004/weights is damaged.*restore it"):
        strict.checkpoint("answer")
    # One that lacks files is none: a checkpoint that is being removed looks like that.
    (run.stage_dir("answer") / "step-00000004" / "weights").unlink()
    assert strict.checkpoint("answer").name == "step-00000002"
    with pytest.raises(CheckpointError, match="did you mean 'answer'"):
        run.checkpoint("answr")


def test_a_checkpoint_that_is_removed_while_it_is_looked_at_is_none(tmp_path, monkeypatch):
    run = Run.create(make_recipe(tmp_path))
    for step in (1, 2):
        folder = run.stage_dir("answer") / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"abc")
        info = {"score": step, "finished": False, "files": {"weights": {"bytes": 3}}}
        write_json(folder / "checkpoint.json", info)
    get = type(run.folder).get

    def get_late(folder, *names):
        """As if the training removed its older checkpoint right after the files were listed."""
        if names[0].startswith("answer/step-00000001"):
            folder.remove("answer/step-00000001")
        return get(folder, *names)

    monkeypatch.setattr(type(run.folder), "get", get_late)
    assert run.damaged("answer") == []
    assert run.checkpoint("answer").name == "step-00000002"


def test_a_score_that_is_no_number_is_never_the_best(tmp_path):
    run = Run.create(make_recipe(tmp_path))
    for step, score in ((1, "NaN"), (2, "0.25"), (3, "NaN"), (4, "null")):
        folder = run.stage_dir("answer") / f"step-{step:08d}"
        folder.mkdir(parents=True)
        # As earlier versions wrote it.
        text = f'{{"score": {score}, "finished": false, "files": {{}}}}'
        (folder / "checkpoint.json").write_text(text)
    assert run.checkpoint("answer").name == "step-00000002"


def test_json_has_null_where_a_number_is_not_finite(tmp_path):
    content = {"a": [1.5, float("nan")], "b": {"c": float("-inf")}, "d": "NaN", "e": (1, None)}
    write_json(tmp_path / "a.json", content)
    expected = {"a": [1.5, None], "b": {"c": None}, "d": "NaN", "e": [1, None]}
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == expected
    run = Run.create(make_recipe(tmp_path))
    run.write_metrics([{"step": 1, "mse": float("nan")}])
    assert run.metrics() == [{"step": 1, "mse": None}]


def test_writing_aside_leaves_nothing_after_a_failure(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(OSError, match="full"), written_aside(file) as aside:
        aside.write_text("half")
        raise OSError("disk full")
    assert json.loads(file.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.long
def test_a_second_command_is_kept_out(tmp_path):
    folder = open_folder(tmp_path / "run")
    code = (
        "import sys; from msvqa.run import only_one; from msvqa.storage import open_folder\n"
        "with only_one(open_folder(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in\n"
        with (
            pytest.raises(
                RunError, match=r"another command works in .*run \(process \d+ on .*\): "
            ),
            only_one(folder),
        ):
            pass
        other.kill()
    with only_one(folder):
        pass


@pytest.mark.parametrize("runs", ["/proc/no", "/etc/passwd/runs"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, runs):
    recipe = make_recipe(tmp_path, f"runs={runs}")
    with pytest.raises(StorageError, match=rf"{runs}/tiny cannot be written"):
        Run.create(recipe)
    words = rf"{runs}/tiny cannot be written"
    with pytest.raises(StorageError, match=words), only_one(open_folder(recipe.run_location)):
        pass


def test_a_home_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"- runs: .*nosuchuser"):
        make_recipe(tmp_path, "runs=~nosuchuser/runs")
