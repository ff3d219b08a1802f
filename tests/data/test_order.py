"""The epoch plan: every question once, no dependence on workers, videos in one place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msvqa.data.order import Share, chunks, count_visits, evaluation_order, plan_epoch
from msvqa.errors import DataError

questions_of_videos = st.lists(st.integers(0, 9), min_size=1, max_size=20).filter(any)


def rows_of(counts: list[int]) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@settings(max_examples=60, deadline=None)
@given(questions_of_videos, st.integers(1, 6), st.integers(1, 5), st.integers(0, 3))
def test_every_question_counts_exactly_once(counts, lanes, k, epoch):
    video_row = rows_of(counts)
    plan = plan_epoch(video_row, lanes=lanes, questions_per_video=k, seed=1, epoch=epoch)
    counted = plan.question[plan.weight > 0]
    assert sorted(counted) == list(range(len(video_row)))
    assert plan.question.shape == plan.weight.shape == (*plan.video.shape, k)
    assert (video_row[plan.question] == plan.video[:, :, None]).all()
    assert (plan.weight.sum(axis=(1, 2)) > 0).all(), "no step may be empty"


@settings(max_examples=40, deadline=None)
@given(questions_of_videos, st.integers(1, 4))
def test_visits_are_as_many_as_the_groups_of_questions(counts, k):
    video_row = rows_of(counts)
    plan = plan_epoch(video_row, lanes=3, questions_per_video=k, seed=0, epoch=0)
    counting_visits = int((plan.weight.sum(axis=2) > 0).sum())
    assert counting_visits == count_visits(video_row, k) == sum(-(-q // k) for q in counts)


def test_order_is_a_function_of_seed_and_epoch():
    video_row = rows_of([5, 3, 8, 2])
    plans = [
        plan_epoch(video_row, lanes=2, questions_per_video=2, seed=seed, epoch=epoch)
        for seed, epoch in [(0, 0), (0, 0), (0, 1), (1, 0)]
    ]
    assert (plans[0].question == plans[1].question).all()
    assert not np.array_equal(plans[0].question, plans[2].question)
    assert not np.array_equal(plans[0].question, plans[3].question)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_need_different_videos(workers):
    video_row = rows_of([4] * 24)
    plan = plan_epoch(video_row, lanes=4, questions_per_video=2, seed=0, epoch=0)
    shares = [plan.lanes_of(Share(worker, workers)) for worker in range(workers)]
    needed = [set(plan.video[:, lanes][plan.weight.any(2)[:, lanes]]) for lanes in shares]
    assert sum(map(len, needed)) == 24, "every video is decoded by one worker only"


def test_batches_hold_a_video_once_and_lanes_are_balanced():
    rng = np.random.default_rng(3)
    counts = rng.integers(5, 64, size=200).tolist()
    video_row = rows_of(counts)
    plan = plan_epoch(video_row, lanes=8, questions_per_video=8, seed=0, epoch=0)
    real = plan.weight.any(2)
    for videos, counts_here in zip(plan.video, real, strict=True):
        kept = videos[counts_here]
        assert len(set(kept)) == len(kept)
    fillers = real.size - real.sum()
    assert fillers < plan.video.shape[1] * 2, "lanes differ by about one visit"


def test_a_short_visit_is_padded_with_its_own_questions():
    plan = plan_epoch(np.array([0, 0, 0]), lanes=1, questions_per_video=2, seed=0, epoch=0)
    assert plan.weight.sum() == 3
    padded = plan.question[plan.weight.min(2) == 0][0]
    assert padded[0] == padded[1]


def test_no_questions_is_an_error():
    with pytest.raises(DataError, match="no training questions"):
        plan_epoch(np.array([], int), lanes=1, questions_per_video=1, seed=0, epoch=0)


@settings(max_examples=60, deadline=None)
@given(questions_of_videos, st.integers(1, 7))
def test_evaluation_gives_every_video_to_one_worker(counts, workers):
    video_row = rows_of(counts)
    shares = evaluation_order(video_row, len(counts), workers)
    assert len(shares) == workers
    assert sorted(v for share in shares for v in share) == [v for v, q in enumerate(counts) if q]


def test_chunks_cover_the_sequence():
    assert [list(c) for c in chunks([1, 2, 3, 4, 5], 2)] == [[1, 2], [3, 4], [5]]
