"""Labels as classes: their order, other lists, and what is odd about them."""

import numpy as np
import pyarrow as pa
import pytest

from msvqa.data.batch import NO_LABEL
from msvqa.data.chance import Chance
from msvqa.data.examples.labels import Labels, in_few
from msvqa.data.label_list import LabelList
from msvqa.data.lexicon import Lexicon
from msvqa.errors import DataError


def labels(*names, known=("run", "walk")):
    rows = [{"media": [n], "label": name, "label_id": 0} for n, name in enumerate(names)]
    table = pa.Table.from_pylist(rows, schema=Labels.schema())
    return Labels(table).read_with(Lexicon([LabelList(known)]), trains=True)


def test_numbers_come_before_texts_and_by_their_size():
    assert (
        LabelList.of_training(["b", "10", "9", "a", "9"]).to_json()
        == LabelList(["9", "10", "a", "b"]).to_json()
    )


def test_a_list_is_read_again_as_it_was(tmp_path):
    Lexicon([LabelList(["run", "walk"])]).save(tmp_path)
    known = Lexicon.load(tmp_path, Labels.lists).of(LabelList)
    assert [known.decode(known.encode(name)) for name in ("walk", "run")] == ["walk", "run"]


def test_evaluation_keeps_what_has_no_class_and_training_refuses_it():
    examples = labels("walk", "fly", "run")
    rows = np.arange(3)
    assert examples.tensors(rows)["label"].tolist() == [1, NO_LABEL, 0]
    assert examples.tensors(rows[[0, 2]], Chance(0, 0))["label"].tolist() == [1, 0]
    with pytest.raises(DataError, match="was not trained with: 'fly'"):
        examples.tensors(rows, Chance(0, 0))


def test_another_list_gives_other_classes():
    examples = labels("walk", "run", known=("crawl", "run", "walk"))
    assert examples.label_id.tolist() == [2, 1]
    assert examples.shown(np.array([1])) == {"label": ["run"]}


def test_many_names_are_told_in_few():
    assert in_few("edcba") == "'a', 'b', 'c' and 2 more"
    assert in_few([]) == ""
