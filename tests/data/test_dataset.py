"""Splits and prepared folders."""

from pathlib import Path

import numpy as np
import pytest

from msvqa.data.dataset import open_dataset
from msvqa.data.prepared import Prepared, prepared_location
from msvqa.errors import DataError
from msvqa.prepare import prepare
from msvqa.recipe import DataConfig
from tests.msvd_folder import QUESTIONS, write_msvd


@pytest.fixture
def config(tmp_path):
    return _config(write_msvd(tmp_path / "data"))


def _config(root):
    return DataConfig(name="msvd_qa", root=str(root), prepared=str(root.parent / "prepared"))


def test_a_split_holds_its_questions_by_video(config):
    split = prepare(config).split("train")
    assert split.media.id == ["1", "2"]
    assert split.media.path[0] == f"{config.root}/video/-4wsuPCjDBc_5_15.avi"
    assert split.examples.medium.tolist() == [0, 0, 1, 1]
    assert split.examples.question_id.tolist() == [0, 1, 2, 3]
    assert split.examples.question_type == ["what", "who", "how", "who"]
    assert split.examples.length.tolist() == [5, 3, 5, 4]
    assert split.examples.tokens.shape == (17,)
    assert split.examples.words(np.array([1, 0]))[0].tolist() == [7, 3, 8, 0, 0]
    assert split.examples.answer_id.tolist() == [3, 2, 4, 2]
    assert len(split) == split.expected == 4


def test_without_drops_videos_and_their_questions(config):
    split = prepare(config).split("train").without(["1"])
    assert split.media.id == ["2"]
    assert split.examples.medium.tolist() == [0, 0]
    assert split.examples.question == ["how many cats are there?", "who cannot swim?"]
    assert split.examples.words(np.arange(2))[1].tolist() == [7, 14, 15, 16, 0]
    assert (len(split), split.expected) == (2, 4)


def test_without_everything_is_an_empty_split(config):
    split = prepare(config).split("train").without(["1", "2"])
    assert (len(split), split.media.id, split.expected) == (0, [], 4)
    assert split.examples.medium.dtype == np.int64


def test_a_wrong_split_is_answered_with_the_right_ones(config):
    with pytest.raises(DataError, match=r"did you mean 'train'.*test, train, val"):
        prepare(config).split("trian")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 99}'])
def test_an_incomplete_or_damaged_folder_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "prepare.json").write_text(content)
    with pytest.raises(DataError, match="msvqa prepare"):
        Prepared.open(tmp_path)


def test_the_folder_is_named_after_data_set_and_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    folders = {prepared_location(DataConfig(name="msvd_qa", root=str(tmp_path / n))) for n in "ab"}
    assert len(folders) == 1
    folder = Path(folders.pop())
    assert folder.parent == tmp_path / "prepared"
    assert folder.name.startswith("msvd_qa-")


def test_an_unknown_data_set_or_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="did you mean 'msvd_qa'"):
        open_dataset(DataConfig(name="msvdqa", root=str(tmp_path)))
    with pytest.raises(DataError, match="no folder"):
        open_dataset(DataConfig(name="msvd_qa", root=str(tmp_path / "absent")))


def test_one_long_question_costs_its_own_words_alone(tmp_path):
    first, *others = QUESTIONS["train"]
    long = first | {"question": f"what {'very ' * 1_000}long thing is it?"}
    root = write_msvd(tmp_path / "data", QUESTIONS | {"train": [long, *others]})
    split = prepare(_config(root)).split("train")
    assert split.examples.length.tolist() == [1_005, 3, 5, 4]
    assert split.examples.tokens.nbytes == 8 * split.examples.length.sum()
    assert split.examples.words(np.array([0, 1])).shape == (2, 1_005)
    assert split.examples.words(np.array([1, 3])).shape == (2, 4)
    assert split.examples.words(np.array([], dtype=np.int64)).shape == (0, 0)
