"""Pixels between uint8 and the numbers that networks see."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
ACTIVITYNET_MEAN = (114.7748, 107.7354, 99.4750)
"""Mean colour of videos; subtracted by the authors of the 3D ResNeXt."""


class PixelScale(nn.Module):
    """(x - mean) / std per channel, all on the scale 0..255, on the device of the network."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Not persistent: state dicts keep the published names.
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, pixels: Tensor, like: Tensor) -> Tensor:
        """Return (N, 3, ...) in the number format and memory layout of a convolution's weights.

        Args:
            pixels: uint8 (N, ..., 3), which read as (N, 3, ...) already lie channels-last.
            like: weights of the first convolution.
        """
        mean, std = self.mean.to(like.dtype), self.std.to(like.dtype)
        scaled = ((pixels.to(like.dtype) - mean) / std).movedim(-1, 1)  # (N, 3, ...)
        return scaled.contiguous() if like.is_contiguous() else scaled


def to_pixels(values: Tensor) -> Tensor:
    """Return uint8 (..., H, W, 3) of values (..., 3, H, W) on ImageNet's scale."""
    mean = torch.tensor(IMAGENET_MEAN, device=values.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=values.device)[:, None, None]
    return (values.float() * std + mean).round().clamp(0, 255).to(torch.uint8).movedim(-3, -1)
