"""Augmentation: the clips of a video moved and enlarged at random, for training on few videos.

All clips and frames of a video are changed alike, so what moves and where to stays true. Nothing is
mirrored or turned: answers such as "left" would become wrong.
"""

import torch
from torch import Tensor

from msvqa.recipe import AugmentationConfig

# Legend: V videos, C clips, F frames per clip, H x W pixels.


def augment(clips: Tensor, config: AugmentationConfig) -> Tensor:
    """Return clips (V, C, F, H, W, 3), each video moved and enlarged by amounts of its own.

    The amounts come from torch's generator of the CPU, so they are the same on every device. What
    comes in from outside repeats the border.
    """
    if not (config.shift or config.zoom):
        return clips
    between = 2 * torch.rand(len(clips), 3) - 1  # (V, 3): -1..1
    rows = _sampled(clips.shape[3], between[:, 0], between[:, 2], config).to(clips.device)
    columns = _sampled(clips.shape[4], between[:, 1], between[:, 2], config).to(clips.device)
    moved = [
        video.index_select(2, row).index_select(3, column)
        for video, row, column in zip(clips, rows, columns, strict=True)
    ]
    return torch.stack(moved)


def _sampled(size: int, shift: Tensor, zoom: Tensor, config: AugmentationConfig) -> Tensor:
    """Return for each video the pixel (V, size) that each new pixel of an axis shows."""
    centred = torch.arange(size) - (size - 1) / 2  # (size,)
    scale = 1 + config.zoom * zoom[:, None]  # (V, 1)
    taken = centred / scale + (size - 1) / 2 - config.shift * size * shift[:, None]
    return taken.round().long().clamp(0, size - 1)
