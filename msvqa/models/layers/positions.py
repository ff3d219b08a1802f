"""Fixed positions of tokens in space and time, and tables of positions brought to other sizes.

Sinusoids: Vaswani et al., "Attention Is All You Need", 2017, section 3.5, over one index that runs
through the tokens of all frames, as in VideoMAE.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

# Legend: T frames (of a token's depth), P patches across and down, D width.


def sinusoids(count: int, width: int) -> Tensor:
    """Return positions float64 (count, D): sines in even columns, cosines in odd ones."""
    column = torch.arange(width, dtype=torch.float64)
    rate = 10000 ** (2 * torch.div(column, 2, rounding_mode="floor") / width)  # (D,)
    angle = torch.arange(count, dtype=torch.float64)[:, None] / rate  # (count, D)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


def resize_grid(table: Tensor, grid: int) -> Tensor:
    """Return positions (T, P·P, D) for frames of `grid` x `grid` patches, bicubic."""
    own = round(table.shape[1] ** 0.5)
    if own == grid:
        return table
    planes = rearrange(table, "t (h w) d -> t d h w", h=own)
    planes = functional.interpolate(planes, (grid, grid), mode="bicubic", align_corners=False)
    return rearrange(planes, "t d h w -> t (h w) d")


def resize_time(table: Tensor, frames: int) -> Tensor:
    """Return positions (T, P·P, D) for another number of frames, linear."""
    if len(table) == frames:
        return table
    patches = table.shape[1]
    lines = rearrange(table, "t n d -> n d t")
    lines = functional.interpolate(lines, frames, mode="linear", align_corners=False)
    return rearrange(lines, "n d t -> t n d", n=patches)


def resize(table: Tensor, frames: int, grid: int) -> Tensor:
    """Return positions (T, P·P, D) for other frames: first their places, then their times."""
    return resize_time(resize_grid(table, grid), frames)
