"""Random erasing: a box of noise in place of what a clip shows, the same box in all frames.

Zhong et al., "Random Erasing Data Augmentation", 2017, https://arxiv.org/abs/1708.04896; in the
way of timm's transform, one box, as the programs do that VideoMAE and UMT are fine-tuned by. These
erase after pixels are scaled, so their noise has no bounds; here it ends at 0 and at 255.
"""

from math import exp, log, sqrt
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from msvqa.sections import Config

# Legend: T frames of H x W pixels, h x w of the box.

ASPECTS = (log(0.3), log(1 / 0.3))
"""Logarithms of the least and the largest height of a box, as a part of its width."""
MEAN = np.array((123.675, 116.28, 103.53), dtype=np.float32)
STD = np.array((58.395, 57.12, 57.375), dtype=np.float32)
"""Of the pixels of ImageNet, which models scale by: `const` is 0 to them, noise has variance 1."""
ATTEMPTS = 100
"""So many boxes are drawn until one is smaller than the frame."""


class RandomErasingConfig(Config):
    """How often, how much, and what is there instead."""

    probability: float = Field(default=0.25, ge=0, le=1)
    """Of a clip to lose a box."""
    mode: Literal["pixel", "const"] = "pixel"
    """`pixel`: noise, another one in each frame; `const`: the mean colour."""
    least_area: float = Field(default=0.02, gt=0, le=1)
    """Of the box, as a part of the frame."""
    largest_area: float = Field(default=1 / 3, gt=0, le=1)

    @model_validator(mode="after")
    def _areas_are_in_order(self) -> "RandomErasingConfig":
        if self.least_area > self.largest_area:
            raise ValueError(
                f"least_area: {self.least_area} is more than largest_area {self.largest_area}"
            )
        return self


def random_erasing(
    frames: np.ndarray, config: RandomErasingConfig, generator: np.random.Generator
) -> np.ndarray:
    """Return frames uint8 (T, H, W, 3), a box of which may be erased; the given ones stay."""
    if generator.random() >= config.probability:
        return frames
    height, width = frames.shape[1:3]
    for _ in range(ATTEMPTS):
        area = generator.uniform(config.least_area, config.largest_area) * height * width
        aspect = exp(generator.uniform(*ASPECTS))
        h, w = max(1, round(sqrt(area * aspect))), max(1, round(sqrt(area / aspect)))
        if h < height and w < width:
            top, left = generator.integers((height - h + 1, width - w + 1))
            erased = frames.copy()
            box = erased[:, top : top + h, left : left + w]  # (T, h, w, 3)
            box[:] = _filling(box.shape, config.mode, generator)
            return erased
    return frames


def _filling(
    shape: tuple[int, ...], mode: Literal["pixel", "const"], generator: np.random.Generator
) -> np.ndarray:
    """Return what is put in place of pixels (T, h, w, 3), uint8, or one pixel (3,) for all."""
    if mode == "const":
        return MEAN.round().astype(np.uint8)
    noise = MEAN + STD * generator.standard_normal(shape, dtype=np.float32)
    return noise.round().clip(0, 255).astype(np.uint8)
