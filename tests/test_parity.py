"""Equal to the reference: every recorded file at its tolerance."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import parity
from benchmarks.parity.recording import Recording, compare_content

SLOW = {"full_dims_formula", "resnext3d_formula", "questions_full"}
FILES = [
    pytest.param(system, name, marks=[pytest.mark.slow] if name in SLOW else [])
    for system in sorted(parity.SYSTEMS)
    for name in sorted(parity.checks_of(system))
]


@pytest.mark.long
@pytest.mark.parametrize(("system", "name"), FILES)
def test_equals_the_reference(golden, system, name):
    paths = [golden / system / f"{name}{ending}" for ending in parity.RECORDINGS]
    results = [r for path in paths if path.is_file() for r in parity.compare_file(path)]
    assert results
    assert [result for result in results if not result.passed] == []


@pytest.mark.parametrize("system", sorted(parity.SYSTEMS))
def test_every_recorded_file_is_compared(golden, system):
    files = parity.recordings_of(golden / system)
    assert {path.stem for path in files} == set(parity.checks_of(system))


def copied(golden: Path, recorded: str, folder: Path, **changed: np.ndarray) -> Path:
    """Write a copy of a recording, `SYSTEM/NAME` or a name of videoqa, with other arrays."""
    system, _, name = recorded.rpartition("/")
    system = system or "videoqa"
    arrays = dict(np.load(golden / system / f"{name}.npz", allow_pickle=False))
    path = folder / system / f"{name}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **{k: v for k, v in (arrays | changed).items() if v is not None})
    return path


def damaged(array: np.ndarray) -> np.ndarray:
    if np.issubdtype(array.dtype, np.number):
        # Another amount in each place: a norm would take the same amount away.
        return array + np.arange(1, 1 + array.size, dtype=array.dtype).reshape(array.shape)
    return np.char.add(array, "x")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        *[(n, k) for n in ("gat", "mfb") for k in ("in", "state", "out", "out64")],
        ("evaluation", "expected"),
        ("frame_sampling", "idx_clips16_frames16"),
        ("losses", "out64/consistency_01"),
        ("pixels", "clips_motion"),
        ("train_steps_units2", "after"),
        ("umt/attention_mask", "image50_exp_noise"),
        ("umt/frame_sampling", "middle_30_8"),
        ("umt/positions", "P3_to_P5_then_T8"),
        ("umt/schedules", "stage2_multiplier"),
        ("umt/student_tiny", "b1_q_b"),
        ("umt/student_tiny", "expected_aligned"),
        ("umt/teacher_tiny", "cls"),
        ("umt/teacher_tiny", "expected_cls_attn"),
        ("umt/uta_loss", "a_none_smooth_l1_grad"),
        ("umt/vtc_loss", "dup_max_grad_text"),
        ("umt/vtc_loss", "gather_grad_temp"),
        ("umt/vtm_loss", "b_neg_vision_for_text"),
    ],
)
def test_a_damaged_copy_fails(golden, tmp_path, name, quantity):
    file = golden / (name if "/" in name else f"videoqa/{name}")
    arrays = np.load(f"{file}.npz", allow_pickle=False)
    chosen = next(k for k in arrays.files if k == quantity or k.startswith(f"{quantity}/"))
    assert all(r.passed for r in parity.compare_file(copied(golden, name, tmp_path)))
    path = copied(golden, name, tmp_path, **{chosen: damaged(arrays[chosen])})
    assert not all(result.passed for result in parity.compare_file(path))


def test_a_recording_that_is_cut_off_fails_by_name(golden, tmp_path):
    path = copied(golden, "gat", tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    (result,) = parity.compare_file(path)
    assert not result.passed
    assert result.file == "gat"
    assert "cannot be compared" in result.quantity


def test_fewer_and_more_cases_are_compared(golden, tmp_path):
    arrays = np.load(golden / "videoqa" / "frame_sampling.npz", allow_pickle=False)
    lengths = arrays["num_frames_in_video"][:5]
    from msvqa.data.sampling import sample_clips

    path = tmp_path / "videoqa" / "frame_sampling.npz"
    path.parent.mkdir()
    more = np.stack([sample_clips(length, 3, 8) for length in lengths.tolist()])
    np.savez(path, num_frames_in_video=lengths, idx_clips3_frames8=more)
    (result,) = parity.compare_file(path)
    assert (result.quantity, result.passed) == ("idx_clips3_frames8", True)


def test_what_the_check_does_not_look_at_fails_by_name(golden, tmp_path):
    path = copied(golden, "gat", tmp_path, **{"out64/new": np.zeros(1), "more": np.zeros(1)})
    failed = {result.quantity for result in parity.compare_file(path) if not result.passed}
    assert failed == {"out64/new: not computed", "more: not compared"}


@pytest.mark.parametrize("system", ["videoqa", "similarity", "a folder of somebody"])
def test_a_file_that_nothing_compares_fails_by_name(tmp_path, system):
    folder = tmp_path / system
    folder.mkdir()
    np.savez(folder / "new.npz", a=1)
    (folder / "labels.json").write_text("[]")
    for path in parity.recordings_of(folder):
        (result,) = parity.compare_file(path)
        assert not result.passed
        assert result.file == path.stem


def test_names_that_repeat_between_systems_are_told_apart_by_the_folder(golden, tmp_path):
    shutil.copy(golden / "umt" / "frame_sampling.npz", tmp_path)
    assert not all(r.passed for r in parity.compare_file(tmp_path / "frame_sampling.npz"))


def test_json_recordings_are_compared_leaf_by_leaf(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"a": [1, "two"], "b": None}))
    content = Recording(path).content
    assert compare_content("prompts", "all", {"a": [1, "two"], "b": None}, content).passed
    for other in ({"a": [1, "2"], "b": None}, {"a": [1], "b": None}, {"a": [True, "two"]}):
        assert not compare_content("prompts", "all", other, content).passed
