"""Feature files: checked against the recipe, pooled when asked, looked up by their ids."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from msvqa.data import hdf5
from msvqa.data.features import FeatureFiles
from msvqa.errors import DataError, VideoError
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


def spoil(file: str, name: str, row: int, value: float) -> None:
    with h5py.File(file, "r+") as data:
        data[name][row, 1] = value


@pytest.mark.parametrize("block_bytes", [1, 10**6])
def test_rows_that_cannot_be_used_are_named_with_their_cause(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(hdf5, "BLOCK_BYTES", block_bytes)
    ids = [7, 3, 11, 20, 5]
    raw = write(tmp_path, np.ones((5, 2, 5), np.float32), ids)
    spoil(raw["appearance_hdf5"], "resnet_features", 1, np.nan)
    spoil(raw["appearance_hdf5"], "resnet_features", 3, -np.inf)
    spoil(raw["motion_hdf5"], "resnext_features", 2, 1e6)  # of video 11: the ids are turned round
    files = open_files(raw, motion_width=5, dtype="float16")
    found = files.survey(files.video_ids)
    assert found.unusable == {
        "3": f"{raw['appearance_hdf5']}: resnet_features, row 1: 24 of 48 numbers are not finite",
        "20": f"{raw['appearance_hdf5']}: resnet_features, row 3: 24 of 48 numbers are not finite",
        "11": f"{raw['motion_hdf5']}: resnext_features, row 2: 5 of 10 numbers are too large for "
        "float16: 1e+06, it ends at 6.55e+04; features.dtype=float32 holds more",
    }
    assert set(files.survey(["7", "3"]).unusable) == {"3"}, "of the other videos nothing is said"
    for video, cause in found.unusable.items():
        with pytest.raises(VideoError) as caught:
            files.read(video)
        assert (caught.value.outcome, str(caught.value)) == ("not_finite", cause)
    assert files.read("7")["appearance"].shape == (2, 4, 6)
    assert open_files(raw, motion_width=5).survey(["11"]).unusable == {}


def test_numbers_too_large_for_float32_are_not_finite_either(tmp_path):
    raw = write(tmp_path, np.full((2, 2, 5), 1e300), [1, 2])
    files = open_files(raw, motion_width=5)
    assert "too large for float32: 1e+300" in files.survey(["1"]).unusable["1"]


def test_a_pooled_map_with_one_bad_position_is_not_finite(tmp_path):
    motion = np.ones((2, 2, 8), np.float32)
    motion[0, 0, 3] = np.nan
    files = open_files(write(tmp_path, motion, [1, 2]), motion_width=4, pool_motion=True)
    assert "1 of 8 numbers are not finite" in files.survey(["1", "2"]).unusable["2"]


def test_rows_of_zeros_are_counted_and_used(tmp_path):
    motion = np.ones((3, 2, 5), np.float32)
    motion[[0, 2]] = 0
    raw = write(tmp_path, motion, [1, 2, 3])
    files = open_files(raw, motion_width=5)
    found = files.survey(["1", "2", "3"])
    assert found.unusable == {}
    assert found.zero == {f"{raw['motion_hdf5']}: resnext_features": ["3", "1"]}
    assert not files.read("3")["motion"].any()
