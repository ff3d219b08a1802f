"""How many questions a training is left with, where videos are absent or cannot be read."""

import pytest

from msvqa.checks.coverage import check_coverage
from msvqa.errors import DataError
from msvqa.prepare import prepare
from tests.tiny import VIDEOS, make_data, make_recipe

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("coverage")


@pytest.fixture(scope="module")
def made(folder):
    return make_data(folder)


def rejecting(store, videos):
    store.rejected = dict.fromkeys(videos, ("unreadable", "no video at all"))
    return store


def test_nothing_is_said_where_nothing_is_left_out(folder, made, caplog):
    check_coverage(make_recipe(folder), *made)
    check_coverage(make_recipe(folder), made[0])
    assert not caplog.messages


def test_videos_that_are_left_out_are_counted_in_every_split(folder, made, caplog):
    prepared, store = made
    train, val = (prepared.split(name) for name in ("train", "val"))
    lost = [train.media.id[0], *val.media.id[:2]]
    check_coverage(make_recipe(folder), prepared, rejecting(store, lost))
    left = [len(split.without(lost)) for split in (train, val)]
    assert (
        f"trains on {left[0]} of {len(train)} questions, 5 of 6 videos; "
        f"validates on {left[1]} of {len(val)} questions, 1 of 3 videos; "
    ) in caplog.text
    assert "nothing validates" not in caplog.text


def test_a_validation_that_is_left_out_whole_is_said(folder, made, caplog):
    prepared, store = made
    check_coverage(make_recipe(folder), prepared, rejecting(store, prepared.split("val").media.id))
    assert "0 of 3 videos; nothing validates, and the last checkpoint" in caplog.text
    assert "trains on" not in caplog.text


def test_a_training_without_a_single_video_is_refused(folder, made):
    prepared, store = made
    none = rejecting(store, prepared.split("train").media.id)
    with pytest.raises(
        DataError, match=r"none of the questions is left .* \(0 of 6 videos can be used\)"
    ):
        check_coverage(make_recipe(folder), prepared, none)


def test_folds_are_counted_as_they_are_dealt(folder, made, caplog):
    prepared, store = made
    recipe = make_recipe(folder, "folds.count=3", "folds.index=0")
    check_coverage(recipe, prepared, rejecting(store, prepared.split("val").media.id))
    fold = (VIDEOS["train"] + VIDEOS["val"]) // 3
    assert f" of {2 * fold} videos" in caplog.text
    assert f" of {fold} videos" in caplog.text


def test_absent_files_count_before_anything_is_extracted(folder, made, tmp_path, caplog):
    (tmp_path / "data").mkdir()
    for file in (folder / "data").rglob("*"):
        if file.is_file():
            copy = tmp_path / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    (tmp_path / "data" / made[0].split("train").media.path[0].rpartition("data/")[2]).unlink()
    recipe = make_recipe(tmp_path, "data.allow_missing=true")
    check_coverage(recipe, prepare(recipe.data))
    assert "5 of 6 videos; data.allow_missing=true leaves out" in caplog.text
