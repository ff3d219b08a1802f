"""Retrieval: is the right medium near to a caption, and a right caption near to a medium?

Recall at k is the part of the queries whose answer is among the k nearest (Hodosh, Young and
Hockenmaier, 2013). A medium may have several captions: any of them is right. What is as near as the
right one is ranked before it, so that a model that sees everything alike scores nothing.

With `rerank: k` the k nearest of each query are ordered anew by how well the model finds that they
match when it sees both, `match`; what is farther stays behind them in its order.

Legend: n captions, N media, D width, q queries, k nearest.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from msvqa import metrics
from msvqa.errors import RecipeError
from msvqa.evaluators.evaluator import Answers, Case, Evaluator, Predictor, Sheet

if TYPE_CHECKING:
    from msvqa.data.lexicon import Lexicon
    from msvqa.data.split import Split

DEPTHS = (1, 5, 10)
NEAREST, SHOWN = "nearest", 5
"""Column of the media that are nearest to a caption, and how many of them it has."""
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

        Both (n,), from 1; not a number where a vector of the model is none.

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
            return ranks | {NEAREST: near[:, :SHOWN]}
        by_vectors = {f"{name}_by_vectors": rank for name, rank in ranks.items()}
        near = near[:, : self.config.rerank]
        captions = np.arange(len(text))[:, None].repeat(near.shape[1], axis=1)
        score = _match(predictor, media=near, rows=captions)
        of_text = metrics.reranked(of_text, near == medium[:, None], score)
        order = np.argsort(-score, axis=1, kind="stable")[:, :SHOWN]
        shown = np.take_along_axis(near, order, axis=1)
        near = metrics.nearest(video, text, self.config.rerank)  # (N, k) captions
        media = np.arange(len(video))[:, None].repeat(near.shape[1], axis=1)
        score = _match(predictor, media=media, rows=near)
        of_video = metrics.reranked(of_video, medium[near] == media, score)
        ranks = {"text_to_video_rank": of_text, "video_to_text_rank": of_video[medium]}
        return ranks | by_vectors | {NEAREST: shown}

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
        ranks = super().answers(table.drop_columns([NEAREST]), split, lexicon)
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
    def cases(cls, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Case]]:
        """Return captions whose medium is found first, and those whose medium is found last."""
        known = [row for row in rows if np.isfinite(row["text_to_video_rank"])]
        ordered = sorted(known, key=lambda row: row["text_to_video_rank"])
        return {
            "Captions whose medium is the nearest": [
                _case(row) for row in ordered[:CASES] if row["text_to_video_rank"] == 1
            ],
            "Captions whose medium is found last": [
                _case(row) for row in ordered[: -CASES - 1 : -1] if row["text_to_video_rank"] > 1
            ],
        }


def _match(predictor: Predictor, *, media: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return how well pairs (q, k) of a medium and a caption match, of the same shape."""
    return predictor.pairs("match", media.reshape(-1), rows.reshape(-1))["score"].reshape(
        media.shape
    )


def _case(row: Mapping[str, Any]) -> Case:
    right, rank = row["medium"], int(row["text_to_video_rank"])
    media = [
        (medium, "right" if medium == right else str(n)) for n, medium in enumerate(row[NEAREST], 1)
    ]
    if right not in row[NEAREST]:
        media.append((right, f"right, {rank}th"))
    return Case(f"{row['caption']} (rank {rank})", media)
