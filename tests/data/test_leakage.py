"""A video in two splits is an error wherever splits are read, unless it is allowed by name."""

import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from msvqa.data.dataset import open_dataset
from msvqa.data.leakage import Allowed, how_to_allow, shared_content
from msvqa.data.problems import find_annotation_problems
from msvqa.data.processors.processor import store_location, store_spec
from msvqa.data.schema import Problem
from msvqa.data.store import INDEX, Entry, write_index, write_shard
from msvqa.errors import DataError
from msvqa.extract import extract, videos_of
from msvqa.prepare import prepare, summary
from msvqa.recipe import DataConfig, parse, parse_data
from tests.msvd_folder import QUESTIONS, STEMS, write_msvd
from tests.tiny import make_recipe


def config_of(folder, **fields):
    place = {"root": str(folder), "prepared": str(folder.parent / "prepared")}
    return DataConfig(name="msvd_qa", **place, **fields)


def one_more(split, video):
    row = {"id": 90, "video_id": video, "question": "who is it?", "answer": "man"}
    return QUESTIONS | {split: [*QUESTIONS[split], row]}


@pytest.fixture(params=["id", "mapping", "hard link", "soft link"])
def leaking(request, tmp_path):
    """A data set that tests on a video of its train split."""
    root = tmp_path / "data"
    if request.param == "id":
        return write_msvd(root, one_more("test", 1))
    if request.param == "mapping":
        return write_msvd(root, one_more("test", 6), STEMS | {6: STEMS[1]})
    write_msvd(root, one_more("test", 6), STEMS | {6: "other"})
    place, original = root / "video" / "other.avi", root / "video" / f"{STEMS[1]}.avi"
    if request.param == "hard link":
        os.link(original, place)
    else:
        place.symlink_to(original)
    return root


def test_a_file_in_two_splits_is_refused_with_the_way_to_allow_it(leaking):
    with pytest.raises(DataError, match="1 problem that must be put right") as error:
        prepare(config_of(leaking))
    assert "a test on it proves nothing" in str(error.value)
    assert "'data.shared_videos=[train+test]'" in str(error.value)
    problems = find_annotation_problems(open_dataset(config_of(leaking)))
    assert [problem.kind for problem in problems] == ["two_splits"]
    assert (problems[0].split, problems[0].video_id in ("1", "6")) == ("train+test", True)


@pytest.mark.parametrize("names", [("test+train",), ("1",), ("train+val+test",)])
def test_what_is_allowed_by_name_is_said_and_goes_on(leaking, names):
    prepared = prepare(config_of(leaking, shared_videos=names))
    assert any("which data.shared_videos allows" in line for line in summary(prepared))
    assert len(prepared.split("test")) == 3


def test_other_names_allow_nothing_and_unknown_ones_are_refused(leaking):
    for names in (("train+val",), ("2",)):
        with pytest.raises(DataError, match="proves nothing"):
            prepare(config_of(leaking, shared_videos=names))
    for name in ("99", "train+tset", "train", ""):
        with pytest.raises(DataError, match=re.escape(f"shared_videos: {name!r} is no video")):
            prepare(config_of(leaking, shared_videos=(name,)))


def test_two_ids_of_one_file_within_a_split_are_a_note(tmp_path):
    root = write_msvd(tmp_path / "data", one_more("train", 6), STEMS | {6: STEMS[1]})
    prepared = prepare(config_of(root))
    assert prepared.info["same_file"] == [["1", "6"]]
    assert any("is the file of the videos 1, 6" in line for line in summary(prepared))


def test_numbers_name_videos_on_the_command_line(tmp_path):
    config = parse_data("msvd_qa", ["data.shared_videos=[4, train+val]"], root=str(tmp_path))
    assert config.shared_videos == ("4", "train+val")


def test_equal_content_leaks_between_splits_and_is_a_note_within_one():
    splits = {"a": ["train"], "b": ["train"], "c": ["test"], "d": ["val"], "e": ["val"]}
    copies = [["a", "b"], ["b", "c", "gone"], ["d", "e", "c"], ["gone", "a"]]
    found = list(shared_content(copies, splits, Allowed(frozenset({"val+test"}))))
    assert [problem.kind for problem in found] == ["shared_file", "two_splits", "allowed_splits"]
    assert found[1].detail.startswith(
        "the files of the videos b (train), c (test) are the same byte for byte"
    )


@pytest.fixture
def extracted(tmp_path):
    """A recipe with a complete store of videos 1 and 2 of train, 3 of val, 4 and 5 of test."""
    write_msvd(tmp_path / "data")
    recipe = make_recipe(tmp_path)
    spec, store = store_spec(recipe), store_location(recipe)
    arrays = {name: np.zeros(array.shape, array.dtype) for name, array in spec.arrays.items()}
    ids = [video.id for video in videos_of(prepare(recipe.data))]
    entries = [Entry(video_id=video, outcome="ok", arrays=arrays) for video in ids]
    write_index(store, spec, [write_shard(store, 0, spec, entries, {})], {})
    return recipe, Path(store) / INDEX


def say(index, copies):
    """Let the store have found that some files are equal."""
    index.write_text(json.dumps(json.loads(index.read_text()) | {"copies": copies}))


@pytest.mark.long
@pytest.mark.parametrize(
    ("copies", "message", "pair"),
    [
        ([["1", "4"]], "1 (train), 4 (test) are the same byte for byte; a test on", "train+test"),
        ([["2", "3"], ["1", "4", "5"]], "2 x the same content in two splits", "train+val"),
    ],
)
def test_equal_files_in_two_splits_are_said_when_they_are_extracted_and_refused_where_asked(
    extracted, copies, message, pair, caplog
):
    recipe, index = extracted
    say(index, copies)
    assert len(extract(recipe)) == 5
    assert message in caplog.text
    recipe = parse(recipe.to_dict(), ["data.equal_videos=refuse"])
    with pytest.raises(DataError, match=re.escape(message)) as error:
        extract(recipe)
    assert f"'data.shared_videos=[{pair}]'" in str(error.value)
    names = ",".join(ids[0] for ids in copies)
    assert len(extract(parse(recipe.to_dict(), [f"data.shared_videos=[{names}]"]))) == 5


def test_with_folds_only_test_must_be_apart(extracted, caplog):
    recipe, index = extracted
    folded = parse(recipe.to_dict(), ["folds={count: 3, index: 0}", "data.equal_videos=refuse"])
    say(index, [["1", "3"], ["4", "5"]])
    assert len(extract(folded)) == 5
    assert "2 x equal files, first: the files of the videos 1 (train+val), 3" in caplog.text
    say(index, [["1", "5"]])
    with pytest.raises(DataError, match=re.escape("1 (train+val), 5 (test) are the same")):
        extract(folded)
    assert len(extract(parse(folded.to_dict(), ["data.shared_videos=[train+val+test]"]))) == 5


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    ["plain", "a, b.mp4", "clip #3.mp4", "[x].mp4", "a: b", "yes", "1.50", "12", "it's.mp4", "a+b"],
)
def test_the_word_that_allows_a_video_reads_back_as_its_name(name):
    problem = Problem(kind="two_splits", detail="", split="train+test", video_id=name)
    by_name = how_to_allow([problem]).partition("allow it by name, ")[2].partition(", or all")[0]
    (word,) = shlex.split(by_name)
    config = parse_data("table", [word], root="/data")
    assert config.shared_videos == (name,)
