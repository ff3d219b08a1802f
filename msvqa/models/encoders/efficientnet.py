"""EfficientNet over single frames, with the names and weights of torchvision.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019,
https://arxiv.org/abs/1905.11946
"""

from typing import Any, Literal

from torch import Tensor, nn
from torchvision.models import efficientnet

from msvqa.models.encoders.encoder import Encoder, check_pixels
from msvqa.models.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelScale

SCALES = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "unit": ((127.5,) * 3, (127.5,) * 3)}


class EfficientNet(Encoder):
    """One vector per frame: torchvision's EfficientNet without its classifier."""

    class Config(Encoder.Config):
        """Which of the eight sizes, and the input of the network."""

        name: str = "efficientnet"
        variant: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"] = "b3"
        """Widths: b0 and b1 1280, b2 1408, b3 1536, b4 1792, b5 2048, b6 2304, b7 2560. They were
        trained with frames of 224, 240, 288, 300, 380, 456, 528 and 600 pixels."""
        scale: Literal["imagenet", "unit"] = "imagenet"
        """Input scale. `imagenet` is that of torchvision's weights; `unit` maps pixels to -1..1."""

    folds_batch_norm = True
    classifier = "classifier."

    def __init__(self, config: Config) -> None:
        super().__init__(config, PixelScale(*SCALES[config.scale]))
        # Nothing is fetched: weights come from a file of the user.
        whole: Any = getattr(efficientnet, f"efficientnet_{config.variant}")(weights=None)
        self.features: nn.Sequential = whole.features
        self.width = int(whole.classifier[-1].in_features)

    @property
    def first_weight(self) -> Tensor:
        """The weights of the first convolution."""
        weight: Tensor = self.get_parameter("features.0.0.weight")
        return weight

    def feature_map(self, scaled: Tensor) -> Tensor:
        """Return the last map (N, width, H / 32, W / 32)."""
        found: Tensor = self.features(scaled)
        return found

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features (N, width) of uint8 frames (N, H, W, 3)."""
        check_pixels(pixels, "N H W 3")
        return super().forward(pixels)
