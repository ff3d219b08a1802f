"""Similarity: rank correlation by hand, baselines, intervals, counting again, asking once."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from msvqa import metrics
from msvqa.data.examples.examples import Examples
from msvqa.data.lexicon import Lexicon
from msvqa.data.media import COLUMNS, Media
from msvqa.data.order import WHOLE
from msvqa.data.split import Split
from msvqa.engine.asking import LoopPredictor
from msvqa.engine.inputs import Inputs
from msvqa.errors import DataError
from msvqa.evaluators.similarity import Similarity
from msvqa.objectives.similarity import Similarity as Objective
from msvqa.recipe import EvaluationConfig
from tests.models.titled import make_batch, make_model

EVALUATOR = Similarity(EvaluationConfig())
VIDEOS = 8


class TitledPairs(Examples):
    """Pairs of the media of one batch, whose titles lie beside them."""

    name = "titled_pairs"
    columns = pa.schema([("similarity", pa.float32())])
    media_per_example = 2
    said_of_media = ("tokens", "token_mask")
    batch = make_batch(VIDEOS)

    @classmethod
    def fit(cls, annotated, config):
        raise NotImplementedError

    @classmethod
    def cautions(cls, annotated):
        return []

    def tensors(self, rows, chance=None):
        media = self.media[rows]
        assert (rows >= 0).all()
        return {key: self.batch[key][media] for key in ("tokens", "token_mask")}

    def shown(self, rows):
        return {"number": rows.tolist()}


class Vectors:
    """Gives the vectors of the batch."""

    def batches(self, groups, chance=None):
        batch = TitledPairs.batch
        for rows in groups:
            yield {key: batch[key][list(rows)] for key in ("vectors", "num_frames")}


def split_of(pairs, similarity, name="val"):
    media = [{"id": f"v{n}", "path": "", "kind": "record"} for n in range(VIDEOS)]
    rows = [{"media": list(p), "similarity": s} for p, s in zip(pairs, similarity, strict=True)]
    return Split(
        name=name,
        media=Media(pa.Table.from_pylist(media, schema=COLUMNS), "data"),
        examples=TitledPairs(pa.Table.from_pylist(rows, schema=TitledPairs.schema())),
        expected=len(rows) + 1,
    )


PAIRS = [(0, 1), (2, 3), (4, 5), (6, 7), (0, 7)]
SPLIT = split_of(PAIRS, [0.0, 0.5, 0.5, 1.0, 0.25])
TRAIN = split_of(PAIRS, [0.0, 0.5, 0.5, 1.0, 0.25], "train")


def evaluated(cosine, **others):
    answers = {"cosine": np.array(cosine, float)} | others
    return EVALUATOR.evaluate(answers, SPLIT, TRAIN)


def test_ranks_of_equal_values_are_their_mean():
    assert metrics.average_ranks(np.array([0.3, 0.1, 0.3, 0.2])).tolist() == [3.5, 1, 3.5, 2]
    assert metrics.scaled_ranks(np.array([0.3, 0.1, 0.3, 0.2])).tolist() == [1, 0, 1, 0.4]
    assert metrics.scaled_ranks(np.array([2.0, 2.0])).tolist() == [0, 0]
    assert metrics.average_ranks(np.array([])).tolist() == []


def test_the_correlation_is_that_counted_by_hand():
    # Ranks 1 to 5 against 1, 3.5, 3.5, 5, 2: squared differences 0, 2.25, 0.25, 1, 9 with a tie.
    found = metrics.spearman(np.array([1.0, 2, 3, 4, 5]), np.array([0, 0.5, 0.5, 1, 0.25]))
    assert found == pytest.approx(3.5 / np.sqrt(10 * 9.5))
    assert np.isnan(metrics.spearman(np.ones(4), np.arange(4.0)))
    assert metrics.spearman(np.arange(4.0), -(np.arange(4.0) ** 3)) == pytest.approx(-1)


def test_zero_vectors_are_like_nothing():
    vectors = np.array([[0.0, 0], [3, 4], [6, 8], [-4, 3]])
    pairs = np.array([[0, 1], [1, 2], [1, 3], [0, 0]])
    assert metrics.cosines(vectors, pairs).tolist() == pytest.approx([0, 1, 0, 0])


def test_evaluations_say_how_sure_they_are_and_what_takes_no_model():
    cosine = [0.1, 0.5, 0.6, 0.9, 0.2]
    found = evaluated(cosine, mean_frame_cosine=np.array(cosine), shared_words=np.zeros(5))
    assert found["spearman"] == pytest.approx(
        EVALUATOR.validate({"cosine": np.array(cosine)}, SPLIT)["spearman"]
    )
    assert (found["n"], found["n_expected"], found["n_not_finite"]) == (5, 6, 0)
    assert found["baselines"]["mean_frame_cosine"] == found["spearman"]
    assert found["baselines"]["shared_words"] is None, "all alike they order nothing"
    assert found["shared_with_training"] == 1.0
    low, high = found["spearman_interval"]
    assert low <= found["spearman"] <= high
    assert evaluated(cosine)["spearman_interval"] == [low, high], "seeded"


def test_intervals_hold_what_is_true_and_shuffled_labels_say_nothing():
    draw = np.random.default_rng(0)
    pairs = draw.integers(0, 300, (600, 2))
    label = draw.normal(size=600)
    found = label + draw.normal(size=600)
    low, high = metrics.spearman_interval(found, label, pairs, draws=200)
    rho = metrics.spearman(found, label)
    assert low < rho < high
    assert high - low < 0.2
    # Where what is wrong is wrong for a video, pairs that share it are no new observations.
    shared = pairs % 30
    wrong = label + draw.normal(size=30)[shared].sum(axis=1)
    apart = metrics.spearman_interval(wrong, label, np.arange(1200).reshape(600, 2), draws=200)
    told = metrics.spearman_interval(wrong, label, shared, draws=200)
    assert told[1] - told[0] > 1.2 * (apart[1] - apart[0])
    assert abs(metrics.spearman(found, draw.permutation(label))) < 0.15
    assert np.isnan(metrics.spearman_interval(np.ones(3), np.arange(3.0), pairs[:3])).all()
    assert np.isnan(metrics.spearman_interval(np.zeros(0), np.zeros(0), pairs[:0])).all()


def test_what_is_not_finite_is_the_least_alike():
    found = evaluated([0.1, 0.5, 0.6, np.nan, 0.2])
    assert found["n_not_finite"] == 1
    assert found["spearman"] == pytest.approx(evaluated([0.1, 0.5, 0.6, -1, 0.2])["spearman"])
    with pytest.raises(DataError, match="4 cosines for 5 pairs"):
        evaluated([0.1, 0.2, 0.3, 0.4])


def test_pairs_that_nobody_has_compared_are_not_counted():
    split = split_of(PAIRS, [0.0, 0.5, 0.5, 1.0, np.nan])
    answers = {"cosine": np.array([0.1, 0.5, 0.6, 0.9, -1.0])}
    found = EVALUATOR.evaluate(answers, split, TRAIN)
    assert (found["n"], found["n_expected"]) == (4, 6)
    assert found["spearman"] == EVALUATOR.validate(answers, split)["spearman"] > 0.9


def test_media_have_the_title_of_the_first_example_that_names_them():
    pairs = SPLIT.examples
    found = pairs.of_media(np.array([7, 0, 2]))
    assert torch.equal(found["tokens"], TitledPairs.batch["tokens"][[7, 0, 2]])
    fewer = pairs.take(np.array([1])).of_media(np.array([2, 5]))
    assert torch.equal(fewer["tokens"][0], TitledPairs.batch["tokens"][2])
    assert not fewer["tokens"][1].any() and not fewer["token_mask"][1].any()


def test_examples_that_are_no_pairs_are_refused():
    table = SPLIT.examples.table.rename_columns(["media", "likeness"])
    other = Split(name="val", media=SPLIT.media, examples=TitledPairs(table), expected=5)
    with pytest.raises(DataError, match="pairs of videos with a similarity are needed"):
        EVALUATOR.validate({"cosine": np.zeros(5)}, other)


def test_the_same_is_counted_again_without_the_model():
    answers = {"cosine": np.array([0.1, np.nan, 0.6, 0.9, 0.2]), "shared_words": np.arange(5.0)}
    table = EVALUATOR.table(answers, SPLIT, Lexicon())
    assert table.column_names == [
        "video_a", "video_b", "number", "similarity", "cosine", "shared_words",
    ]  # fmt: skip
    again = EVALUATOR.answers(table, SPLIT, Lexicon())
    assert all(np.array_equal(again[name], answers[name], equal_nan=True) for name in answers)
    with pytest.raises(DataError, match="about other pairs"):
        EVALUATOR.answers(table.take([1, 0, 2, 3, 4]), SPLIT, Lexicon())


def test_the_page_shows_the_numbers_and_the_worst_pairs():
    cosine = np.array([0.9, 0.5, 0.6, 0.1, 0.2])
    metrics_of_page = evaluated(cosine, shared_words=np.zeros(5))
    sheet = EVALUATOR.sheet(metrics_of_page)
    assert [row[0] for row in sheet.rows] == ["model", "shared words", "shuffled labels"]
    rows = EVALUATOR.table({"cosine": cosine}, SPLIT, Lexicon()).to_pylist()
    less, more = EVALUATOR.cases(rows).values()
    assert less[0].media == [("v6", ""), ("v7", "")]
    assert more[0].said == "0.00 to people, cosine 0.90"


@pytest.mark.parametrize("size", [3, 8])
def test_each_medium_is_embedded_once_and_pairs_are_compared(size):
    objective = Objective(Objective.Config(), make_model("mix_nextvlad"))
    inputs = Inputs(split=SPLIT, source=Vectors())
    predictor = LoopPredictor(objective, inputs, WHOLE, size, "fp32")
    answers = EVALUATOR.ask(predictor, SPLIT)
    with torch.no_grad():
        embedding = objective.model.eval().describe(TitledPairs.batch).embedding
    first, second = (embedding[list(side)] for side in zip(*PAIRS, strict=True))
    expected = torch.nn.functional.cosine_similarity(first, second)
    assert answers["cosine"] == pytest.approx(expected.numpy(), abs=1e-6)
    answers |= EVALUATOR.ask_besides(predictor, SPLIT)
    batch = TitledPairs.batch
    count = batch["num_frames"]
    means = [batch["vectors"][n, : count[n]].mean(0) for n in (2, 3)]
    wanted = torch.nn.functional.cosine_similarity(*means, dim=0)
    assert answers["mean_frame_cosine"][1] == pytest.approx(float(wanted), abs=1e-6)
    words = [set(batch["tokens"][n][batch["token_mask"][n]].tolist()[1:-1]) for n in (2, 3)]
    shared = len(words[0] & words[1]) / np.sqrt(len(words[0]) * len(words[1]))
    assert answers["shared_words"][1] == pytest.approx(shared)
    assert answers["shared_words"].min() >= 0


def test_the_figure_has_a_point_for_each_pair_and_says_which_are_left_out():
    rows = [{"similarity": n / 9000, "cosine": 1 - n / 9000} for n in range(9000)]
    (figure,) = Similarity.figures(rows[:50])
    assert (figure.note, len(figure.x)) == ("50 pairs", 50)
    (figure,) = Similarity.figures([*rows, {"similarity": float("nan"), "cosine": 0.5}])
    assert figure.note == (
        "3,000 of 9,000 pairs; 1 without a label or a finite cosine are left out, drawn by chance"
    )
    assert len(set(figure.x)) == 3000
    assert np.add(figure.x, figure.y) == pytest.approx(1), "a label keeps its cosine"
    assert Similarity.figures([*rows]) == Similarity.figures([*rows]), "the same each time"
    assert Similarity.figures([{"similarity": 0.5, "cosine": float("nan")}]) == ()
