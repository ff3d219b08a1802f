"""Reconstruction: the error of both decoders over all pixels of a split."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from msvqa import metrics
from msvqa.evaluators.evaluator import Answers, Evaluator

if TYPE_CHECKING:
    from msvqa.data.split import Split

IMAGENET_STD = (58.395, 57.12, 57.375)
"""Of the channels, on the scale 0..255; what the loss divides by."""


class Reconstruction(Evaluator):
    """Adds up the sums that the objective returns per question."""

    name = "reconstruction"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("mse", "min")
    numbers: ClassVar[tuple[str, ...]] = ("mse", "mse_255", "r2_appearance", "r2_motion")

    def validate(self, answers: Answers, split: "Split") -> dict[str, float]:
        """Return `mse` (ImageNet's scale) and `mse_255`, sums over the decoders, and R2 of each."""
        pixels = answers["pixels"].sum()
        totals = {key: answers[key].sum(axis=0) for key in answers if key != "pixels"}
        appearance, motion = totals["error_appearance"], totals["error_motion"]
        both = (appearance + motion) / pixels  # one value per channel
        variation = totals["pixel_square"] - totals["pixel_sum"] ** 2 / pixels
        return {
            "mse": float((both / np.square(IMAGENET_STD)).mean()),
            "mse_255": float(both.mean()),
            "r2_appearance": metrics.r_squared(appearance.sum(), variation.sum()),
            "r2_motion": metrics.r_squared(motion.sum(), variation.sum()),
        }
