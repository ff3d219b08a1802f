"""Counting: published averages, intervals, coverage."""

import math

import numpy as np
import pytest

from msvqa.metrics import mcnemar, wilson_interval
from msvqa.mvbench.scores import Counts, Scores, difference, guessing, interval_by_clip
from msvqa.mvbench.tasks import GROUPS, QUESTIONS_PER_TASK, TASKS

VICUNA = (
    "66.0 47.5 83.5 49.5 60.0 58.0 71.5 42.5 23.0 23.0 88.5 39.0 42.0 58.5 44.0 49.0 36.5 35.0 "
    "40.5 65.5"
)
MISTRAL = (
    "75.5 58.0 83.5 50.5 60.5 87.5 74.5 45.0 47.5 44.0 82.5 37.0 64.5 87.5 51.0 66.5 47.0 35.0 "
    "37.0 72.5"
)
HD = (
    "79.5 60.0 87.5 50.0 68.5 93.5 71.5 36.5 45.0 49.5 87.0 40.0 76.0 92.0 53.0 62.0 45.5 36.0 "
    "44.0 69.5"
)


def counts(correct, evaluated=QUESTIONS_PER_TASK, expected=QUESTIONS_PER_TASK):
    return Counts(expected=expected, evaluated=evaluated, correct=correct)


@pytest.mark.parametrize(("row", "average"), [(VICUNA, 51.15), (MISTRAL, 60.35), (HD, 62.325)])
def test_published_task_scores_give_the_published_averages(row, average):
    published = [float(score) for score in row.split()]
    right = [round(score / 100 * QUESTIONS_PER_TASK) for score in published]
    scores = Scores({t.name: counts(n) for t, n in zip(TASKS, right, strict=True)})
    assert [task.accuracy for task in scores.tasks.values()] == published
    assert scores.micro == pytest.approx(average)
    assert scores.macro == pytest.approx(average)
    assert (scores.name, scores.coverage) == ("MVBench Avg", 1.0)


def test_a_task_without_media_lowers_the_coverage_and_the_name_of_the_average():
    tasks = {task.name: counts(100) for task in TASKS}
    tasks["Fine-grained Pose"] = counts(0, evaluated=0)
    tasks["Scene Transition"] = counts(10, evaluated=20)
    scores = Scores(tasks)
    assert scores.coverage == pytest.approx((18 * 200 + 20) / 4000)
    assert scores.name == "partial"
    assert scores.micro == pytest.approx(50)
    assert math.isnan(scores.tasks["Fine-grained Pose"].accuracy)
    assert scores.over_expected == pytest.approx(100 * 1810 / 4000)


def test_another_set_of_questions_is_no_mvbench():
    complete = {task.name: counts(1, 3, 3) for task in TASKS}
    assert Scores(complete).name == "average"
    assert Scores({"Action Sequence": counts(100)}).name == "average"


def test_wilson_intervals():
    low, high = wilson_interval(100, 200)
    assert (low, high) == pytest.approx((0.4314, 0.5686), abs=1e-4)
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert math.isnan(wilson_interval(0, 0)[0])


def test_mcnemar_is_the_exact_binomial_test():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(0, 6) == pytest.approx(2 / 64)
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(22 / 1024)
    assert 0 < mcnemar(900, 1100) < 1e-4


def test_a_difference_counts_what_only_one_model_answers():
    found = difference(np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 0, 1, 0], bool))
    assert (found.only_first, found.only_second, found.first, found.second) == (2, 1, 60, 40)
    assert found.p_value == 1


def test_questions_of_one_clip_widen_the_interval():
    right = np.repeat(np.arange(40) % 2 == 0, 10)
    own = interval_by_clip(right, [str(n) for n in range(400)])
    shared = interval_by_clip(right, [str(n // 10) for n in range(400)])
    assert shared[1] - shared[0] > 2 * (own[1] - own[0])


def test_guessing_is_the_mean_of_one_over_the_options():
    assert guessing([2, 4]) == pytest.approx(37.5)


def test_every_task_is_in_one_group():
    grouped = [name for names in GROUPS.values() for name in names]
    assert grouped == [task.abbreviation for task in TASKS]
    assert len(set(grouped)) == 20
