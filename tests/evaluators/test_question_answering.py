"""The question answering evaluator."""

import json

import numpy as np
import pytest

from msvqa.errors import DataError
from msvqa.evaluators.question_answering import QuestionAnswering
from msvqa.recipe import EvaluationConfig
from tests.asked import split_of


@pytest.fixture
def train():
    return split_of("train", [("1", "a", "what", 2), ("1", "b", "who", 3), ("1", "c", "when", 4)])


@pytest.fixture
def test():
    rows = [
        ("7", "a", "what", 2),
        ("7", "x", "what", 5),
        ("8", "b", "who", 3),
        ("8", "y", "who", 1),
    ]
    return split_of("test", rows, expected=6)


PREDICTIONS = {"top": np.array([[2, 3], [5, 2], [4, 3], [1, 2]])}


def test_counts_by_hand(train, test):
    found = QuestionAnswering(EvaluationConfig()).evaluate(PREDICTIONS, test, train)
    assert found["accuracy"] == 0.5
    assert found["top2_accuracy"] == 0.75
    assert found["question_only_accuracy"] == 0.5
    assert (found["n"], found["n_expected"], found["n_unknown_answers"]) == (4, 6, 1)
    assert found["baselines"]["best_possible"] == 0.75
    assert found["per_type"]["what"]["accuracy"] == 1
    assert found["per_type"]["who"] == {
        "accuracy": 0.0,
        "accuracy_interval": [0.0, 0.0],
        "type_only_accuracy": 0.5,
        "question_only_accuracy": 0.5,
        "best_possible": 0.5,
        "n": 2,
    }
    assert found["per_type"]["when"]["n"] == 0
    assert found["per_type"]["when"]["accuracy"] is None
    json.dumps(found, allow_nan=False)


def test_types_stand_in_the_order_of_the_data_set(train, test):
    evaluator = QuestionAnswering(EvaluationConfig())
    found = evaluator.evaluate(PREDICTIONS, test, train, ["who", "where", "what"])
    assert list(found["per_type"]) == ["who", "what", "when"]


def test_reference_rule_counts_unknown(train, test):
    config = EvaluationConfig(count_unknown_as_wrong=False)
    assert QuestionAnswering(config).evaluate(PREDICTIONS, test, train)["accuracy"] == 0.75


def test_refuses_missing_rows(train, test):
    with pytest.raises(DataError, match="3 predictions for 4 questions"):
        QuestionAnswering(EvaluationConfig()).evaluate({"top": PREDICTIONS["top"][:3]}, test, train)


def test_what_is_not_finite_is_wrong_and_counted(train, test):
    evaluator = QuestionAnswering(EvaluationConfig(count_unknown_as_wrong=False))
    probability = np.full((4, 2), 0.5)
    finite = evaluator.evaluate({**PREDICTIONS, "probability": probability}, test, train)
    assert finite == evaluator.evaluate(PREDICTIONS, test, train)
    assert (finite["n_not_finite"], finite["accuracy"], finite["top2_accuracy"]) == (0, 0.75, 0.75)
    probability[[0, 3]] = np.nan  # both would be right
    found = evaluator.evaluate({**PREDICTIONS, "probability": probability}, test, train)
    assert (found["n_not_finite"], found["n"]) == (2, 4)
    assert (found["accuracy"], found["top2_accuracy"]) == (0.25, 0.5)
    assert found["per_type"]["what"]["accuracy"] == 0.5
