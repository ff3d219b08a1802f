"""ResNet over single frames, with the names and weights of torchvision.

Deep residual learning, https://arxiv.org/abs/1512.03385
"""

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from msvqa.models.encoders.encoder import (
    ResidualEncoder,
    check_pixels,
    initialize_convolutions,
)
from msvqa.models.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelScale

BLOCKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
SCALES = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "reference": (IMAGENET_MEAN, (*IMAGENET_STD[:2], 0.224 * 255)),
    "unit": ((127.5,) * 3, (127.5,) * 3),
}


class ResNet(ResidualEncoder):
    """One vector per frame: torchvision's ResNet without its classifier."""

    class Config(ResidualEncoder.Config):
        """Depth, width and input of the network."""

        name: str = "resnet"
        depth: Literal[10, 18, 34, 50, 101, 152] = 101
        base_width: int = Field(default=64, ge=4, le=256)
        """Channels of the first stage; published weights have 64."""
        stem: Literal["published", "small"] = "published"
        """`small` halves the image once instead of twice before `layer1`: for 32 to 64 pixels."""
        scale: Literal["imagenet", "reference", "unit"] = "imagenet"
        """Input scale. `reference` is DualVGR's, whose blue std 0.224 (for 0.225) is a typing
        error; `unit` maps pixels to -1..1."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, PixelScale(*SCALES[config.scale]))
        block, layers = BLOCKS[config.depth]
        width = config.base_width
        small = config.stem == "small"
        kernel = 3 if small else 7
        self.conv1 = nn.Conv2d(3, width, kernel, stride=2, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        before = width
        for stage, count in enumerate(layers):
            planes = width * 2**stage
            after = planes * block.expansion
            stride = 1 if stage == 0 else 2
            first = block(before, planes, stride, _shortcut(before, after, stride))
            rest = [block(after, planes) for _ in range(count - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *rest))
            before = after
        self.width = before
        initialize_convolutions(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features (N, width) of uint8 frames (N, H, W, 3)."""
        check_pixels(pixels, "N H W 3")
        return super().forward(pixels)


def _shortcut(before: int, after: int, stride: int) -> Any:
    if stride == 1 and before == after:
        return None
    return nn.Sequential(
        nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
    )
