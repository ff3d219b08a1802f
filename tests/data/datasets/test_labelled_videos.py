"""Labelled media: lists in their published forms, folders, and every wrong row with its place."""

import pytest

from msvqa.data.batch import NO_LABEL
from msvqa.data.dataset import open_dataset
from msvqa.errors import DataError
from msvqa.prepare import prepare, summary
from msvqa.recipe import parse_data


def config_of(root, **fields):
    return parse_data(
        "labelled_videos", [], root=str(root), prepared=str(root.parent / "p"), **fields
    )


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def listed(root, text, split="train", absent=()):
    root.mkdir(exist_ok=True)
    (root / f"{split}.csv").write_text(text, encoding="utf-8")
    return touch(root, *{f"{name}.mp4" for name in "abc"} - set(absent))


def labels_of(prepared, split="train"):
    found = prepared.split(split)
    media = [found.media.id[row] for row in found.examples.medium]
    return dict(zip(media, found.examples.label, strict=True))


@pytest.mark.long
@pytest.mark.parametrize(
    "text",
    [
        "a.mp4,10\nb.mp4,9\n",
        "a.mp4 10\n\nb.mp4 9",
        "a.mp4\t10\r\nb.mp4\t9\r\n",
        "path,label\na.mp4,10\nb.mp4,9\n",
        'Video, Label\n"a.mp4", "10"\nb.mp4, 9\n',
        "\ufeffpath label\na.mp4 10\nb.mp4 9\n",
    ],
)
def test_lists_of_all_forms_say_the_same(tmp_path, text):
    prepared = prepare(config_of(listed(tmp_path / "data", text)))
    assert labels_of(prepared) == {"a.mp4": "10", "b.mp4": "9"}
    # Numbers stay texts, and their classes follow their size.
    assert prepared.split("train").examples.label_id.tolist() == [1, 0]
    assert prepared.lexicon.sizes() == {"labels": 2}
    assert "2 labels" in " ".join(summary(prepared))


def test_the_last_space_divides_so_paths_may_have_some(tmp_path):
    root = listed(tmp_path / "data", "riding a bike/x y.mp4 3\n")
    touch(root, "riding a bike/x y.mp4")
    assert labels_of(prepare(config_of(root))) == {"riding a bike/x y.mp4": "3"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("b.mp4", "a path and a label divided by a comma, as in the first line"),
        ("b.mp4,x,y", "a path and a label divided by a comma"),
        ("b.mp4,", "the label is empty"),
        (",x", "the path is empty"),
        ('"b.mp4,x', "cannot be divided by a comma"),
        ("b\u0007.mp4,x", "control character"),
        ("b.mp4," + "x" * 1001, "longer than 1000"),
        ("a.mp4,walk", "a.mp4 is also in train.csv: row 1, with the label 'run' and not 'walk'"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_number(tmp_path, row, said):
    root = listed(tmp_path / "data", f"a.mp4,run\n{row}\n")
    (problem, *_) = open_dataset(config_of(root)).annotate().problems
    assert problem.detail.startswith("train.csv: row 2: ")
    assert said in problem.detail
    with pytest.raises(DataError, match=r"train\.csv: row 2"):
        prepare(config_of(root))


def test_the_same_row_twice_counts_once_and_is_told(tmp_path):
    prepared = prepare(config_of(listed(tmp_path / "data", "a.mp4,run\na.mp4,run\nb.mp4,walk\n")))
    assert labels_of(prepared) == {"a.mp4": "run", "b.mp4": "walk"}
    assert any("train.csv: row 2: a.mp4 is also in" in note for note in prepared.info["notes"])


def test_unknown_labels_are_kept_and_told(tmp_path):
    root = listed(tmp_path / "data", "a.mp4,run\nb.mp4,walk\n")
    listed(root, "c.mp4,fly\n", "val")
    prepared = prepare(config_of(root))
    assert prepared.split("val").examples.label_id.tolist() == [NO_LABEL]
    assert prepared.info["splits"]["val"]["unknown_labels"] == 1
    assert any("labels of val that no training example has" in n for n in prepared.info["notes"])


@pytest.mark.long
def test_media_are_found_counted_and_in_one_split(tmp_path):
    root = listed(tmp_path / "data", "a.mp4 0\nb.mp4 1\n", absent=["b.mp4"])
    with pytest.raises(DataError, match=r"1 of 2 videos are missing \(1 of 2 labels\)") as refused:
        prepare(config_of(root))
    assert "train.csv: row 2: b.mp4 of train: no file b.mp4" in str(refused.value)
    listed(root, "a.mp4 0\n", "val")
    with pytest.raises(DataError, match=r"one file is in train and val: a\.mp4"):
        prepare(config_of(root, allow_missing=True))
    assert labels_of(prepare(config_of(root, shared_videos=("train+val",))), "val")
    listed(root, "../x.mp4 0\n", "test")
    with pytest.raises(DataError, match="it leaves the data root"):
        prepare(config_of(root, allow_missing=True))


def test_several_lists_of_a_split(tmp_path):
    root = listed(tmp_path / "data", "a.mp4 0\n", "one")
    listed(root, "b.mp4 1\n", "two")
    prepared = prepare(config_of(root, files={"train": ("one.csv", "two.csv")}))
    assert labels_of(prepared) == {"a.mp4": "0", "b.mp4": "1"}
    with pytest.raises(DataError, match="in files that end in"):
        prepare(config_of(root, files={"train": "a.mp4"}))


def test_folders_of_labels_with_splits_and_images_and_folders_of_images(tmp_path):
    root = touch(
        tmp_path / "data", "train/run/a.mp4", "train/walk/b.jpg", "train/walk/c/1.png",
        "train/walk/notes.txt", "val/run/d.avi",
    )  # fmt: skip
    prepared = prepare(config_of(root))
    assert labels_of(prepared) == {
        "train/run/a.mp4": "run", "train/walk/b.jpg": "walk", "train/walk/c": "walk",
    }  # fmt: skip
    assert prepared.split("train").media.kind == ["video", "image", "frames"]
    assert labels_of(prepared, "val") == {"val/run/d.avi": "run"}
    assert any("train/walk/notes.txt" in note for note in prepared.info["notes"])


def test_folders_without_splits_are_divided_by_the_seed(tmp_path):
    names = [f"{kind}/{n}.mp4" for kind in ("run", "walk") for n in range(10)]
    root = touch(tmp_path / "data", *names)
    dealt = []
    for seed in (0, 0, 1):
        prepared = prepare(config_of(root, split_seed=seed))
        splits = [labels_of(prepared, split) for split in ("train", "val", "test")]
        assert [len(split) for split in splits] == [16, 2, 2]
        assert sorted(name for split in splits for name in split) == sorted(names)
        dealt.append(splits)
    assert dealt[0] == dealt[1] != dealt[2]
    assert any("with seed 1" in note for note in prepared.info["notes"])


def test_without_lists_and_folders_it_is_said_what_is_looked_for(tmp_path):
    root = touch(tmp_path / "data", "a.mp4")
    with pytest.raises(DataError, match=r"neither a list \(test.csv, train.csv, val.csv\)"):
        prepare(config_of(root))
