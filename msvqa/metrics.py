"""Every metric: functions of arrays."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

UNKNOWN_CLASSES = 2
"""Classes below this stand for answers outside the list: of train questions 0, of others 1."""
SIMILARITIES_AT_ONCE = 2**25
"""So many similarities of queries with all others are held at a time."""


class Questions(Protocol):
    """Questions with their kinds and answer classes, as a `Split` has them."""

    @property
    def question(self) -> Sequence[str]:
        """Texts."""
        ...

    @property
    def question_type(self) -> Sequence[str]:
        """Kinds."""
        ...

    @property
    def answer_id(self) -> np.ndarray:
        """Answer classes (n,)."""
        ...


def is_finite(predictions: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return for each row of predictions whether all its numbers are finite."""
    rows = [
        np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        for values in predictions.values()
    ]
    found: np.ndarray = np.logical_and.reduce(rows)
    return found


def is_right(predicted: np.ndarray, answer: np.ndarray, unknown_counts: bool = False) -> np.ndarray:
    """Return for each question whether the predicted class is its answer.

    An answer outside the list is wrong whatever is predicted. With `unknown_counts` predicting the
    unknown class is right for it, as in DualVGR's program.
    """
    right: np.ndarray = predicted == answer
    return right if unknown_counts else right & (answer >= UNKNOWN_CLASSES)


def is_in_top(top: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Return for each question whether its answer, which must be in the list, is among `top`."""
    found: np.ndarray = (top == answer[:, None]).any(axis=1)
    return found & (answer >= UNKNOWN_CLASSES)


def mean(values: np.ndarray) -> float:
    """Return the mean, or NaN without values."""
    return float(np.mean(values)) if len(values) else float("nan")


def mean_of_each(values: np.ndarray, kinds: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Return mean and number of the values of each kind, in order of first appearance."""
    names = np.asarray(kinds)
    chosen = {kind: values[names == kind] for kind in dict.fromkeys(kinds)}
    return {kind: (mean(part), len(part)) for kind, part in chosen.items()}


def interval_by_video(
    right: np.ndarray, video: np.ndarray, *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return a bootstrap interval of the mean that draws whole videos.

    Questions of a video share their pixels, so drawing questions would promise too much.
    """
    if not len(right):
        return float("nan"), float("nan")
    _, row = np.unique(video, return_inverse=True)
    counts = np.bincount(row)
    sums = np.bincount(row, weights=right)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws)
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the interval of a share (Wilson, 1927); it stays within 0 and 1 for few questions.

    Args:
        right: how many of the questions are right.
        n: questions; without any nothing is known.
        z: quantile of the normal distribution; by default that of 95 %.
    """
    if not n:
        return float("nan"), float("nan")
    share, denominator = right / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / denominator
    half = z / denominator * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p-value that two models are right equally often (McNemar, 1947).

    Args:
        only_first: questions that only the first model answers rightly.
        only_second: questions that only the second model does.
    """
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << n))


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks (n,) of values (n,), from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def scaled_ranks(values: np.ndarray) -> np.ndarray:
    """Return average ranks (n,) from 0, the lowest, to 1: labels of which the order alone counts.

    Ma, Lou and Ouyang, 2021, https://arxiv.org/abs/2111.01677; all alike they are 0.
    """
    ranks = average_ranks(values) - 1
    lowest, highest = ranks.min(initial=np.inf), ranks.max(initial=0.0)
    found: np.ndarray = (ranks - lowest) / (highest - lowest or 1.0)
    return found


def spearman(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return Spearman's correlation of two lists (n,), NaN where one of them is all alike.

    With average ranks for ties: the correlation of the ranks (Spearman, 1904).
    """
    return _correlation(average_ranks(found), average_ranks(wanted), np.ones(len(found)))


def spearman_interval(
    found: np.ndarray, wanted: np.ndarray, videos: np.ndarray, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return a bootstrap interval (95 %) of Spearman's correlation that draws whole videos.

    A pair counts as often as both of its videos (n, 2) are drawn, multiplied: pairs that share a
    video are not independent. For pairs that share none this is wider than need be (Owen, "The
    pigeonhole bootstrap", 2007).
    """
    _, video = np.unique(videos, return_inverse=True)
    video = video.reshape(videos.shape)  # (n, 2)
    count = int(video.max(initial=-1)) + 1
    places = [np.unique(values, return_inverse=True)[1] for values in (found, wanted)]
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(draws if count else 0):
        times = generator.multinomial(count, np.full(count, 1 / count))
        weight = times[video].prod(axis=1).astype(np.float64)
        ranks = [_weighted_ranks(place, weight) for place in places]
        drawn.append(_correlation(ranks[0], ranks[1], weight))
    known = [value for value in drawn if np.isfinite(value)]
    if not known:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _weighted_ranks(place: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return average ranks (n,) of values that count several times, by their place in order."""
    counts = np.bincount(place, weights=weight)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _correlation(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> float:
    if not weight.sum():
        return float("nan")
    centred = [values - np.average(values, weights=weight) for values in (first, second)]
    spread = np.sqrt(np.prod([(weight * values**2).sum() for values in centred]))
    return float((weight * centred[0] * centred[1]).sum() / spread) if spread else float("nan")


def cosines(vectors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the cosine (n,) of pairs (n, 2) of rows of vectors (N, D); 0 where one is zero."""
    precise = vectors.astype(np.float64)
    norms = np.linalg.norm(precise, axis=1, keepdims=True)
    unit = np.divide(precise, norms, out=np.zeros_like(precise), where=norms != 0)
    found: np.ndarray = np.einsum("nd,nd->n", unit[pairs[:, 0]], unit[pairs[:, 1]])
    return found


def text_baselines(train: Questions, test: Questions) -> dict[str, np.ndarray]:
    """Return the classes (n,) that the train text alone suggests for the test questions.

    `most_frequent`: always the most frequent answer. `most_frequent_of_type`: that of the
    question's kind. `question_only`: that of the identical question, else of its kind. Of equally
    frequent answers the one that comes first in train is taken.
    """
    known = train.answer_id >= UNKNOWN_CLASSES
    answers = train.answer_id[known].tolist()
    of_all = _most_frequent(((), answer) for answer in answers).get((), 0)
    of_type = _most_frequent(zip(_kept(train.question_type, known), answers, strict=True))
    of_text = _most_frequent(zip(_kept(train.question, known), answers, strict=True))
    by_type = [of_type.get(kind, of_all) for kind in test.question_type]
    by_text = [of_text.get(text, kind) for text, kind in zip(test.question, by_type, strict=True)]
    return {
        "most_frequent": np.full(len(by_type), of_all, dtype=np.int64),
        "most_frequent_of_type": np.array(by_type, dtype=np.int64),
        "question_only": np.array(by_text, dtype=np.int64),
    }


def best_possible(answer: np.ndarray) -> float:
    """Return the accuracy of a predictor that is right wherever the answer is in the list."""
    return mean(answer >= UNKNOWN_CLASSES)


def retrieval_ranks(
    text: np.ndarray, video: np.ndarray, medium: np.ndarray, rows_at_once: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many are at least as near as what is right, in both directions, from 1.

    Args:
        text: (n, D) captions; nearness is the inner product.
        video: (N, D) media.
        medium: (n,) which medium each caption is of.
        rows_at_once: so many similarities with all others are held at a time.

    Returns:
        (n,) rank of each caption's medium among the media, and (N,) rank of each medium's nearest
        caption among the captions of other media; NaN where a vector is not finite, and for media
        without captions.
    """
    parts = [slice(s, s + rows_at_once) for s in range(0, len(text), rows_at_once)]
    # Of the same product as what it is compared with: equal vectors then are equally near.
    own = np.concatenate(
        [np.take_along_axis(text[p] @ video.T, medium[p, None], axis=1)[:, 0] for p in parts]
    )  # (n,)
    best = np.full(len(video), -np.inf)  # (N,)
    # What is not finite is near to nothing.
    np.maximum.at(best, medium, np.where(np.isfinite(own), own, -np.inf))
    of_text, of_video = np.ones(len(text)), np.ones(len(video))
    for part in parts:
        similar = text[part] @ video.T  # (b, N)
        others = np.arange(len(video)) != medium[part, None]
        of_text[part] += ((similar >= own[part, None]) & others).sum(axis=1)
        of_video += ((similar >= best) & others).sum(axis=0)
    of_text[~np.isfinite(own)] = np.nan
    of_video[~np.isfinite(best)] = np.nan
    return of_text, of_video


def nearest(query: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest by inner product, the nearest first; all where there are fewer.

    Args:
        query: (q, D).
        others: (p, D).
        k: how many.

    Returns:
        (q, k) int64, rows of `others`; of equally near ones the first.
    """
    k = min(k, len(others))
    found = np.zeros((len(query), k), dtype=np.int64)
    at_once = max(1, SIMILARITIES_AT_ONCE // max(len(others), 1))
    for start in range(0, len(query) if k else 0, at_once):
        similar = query[start : start + at_once] @ others.T
        # What is not finite is near to nothing.
        found[start : start + at_once] = _largest(
            np.where(np.isfinite(similar), similar, -np.inf), k
        )
    return found


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Return the places (q, k) of the largest values (q, p), of equal ones the first, in order."""
    least = np.partition(values, -k, axis=1)[:, -k, None]
    candidate = values >= least  # k of a row, or more where several are equal to the last
    places = np.empty((len(values), k), dtype=np.int64)
    alone = candidate.sum(axis=1) == k
    places[alone] = np.nonzero(candidate[alone])[1].reshape(-1, k)
    for row in np.flatnonzero(~alone):
        places[row] = np.argsort(-values[row], kind="stable")[:k]
    order = np.argsort(-np.take_along_axis(values, places, axis=1), axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1)


def reranked(rank: np.ndarray, right: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return the ranks of queries whose nearest are ordered anew by a score, from 1.

    Args:
        rank: (q,) ranks before; kept where nothing right is among the nearest, but behind these.
        right: (q, k) which of the nearest are right.
        score: (q, k) the higher, the nearer; one that is not finite is the lowest.

    Returns:
        (q,) float; of right ones the best counts, and what has its score too is before it. NaN
        where no right one has a finite score.
    """
    score = np.where(np.isfinite(score), score, -np.inf)
    best = np.where(right, score, -np.inf).max(axis=1, initial=-np.inf)
    found = 1.0 + ((score >= best[:, None]) & ~right).sum(axis=1)
    found[~np.isfinite(best)] = np.nan
    behind = np.maximum(rank, right.shape[1] + 1)
    return np.asarray(np.where(right.any(axis=1), found, behind))


def r_squared(squared_error: float, variation: float) -> float:
    """Return 1 - error / variation: 0 for the best constant, 1 if perfect, NaN if undefined."""
    return float(1 - squared_error / variation) if variation > 0 else float("nan")


def _most_frequent(pairs: Iterable[tuple[Hashable, int]]) -> dict[Hashable, int]:
    counters: defaultdict[Hashable, Counter[int]] = defaultdict(Counter)
    for key, answer in pairs:
        counters[key][answer] += 1
    return {key: counter.most_common(1)[0][0] for key, counter in counters.items()}


def _kept(values: Sequence[str], keep: np.ndarray) -> list[str]:
    return [value for value, kept in zip(values, keep, strict=True) if kept]
