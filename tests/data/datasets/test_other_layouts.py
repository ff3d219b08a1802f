"""MSRVTT-QA and SVQA: where videos are, and what the kind of a question is."""

import json

import pytest

from msvqa.data.dataset import open_dataset
from msvqa.errors import DataError
from msvqa.prepare import prepare
from msvqa.recipe import DataConfig


def _write(root, elements):
    root.mkdir(exist_ok=True)
    for split, content in elements.items():
        (root / f"{split}_qa.json").write_text(json.dumps(content))


def test_msrvtt_looks_in_one_folder_for_test_and_in_another_for_the_rest(tmp_path):
    element = {"category_id": 3, "question": "who is it?", "answer": "man"}
    ids = {"train": 0, "val": 6513, "test": 7010}
    _write(tmp_path, {s: [{**element, "id": n, "video_id": n}] for s, n in ids.items()})
    for folder, number in (("TrainValVideo", 0), ("TrainValVideo", 6513), ("TestVideo", 7010)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"video{number}.mp4").touch()
    prepared = prepare(
        DataConfig(name="msrvtt_qa", root=str(tmp_path), prepared=str(tmp_path / "prepared"))
    )
    assert prepared.split("val").media.path == [str(tmp_path / "TrainValVideo/video6513.mp4")]
    assert prepared.split("test").media.path == [str(tmp_path / "TestVideo/video7010.mp4")]
    dataset = open_dataset(DataConfig(name="msrvtt_qa", root=str(tmp_path)))
    assert dataset.find_video("7010", "train").expected == "TrainValVideo/video7010.mp4"


def test_the_kind_of_an_svqa_question_is_the_last_function_of_its_program(tmp_path):
    element = {"id": 12, "question": "how many balls are there?", "ans": 2}
    count = [{"function": "scene"}, {"function": "count"}]
    exist = [{"type": "scene"}, {"type": "exist"}]
    questions = [element | {"program": count}, element | {"program": exist, "ans": "Yes"}]
    _write(tmp_path, {"train": questions, "val": [], "test": [element | {"program": []}]})
    (tmp_path / "Videos").mkdir()
    (tmp_path / "Videos" / "12.mp4").touch()
    config = DataConfig(name="svqa", root=str(tmp_path), prepared=str(tmp_path / "prepared"))
    with pytest.raises(DataError, match="video 12 is in train and test; a test on it proves"):
        prepare(config)
    prepared = prepare(config.model_copy(update={"shared_videos": ("12",)}))
    train = prepared.split("train")
    assert train.examples.question_type == ["count", "exist"]
    assert train.examples.answer == ["2", "Yes"]
    assert train.media.path == [str(tmp_path / "Videos/12.mp4")]
    assert prepared.info["question_types"] == ["count", "exist", "other"]
    assert len(prepared.split("val")) == 0
    assert any("more than one split" in note for note in prepared.info["notes"])
