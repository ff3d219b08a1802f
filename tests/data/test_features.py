"""Feature files: checked against the recipe, pooled when asked, looked up by their ids."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from msvqa.data.features import FeatureFiles
from msvqa.errors import DataError
from msvqa.recipe import ClipsConfig, FeaturesConfig

CLIPS = ClipsConfig(num_clips=2, frames_per_clip=4)


def write(folder: Path, motion: np.ndarray, ids: list[int], appearance_width: int = 6) -> dict:
    files = {"appearance_hdf5": str(folder / "a.h5"), "motion_hdf5": str(folder / "m.h5")}
    appearance = np.arange(len(ids) * 2 * 4 * appearance_width, dtype=np.float32)
    with h5py.File(files["appearance_hdf5"], "w") as data:
        data["resnet_features"] = appearance.reshape(len(ids), 2, 4, appearance_width)
        data["ids"] = np.array(ids)
    with h5py.File(files["motion_hdf5"], "w") as data:
        data["resnext_features"] = motion
        data["ids"] = np.array(ids[::-1])
    return files


def open_files(files: dict, **settings) -> FeatureFiles:
    settings = {"appearance_width": 6, "dtype": "float32", **settings}
    return FeatureFiles(FeaturesConfig(**files, **settings), CLIPS)


def test_rows_are_found_by_their_ids(tmp_path):
    motion = np.arange(3 * 2 * 5, dtype=np.float32).reshape(3, 2, 5)
    files = open_files(write(tmp_path, motion, [7, 3, 11]), motion_width=5)
    found = files.read("7")
    np.testing.assert_array_equal(found["motion"], motion[2])
    assert found["appearance"][0, 0, 0] == 0 and found["appearance"].shape == (2, 4, 6)
    assert "3" in files and "4" not in files
    with pytest.raises(DataError, match=r"no row for video 4 in .*a\.h5 and .*m\.h5"):
        files.read("4")


def test_an_unpooled_motion_file_is_explained(tmp_path):
    files = write(tmp_path, np.zeros((2, 2, 32768), np.float32), [1, 2])
    with pytest.raises(DataError) as caught:
        open_files(files).check()
    words = str(caught.value)
    assert str(tmp_path / "m.h5") in words
    for part in ("(2, 32768)", "(2, 2048)", "16 times", "224 px", "features.pool_motion=true"):
        assert part in words


def test_an_unpooled_motion_file_is_pooled_when_the_recipe_says_so(tmp_path):
    generator = np.random.default_rng(0)
    unpooled = generator.normal(size=(2, 2, 2048, 1, 4, 4)).astype(np.float32)
    files = write(tmp_path, unpooled.reshape(2, 2, 32768), [1, 2])
    found = open_files(files, pool_motion=True).read("2")["motion"]
    np.testing.assert_allclose(found, unpooled[0].mean(axis=(2, 3, 4)), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"appearance_width": 8, "motion_width": 5}, r"\(2, 4, 6\), the recipe says \(2, 4, 8\)"),
        ({"motion_width": 4}, r"\(2, 5\), the recipe says \(2, 4\); set clips.num_clips"),
    ],
)
def test_other_shapes_are_refused(tmp_path, settings, said):
    files = write(tmp_path, np.zeros((2, 2, 5), np.float32), [1, 2])
    with pytest.raises(DataError, match=said):
        open_files(files, **settings).check()


def test_what_is_no_feature_file_is_refused(tmp_path):
    files = write(tmp_path, np.zeros((2, 2, 5), np.float32), [1, 1])
    with pytest.raises(DataError, match="one different number for each row"):
        open_files(files, motion_width=5).check()
    with h5py.File(tmp_path / "a.h5", "w") as data:
        data["something"] = np.zeros(3)
    with pytest.raises(DataError, match="wants resnet_features and ids, it has something"):
        open_files(files).check()
    (tmp_path / "a.h5").write_text("no file of this kind")
    with pytest.raises(DataError, match="no HDF5 file"):
        open_files(files).check()
