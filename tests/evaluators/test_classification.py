"""The classification evaluator: counts by hand, unknown labels, tables that are counted again."""

import json

import numpy as np
import pyarrow as pa
import pytest

from msvqa.data.batch import NO_LABEL
from msvqa.data.examples.labels import Labels
from msvqa.data.label_list import LabelList
from msvqa.data.lexicon import Lexicon
from msvqa.data.media import COLUMNS, Media
from msvqa.data.split import Split
from msvqa.errors import DataError
from msvqa.evaluators.classification import Classification
from msvqa.recipe import EvaluationConfig

EVALUATOR = Classification(EvaluationConfig())
LEXICON = Lexicon([LabelList(["fly", "run", "walk"])])
ANSWERS = {
    "top": np.array([[1, 0], [2, 1], [2, 0], [0, 2], [1, 2]]),
    "probability": np.array([[0.9, 0.1], [0.6, 0.3], [0.5, 0.3], [0.5, 0.4], [0.4, 0.4]]),
}


def split_of(name, labels, expected=None):
    media = [{"id": f"{name}{n}", "path": "", "kind": "video"} for n in range(len(labels))]
    rows = [
        {"media": [n], "label": label, "label_id": LEXICON.of(LabelList).encode(label)}
        for n, label in enumerate(labels)
    ]
    return Split(
        name=name,
        media=Media(pa.Table.from_pylist(media, schema=COLUMNS), "/data"),
        examples=Labels(pa.Table.from_pylist(rows, schema=Labels.schema())),
        expected=len(labels) if expected is None else expected,
    )


TRAIN = split_of("train", ["run", "run", "walk", "fly"])
TEST = split_of("test", ["run", "run", "walk", "walk", "swim"], expected=7)


def test_counts_by_hand():
    found = EVALUATOR.evaluate(ANSWERS, TEST, TRAIN)
    assert (found["n"], found["n_expected"], found["n_unknown_labels"]) == (5, 7, 1)
    assert found["accuracy"] == 0.4
    assert found["top2_accuracy"] == 0.8
    # run 1 of 2, walk 1 of 2, swim 0 of 1
    assert found["mean_label_accuracy"] == pytest.approx(1 / 3)
    assert found["per_label"]["walk"] == {"n": 2, "accuracy": 0.5}
    assert found["baselines"]["most_frequent"] == 0.4
    low, high = found["accuracy_interval"]
    assert 0 <= low < 0.4 < high <= 1
    json.dumps(found, allow_nan=False)
    validated = EVALUATOR.validate(ANSWERS, TEST)
    assert validated == {name: found[name] for name in Classification.numbers}


def test_what_is_not_finite_is_wrong():
    probability = ANSWERS["probability"].copy()
    probability[0] = np.nan
    found = EVALUATOR.evaluate(ANSWERS | {"probability": probability}, TEST, TRAIN)
    assert (found["accuracy"], found["top2_accuracy"], found["n_not_finite"]) == (0.2, 0.6, 1)


def test_a_label_without_a_class_is_never_right():
    assert TEST.examples.label_id[-1] == NO_LABEL
    top = np.full((5, 2), NO_LABEL)
    top[:4] = ANSWERS["top"][:4]
    assert EVALUATOR.validate(ANSWERS | {"top": top.clip(min=0)}, TEST)["accuracy"] == 0.4


def test_a_table_is_counted_again_with_the_same_numbers():
    probability = ANSWERS["probability"].astype(np.float32).astype(float)
    probability[3] = np.nan
    answers = ANSWERS | {"probability": probability}
    table = EVALUATOR.table(answers, TEST, LEXICON)
    assert table.to_pylist()[1] == {
        "medium": "test1", "label": "run", "correct": False, "predicted": "walk",
        "top": ["walk", "run"], "probability": pytest.approx([0.6, 0.3]),
    }  # fmt: skip
    again = EVALUATOR.answers(table, TEST, LEXICON)
    assert EVALUATOR.evaluate(again, TEST, TRAIN) == EVALUATOR.evaluate(answers, TEST, TRAIN)
    with pytest.raises(DataError, match="about other media than split 'val'"):
        EVALUATOR.answers(table, split_of("val", TEST.examples.label), LEXICON)


def test_rows_and_predictions_must_be_as_many():
    with pytest.raises(DataError, match="5 predictions for 4 labels of 'train'"):
        EVALUATOR.evaluate(ANSWERS, TRAIN, TRAIN)


def test_what_people_see_names_confusions_and_the_weakest_labels():
    rows = EVALUATOR.table(ANSWERS, TEST, LEXICON).to_pylist()
    ((_, cases),) = EVALUATOR.cases(rows).items()
    assert {case.said for case in cases} == {
        "run, taken for walk (1)", "walk, taken for fly (1)", "swim, taken for run (1)",
    }  # fmt: skip
    sheet = EVALUATOR.sheet(EVALUATOR.evaluate(ANSWERS, TEST, TRAIN))
    assert sheet.rows[0][:3] == ("all", 5, 0.4)
    assert sheet.rows[3][0] == "swim"
    assert all(len(row) == len(sheet.columns) for row in sheet.rows)
