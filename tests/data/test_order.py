"""The epoch plan: every question once, no dependence on workers, videos in one place."""

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msvqa.data.examples.examples import Examples
from msvqa.data.examples.questions import Questions
from msvqa.data.media import Media
from msvqa.data.order import Share, chunks, count_steps, count_visits, evaluation_order, plan_epoch
from msvqa.data.split import Split
from msvqa.errors import DataError
from msvqa.recipe import BatchConfig

questions_of_videos = st.lists(st.integers(0, 9), min_size=1, max_size=20).filter(any)


def split_of(examples: Examples, kinds: Sequence[str] = ()) -> Split:
    media = Media(pa.table({"kind": pa.array(kinds, pa.string())}), "")
    return Split(name="train", media=media, examples=examples, expected=len(examples))


def questions(video_row: np.ndarray) -> Split:
    video = pa.FixedSizeListArray.from_arrays(pa.array(video_row, pa.int64()), 1)
    return split_of(Questions(pa.table({"media": video})))


def plan_of(video_row: np.ndarray, *, lanes: int, k: int, seed: int = 0, epoch: int = 0):
    batch = BatchConfig(videos=lanes, questions_per_video=k)
    return plan_epoch(questions(video_row), batch, seed=seed, epoch=epoch)


def rows_of(counts: list[int]) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@settings(max_examples=60, deadline=None)
@given(questions_of_videos, st.integers(1, 6), st.integers(1, 5), st.integers(0, 3))
def test_every_question_counts_exactly_once(counts, lanes, k, epoch):
    video_row = rows_of(counts)
    plan = plan_of(video_row, lanes=lanes, k=k, seed=1, epoch=epoch)
    counted = plan.rows[plan.weight > 0]
    assert sorted(counted) == list(range(len(video_row)))
    assert plan.rows.shape == plan.weight.shape == (*plan.media.shape[:2], k)
    assert (video_row[plan.rows] == plan.media).all()
    assert (plan.weight.sum(axis=(1, 2)) > 0).all(), "no step may be empty"


@settings(max_examples=40, deadline=None)
@given(questions_of_videos, st.integers(1, 4))
def test_visits_are_as_many_as_the_groups_of_questions(counts, k):
    video_row = rows_of(counts)
    plan = plan_of(video_row, lanes=3, k=k, seed=0, epoch=0)
    counting_visits = int((plan.weight.sum(axis=2) > 0).sum())
    assert counting_visits == count_visits(video_row, k) == sum(-(-q // k) for q in counts)


def test_order_is_a_function_of_seed_and_epoch():
    video_row = rows_of([5, 3, 8, 2])
    plans = [
        plan_of(video_row, lanes=2, k=2, seed=seed, epoch=epoch)
        for seed, epoch in [(0, 0), (0, 0), (0, 1), (1, 0)]
    ]
    assert (plans[0].rows == plans[1].rows).all()
    assert not np.array_equal(plans[0].rows, plans[2].rows)
    assert not np.array_equal(plans[0].rows, plans[3].rows)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_need_different_videos(workers):
    video_row = rows_of([4] * 24)
    plan = plan_of(video_row, lanes=4, k=2, seed=0, epoch=0)
    shares = [plan.lanes_of(Share(worker, workers)) for worker in range(workers)]
    needed = [set(plan.media[:, lanes, 0][plan.weight.any(2)[:, lanes]]) for lanes in shares]
    assert sum(map(len, needed)) == 24, "every video is decoded by one worker only"


def test_batches_hold_a_video_once_and_lanes_are_balanced():
    rng = np.random.default_rng(3)
    counts = rng.integers(5, 64, size=200).tolist()
    video_row = rows_of(counts)
    plan = plan_of(video_row, lanes=8, k=8, seed=0, epoch=0)
    real = plan.weight.any(2)
    for videos, counts_here in zip(plan.media[..., 0], real, strict=True):
        kept = videos[counts_here]
        assert len(set(kept)) == len(kept)
    fillers = real.size - real.sum()
    assert fillers < plan.media.shape[1] * 2, "lanes differ by about one visit"


def test_a_short_visit_is_padded_with_its_own_questions():
    plan = plan_of(np.array([0, 0, 0]), lanes=1, k=2, seed=0, epoch=0)
    assert plan.weight.sum() == 3
    padded = plan.rows[plan.weight.min(2) == 0][0]
    assert padded[0] == padded[1]


def test_no_questions_is_an_error():
    with pytest.raises(DataError, match="no training questions"):
        plan_of(np.array([], int), lanes=1, k=1, seed=0, epoch=0)


@settings(max_examples=60, deadline=None)
@given(questions_of_videos, st.integers(1, 7))
def test_evaluation_gives_every_video_to_one_worker(counts, workers):
    video_row = rows_of(counts)
    shares = evaluation_order(video_row, len(counts), workers)
    assert len(shares) == workers
    assert sorted(v for share in shares for v in share) == [v for v, q in enumerate(counts) if q]


def test_chunks_cover_the_sequence():
    assert [list(c) for c in chunks([1, 2, 3, 4, 5], 2)] == [[1, 2], [3, 4], [5]]


@settings(max_examples=60, deadline=None)
@given(questions_of_videos, st.integers(1, 6), st.integers(1, 5), st.integers(0, 3))
def test_steps_are_counted_without_a_plan(counts, lanes, k, epoch):
    video_row = rows_of(counts)
    batch = BatchConfig(videos=lanes, questions_per_video=k)
    planned = plan_of(video_row, lanes=lanes, k=k, seed=1, epoch=epoch).steps
    assert count_steps(questions(video_row), batch) == planned


class Pairs(Examples):
    """A kind that is planned plainly, about two media each."""

    name, columns, media_per_example = "pairs", pa.schema([]), 2
    fit = cautions = tensors = shown = None
    __abstractmethods__ = frozenset()


def pairs(n: int) -> Pairs:
    media = np.arange(2 * n) * 3
    return Pairs(pa.table({"media": pa.FixedSizeListArray.from_arrays(pa.array(media), 2)}))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.sampled_from(["mixed", "apart"]))
def test_plain_plans_count_every_example_once_with_its_own_media(n, lanes, streams):
    kinds = ["image" if row % 4 else "video" for row in range(6 * n)]
    split = split_of(pairs(n), kinds)
    batch = BatchConfig(examples=lanes, streams=streams)
    plan = plan_epoch(split, batch, seed=3, epoch=1)
    assert sorted(plan.rows[plan.weight > 0]) == list(range(n))
    assert (plan.media == split.examples.media[plan.rows[..., 0]]).all()
    assert plan.steps == count_steps(split, batch)
    assert (plan.weight.sum(axis=(1, 2)) > 0).all(), "no step may be empty"
    if streams == "apart":
        of_steps = [{kinds[row] for row in step} for step in plan.media[..., 0]]
        assert all(len(found) == 1 for found in of_steps)
        assert set.union(*of_steps) == ({"image", "video"} if n > 1 else {"video"})


@pytest.mark.long
def test_ten_million_examples_are_planned_in_seconds():
    start = time.process_time()
    plan = plan_epoch(split_of(pairs(10_000_000)), BatchConfig(examples=4096), seed=0, epoch=0)
    assert plan.steps == -(-10_000_000 // 4096)
    assert time.process_time() - start < 10
