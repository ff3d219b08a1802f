"""3D ResNeXt over clips, with the names and weights of its authors.

Hara, Kataoka and Satoh, "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?",
https://arxiv.org/abs/1711.09577
"""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from msvqa.models.encoders.encoder import (
    ResidualEncoder,
    check_pixels,
    initialize_convolutions,
)
from msvqa.models.layers.pixels import ACTIVITYNET_MEAN, PixelScale

LAYERS: dict[int, tuple[int, int, int, int]] = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
SCALES = {
    "activitynet": (ACTIVITYNET_MEAN, (1.0,) * 3),
    "none": ((0.0,) * 3, (1.0,) * 3),
    "unit": ((127.5,) * 3, (127.5,) * 3),
}
POOLING: dict[str, Callable[[], nn.Module]] = {
    "published": lambda: nn.MaxPool3d(3, stride=2, padding=1),
    "small": nn.Identity,
    "brief": lambda: nn.MaxPool3d(3, stride=(1, 2, 2), padding=1),
}


class ResNeXt3D(ResidualEncoder):
    """One vector per clip.

    Pooling is global. The authors pool with a fixed kernel of 4 x 4 (for 112 pixels), which is
    the same from 97 to 128 pixels; at 224 it leaves 4 x 4 positions, and feature files made so
    are 2048 * 16 = 32768 wide.
    """

    class Config(ResidualEncoder.Config):
        """Depth, width and input of the network."""

        name: str = "resnext3d"
        depth: Literal[14, 26, 50, 101, 152] = 101
        base_width: int = Field(default=128, ge=4, le=512, multiple_of=2)
        """Channels inside the first stage's blocks; published weights have 128."""
        groups: int = Field(default=32, ge=1)
        stem: Literal["published", "small", "brief"] = "published"
        """`small` halves the image once and keeps all frames before `layer1`: for 32 to 64 px.
        `brief` halves it twice, as `published` does, and keeps all frames: for clips of 8."""
        scale: Literal["activitynet", "none", "unit"] = "activitynet"
        """Input scale. `activitynet` subtracts the mean colour, as the weights were trained;
        `none` is DualVGR's raw 0..255; `unit` maps pixels to -1..1, for training from scratch."""
        sees: Literal["pixels", "changes"] = "pixels"
        """`changes` subtracts from every frame the mean frame of its clip, so that what stands
        still vanishes: few videos are then not told apart by their backgrounds."""

        @model_validator(mode="after")
        def _groups_divide_the_width(self) -> "ResNeXt3D.Config":
            if self.base_width % self.groups:
                raise ValueError(
                    f"base_width = {self.base_width} is not a multiple of groups = {self.groups}"
                )
            return self

    def __init__(self, config: Config) -> None:
        super().__init__(config, PixelScale(*SCALES[config.scale]))
        before = config.base_width // 2
        kernel = 7 if config.stem == "published" else 3
        self.conv1 = nn.Conv3d(3, before, kernel, (1, 2, 2), kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm3d(before)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = POOLING[config.stem]()
        for stage, count in enumerate(LAYERS[config.depth]):
            inner = config.base_width * 2**stage
            first = Block(before, inner, config.groups, stride=1 if stage == 0 else 2)
            rest = [Block(2 * inner, inner, config.groups) for _ in range(count - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *rest))
            before = 2 * inner
        self.width = before
        initialize_convolutions(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features (N, width) of uint8 clips (N, F, H, W, 3)."""
        check_pixels(pixels, "N F H W 3")
        return super().forward(pixels)

    def feature_map(self, scaled: Tensor) -> Tensor:
        """Return the last map (N, width, ...) of scaled clips (N, 3, F, H, W)."""
        if self.config.sees == "changes":
            scaled = scaled - scaled.mean(dim=2, keepdim=True)
        return super().feature_map(scaled)

    def first_map(self, scaled: Tensor) -> Tensor:
        """Return the map after `conv1`, whose gradient processors compute in float32 alone."""
        trains = torch.is_grad_enabled() and self.conv1.weight.requires_grad
        if scaled.device.type != "cpu" or not trains or not torch.is_autocast_enabled("cpu"):
            return super().first_map(scaled)
        # PyTorch 2.14.1 writes beyond its memory in the bf16 gradient of the weights of a 3D
        # convolution with a kernel of 7 on processors. The other kernels are sound, and so is bf16
        # forward.
        with torch.autocast("cpu", enabled=False):
            first = super().first_map(scaled.float())
        return first.to(torch.get_autocast_dtype("cpu"))


class Block(nn.Module):
    """Bottleneck with a grouped 3 x 3 x 3 convolution and a shortcut of type B."""

    def __init__(self, before: int, inner: int, groups: int, stride: int = 1) -> None:
        super().__init__()
        after = 2 * inner
        self.conv1 = nn.Conv3d(before, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3 = nn.Conv3d(inner, after, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv3d(before, after, 1, stride=stride, bias=False), nn.BatchNorm3d(after)
            )

    def forward(self, clips: Tensor) -> Tensor:
        """Return the block's output, with `stride` fewer positions on each axis."""
        inner = self.relu(self.bn1(self.conv1(clips)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        shortcut = clips if self.downsample is None else self.downsample(clips)
        output: Tensor = self.relu(self.bn3(self.conv3(inner)) + shortcut)
        return output
