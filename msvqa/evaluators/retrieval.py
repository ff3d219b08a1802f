"""Retrieval: is the right medium near to a caption, and a right caption near to a medium?

Recall at k is the part of the queries whose answer is among the k nearest (Hodosh, Young and
Hockenmaier, 2013). A medium may have several captions: any of them is right. What is as near as the
right one is ranked before it, so that a model that sees everything alike scores nothing.

Legend: n captions, N media, D width.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from msvqa import metrics
from msvqa.evaluators.evaluator import Answers, Evaluator, Predictor

if TYPE_CHECKING:
    from msvqa.data.split import Split

DEPTHS = (1, 5, 10)
DIRECTIONS = ("text_to_video", "video_to_text")


class Retrieval(Evaluator):
    """Recall at 1, 5 and 10, median and mean rank, in both directions."""

    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("text_to_video_recall_at_1", "max")
    numbers: ClassVar[tuple[str, ...]] = tuple(
        f"{direction}_{what}"
        for direction in DIRECTIONS
        for what in (*(f"recall_at_{k}" for k in DEPTHS), "median_rank", "mean_rank")
    )

    def ask(self, predictor: Predictor, split: "Split") -> dict[str, np.ndarray]:
        """Return for each caption the rank of its medium, and that of the medium's best caption.

        Both (n,), from 1; not a number where a vector of the model is none.
        """
        video = predictor("encode_video")["vector"]  # (N, D)
        text = predictor("encode_text")["vector"]  # (n, D)
        medium = split.examples.medium
        of_text, of_video = metrics.retrieval_ranks(text, video, medium)
        return {"text_to_video_rank": of_text, "video_to_text_rank": of_video[medium]}

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
