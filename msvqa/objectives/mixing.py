"""Mixed clips: each becomes partly another one of its batch, and so does its label.

Zhang et al., "mixup", 2018, https://arxiv.org/abs/1710.09412; Yun et al., "CutMix", 2019,
https://arxiv.org/abs/1905.04899.
"""

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from msvqa.sections import Config

# Legend: N clips of T frames of H x W pixels.


class MixingConfig(Config):
    """How often and how much; off by default."""

    mixup: float = Field(default=0.0, ge=0)
    """Parameter of the beta distribution of a clip's own part; published fine-tunings have 0.8."""
    cutmix: float = Field(default=0.0, ge=0)
    """The same where a rectangle of all frames is another clip's; published: 1.0. Where both are
    given, each step draws one of them."""


class Mixed(NamedTuple):
    """Clips that are partly others."""

    frames: Tensor
    """(N, T, H, W, 3)."""
    other: Tensor
    """int64 (N,), which clip the other part is of."""
    own: float
    """How large the own part is."""


def mix(frames: Tensor, config: MixingConfig) -> Mixed | None:
    """Return mixed clips of uint8 clips (N, T, H, W, 3); None where nothing is to be mixed.

    One part for the whole batch, and the batch backwards as the others, as in the published
    programs; drawn from torch's generator of the CPU, so the same on every device.
    """
    kinds = [name for name in ("mixup", "cutmix") if getattr(config, name)]
    if not kinds:
        return None
    kind = kinds[int(torch.randint(len(kinds), ()))]
    alpha = torch.tensor(float(getattr(config, kind)))
    own = float(torch.distributions.Beta(alpha, alpha).sample())
    other = torch.arange(len(frames) - 1, -1, -1, device=frames.device)
    if kind == "mixup":
        return Mixed(own * frames.float() + (1 - own) * frames[other].float(), other, own)
    top, bottom, left, right = _rectangle(frames.shape[2], frames.shape[3], 1 - own)
    cut = frames.clone()
    cut[:, :, top:bottom, left:right] = frames[other][:, :, top:bottom, left:right]
    covered = (bottom - top) * (right - left) / (frames.shape[2] * frames.shape[3])
    return Mixed(cut, other, 1 - covered)


def _rectangle(height: int, width: int, part: float) -> tuple[int, int, int, int]:
    """Return a rectangle of a part of the area about a random place, cut off at the borders."""
    half = part**0.5 / 2
    middle = torch.rand(2).tolist()
    sides = []
    for size, place in zip((height, width), middle, strict=True):
        sides += [max(0, round(size * (place - half))), min(size, round(size * (place + half)))]
    return sides[0], sides[1], sides[2], sides[3]
