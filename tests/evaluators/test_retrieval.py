"""Retrieval: ranks by hand, several captions per medium, ties against the model."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from msvqa.data.examples.captions import KINDS, Captions
from msvqa.data.lexicon import Lexicon
from msvqa.data.media import COLUMNS, Media
from msvqa.data.split import Split
from msvqa.errors import RecipeError
from msvqa.evaluators.retrieval import LEAST, Retrieval
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


def captions_of(words, medium, kinds=None):
    """Return a test split of captions, one in each row, of media `m0`, `m1`, ..."""
    ids = [f"m{row}" for row in range(max(medium) + 1)]
    media = [{"id": name, "path": "", "kind": "video"} for name in ids]
    rows = [
        {"media": [row], "captions": [text], "tokens": [[2]]}
        for text, row in zip(words, medium, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=Captions.schema())
    if kinds is not None:
        pairs = [None if of_row is None else [*of_row.items()] for of_row in kinds]
        table = table.append_column("kinds", pa.array(pairs, KINDS))
    return Split(
        name="test",
        media=Media(pa.Table.from_pylist(media, schema=COLUMNS), "/data"),
        examples=Captions(table),
        expected=len(rows),
    )


SAID = ["a red ring", "a blue ring", "a red disc", "a ring that is red"]
LOOKS = [{"color": "red", "shape": "ring"}, {"color": "blue", "shape": "ring"}]
LOOKS += [{"color": "red", "shape": "disc"}, None]
TEXT = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.3, 0.2, 0.9], [0.6, 0.1, 0.0]])


def test_first_hits_are_counted_by_kinds_and_counted_again_from_the_table():
    split = captions_of(SAID, [0, 1, 2, 0], LOOKS)
    answers = EVALUATOR.ask(Asked(TEXT, np.eye(3), None), split)
    found = EVALUATOR.evaluate(answers, split, split)
    assert found["first_hits"]["asked"] == 3
    assert found["first_hits"]["differing"] == {"color": 1}
    assert found["first_hits"]["kinds"]["color"]["found"] == [[0, 1], [0, 2]]
    table = EVALUATOR.table(answers, split, Lexicon([]))
    assert table["kinds"].to_pylist() == LOOKS
    again = EVALUATOR.answers(table, split, Lexicon([]))
    assert EVALUATOR.evaluate(again, split, split) == found
    assert len(Retrieval.sheets(found)) == 3
    without = captions_of(SAID, [0, 1, 2, 0])
    plain = EVALUATOR.evaluate(answers, without, without)
    assert plain == {name: value for name, value in found.items() if name != "first_hits"}
    assert "kinds" not in EVALUATOR.table(answers, without, Lexicon([])).column_names
    assert Retrieval.sheets(plain) == {}


def test_cases_show_the_nearest_with_similarities_and_what_is_said_of_them():
    split = captions_of(SAID, [0, 1, 2, 0], LOOKS)
    answers = EVALUATOR.ask(Asked(TEXT, np.eye(3), None), split)
    assert answers["similarity"] == pytest.approx([0.9, 0.7, 0.9, 0.6])
    assert answers["nearest_similarity"][1] == pytest.approx([0.8, 0.7, 0.1])
    rows = EVALUATOR.table(answers, split, Lexicon([])).to_pylist()
    right, wrong = Retrieval.cases(rows).values()
    assert len(right) == 2, "each is about another medium"
    (case,) = wrong
    assert case.said == "a blue ring (rank 2)"
    assert case.media == [
        ("m0", "number 1, similarity 0.80, “a red ring”"),
        ("m1", "right, number 2, similarity 0.70, “a blue ring”"),
        ("m2", "number 3, similarity 0.10, “a red disc”"),
    ]
    # Of an earlier version, which kept no similarities.
    for row in rows:
        del row["similarity"], row["nearest_similarity"]
    assert Retrieval.cases(rows)["Captions whose medium is found last"][0].media[0] == (
        "m0", "number 1, “a red ring”",
    )  # fmt: skip


def test_the_right_one_is_shown_behind_the_nearest_five():
    text = np.linspace(1, 0.3, 8)[None]
    split = captions_of([f"caption {n}" for n in range(8)], [7, *range(7)])
    answers = EVALUATOR.ask(Asked(np.tile(text, (8, 1)), np.eye(8), None), split)
    rows = EVALUATOR.table(answers, split, Lexicon([])).to_pylist()
    last = Retrieval.cases(rows[:1])["Captions whose medium is found last"][0]
    assert len(last.media) == 6
    assert last.media[-1] == ("m7", "right, number 8, similarity 0.30, “caption 0”")


def test_ordered_anew_the_probability_to_match_is_kept_beside_the_similarity():
    video, text = np.eye(3), [[0.9, 0.8, 0.1], [0.1, 0.9, 0.8], [0.3, 0.2, 0.9]]
    found = reranked(text, video, [[5, 0, 0], [6, 1, 0], [0, 2, 3]], [0, 1, 2], k=2)
    assert found["nearest"][0].tolist() == [1, 0]
    assert found["nearest_similarity"][0] == pytest.approx([0.8, 0.9])
    assert found["nearest_match"][0] == pytest.approx(1 / (1 + np.exp([-6.0, -5.0])))


def test_a_medium_without_numbers_leaves_the_answers_about_the_others():
    video = np.eye(3)
    video[2] = np.nan
    split = split_of([0, 1, 0])
    found = EVALUATOR.ask(Asked(np.eye(3)[[0, 1, 0]], video, None), split)
    assert (found["nearest_similarity"][:, 2] == LEAST).all()
    assert all(np.isfinite(values).all() for values in found.values())
