"""What the encoders have in common: uint8 pixels in, one vector per frame or clip out."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from msvqa.models.layers.memory_layout import use_channels_last
from msvqa.models.layers.pixels import PixelScale
from msvqa.models.weight_files import read_weights
from msvqa.models.weights import load_strictly
from msvqa.sections import NamedConfig
from msvqa.storage import WeightsFile


class Encoder(nn.Module):
    """A network over pixels without its classifier; the last map is averaged over its positions."""

    class Config(NamedConfig):
        """Fields that every encoder has."""

        weights: WeightsFile | None = None
        """File with pretrained weights; without one training starts from scratch."""
        batch_norm: Literal["frozen", "train"] | None = None
        """`frozen` keeps running statistics as they are, also in training; null: frozen with
        weights, else train. Clips of few videos are far too alike for statistics of pretrained
        networks."""

    folds_batch_norm: ClassVar[bool] = False
    """Whether each batch norm that follows a convolution among the children of a module is given
    what that one returns, and nothing else is."""
    classifier: ClassVar[str] = "fc."
    """How the names of the classifier begin in files of weights; it is dropped."""
    width: int
    """Features per frame or clip."""

    def __init__(self, config: Any, scale: PixelScale) -> None:
        super().__init__()
        self.config, self.scale = config, scale
        self.batch_norm = config.batch_norm or ("frozen" if config.weights else "train")

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features (N, width) of uint8 frames (N, H, W, 3) or clips (N, F, H, W, 3)."""
        scaled = self.scale(pixels, like=self.first_weight)
        # Global pooling: equal to the published fixed kernel wherever that leaves one position.
        return self.feature_map(scaled).flatten(2).mean(dim=2)

    @property
    @abstractmethod
    def first_weight(self) -> Tensor:
        """The weights of the convolution that sees the pixels."""

    @abstractmethod
    def feature_map(self, scaled: Tensor) -> Tensor:
        """Return the last map (N, width, ...) of scaled pixels (N, 3, ...)."""

    def train(self, mode: bool = True) -> "Encoder":
        """Set the mode; frozen batch norm stays in eval mode."""
        super().train(mode)
        if self.batch_norm == "frozen":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def lay_out(self) -> None:
        """Bring the weights into the memory layout of frames, the channels last."""
        use_channels_last(self)

    def fold_batch_norm(self) -> None:
        """Have convolutions do the work of the batch norm behind them: for encoders that only see.

        Only where `folds_batch_norm` says that this is possible. Features change by rounding.

        Raises:
            ValueError: the encoder trains, so that its statistics are those of batches.
        """
        for module in list(self.modules()) if self.folds_batch_norm else ():
            for (before, convolution), (name, norm) in pairwise(list(module.named_children())):
                if not isinstance(convolution, (nn.Conv2d, nn.Conv3d)):
                    continue
                if not isinstance(norm, _BatchNorm):
                    continue
                if norm.training:
                    raise ValueError(f"batch norm {name} is in training mode: call eval() first")
                setattr(module, before, fuse_conv_bn_eval(convolution, norm))
                setattr(module, name, nn.Identity())

    def load_pretrained(self) -> None:
        """Load the weights that the config names, without the classifier of the file.

        Raises:
            WeightsError: the file does not fit, with all names that differ.
        """
        if self.config.weights:
            state = read_weights(self.config.weights)
            load_strictly(self, state, self.config.weights, ignored=(self.classifier,))


class ResidualEncoder(Encoder):
    """Residual network; subclasses build `conv1` to `layer4`, with each norm behind its own."""

    folds_batch_norm = True
    conv1: nn.Conv2d | nn.Conv3d
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    @property
    def first_weight(self) -> Tensor:
        """The weights of `conv1`."""
        return self.conv1.weight

    def feature_map(self, scaled: Tensor) -> Tensor:
        """Return the map (N, width, ...) after `layer4`."""
        features: Tensor = self.relu(self.bn1(self.first_map(scaled)))
        features = self.maxpool(features)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = layer(features)
        return features

    def first_map(self, scaled: Tensor) -> Tensor:
        """Return the map (N, C, ...) after `conv1`."""
        first: Tensor = self.conv1(scaled)
        return first


def initialize_convolutions(module: nn.Module) -> None:
    """Start convolutions as He et al. do for ReLU, https://arxiv.org/abs/1502.01852."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def check_pixels(pixels: Tensor, axes: str) -> None:
    """Refuse anything but uint8 pixels with the given axes, e.g. "N H W 3"."""
    if pixels.dtype != torch.uint8 or pixels.ndim != len(axes.split()) or pixels.shape[-1] != 3:
        raise ValueError(
            f"expected uint8 pixels ({', '.join(axes.split())}), got {pixels.dtype} "
            f"{tuple(pixels.shape)}"
        )


def keep_statistics(
    module: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts for a pass and for its repetition, which leaves batch norm as it is."""
    return nullcontext(), _repeated_pass(module)


@contextmanager
def _repeated_pass(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counters = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, _copy(norm.num_batches_tracked)
    try:
        yield
    finally:
        for norm, momentum, counter in zip(norms, momenta, counters, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def _copy(counter: Tensor | None) -> Tensor | None:
    return None if counter is None else counter.clone()
