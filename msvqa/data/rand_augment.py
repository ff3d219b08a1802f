"""RandAugment: a few changes of colour or shape, the same of all frames of a clip.

Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space",
2020, https://arxiv.org/abs/1909.13719; with a random strength, as in the programs that VideoMAE and
UMT are fine-tuned by. These change whole pictures and crop afterwards, which here comes first: a
store holds squares. Nothing is mirrored.
"""

import numpy as np
from pydantic import Field

from msvqa.sections import Config

# Legend: T frames of H x W pixels.

LARGEST = 10.0
"""Strength at which a change is the largest."""


class RandAugmentConfig(Config):
    """How many changes, and how strong."""

    changes: int = Field(default=4, ge=1, le=10)
    """So many are drawn for each clip."""
    strength: float = Field(default=7.0, ge=0, le=LARGEST)
    spread: float = Field(default=0.5, ge=0)
    """Standard deviation of the strength."""
    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each drawn change to be made."""


def rand_augment(
    frames: np.ndarray, config: RandAugmentConfig, generator: np.random.Generator
) -> np.ndarray:
    """Return frames uint8 (T, H, W, 3), all changed alike.

    The numbers are the generator's: torchvision's own transform takes those of torch, which belong
    to the training step, and not to the thread that makes batches.
    """
    import torch  # which extraction does without

    from msvqa.data.frame_changes import CHANGES

    changed = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)  # (T, 3, H, W)
    for name in generator.choice([*CHANGES], config.changes):
        is_made = generator.random() < config.probability
        strength = float(np.clip(generator.normal(config.strength, config.spread), 0, LARGEST))
        sign = 1 if generator.random() < 0.5 else -1
        if is_made:
            changed = CHANGES[str(name)](changed, strength / LARGEST, sign)
    found: np.ndarray = changed.permute(0, 2, 3, 1).contiguous().numpy()
    return found
