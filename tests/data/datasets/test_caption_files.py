"""Files of captions: media and spans are found, and every wrong row is named with its place."""

import json

import pytest

from msvqa.data.dataset import open_dataset
from msvqa.data.order import count_steps, plan_epoch
from msvqa.errors import DataError
from msvqa.prepare import prepare
from msvqa.recipe import BatchConfig, parse_data
from tests.caption_folder import write_captions

GOOD = {"train": [{"video": "v/a.mp4", "caption": "a cat"}]}


def config_of(root, **fields):
    return parse_data(
        "caption_files", [], root=str(root), prepared=str(root.parent / "p"), **fields
    )


def problems_of(root, **fields):
    return list(open_dataset(config_of(root, **fields)).annotate().problems)


@pytest.mark.long
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"video": "a.mp4"}, "key 'caption' is missing"),
        ({"video": "a.mp4", "captions": "a cat"}, "did you mean 'captions'"),
        ({"vidoe": "a.mp4", "caption": "a cat"}, "'video' and 'image' must name a path"),
        ({"video": "a.mp4", "image": "a.png", "caption": "x"}, "one of the keys"),
        ({"video": "a.mp4", "caption": ""}, "a caption is empty"),
        ({"video": "a.mp4", "caption": []}, "a text or a list of texts"),
        ({"video": "a.mp4", "caption": ["a cat", 7]}, "a caption must be a text, found '7'"),
        ({"video": "a.mp4", "caption": "x", "start": "0:10"}, "are seconds"),
        ({"video": "a.mp4", "caption": "x", "start": -1}, "before the video begins"),
        ({"video": "a.mp4", "caption": "x", "start": 5, "end": 5}, "not after 'start' 5"),
        ({"image": "a.png", "caption": "x", "start": 1}, "an image has no 'start'"),
        ({"image": "a.tif", "caption": "x"}, "'image' names 'a.tif': an image ends in .bmp, "),
        ({"video": "a\u0007.mp4", "caption": "x"}, "control character"),
        ({"video": "a.mp4", "caption": "x", "kinds": ["red"]}, 'such as {"color": "red"}, found'),
        ({"video": "a.mp4", "caption": "x", "kinds": {"color": 7}}, "found {'color': 7}"),
        (["a.mp4", "x"], "an object with video and caption is needed"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_number(tmp_path, row, said):
    root = write_captions(tmp_path / "data", GOOD)
    (root / "val.json").write_text(json.dumps([{"video": "v/a.mp4", "caption": "x"}, row]))
    (problem, *_) = problems_of(root, shared_videos=("train+val",))
    assert problem.detail.startswith("val.json: row 1: ")
    assert said in problem.detail
    with pytest.raises(DataError, match=r"val\.json: row 1"):
        prepare(config_of(root, shared_videos=("train+val",)))


def test_spans_of_a_video_are_media_of_their_own_that_stay_in_one_split(tmp_path):
    rows = [{"video": "a.mp4", "caption": "x", "start": s, "end": s + 2.5} for s in (0, 2.5)]
    root = write_captions(tmp_path / "data", {"train": [*rows, {"video": "a.mp4", "caption": "y"}]})
    prepared = prepare(config_of(root))
    media = prepared.split("train").media
    assert media.id == ["a.mp4[0-2.5]", "a.mp4[2.5-5]", "a.mp4"]
    assert [media.span(row) for row in range(3)] == [(0, 2.5), (2.5, 5), (None, None)]
    assert prepared.same_videos == [media.id], "folds keep them together"
    held_out = {"video": "a.mp4", "caption": "z", "start": 7}
    write_captions(tmp_path / "data", {"test": [held_out]})
    with pytest.raises(DataError, match=r"one file is in train and test: a.mp4\[0-2.5\] \(train\)"):
        prepare(config_of(root))


def test_absent_media_are_counted_and_what_leaves_the_root_is_refused(tmp_path):
    rows = [{"video": f"{name}.mp4", "caption": "x"} for name in "abc"]
    root = write_captions(tmp_path / "data", {"train": rows}, absent=["b.mp4"])
    with pytest.raises(
        DataError, match=r"1 of 3 videos are missing \(1 of 3 captions\)"
    ) as refused:
        prepare(config_of(root))
    assert "train.json: row 1: b.mp4 of train: no file b.mp4" in str(refused.value)
    (problem,) = problems_of(root)
    assert (problem.kind, problem.path, problem.row) == ("missing_video", "b.mp4", 1)
    prepared = prepare(config_of(root, allow_missing=True))
    assert prepared.split("train").media.id == ["a.mp4", "c.mp4"]
    assert prepared.split("train").examples.medium.tolist() == [0, 1]
    write_captions(root, {"val": [{"video": "../x.mp4", "caption": "x"}]})
    with pytest.raises(DataError, match="it leaves the data root"):
        prepare(config_of(root, allow_missing=True))


def test_a_folder_of_images_is_a_medium(tmp_path):
    root = write_captions(
        tmp_path / "data", {"train": [{"video": "frames/7/1.jpg", "caption": "x"}]}
    )
    (root / "train.json").write_text(json.dumps([{"video": "frames/7", "caption": "x"}]))
    assert prepare(config_of(root)).split("train").media.kind == ["frames"]


def test_several_files_of_a_split_and_several_sources(tmp_path):
    one = write_captions(tmp_path / "data" / "one", GOOD)
    two = write_captions(tmp_path / "data" / "two", GOOD)
    (two / "more.jsonl").write_text('{"video": "v/a.mp4", "caption": "more"}\n\n')
    sources = [
        {"root": str(one)},
        {"root": str(two), "files": {"train": ["train.json", "more.jsonl"]}},
    ]
    (two / "v" / "a.mp4").rename(two / "v" / "b.mp4")
    (absent,) = problems_of(tmp_path / "data", sources=sources)
    assert absent.detail.startswith("two/train.json: row 0: two/v/a.mp4 of train: no file")
    (two / "v" / "b.mp4").rename(two / "v" / "a.mp4")
    prepared = prepare(config_of(tmp_path / "data", sources=sources))
    train = prepared.split("train")
    assert train.media.id == ["one/v/a.mp4", "two/v/a.mp4"]
    assert train.examples.count.tolist() == [1, 2]
    outside = write_captions(tmp_path / "other", GOOD)
    with pytest.raises(DataError, match=r"data.sources.0.root: .* is not inside data.root"):
        prepare(config_of(tmp_path / "data", sources=[{"root": str(outside)}]))


def test_without_files_of_captions_it_is_said_which_are_looked_for(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"no file of captions \(test.json, train.json, val.json\)"):
        prepare(config_of(tmp_path / "data"))


def test_images_and_videos_take_steps_of_their_own_where_streams_are_apart(tmp_path):
    rows = [
        *({"image": f"i/{n}.png", "caption": "a still"} for n in range(5)),
        *({"video": f"v/{n}.mp4", "caption": "a move"} for n in range(7)),
    ]
    root = write_captions(
        tmp_path / "data", {"train": rows, "val": [{**rows[0], "image": "x.png"}]}
    )
    split = prepare(config_of(root)).split("train")
    plan = plan_epoch(split, BatchConfig(examples=4, streams="apart"), seed=0, epoch=0)
    of_steps = [{split.media.kind[row] for row in step} for step in plan.media[..., 0]]
    assert sorted(map(sorted, of_steps)) == [["image"]] * 2 + [["video"]] * 2
    assert plan.steps == count_steps(split, BatchConfig(examples=4, streams="apart"))
    mixed = plan_epoch(split, BatchConfig(examples=4), seed=0, epoch=0)
    assert mixed.steps == 3


def test_a_list_that_is_preferred_is_read_where_it_is(tmp_path):
    rows = [{"video": f"{name}.mp4", "caption": "x"} for name in "ab"]
    root = write_captions(tmp_path / "data", {"train": rows, "lists/first": rows[:1]})
    for name, media in (("lists/first.json", ["a.mp4"]), ("absent.json", ["a.mp4", "b.mp4"])):
        config = config_of(root, preferred={"train": name})
        prepared = prepare(config.model_copy(update={"prepared": str(tmp_path / media[-1])}))
        assert prepared.split("train").media.id == media
    assert f"{root}: train is train.json, there is no absent.json" in prepared.info["notes"]
