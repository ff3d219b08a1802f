"""A linear classifier of clips, on the mean of their tokens.

Published use: Li et al., "Unmasked Teacher: Towards Training-Efficient Video Foundation Models",
ICCV 2023, https://arxiv.org/abs/2303.16058
"""

from pydantic import Field
from torch import Tensor, nn

from msvqa.sections import Config

# Legend: V clips, n tokens of a clip, D width, A labels.

NORM_EPS = 1e-6
WEIGHT_STD = 0.02


class ClassifierConfig(Config):
    """How a classifier starts, and what it drops."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Part of the pooled numbers that are dropped in training."""
    init_scale: float = Field(default=0.001, gt=0)
    """Weights start so much smaller than those of other linear layers: all labels then begin as
    equally probable, and the first steps leave the video transformer nearly as it is."""


class Classifier(nn.Module):
    """Mean over tokens, norm, linear map."""

    def __init__(self, config: ClassifierConfig, width: int, labels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, labels)
        nn.init.trunc_normal_(self.head.weight, std=WEIGHT_STD)
        nn.init.zeros_(self.head.bias)
        self.head.weight.data.mul_(config.init_scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (V, A) of the last layer's tokens (V, n, D), which are not normed yet."""
        logits: Tensor = self.head(self.dropout(self.norm(tokens.mean(dim=1))))
        return logits
