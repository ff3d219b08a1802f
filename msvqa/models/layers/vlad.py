"""NeXtVLAD, and a fusion that gates its own channels.

Lin, Xiao and Fan, "NeXtVLAD: An Efficient Neural Network to Aggregate Frame-level Features for
Large-scale Video Classification", 2018, https://arxiv.org/abs/1811.05014; Hu, Shen and Sun,
"Squeeze-and-Excitation Networks", 2017, https://arxiv.org/abs/1709.01507
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

# Legend: B videos, T frames, D numbers of a frame, G groups, d numbers of a group, K clusters,
# H output width, E embedding width.

SMALLEST_NORM = 1e-6


@dataclass(frozen=True, kw_only=True)
class VLADSizes:
    """Sizes of one NeXtVLAD layer."""

    width: int
    """D"""
    output: int
    """H"""
    clusters: int
    groups: int
    expansion: int
    dropout: float
    mask_padding: bool


class NeXtVLAD(nn.Module):
    """Frames to one vector: how far groups of their channels lie from learned centres.

    Other than in the paper, and as in the system that this one repeats: frames are masked before
    the expansion instead of in the attention, so that the expansion's bias leaks in from absent
    ones (`mask_padding` ends that); and nothing is normalised after the clusters are joined, whose
    linear map keeps its bias.
    """

    def __init__(self, sizes: VLADSizes) -> None:
        super().__init__()
        self.sizes = sizes
        expanded = sizes.expansion * sizes.width
        self.group_width = expanded // sizes.groups  # d
        self.expand = nn.Linear(sizes.width, expanded)
        self.attention = nn.Linear(expanded, sizes.groups)
        self.cluster = nn.Linear(expanded, sizes.groups * sizes.clusters, bias=False)
        self.norm = batch_norm(sizes.groups * sizes.clusters)
        self.centres = nn.Parameter(torch.empty(self.group_width, sizes.clusters))
        self.dropout = nn.Dropout(sizes.dropout)
        self.output = nn.Linear(self.group_width * sizes.clusters, sizes.output)
        start_as_glorot(self)
        nn.init.xavier_normal_(self.centres)

    def forward(self, frames: Tensor, count: Tensor) -> Tensor:
        """Return (B, H) of frames (B, T, D), the first `count` (B,) of which are no padding.

        Of a video without frames it is what the expansion's bias gives, in the recorded layer too;
        the system's description has zeros there.
        """
        described = self.aggregate(frames, count)  # (B, d, K)
        flat = rearrange(described, "b d k -> b (d k)")
        output: Tensor = self.output(self.dropout(flat))
        return output

    def aggregate(self, frames: Tensor, count: Tensor) -> Tensor:
        """Return the residuals (B, d, K) from the centres, each of length 1 along d."""
        real = is_real(frames, count)  # (B, T)
        hidden = self.expand(frames * real[..., None])  # (B, T, e·D)
        attention = torch.sigmoid(self.attention(hidden))  # (B, T, G)
        if self.sizes.mask_padding:
            attention = attention * real[..., None]
        scores = rearrange(self.cluster(hidden), "b t c -> (b t) c")
        scores = self.norm(scores)  # (B·T, G·K)
        scores = rearrange(scores, "(b t) (g k) -> b (t g) k", b=len(frames), k=self.sizes.clusters)
        assigned = scores.softmax(dim=2) * rearrange(attention, "b t g -> b (t g) 1")
        groups = rearrange(hidden, "b t (g d) -> b (t g) d", d=self.group_width)
        residual = torch.einsum("bnk,bnd->bdk", assigned, groups)  # (B, d, K)
        residual = residual - assigned.sum(dim=1)[:, None] * self.centres
        return functional.normalize(residual, dim=1, eps=SMALLEST_NORM)


class GatedFusion(nn.Module):
    """Joins two vectors and lets the result weigh its own channels; never negative, and sparse."""

    def __init__(self, width: int, embedding: int, reduction: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.joined = nn.Linear(width, embedding)
        self.squeeze = nn.Linear(embedding, embedding // reduction, bias=False)
        self.excite = nn.Linear(embedding // reduction, embedding, bias=False)
        start_as_glorot(self.joined)
        for gate in (self.squeeze, self.excite):
            nn.init.kaiming_normal_(gate.weight, nonlinearity="relu")

    def forward(self, vision: Tensor, text: Tensor) -> Tensor:
        """Return (B, E) of both, (B, H) each."""
        joined = torch.cat([vision, text], dim=1)  # (B, 2H)
        reduced = functional.relu(self.joined(self.dropout(joined)))  # (B, E)
        gate = self.excite(functional.relu(self.squeeze(reduced)))
        return reduced * torch.sigmoid(gate)


def batch_norm(width: int) -> nn.BatchNorm1d:
    """Return a batch norm with Keras's constants.

    Keras keeps a running variance of the biased kind, which is less by one part in the rows.
    """
    return nn.BatchNorm1d(width, eps=1e-3, momentum=0.01)


def is_real(frames: Tensor, count: Tensor) -> Tensor:
    """Return which of the frames (B, T, D) are no padding, 1 or 0 (B, T), in their precision."""
    number = torch.arange(frames.shape[1], device=frames.device)
    return (number < count[:, None]).to(frames.dtype)


def start_as_glorot(module: nn.Module) -> None:
    """Start all linear maps of a module as Keras does: Glorot's uniform, biases at 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
