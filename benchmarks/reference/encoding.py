"""Features of a frozen encoder by a plain forward pass: float32 frames, channels first, a graph."""

import copy
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from msvqa.models.layers.pixels import IMAGENET_MEAN, IMAGENET_STD

Network = TypeVar("Network", bound=nn.Module)


def channels_first(network: Network) -> Network:
    """Return a copy of a network whose weights lie as PyTorch makes them."""
    plain = copy.deepcopy(network)
    for weight in plain.parameters():
        weight.data = weight.data.clone(memory_format=torch.contiguous_format)
    return plain.eval()


def normalised(pixels: np.ndarray) -> Tensor:
    """Return float32 (N, 3, H, W) on ImageNet's scale of uint8 frames (N, H, W, 3), on the host."""
    mean, std = np.float32(IMAGENET_MEAN), np.float32(IMAGENET_STD)
    return torch.from_numpy(((pixels - mean) / std).transpose(0, 3, 1, 2).copy())


def encode(feature_map: nn.Module, pixels: np.ndarray, device: torch.device) -> np.ndarray:
    """Return features (N, D) of uint8 frames (N, H, W, 3); every activation is kept for gradients.

    Args:
        feature_map: a `ResidualEncoder`, whose map is averaged over its positions.
        pixels: frames.
        device: where it runs.
    """
    features: Tensor = feature_map.feature_map(normalised(pixels).to(device))  # type: ignore
    return features.mean(dim=(2, 3)).detach().cpu().numpy()
