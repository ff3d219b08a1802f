"""Equal to what was recorded of VideoChat2's program; a changed recording is found."""

import shutil

import numpy as np
import pytest

from benchmarks import parity

CHECKS = sorted(parity.checks_of("videochat2"))


def of(folder, name):
    return next(path for path in parity.recordings_of(folder) if path.stem == name)


@pytest.mark.long
@pytest.mark.parametrize("name", CHECKS)
def test_every_recorded_file_agrees(golden, name):
    results = parity.compare_file(of(golden / "videochat2", name))
    assert len(results) > 9
    assert [result for result in results if not result.passed] == []


@pytest.mark.parametrize(
    ("name", "quantity"), [("qformer", "out64/joint_extra"), ("stage2", "out64/vicuna_video_loss")]
)
def test_a_damaged_copy_fails(golden, tmp_path, name, quantity):
    folder = tmp_path / "videochat2"
    folder.mkdir()
    path = folder / f"{name}.npz"
    shutil.copyfile(golden / "videochat2" / path.name, path)
    arrays = dict(np.load(path, allow_pickle=False))
    np.savez(path, **arrays | {quantity: arrays[quantity] + 1})
    failed = [result.quantity for result in parity.compare_file(path) if not result.passed]
    assert [name.removeprefix("out64/") for name in failed] == [quantity.removeprefix("out64/")]
