"""Alignment heads: what a student's layers would be in the teacher's words.

Paper: Li et al., "Unmasked Teacher", ICCV 2023, section 3.1. They are of no use after
distillation. The names of weights are those of the published files.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Legend: K layers, V clips, n tokens, D width, C width of the teacher.


class AlignmentHeads(nn.ModuleList):
    """One linear map with a norm for each of the K layers."""

    def __init__(self, layers: int, width: int, teacher_width: int, eps: float = 1e-6) -> None:
        """Build them; UMT's first stage has norms with `eps` 1e-6, its second 1e-5."""
        super().__init__(_Head(width, teacher_width, eps) for _ in range(layers))

    def forward(self, layers: Sequence[Tensor], places: Tensor) -> Tensor:
        """Return (K, V, n, C) of normed layers, K x (V, n, D).

        Args:
            layers: the shallowest first.
            places: positions (V, n, D) of the tokens, which are added a second time.
        """
        return torch.stack(
            [head(layer + places.to(layer.dtype)) for head, layer in zip(self, layers, strict=True)]
        )


class _Head(nn.Module):
    def __init__(self, width: int, teacher_width: int, eps: float) -> None:
        super().__init__()
        self.head = nn.Linear(width, teacher_width)
        self.norm = nn.LayerNorm(teacher_width, eps)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.norm(self.head(tokens))
        return output
