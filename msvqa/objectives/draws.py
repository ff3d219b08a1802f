"""Random draws of an objective: those of the step in training, always the same in evaluation."""

import torch
from torch import Tensor, nn


def exponential(module: nn.Module, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return draws of the exponential distribution, on the device of another tensor.

    In training they depend on the seed of the step and worker, else on the shape alone.
    """
    if module.training:
        return torch.empty(shape, device=like.device).exponential_()
    fixed = torch.Generator().manual_seed(0)
    return torch.empty(shape).exponential_(generator=fixed).to(like.device)


def uniform(module: nn.Module, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return draws from 0 to 1, see `exponential`."""
    return 1 - torch.exp(-exponential(module, shape, like))
