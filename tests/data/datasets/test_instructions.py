"""Instruction data: rows of all kinds, what is wrong with them, weights, streams and turns."""

import json

import numpy as np
import pytest

from msvqa.data.chance import Chance
from msvqa.data.encoding import write_video
from msvqa.data.order import plan_epoch
from msvqa.data.prepared import Prepared
from msvqa.data.texts import read_texts
from msvqa.errors import DataError
from msvqa.prepare import prepare, summary
from msvqa.recipe import BatchConfig, parse_data
from tests.models.small_videochat2 import language_folder

QA = [{"i": "look", "q": "what is it ?", "a": "a cup"}]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    (folder / "media").mkdir(parents=True)
    pictures = np.zeros((4, 16, 16, 3), dtype=np.uint8)
    for name in ("a", "b"):
        write_video(folder / "media" / f"{name}.mp4", iter(pictures), 4)
    from PIL import Image

    Image.fromarray(pictures[0]).save(folder / "media" / "c.png")
    return folder


def written(root, name, rows):
    (root / name).write_text(json.dumps(rows))


def prepared(root, *sources, **fields):
    found = prepare(parse_data("instructions", [], root=str(root), sources=list(sources), **fields))
    return found, found.split("train")


def test_rows_of_all_kinds_become_conversations(root):
    turns = [*QA, {"q": "", "a": "a red cup"}]
    written(root, "v.json", [{"video": "a.mp4", "start": 0, "end": 0.5, "QA": turns}])
    written(root, "i.json", [{"image": "c.png", "QA": QA}])
    written(root, "t.json", [{"QA": QA}])
    _, split = prepared(
        root, {"file": "v.json", "root": "media"},
        {"file": "i.json", "root": "media", "kind": "image"}, {"file": "t.json", "kind": "text"},
    )  # fmt: skip
    assert split.media.id == ["media/a.mp4[0-0.5]", "media/c.png"]
    assert split.media.is_image.tolist() == [False, True]
    assert split.examples.media[:, 0].tolist() == [0, 1, -1]
    batch = split.examples.tensors(np.arange(3))
    texts = [json.loads(text) for text in read_texts(batch["conversation_utf8"])]
    assert [kind for kind, _ in texts] == ["video", "image", "text"]
    assert texts[0][1] == [["what is it ?", "a cup", "look"], ["", "a red cup", ""]]


def test_what_there_is_of_media_is_told_beside_what_conversations_are_about(root):
    written(root, "v.json", [{"video": name, "QA": QA} for name in ("a.mp4", "a.mp4", "b.mp4")])
    written(root, "t.json", [{"QA": QA}])
    sources = [{"file": "v.json", "root": "media"}, {"file": "t.json", "kind": "text"}]
    found, _ = prepared(root, *sources)
    counts = found.info["splits"]["train"]
    assert counts["videos"] == {"expected": 2, "present": 2, "missing": 0}
    assert [counts[f"about_{kind}"] for kind in ("video", "image", "text")] == [3, 0, 1]
    assert summary(found)[0] == "train: 4 of 4 conversations, 2 of 2 videos, 0 missing"
    # A folder of an earlier version is prepared anew.
    file = found.path / "prepare.json"
    counts["videos"] = 3
    file.write_text(json.dumps(found.info))
    with pytest.raises(DataError, match="does not count the videos; run `msvqa prepare` again"):
        Prepared.open(found.location)
    again, _ = prepared(root, *sources)
    assert again.info["splits"]["train"]["videos"]["present"] == 2


def test_steps_are_of_one_kind(root):
    # Models look at what media are, whatever a source calls them.
    of_videos = ["a.mp4"] * 6 + ["c.png"] * 3
    written(root, "v.json", [{"video": name, "QA": QA} for name in of_videos])
    written(root, "i.json", [{"image": "c.png", "QA": QA}] * 6)
    written(root, "t.json", [{"QA": QA}] * 2)
    _, split = prepared(
        root, {"file": "v.json", "root": "media"},
        {"file": "i.json", "root": "media", "kind": "image"}, {"file": "t.json", "kind": "text"},
    )  # fmt: skip
    batch = BatchConfig(examples=4, streams="apart")
    plan = plan_epoch(split, batch, seed=0, epoch=0)
    steps = [
        {(split.media.kind[m] if m >= 0 else "none") for m in step} for step in plan.media[..., 0]
    ]
    assert sorted(map(sorted, steps)) == [["image"]] * 3 + [["none"]] + [["video"]] * 2
    sources = [set(split.examples.kind[step].tolist()) for step in plan.rows[..., 0]]
    assert all(len(found) == 1 for found in sources)


@pytest.mark.long
@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"video": "a.mp4"}, "'QA' must be a list"),
        ({"video": "a.mp4", "QA": [{"q": "what"}]}, "are texts"),
        ({"video": "a.mp4", "QA": [{"q": "what", "a": " "}]}, "'a' is empty"),
        ({"image": "c.png", "QA": QA}, "'video' must name a file"),
        ({"video": "../a.mp4", "QA": QA}, r"a\.mp4"),
        ({"video": "a.mp4", "start": 2, "end": 1, "QA": QA}, "no part of a video"),
        ([1], "an object with QA"),
    ],
)
def test_bad_rows_are_named(root, row, words):
    written(root, "v.json", [{"video": "b.mp4", "QA": QA}, row])
    with pytest.raises(DataError, match=words):
        prepared(root, {"file": "v.json", "root": "media"})


def test_few_bad_rows_are_left_out_and_counted(root):
    written(root, "v.json", [{"video": "b.mp4", "QA": QA}] * 3 + [{"video": "b.mp4"}])
    found, split = prepared(root, {"file": "v.json", "root": "media"}, most_dropped=0.3)
    assert len(split) == 3
    notes = " ".join(found.info["notes"])
    assert "3 of 4 rows" in notes
    assert "row 3" in notes


def test_rows_of_files_of_one_name_are_told_apart(root):
    for folder in ("one", "two"):
        (root / folder).mkdir()
        written(root, f"{folder}/train.json", [{"video": "b.mp4", "QA": QA}, {"video": "b.mp4"}])
    with pytest.raises(DataError, match=r"two/train\.json: row 1"):
        prepared(root, *({"file": f"{f}/train.json", "root": "media"} for f in ("one", "two")))


def test_bug_10_rows_without_a_target_are_dropped_and_counted(root, tmp_path):
    language = language_folder(tmp_path / "language")
    long = [{"q": "what " * 80, "a": "red"}]
    cut = [{"q": "what", "a": "red " * 80}]
    written(root, "v.json", [{"video": "b.mp4", "QA": turns} for turns in (QA, long, cut)])
    measure = {"tokenizer": str(language), "limit": 40}
    found, split = prepared(root, {"file": "v.json", "root": "media"}, measure=measure)
    assert len(split) == 2
    notes = " ".join(found.info["notes"])
    assert "2 of 3 rows; within the limit: cut 1, too_long 1, whole 1" in notes


def test_weights_say_how_often_rows_are_taken(root):
    rows = [{"video": "b.mp4", "QA": [{"q": str(n), "a": "yes"}]} for n in range(4)]
    written(root, "v.json", rows)
    _, half = prepared(root, {"file": "v.json", "root": "media", "weight": 0.5})
    _, more = prepared(root, {"file": "v.json", "root": "media", "weight": 1.5})
    assert [turns[0][0] for turns in half.examples.turns(np.arange(2))] == ["1", "3"]
    assert len(more) == 6


def test_turns_are_shuffled_by_epoch_and_row_alone(root):
    turns = [{"q": str(n), "a": "yes", "i": str(n)} for n in range(6)]
    written(root, "v.json", [{"video": "b.mp4", "QA": turns}])
    _, split = prepared(root, {"file": "v.json", "root": "media"})
    row = np.array([0])
    found = [split.examples.turns(row, Chance(3, epoch))[0] for epoch in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert sorted(found[0]) == split.examples.turns(row)[0]


def test_an_absent_medium_is_named_with_the_row_that_asks_for_it(root):
    written(root, "v.json", [{"video": name, "QA": QA} for name in ("a.mp4", "x.mp4", "x.mp4")])
    with pytest.raises(DataError, match=r"v\.json: row 1: media/x\.mp4 of train: no file media/x"):
        prepared(root, {"file": "v.json", "root": "media"})
