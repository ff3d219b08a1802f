"""Metrics: hand-computed values and invariances."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from msvqa import metrics


def questions(rows):
    text, kind, answer = zip(*rows, strict=True)
    return SimpleNamespace(
        question=list(text), question_type=list(kind), answer_id=np.array(answer)
    )


def test_unknown_answers_are_wrong_unless_asked_otherwise():
    predicted, answer = np.array([2, 1, 0, 3]), np.array([2, 1, 0, 4])
    assert metrics.is_right(predicted, answer).tolist() == [True, False, False, False]
    assert metrics.is_right(predicted, answer, True).tolist() == [True, True, True, False]


def test_equals_the_reference_evaluation(golden):
    data = np.load(golden / "videoqa/evaluation.npz", allow_pickle=False)
    right = metrics.is_right(data["logits"].argmax(1), data["answers"], unknown_counts=True)
    by_type = metrics.mean_of_each(right, data["first_word"].tolist())
    found = [metrics.mean(right), *(by_type[k][0] for k in ("what", "who", "how", "when", "where"))]
    np.testing.assert_allclose(found, data["expected"], rtol=0, atol=1e-12)


def test_in_top():
    top = np.array([[2, 3], [4, 1], [5, 6]])
    assert metrics.is_in_top(top, np.array([3, 1, 7])).tolist() == [True, False, False]


def test_baselines_by_hand():
    train = questions(
        [
            ("what is it", "what", 2),
            ("what is it", "what", 3),
            ("what is that", "what", 3),
            ("who is it", "who", 4),
            ("who sings", "who", 0),
        ]
    )
    test = questions([("what is it", "what", 2), ("what now", "what", 3), ("when", "when", 3)])
    found = metrics.text_baselines(train, test)
    assert found["most_frequent"].tolist() == [3, 3, 3]
    assert found["most_frequent_of_type"].tolist() == [3, 3, 3]
    assert found["question_only"].tolist() == [2, 3, 3], "a tie goes to the first answer"


@pytest.mark.long
def test_baselines_on_the_real_annotations(msvd_annotations):
    from msvqa.data.text import AnswerList

    rows = {
        split: json.loads((msvd_annotations / f"{split}_qa.json").read_text())
        for split in ("train", "val", "test")
    }
    answers = AnswerList.build((row["answer"] for row in rows["train"]), 4000)
    splits = {
        split: questions(
            [
                (
                    r["question"],
                    r["question"].split()[0],
                    answers.encode(r["answer"], split == "train"),
                )
                for r in rows[split]
            ]
        )
        for split in rows
    }
    published = {"val": (16.71, 21.89, 23.32, 93.20), "test": (14.08, 18.86, 22.51, 94.08)}
    for split, expected in published.items():
        answer = splits[split].answer_id
        found = [
            metrics.mean(metrics.is_right(predicted, answer))
            for predicted in metrics.text_baselines(splits["train"], splits[split]).values()
        ]
        found.append(metrics.best_possible(answer))
        np.testing.assert_allclose(np.multiply(found, 100), expected, rtol=0, atol=0.005)


def test_interval_holds_the_mean_and_widens_with_fewer_videos():
    right = np.tile([True, False, True, True], 100)
    many = metrics.interval_by_video(right, np.arange(400))
    few = metrics.interval_by_video(np.repeat([True, False, True, True], 100), np.arange(400) // 50)
    assert many[0] < 0.75 < many[1]
    assert few[1] - few[0] > many[1] - many[0]


def test_interval_is_a_point_when_all_videos_are_alike():
    right = np.tile([True, False], 10)
    assert metrics.interval_by_video(right, np.arange(20) // 2) == (0.5, 0.5)


def test_r_squared():
    values = np.array([1.0, 2.0, 3.0, 6.0])
    variation = ((values - values.mean()) ** 2).sum()
    assert metrics.r_squared(((values - values.mean()) ** 2).sum(), variation) == 0
    assert metrics.r_squared(0.0, variation) == 1
    assert np.isnan(metrics.r_squared(0.0, 0.0))


def test_means_without_values_are_no_numbers():
    assert np.isnan(metrics.mean(np.array([])))
    assert np.isnan(metrics.interval_by_video(np.array([]), np.array([]))).all()


@pytest.mark.parametrize("order", [1, -1])
def test_means_do_not_depend_on_the_order(order):
    values, kinds = np.array([1, 0, 1, 1])[::order], ["a", "b", "a", "b"][::order]
    assert metrics.mean_of_each(values, kinds) == {"a": (1.0, 2), "b": (0.5, 2)}


def test_a_row_is_finite_when_all_its_numbers_are():
    predictions = {
        "top": np.array([[2, 3], [3, 2], [4, 2]]),
        "probability": np.array([[0.5, 0.25], [0.5, np.nan], [np.inf, 0.1]]),
        "error": np.array([1.0, 2.0, 3.0]),
    }
    assert metrics.is_finite(predictions).tolist() == [True, False, False]
    assert metrics.is_finite({"top": predictions["top"]}).all()
    assert metrics.is_finite({"probability": np.zeros((0, 5))}).shape == (0,)


def test_the_nearest_are_those_of_a_full_sort_also_where_many_are_equal(monkeypatch):
    monkeypatch.setattr(metrics, "SIMILARITIES_AT_ONCE", 100)
    draw = np.random.default_rng(0)
    query, others = draw.integers(-2, 3, (40, 3)).astype(float), draw.integers(-2, 3, (30, 3))
    others = others.astype(float)
    query[0], others[4] = 0.0, np.nan
    similar = np.where(np.isfinite(query @ others.T), query @ others.T, -np.inf)
    for k in (1, 5, 30, 50):
        expected = np.argsort(-similar, axis=1, kind="stable")[:, :k]
        assert np.array_equal(metrics.nearest(query, others, k), expected)
    assert metrics.nearest(query[:0], others, 3).shape == (0, 3)
    assert metrics.nearest(query, others[:0], 3).shape == (40, 0)
