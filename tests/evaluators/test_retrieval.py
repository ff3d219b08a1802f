"""Retrieval: ranks by hand, several captions per medium, ties against the model."""

from types import SimpleNamespace

import numpy as np
import pytest

from msvqa.errors import RecipeError
from msvqa.evaluators.retrieval import Retrieval
from msvqa.metrics import retrieval_ranks
from msvqa.recipe import EvaluationConfig

EVALUATOR = Retrieval(EvaluationConfig())


def split_of(medium):
    return SimpleNamespace(examples=SimpleNamespace(medium=np.array(medium)))


def numbers(text, video, medium):
    split = split_of(medium)
    vectors = {"encode_text": text, "encode_video": video}
    answers = EVALUATOR.ask(lambda what: {"vector": np.array(vectors[what], float)}, split)
    return EVALUATOR.validate(answers, split)


def test_ranks_are_those_counted_by_hand():
    video = np.eye(3)
    text = np.array([[0.9, 0.1, 0.0], [0.8, 0.7, 0.1], [0.3, 0.2, 0.1]])
    of_text, of_video = retrieval_ranks(text, video, np.array([0, 1, 2]))
    assert of_text.tolist() == [1, 2, 3]
    # Media by their captions: (0.9, 0.8, 0.3), (0.1, 0.7, 0.2), (0.0, 0.1, 0.1).
    assert of_video.tolist() == [1, 1, 2]


def test_a_medium_is_found_by_the_best_of_its_captions():
    video, text = np.eye(2), [[1, 0], [-1, 0.5], [0, 1]]
    found = numbers(text, video, [0, 0, 1])
    assert found["text_to_video_recall_at_1"] == pytest.approx(2 / 3)
    assert found["video_to_text_recall_at_1"] == 1.0, "one query for each medium"
    assert found["video_to_text_mean_rank"] == 1.0


def test_a_model_that_sees_everything_alike_finds_nothing():
    n = 50
    found = numbers(np.ones((n, 4)), np.ones((n, 4)), np.arange(n))
    assert found["text_to_video_recall_at_10"] == found["video_to_text_recall_at_10"] == 0.0
    assert found["text_to_video_median_rank"] == n


def test_whatever_is_held_at_a_time_the_ranks_are_the_same():
    draw = np.random.default_rng(0)
    text, video, medium = (
        draw.normal(size=(90, 5)),
        draw.normal(size=(30, 5)),
        draw.permutation(90) % 30,
    )
    whole = retrieval_ranks(text, video, medium)
    for rows in (1, 7, 90):
        parts = retrieval_ranks(text, video, medium, rows_at_once=rows)
        assert all((a == b).all() for a, b in zip(whole, parts, strict=True))


def test_recall_beyond_all_media_is_certain():
    found = numbers(np.eye(3), np.eye(3)[::-1], [0, 1, 2])
    assert found["text_to_video_recall_at_5"] == found["video_to_text_recall_at_10"] == 1.0
    assert found["text_to_video_recall_at_1"] == pytest.approx(1 / 3)


def test_what_is_not_finite_is_found_last():
    text = np.eye(3)
    text[1] = np.nan
    found = numbers(text, np.eye(3), [0, 1, 2])
    assert found["text_to_video_recall_at_1"] == pytest.approx(2 / 3)
    assert found["text_to_video_mean_rank"] == pytest.approx((1 + 3 + 1) / 3)


class Asked:
    """Answers from arrays: vectors, and how well every medium matches every caption."""

    def __init__(self, text, video, match):
        self.vectors = {
            "encode_text": np.array(text, float),
            "encode_video": np.array(video, float),
        }
        self.match = match

    def __call__(self, what):
        return {"vector": self.vectors[what]}

    def answers(self, what):
        return self.match is not None

    def pairs(self, what, media, rows):
        assert what == "match"
        return {"score": np.array(self.match, float)[media, rows]}


def reranked(text, video, match, medium, k):
    evaluator = Retrieval(EvaluationConfig(rerank=k))
    return evaluator.ask(Asked(text, video, match), split_of(medium))


def test_the_nearest_are_ordered_anew_by_how_well_they_match():
    video, text = np.eye(3), [[0.9, 0.8, 0.1], [0.1, 0.9, 0.8], [0.3, 0.2, 0.9]]
    # Media by captions: the second caption matches its medium less than the third one.
    match = [[5, 0, 0], [6, 1, 0], [0, 2, 3]]
    found = reranked(text, video, match, [0, 1, 2], k=2)
    assert found["text_to_video_rank_by_vectors"].tolist() == [1, 1, 1]
    assert found["text_to_video_rank"].tolist() == [2, 2, 1]
    assert found["video_to_text_rank"].tolist() == [1, 2, 1]


def test_what_is_not_among_the_nearest_stays_behind_them():
    video, text = np.eye(3), [[0.1, 0.8, 0.9]]
    best = [[9], [0], [0]]
    assert reranked(text, video, best, [0], k=2)["text_to_video_rank"].tolist() == [3]
    assert reranked(text, video, best, [0], k=3)["text_to_video_rank"].tolist() == [1]
    assert reranked(text, video, [[np.nan], [0], [0]], [0], k=5)["text_to_video_rank"].tolist() == [
        pytest.approx(np.nan, nan_ok=True)
    ]


def test_matching_needs_an_objective_that_matches():
    with pytest.raises(RecipeError, match=r"evaluation\.rerank.*no answer `match`"):
        reranked(np.eye(2), np.eye(2), None, [0, 1], k=1)
