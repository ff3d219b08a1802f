"""The epoch plan: every question once, no dependence on workers, videos in one place."""

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msvqa.data.examples.conversations import Conversations, media_column
from msvqa.data.examples.examples import Examples
from msvqa.data.examples.questions import Questions
from msvqa.data.loader import training_batches
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


class NoMedia:
    """Of conversations about nothing that is seen there is nothing to read."""

    def batches(self, groups, chance=None):
        return ({} for _ in groups)


def conversations(lengths: Sequence[int], kinds: Sequence[str] = ("text",)) -> Split:
    """Return conversations of one turn each, whose answers have so many characters."""
    n = len(lengths)
    columns = {
        "media": media_column([-1] * n),
        "source": [""] * n,
        "kind": [kinds[row % len(kinds)] for row in range(n)],
        "questions": [["what?"]] * n,
        "answers": [["a" * length] for length in lengths],
        "instructions": [[""]] * n,
    }
    return split_of(Conversations(pa.table(columns, schema=Conversations.schema())))


def spread(n: int) -> list[int]:
    """Return lengths as those of answers are: many short ones and a few very long ones."""
    return np.random.default_rng(5).lognormal(3.5, 1.2, size=n).astype(int).clip(1).tolist()


def padding(split: Split, plan, lanes: slice = slice(None)) -> float:
    """Return which part of what is computed is padding, where each step has its own length."""
    length = split.examples.lengths[plan.rows[:, lanes, 0]]
    return 1 - length.sum() / (length.max(axis=1).sum() * length.shape[1])


def test_the_length_of_a_conversation_is_that_of_its_turns_with_one_instruction():
    table = {
        "media": media_column([-1, -1, -1]),
        "source": [""] * 3,
        "kind": ["text"] * 3,
        "questions": [["what?", "é?"], [""], ["who?"]],
        "answers": [["a cup", "no"], ["a red cup"], ["he"]],
        "instructions": [["look", "look"], [""], ["answer"]],
    }
    found = Conversations(pa.table(table, schema=Conversations.schema()))
    assert found.lengths.tolist() == [5 + 2 + 5 + 2 + 4, 9, 4 + 2 + 6]
    assert found.take(np.array([2, 1])).lengths.tolist() == [12, 9]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 7), st.sampled_from(["mixed", "apart"]))
def test_by_length_every_example_counts_once_in_as_many_steps(n, lanes, streams):
    kinds = ("text", "video", "image")
    split = conversations(spread(n), kinds)
    batch = BatchConfig(examples=lanes, streams=streams, by_length=True)
    plan = plan_epoch(split, batch, seed=3, epoch=1)
    assert sorted(plan.rows[plan.weight > 0]) == list(range(n))
    assert (plan.weight.sum(axis=(1, 2)) > 0).all(), "no step may be empty"
    usual = batch.model_copy(update={"by_length": False})
    assert plan.steps == count_steps(split, batch) == count_steps(split, usual)
    if streams == "apart":
        assert all(len({row % 3 for row in step}) == 1 for step in plan.rows[..., 0])


def test_by_length_there_is_little_padding_and_no_lane_has_the_long_ones():
    split = conversations(spread(16_000))
    usual, ours = (
        plan_epoch(split, BatchConfig(examples=16, by_length=on), seed=0, epoch=0)
        for on in (False, True)
    )
    assert padding(split, usual) > 0.7
    assert padding(split, ours) < 0.2
    of_steps = split.examples.lengths[ours.rows[..., 0]]  # (T, N)
    first, second = (half.sum(axis=1) for half in np.split(of_steps, 2, axis=1))
    assert abs(np.sign(first - second).mean()) < 0.1, "one of two workers has the longer ones"
    rises = np.sign(np.diff(of_steps.sum(axis=1)))
    assert abs(rises.mean()) < 0.1, "steps become longer"


def test_by_length_the_order_is_a_function_of_seed_and_epoch_and_meets_others_each_time():
    split, batch = conversations(spread(400)), BatchConfig(examples=8, by_length=True)
    rows = [
        plan_epoch(split, batch, seed=seed, epoch=epoch).rows[..., 0]
        for seed, epoch in [(0, 0), (0, 0), (0, 1), (1, 0)]
    ]
    assert (rows[0] == rows[1]).all()
    together = [{frozenset((a, b)) for step in order for a in step for b in step} for order in rows]
    for other in together[2:]:
        assert len(together[0] & other) < 0.5 * len(other)


def read(split: Split, plan, share: Share) -> list[dict[str, torch.Tensor]]:
    return list(training_batches(split, NoMedia(), plan, share))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_by_length_workers_share_each_step_and_all_have_as_many(workers):
    split, batch = conversations(spread(100)), BatchConfig(examples=8, by_length=True)
    plan = plan_epoch(split, batch, seed=0, epoch=0)
    shares = [read(split, plan, Share(worker, workers)) for worker in range(workers)]
    assert [len(share) for share in shares] == [plan.steps] * workers
    for step, parts in enumerate(zip(*shares, strict=True)):
        assert torch.cat([part["row"] for part in parts]).tolist() == plan.rows[step, :, 0].tolist()
        counted = sum(float(part["weight"].sum()) for part in parts)
        assert counted == float(plan.weight[step].sum())
        assert all(float(p["normalizer"]) == pytest.approx(counted / workers) for p in parts)


@pytest.mark.parametrize("done", [1, 5, 12])
def test_by_length_the_rest_of_an_epoch_is_that_of_the_whole(done):
    split, batch = conversations(spread(100)), BatchConfig(examples=8, by_length=True)
    whole = read(split, plan_epoch(split, batch, seed=2, epoch=1), Share(1, 2))
    again = conversations(spread(100))
    rest = read(again, plan_epoch(again, batch, seed=2, epoch=1).after(done), Share(1, 2))
    assert len(rest) == len(whole) - done
    for expected, found in zip(whole[done:], rest, strict=True):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_examples_without_lengths_are_not_put_together_by_length():
    of_pairs = split_of(pairs(3), ["video"] * 18)
    for split in (of_pairs, questions(np.array([0, 1]))):
        with pytest.raises(ValueError, match=f"{split.examples.name} have no lengths"):
            plan_epoch(split, BatchConfig(by_length=True), seed=0, epoch=0)


@pytest.mark.long
def test_ten_million_examples_are_planned_in_seconds():
    start = time.process_time()
    plan = plan_epoch(split_of(pairs(10_000_000)), BatchConfig(examples=4096), seed=0, epoch=0)
    assert plan.steps == -(-10_000_000 // 4096)
    assert time.process_time() - start < 10
