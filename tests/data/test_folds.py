"""Folds: every video is validated on exactly once, whatever else is there."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from msvqa.data.datasets.synthetic import generate
from msvqa.data.folds import _held_out, dealt, has_split, read_split
from msvqa.prepare import prepare
from msvqa.recipe import DataConfig, FoldsConfig, parse
from tests.msvd_folder import write_msvd
from tests.tiny import VIDEOS, raw_recipe

COUNT = 4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    generate(folder / "data", videos=VIDEOS)
    return prepare(parse(raw_recipe(folder)).data)


def folds():
    return [FoldsConfig(count=COUNT, index=index) for index in range(COUNT)]


def test_every_video_is_validated_on_once(prepared):
    everything = VIDEOS["train"] + VIDEOS["val"]
    seen = []
    for fold in folds():
        train, val = (read_split(prepared, name, fold) for name in ("train", "val"))
        assert not set(train.media.id) & set(val.media.id)
        assert len(train.media.id) + len(val.media.id) == everything
        assert len(val.media.id) in (everything // COUNT, everything // COUNT + 1)
        seen += val.media.id
    assert len(seen) == len(set(seen)) == everything


def test_questions_stay_with_their_videos(prepared):
    known = {}
    for name in ("train", "val"):
        split = prepared.split(name)
        for row in range(len(split)):
            known[int(split.examples.question_id[row])] = describe(split, row)
    for fold in folds():
        for name in ("train", "val"):
            split = read_split(prepared, name, fold)
            assert len(split) == split.expected == len(set(split.examples.question_id.tolist()))
            for row in range(len(split)):
                assert describe(split, row) == known[int(split.examples.question_id[row])]


def describe(split, row):
    asked = split.examples
    video = asked.medium[row]
    words = asked.words(np.array([row]))[0].tolist()
    return (
        split.media.id[video],
        split.media.path[video],
        asked.question[row],
        asked.answer[row],
        words,
    )


def test_test_and_recipes_without_folds_stay_as_they_are(prepared):
    fold = folds()[0]
    assert read_split(prepared, "test", fold).media.id == prepared.split("test").media.id
    assert read_split(prepared, "val", None).media.id == prepared.split("val").media.id


def test_an_absent_video_moves_no_other_one(tmp_path):
    generate(tmp_path / "data", videos=VIDEOS)
    config = parse(raw_recipe(tmp_path), ["data.allow_missing=true"]).data
    before = [set(read_split(prepare(config), "val", fold).media.id) for fold in folds()]
    split = prepare(config).split("train")
    (tmp_path / "data" / "video" / split.media.path[0].rpartition("/")[2]).unlink()
    after = [read_split(prepare(config), "val", fold) for fold in folds()]
    assert [set(part.media.id) for part in after] == [fold - {split.media.id[0]} for fold in before]
    assert sum(part.expected - len(part) for part in after) > 0


def test_copies_of_a_video_are_in_one_fold_and_others_stay_where_they_are(prepared):
    plain = [set(read_split(prepared, "val", fold).media.id) for fold in folds()]
    one, two, three = (min(fold) for fold in plain[:3])
    copies = prepared.knowing([[one, two], [two, three]])
    together = [set(read_split(copies, "val", fold).media.id) for fold in folds()]
    assert sorted(v for fold in together for v in fold) == sorted(set().union(*plain))
    assert sum({one, two, three} <= fold for fold in together) == 1
    alone = prepared.knowing([[one, "unknown"]])
    assert [set(read_split(alone, "val", fold).media.id) for fold in folds()] == plain


def test_two_ids_of_one_file_are_in_one_fold(tmp_path):
    questions = {split: [] for split in ("train", "val", "test")}
    for number in range(12):
        row = {"id": number, "video_id": number, "question": "who?", "answer": "man"}
        questions["train"].append(row)
    stems = {number: f"v{number % 6}" for number in range(12)}
    root = write_msvd(tmp_path / "data", questions, stems, tuple(range(6)))
    config = DataConfig(name="msvd_qa", root=str(root), prepared=str(tmp_path / "p"))
    prepared = prepare(config)
    for fold in folds():
        held_out = read_split(prepared, "val", fold)
        assert held_out.media.id
        assert {int(v) % 6 for v in held_out.media.id if int(v) < 6} == {
            int(v) % 6 for v in held_out.media.id if int(v) >= 6
        }


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (["train"], ["train", "val"]),
        (["train", "test"], ["train", "val", "test"]),
        (["test"], ["test"]),
    ],
)
def test_folds_make_splits_that_the_data_does_not_have(there, found):
    data = SimpleNamespace(splits=there)
    fold = FoldsConfig(count=4, index=0)
    assert [split for split in ("train", "val", "test") if has_split(data, split, fold)] == found
    assert [split for split in ("train", "val", "test") if has_split(data, split, None)] == there


def test_a_copy_moves_to_the_fold_of_its_first_and_nobody_else_moves():
    ids = [f"v{number}" for number in range(100)]
    fold_of = {v: n for n in range(5) for v in _held_out(ids, FoldsConfig(count=5, index=n), [])}
    pair = ["v3", "v77"]
    together = {
        v: n for n in range(5) for v in _held_out(ids, FoldsConfig(count=5, index=n), [pair])
    }
    assert together["v3"] == together["v77"] in {fold_of["v3"], fold_of["v77"]}
    others = set(ids) - set(pair)
    assert {v: together[v] for v in others} == {v: fold_of[v] for v in others}


def test_what_is_decoded_while_training_runs_is_evaluated_in_the_folds_of_training(prepared):
    copies = [prepared.split("train").media.id[:2]]
    recipe = parse(raw_recipe(Path(prepared.root).parent), ["clips.cache=none"])
    assert dealt(recipe, prepared, copies).same_videos == prepared.same_videos
    stored = parse(raw_recipe(Path(prepared.root).parent))
    assert dealt(stored, prepared, copies).same_videos == [*prepared.same_videos, *copies]
