"""Decoders from a clip's vector back to its pixels, in ImageNet's scale.

Only names and a count of the original decoders are known (MSVQA's text). `linear` reads the names
as the trunk of VIGAN's autoencoder (https://arxiv.org/abs/1708.06724) with a coarse grid as
output; `conv` reads them as channels of transposed convolutions.
"""

from itertools import pairwise
from typing import Literal

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from msvqa.models.layers.pixels import ACTIVITYNET_MEAN, IMAGENET_MEAN, IMAGENET_STD
from msvqa.sections import Config

# Legend: N clips (questions x clips), D hidden size, F frames per clip, G grid, S frame size.


class DecoderConfig(Config):
    """Widths of a pixel decoder."""

    kind: Literal["linear", "conv"] = "linear"
    layer2: int = Field(default=512, ge=1)
    layer3: int = Field(default=256, ge=1)
    layer4: int = Field(default=512, ge=1)
    inner_dim: int = Field(default=512, ge=1)
    """`linear`: width before the output."""
    grid_px: int = Field(default=40, ge=4)
    """`linear`: height and width of the output, which is enlarged to the frame size."""
    dropout: float = Field(default=0.15, ge=0, lt=1)
    """`linear`: after every layer."""
    mean_color: tuple[float, float, float] = ACTIVITYNET_MEAN
    """Colour (0..255) that the untrained decoder shows: otherwise the first steps only learn it."""


class LinearDecoder(nn.Module):
    """Fully connected: a vector to all pixels of a coarse clip, enlarged to the frame size."""

    def __init__(self, config: DecoderConfig, hidden_size: int, frames: int, size_px: int) -> None:
        super().__init__()
        widths = [hidden_size, config.layer2, config.layer3, config.layer4, config.inner_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.output = nn.Linear(config.inner_dim, frames * 3 * config.grid_px**2)
        self.dropout = nn.Dropout(config.dropout)
        self.frames, self.grid_px, self.size_px = frames, config.grid_px, size_px
        for layer in (*self.layers, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        start_at_color(rearrange(self.output.bias, "(f c p) -> c f p", f=frames, c=3), config)

    def forward(self, codes: Tensor) -> Tensor:
        """Return pixels (N, F, 3, S, S) of codes (N, D)."""
        for layer in self.layers:
            codes = self.dropout(torch.relu(layer(codes)))
        coarse = rearrange(
            self.output(codes), "n (f c h w) -> (n f) c h w", f=self.frames, c=3, h=self.grid_px
        )
        images = functional.interpolate(
            coarse, size=(self.size_px, self.size_px), mode="bilinear", align_corners=False
        )
        return rearrange(images, "(n f) c h w -> n f c h w", f=self.frames)


class ConvDecoder(nn.Module):
    """Transposed 3D convolutions: one position to 16 x 16 x 16, enlarged to the clip's size."""

    def __init__(self, config: DecoderConfig, hidden_size: int, frames: int, size_px: int) -> None:
        super().__init__()
        widths = [hidden_size, config.layer2, config.layer3, config.layer4]
        strides = ((1, 0), (2, 1), (2, 1))
        blocks: list[nn.Module] = []
        for before, after, (stride, padding) in zip(widths[:-1], widths[1:], strides, strict=True):
            convolution = nn.ConvTranspose3d(before, after, 4, stride, padding)
            blocks += [convolution, nn.BatchNorm3d(after), nn.ReLU(inplace=True)]
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Conv3d(widths[-1], 3, 3, padding=1)
        self.size = (frames, size_px, size_px)
        start_at_color(self.output.bias, config)

    def forward(self, codes: Tensor) -> Tensor:
        """Return pixels (N, F, 3, S, S) of codes (N, D)."""
        volume = self.output(self.blocks(codes[:, :, None, None, None]))  # (N, 3, 16, 16, 16)
        clip = functional.interpolate(volume, self.size, mode="trilinear", align_corners=False)
        return rearrange(clip, "n c f h w -> n f c h w")


DECODERS = {"linear": LinearDecoder, "conv": ConvDecoder}


@torch.no_grad()
def start_at_color(bias: Tensor | None, config: DecoderConfig) -> None:
    """Set an output bias, whose first axis is the channel, to the mean colour."""
    assert bias is not None
    for channel, value in enumerate(config.mean_color):
        bias[channel] = (value - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
