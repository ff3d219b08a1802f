"""The memory layout of weights: that of frames, whose channels come last."""

import torch
from torch import nn


def use_channels_last(model: nn.Module) -> None:
    """Bring the weights of 2D and 3D convolutions into the layout in which frames are stored."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
