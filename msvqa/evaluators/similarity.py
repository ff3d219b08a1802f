"""Similarity: do cosines of embeddings order pairs of videos as people do?

Spearman's rank correlation with average ranks for ties, beside what takes no model: the cosine of
mean frames, the words that titles share, and labels that are dealt to the wrong pairs.

Legend: n pairs, N media, E embedding width, D numbers of a frame, S words of a title.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from msvqa import metrics
from msvqa.data.examples.examples import NO_MEDIUM
from msvqa.errors import DataError
from msvqa.evaluators.evaluator import Answers, Case, Evaluator, Predictor, Scatter, Sheet

if TYPE_CHECKING:
    from msvqa.data.lexicon import Lexicon
    from msvqa.data.split import Split

FOUND, FRAMES, TITLES = "cosine", "mean_frame_cosine", "shared_words"
BASELINES = (FRAMES, TITLES)
SEED, CASES, POINTS = 0, 4, 3000
LEAST = -2.0
"""In place of a cosine that is not finite: less alike than anything else."""


class Similarity(Evaluator):
    """Spearman's correlation of the cosines with the labels, over all pairs.

    A pair whose cosine is not finite is counted, as the least alike of all.
    """

    name = "similarity"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("spearman", "max")
    numbers: ClassVar[tuple[str, ...]] = ("spearman",)

    def ask(self, predictor: Predictor, split: "Split") -> dict[str, np.ndarray]:
        """Return the `cosine` (n,) of each pair; each medium is embedded once."""
        _pairs(split), _labels(split)  # refused before all is embedded for nothing
        return self.answers_of(predictor("embed")["embedding"], split)

    def answers_of(self, embedding: np.ndarray, split: "Split") -> dict[str, np.ndarray]:
        """Return the `cosine` (n,) of each pair, of embeddings (N, E) of the split's media."""
        return {FOUND: metrics.cosines(embedding, _pairs(split))}

    def ask_besides(self, predictor: Predictor, split: "Split") -> dict[str, np.ndarray]:
        """Return the cosine (n,) of mean frames, and what part of their words titles share."""
        pairs = _pairs(split)
        frames = predictor("mean_frame")["vector"]  # (N, D)
        tokens = predictor("title")["tokens"]  # (N, S)
        return {FRAMES: metrics.cosines(frames, pairs), TITLES: _shared_words(tokens, pairs)}

    def validate(self, answers: Answers, split: "Split") -> dict[str, float]:
        """Return `spearman`, over the pairs that people have compared."""
        wanted = _labels(split)
        known = np.isfinite(wanted)
        return {"spearman": metrics.spearman(_finite(answers[FOUND][known]), wanted[known])}

    def evaluate(
        self, answers: Answers, split: "Split", train: "Split", kinds: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return the correlation with its interval by video, baselines and counts.

        Raises:
            DataError: the answers are not one row per pair.
        """
        if len(answers[FOUND]) != len(split):
            raise DataError(
                f"{len(answers[FOUND])} cosines for {len(split)} pairs of {split.name!r}"
            )
        known = np.isfinite(_labels(split))
        wanted, pairs = _labels(split)[known], _pairs(split)[known]
        answers = {name: values[known] for name, values in answers.items()}
        found = answers[FOUND]
        interval = metrics.spearman_interval(_finite(found), wanted, pairs, seed=SEED)
        shuffled = np.random.default_rng(SEED).permutation(wanted)
        baselines = {
            name: _number(metrics.spearman(_finite(answers[name]), wanted))
            for name in BASELINES
            if name in answers
        }
        return {
            "split": split.name,
            "n": len(wanted),
            "n_expected": split.expected,
            "n_media": len(split.media),
            "n_not_finite": int((~np.isfinite(found)).sum()),
            "spearman": _number(metrics.spearman(_finite(found), wanted)),
            "spearman_interval": [_number(end) for end in interval],
            "baselines": baselines
            | {"shuffled_labels": _number(metrics.spearman(_finite(found), shuffled))},
            "shared_with_training": _shared_with_training(split, train),
        }

    def table(self, answers: Answers, split: "Split", lexicon: "Lexicon") -> pa.Table:
        """Return one row per pair: both media, what is said of them, label and answers."""
        pairs, names = _pairs(split), np.array(split.media.id, dtype=object)
        shown = split.examples.shown(np.arange(len(split)))
        columns: dict[str, Any] = {
            "video_a": names[pairs[:, 0]].tolist(),
            "video_b": names[pairs[:, 1]].tolist(),
            **{name: list(values) for name, values in shown.items()},
            "similarity": _labels(split).tolist(),
        }
        return pa.table(columns | {name: values.tolist() for name, values in answers.items()})

    @classmethod
    def sheet(cls, metrics: Mapping[str, Any]) -> Sheet:
        """Return the correlations: the model's, and of what takes no model."""
        low, high = metrics["spearman_interval"]
        interval = None if low is None else f"{low:.3f} to {high:.3f}"
        others = [
            (name.replace("_", " "), value, None) for name, value in metrics["baselines"].items()
        ]
        rows = [("model", metrics["spearman"], interval), *others]
        return Sheet(("cosines of", "spearman", "95 % interval"), rows)

    @classmethod
    def cases(cls, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Case]]:
        """Return the pairs whose ranks by the model and by people are the furthest apart."""
        known = [row for row in rows if math.isfinite(row[FOUND])]
        ranks = [
            metrics.scaled_ranks(np.array([row[name] for row in known], dtype=np.float64))
            for name in (FOUND, "similarity")
        ]
        apart = ranks[0] - ranks[1]
        order = np.argsort(apart, kind="stable")
        return {
            "Pairs that are less alike to the model than to people": [
                _case(known[n]) for n in order[:CASES] if apart[n] < 0
            ],
            "Pairs that are more alike to the model than to people": [
                _case(known[n]) for n in order[: -CASES - 1 : -1] if apart[n] > 0
            ],
        }

    @classmethod
    def figures(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[Scatter]:
        """Return the cosine of each pair over its label; of very many pairs some, drawn alike."""
        found = np.array([(row["similarity"], row[FOUND]) for row in rows], dtype=np.float64)
        points = found.reshape(-1, 2)[np.isfinite(found.reshape(-1, 2)).all(axis=1)]
        if not len(points):
            return ()
        note = f"{len(points):,} pairs"
        if left := len(rows) - len(points):
            note += f"; {left:,} without a label or a finite cosine are left out"
        if len(points) > POINTS:
            note = f"{POINTS:,} of {note}, drawn by chance"
            drawn = np.random.default_rng(SEED).choice(len(points), POINTS, replace=False)
            points = points[np.sort(drawn)]
        label, cosine = points.T.tolist()
        columns = ("similarity to people", "cosine of the model")
        return (Scatter(title="Pairs", columns=columns, x=label, y=cosine, note=note),)

    def answers(self, table: pa.Table, split: "Split", lexicon: "Lexicon") -> Answers:
        """Return the cosines and baselines that a table holds.

        Raises:
            DataError: the table is of other pairs.
        """
        names = np.array(split.media.id, dtype=object)[_pairs(split)]
        asked = zip(table["video_a"].to_pylist(), table["video_b"].to_pylist(), strict=True)
        if [*asked] != [tuple(pair) for pair in names.tolist()]:
            raise DataError(
                f"the predictions are about other pairs than split {split.name!r} has now: the "
                "data has changed since; evaluate again"
            )
        there = [name for name in (FOUND, *BASELINES) if name in table.column_names]
        return {name: np.array(table[name].to_pylist(), dtype=np.float64) for name in there}


def _pairs(split: "Split") -> np.ndarray:
    """Return the rows (n, 2) of the media of each pair."""
    pairs = split.examples.media
    if pairs.shape[1:] != (2,):
        raise _no_pairs(split)
    return pairs


def _labels(split: "Split") -> np.ndarray:
    """Return the similarities (n,) that people gave."""
    if "similarity" not in split.examples.table.column_names:
        raise _no_pairs(split)
    return np.asarray(split.examples.table["similarity"].to_numpy(), dtype=np.float64)


def _no_pairs(split: "Split") -> DataError:
    return DataError(
        f"pairs of videos with a similarity are needed, and split {split.name!r} has "
        f"{split.examples.name}"
    )


def _case(row: Mapping[str, Any]) -> Case:
    media = [(row[video], row.get(f"title_{video[-1]}") or "") for video in ("video_a", "video_b")]
    return Case(f"{row['similarity']:.2f} to people, cosine {row[FOUND]:.2f}", media)


def _finite(cosines: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(cosines), cosines, LEAST)


def _shared_words(tokens: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the cosine (n,) of the sets of words that titles (N, S) have, -1 being no word.

    What begins and ends a title is none of its words.
    """
    words = [frozenset(row[row >= 0][1:-1].tolist()) for row in tokens]
    shared = [len(words[a] & words[b]) for a, b in pairs.tolist()]
    sizes = [len(words[a]) * len(words[b]) for a, b in pairs.tolist()]
    return np.array(shared) / np.sqrt(np.maximum(sizes, 1))


def _shared_with_training(split: "Split", train: "Split") -> float | None:
    """Return the part of the pairs that have a video which training pairs have too."""
    if not len(train):
        return None
    trained = np.unique(train.examples.media)
    known = {train.media.id[row] for row in trained.tolist() if row != NO_MEDIUM}
    seen = np.array([name in known for name in split.media.id], dtype=bool)
    return _number(metrics.mean(seen[_pairs(split)].any(axis=1)))


def _number(value: float) -> float | None:
    """Return the value, or None where there is none: JSON has no NaN."""
    return None if math.isnan(value) else value
