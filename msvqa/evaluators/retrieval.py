"""Retrieval: is the right medium near to a caption, and a right caption near to a medium?

Recall at k is the part of the queries whose answer is among the k nearest (Hodosh, Young and
Hockenmaier, 2013). A medium may have several captions: any of them is right. What is as near as the
right one is ranked before it, so that a model that sees everything alike scores nothing.

Where annotations name what captions say by kinds of words, it is counted in which kinds the medium
that is found first is another one, see `first_hits`.

With `rerank: k` the k nearest of each query are ordered anew by how well the model finds that they
match when it sees both, `match`; what is farther stays behind them in its order.

Legend: n captions, N media, D width, q queries, k nearest.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from msvqa import metrics
from msvqa.errors import RecipeError
from msvqa.evaluators.evaluator import Answers, Case, Evaluator, Predictor, Sheet
from msvqa.evaluators.first_hits import count_first_hits, sheets_of

if TYPE_CHECKING:
    from msvqa.data.lexicon import Lexicon
    from msvqa.data.split import Split

DEPTHS = (1, 5, 10)
NEAREST, SHOWN = "nearest", 5
"""Column of the media that are nearest to a caption, and how many of them it has."""
SIMILARITY, OF_NEAREST, MATCH = "similarity", "nearest_similarity", "nearest_match"
"""Columns: inner product of a caption with its medium, with each of the nearest; with `rerank` the
probability that each of these matches."""
KINDS = "kinds"
"""Column of what captions say by kinds of words, where the annotations name it."""
LEAST = -2.0
"""In place of a similarity that is not finite: less than any other."""
CASES = 4
DIRECTIONS = ("text_to_video", "video_to_text")


class Retrieval(Evaluator):
    """Recall at 1, 5 and 10, median and mean rank, in both directions."""

    name = "retrieval"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("text_to_video_recall_at_1", "max")
    numbers: ClassVar[tuple[str, ...]] = tuple(
        f"{direction}_{what}"
        for direction in DIRECTIONS
        for what in (*(f"recall_at_{k}" for k in DEPTHS), "median_rank", "mean_rank")
    )

    def ask(self, predictor: Predictor, split: "Split") -> dict[str, np.ndarray]:
        """Return for each caption the rank of its medium, and that of the medium's best caption.

        Both (n,), from 1; not a number where a vector of the model is none. Beside them the rows of
        the nearest media (n, 5), the similarity of the right one (n,) and those of the nearest.

        Raises:
            RecipeError: ranks are to be matched anew, and the objective has no `match`.
        """
        if self.config.rerank:
            if not predictor.answers("match"):
                raise RecipeError(
                    ["evaluation.rerank: the stage's objective has no answer `match`"]
                )
            # Before all else is encoded for nothing.
            _match(predictor, media=np.zeros((1, 1), np.int64), rows=np.zeros((1, 1), np.int64))
        video = predictor("encode_video")["vector"]  # (N, D)
        text = predictor("encode_text")["vector"]  # (n, D)
        medium = split.examples.medium
        of_text, of_video = metrics.retrieval_ranks(text, video, medium)
        near = metrics.nearest(text, video, max(SHOWN, self.config.rerank))  # (n, k) media
        ranks = {"text_to_video_rank": of_text, "video_to_text_rank": of_video[medium]}
        if not self.config.rerank:
            return ranks | _similarities(text, video, medium, near[:, :SHOWN])
        by_vectors = {f"{name}_by_vectors": rank for name, rank in ranks.items()}
        near = near[:, : self.config.rerank]
        captions = np.arange(len(text))[:, None].repeat(near.shape[1], axis=1)
        score = _match(predictor, media=near, rows=captions)
        of_text = metrics.reranked(of_text, near == medium[:, None], score)
        order = np.argsort(-score, axis=1, kind="stable")[:, :SHOWN]
        shown = _similarities(text, video, medium, np.take_along_axis(near, order, axis=1))
        logit = np.take_along_axis(score, order, axis=1)
        shown[MATCH] = np.where(np.isfinite(logit), (1 + np.tanh(logit / 2)) / 2, 0.0)
        near = metrics.nearest(video, text, self.config.rerank)  # (N, k) captions
        media = np.arange(len(video))[:, None].repeat(near.shape[1], axis=1)
        score = _match(predictor, media=media, rows=near)
        of_video = metrics.reranked(of_video, medium[near] == media, score)
        ranks = {"text_to_video_rank": of_text, "video_to_text_rank": of_video[medium]}
        return ranks | by_vectors | shown

    def validate(self, answers: Answers, split: "Split") -> dict[str, float]:
        """Return all numbers; a query without a rank counts as found last."""
        _, first = np.unique(split.examples.medium, return_index=True)
        ranks = {
            "text_to_video": answers["text_to_video_rank"],
            # One query for each medium, however many captions it has.
            "video_to_text": answers["video_to_text_rank"][first],
        }
        last = {"text_to_video": first.size, "video_to_text": len(split.examples.medium)}
        found: dict[str, float] = {}
        for direction, found_at in ranks.items():
            values = np.where(np.isfinite(found_at), found_at, np.inf)
            found |= {f"{direction}_recall_at_{k}": metrics.mean(values <= k) for k in DEPTHS}
            ranked = np.minimum(values, last[direction])
            found[f"{direction}_median_rank"] = float(np.median(ranked)) if len(ranked) else np.nan
            found[f"{direction}_mean_rank"] = metrics.mean(ranked)
        return found

    def evaluate(
        self, answers: Answers, split: "Split", train: "Split", kinds: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return all numbers, and what is wrong with the first hits by kinds of words."""
        found = super().evaluate(answers, split, train, kinds)
        shown = split.examples.shown(np.arange(len(split)))
        if KINDS in shown:
            hits = answers[NEAREST][:, 0]
            found["first_hits"] = count_first_hits(shown[KINDS], split.examples.medium, hits)
        return found

    def table(self, answers: Answers, split: "Split", lexicon: "Lexicon") -> pa.Table:
        """Return one row per caption with its ranks, and the ids of the media nearest to it."""
        ids = split.media.id
        near = [[ids[medium] for medium in row] for row in answers[NEAREST].tolist()]
        ranks = {name: rank for name, rank in answers.items() if name != NEAREST}
        table = super().table(ranks, split, lexicon)
        return table.append_column(NEAREST, pa.array(near, pa.list_(pa.string())))

    def answers(self, table: pa.Table, split: "Split", lexicon: "Lexicon") -> Answers:
        """Return the ranks and the nearest media that a table shows."""
        row_of = {medium: row for row, medium in enumerate(split.media.id)}
        near = [[row_of[medium] for medium in row] for row in table[NEAREST].to_pylist()]
        apart = [name for name in (NEAREST, KINDS) if name in table.column_names]
        ranks = super().answers(table.drop_columns(apart), split, lexicon)
        return {**ranks, NEAREST: np.array(near)}

    @classmethod
    def sheet(cls, metrics: Mapping[str, Any]) -> Sheet:
        """Return a row for each direction."""
        whats = (*(f"recall_at_{k}" for k in DEPTHS), "median_rank", "mean_rank")
        rows = [
            (direction.replace("_", " "), *(metrics[f"{direction}_{what}"] for what in whats))
            for direction in DIRECTIONS
        ]
        return Sheet(("queries", *(what.replace("_", " ") for what in whats)), rows)

    @classmethod
    def sheets(cls, metrics: Mapping[str, Any]) -> Mapping[str, Sheet]:
        """Return what is wrong with the first hits by kinds of words, where these are named."""
        return sheets_of(metrics.get("first_hits", {}))

    @classmethod
    def cases(cls, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Case]]:
        """Return captions whose medium is found first, and those whose medium is found last.

        Each is about another medium; the first ones are chosen by a hash, so nobody picked them.
        """
        known = [row for row in rows if np.isfinite(row["text_to_video_rank"])]
        said: dict[str, str] = {}
        for row in rows:
            said.setdefault(row["medium"], row["caption"])
        right = sorted((row for row in known if row["text_to_video_rank"] == 1), key=_hash)
        wrong = sorted(known, key=lambda row: -row["text_to_video_rank"])
        groups = {
            "Captions whose medium is the nearest": right,
            "Captions whose medium is found last": [
                row for row in wrong if row["text_to_video_rank"] > 1
            ],
        }
        return {
            title: [_case(row, said) for row in _of_other_media(of_group)]
            for title, of_group in groups.items()
        }


def _match(predictor: Predictor, *, media: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return how well pairs (q, k) of a medium and a caption match, of the same shape."""
    return predictor.pairs("match", media.reshape(-1), rows.reshape(-1))["score"].reshape(
        media.shape
    )


def _similarities(
    text: np.ndarray, video: np.ndarray, medium: np.ndarray, near: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the columns of the nearest media (n, k), theirs and the right one's similarity.

    Args:
        text: (n, D).
        video: (N, D).
        medium: (n,) right rows of the media.
        near: (n, k) rows that are near.
    """
    right, *others = (np.einsum("nd,nd->n", text, video[rows]) for rows in (medium, *near.T))
    of_near = np.stack(others, axis=1)
    # The ranks say whether an answer is one: of what is shown beside it nothing is refused.
    of_near = np.where(np.isfinite(of_near), of_near, LEAST)
    return {SIMILARITY: right, NEAREST: near, OF_NEAREST: of_near}


def _hash(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{row['medium']} {row['caption']}".encode()).hexdigest()


def _of_other_media(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the first rows, of each medium one."""
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        first.setdefault(row["medium"], row)
    return [*first.values()][:CASES]


def _case(row: Mapping[str, Any], said: Mapping[str, str]) -> Case:
    """Return a caption with what is nearest to it.

    Args:
        row: of `table`; of earlier versions it has no similarities.
        said: a caption of each medium.
    """
    right, rank, near = row["medium"], int(row["text_to_video_rank"]), row[NEAREST]
    nothing = [None] * len(near)
    numbers = zip(row.get(OF_NEAREST, nothing), row.get(MATCH, nothing), strict=True)
    media = []
    for place, (medium, (similar, match)) in enumerate(zip(near, numbers, strict=True), 1):
        name = f"right, number {place}" if medium == right else f"number {place}"
        media.append((medium, _told(name, similar, match, said.get(medium))))
    if right not in near:
        name = f"right, number {rank}"
        media.append((right, _told(name, row.get(SIMILARITY), None, said.get(right))))
    return Case(f"{row['caption']} (rank {rank})", media)


def _told(name: str, similar: float | None, match: float | None, caption: str | None) -> str:
    parts = [name]
    parts += [] if match is None else [f"match {match:.2f}"]
    parts += [] if similar is None else [f"similarity {similar:.2f}"]
    parts += [f"“{caption}”"] if caption else []
    return ", ".join(parts)
