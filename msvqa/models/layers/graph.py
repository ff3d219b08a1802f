"""Graphs whose nodes are clips: attention between clips, between views, and readout."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

# Legend: Q questions, C clips (nodes), D hidden size, H heads, E = D / H.


class GraphAttention(nn.Module):
    """Multi-head attention on the complete graph of clips; a score per clip scales the values.

    Graph attention networks, https://arxiv.org/abs/1710.10903, equations 1 to 5. The score
    multiplies only the values; the weights come from the unscaled nodes, as in DualVGR's program.
    The reference's adjacency matrix is used there only as "> 0" and is complete, so there is none
    here.
    """

    def __init__(self, hidden_size: int, heads: int, dropout: float, self_loops: bool) -> None:
        super().__init__()
        if hidden_size % heads:
            raise ValueError(f"hidden_size = {hidden_size} is not a multiple of heads = {heads}")
        self.heads, self.self_loops = heads, self_loops
        self.project = nn.Linear(hidden_size, hidden_size)
        self.pair = nn.Parameter(torch.empty(heads, 2 * hidden_size // heads))
        self.pair_bias = nn.Parameter(torch.zeros(heads))
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise every head as a linear layer of its own."""
        for weight in self.project.weight.chunk(self.heads):
            nn.init.xavier_uniform_(weight)
        for weight in self.pair.chunk(self.heads):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.pair_bias)

    def forward(self, nodes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return new nodes (Q, C, D) and the attention (Q, H, C, C) of every node to the others."""
        projected = self.project(self.dropout(nodes))
        projected = rearrange(projected, "q c (h e) -> q h c e", h=self.heads)
        # a . [g_i ; g_j] = a1 . g_i + a2 . g_j: no tensor over pairs of clips is needed.
        first, second = self.pair.chunk(2, dim=1)  # (H, E)
        source = torch.einsum("qhce,he->qhc", projected, first)
        target = torch.einsum("qhce,he->qhc", projected, second) + self.pair_bias[:, None]
        logits = functional.leaky_relu(source[..., :, None] + target[..., None, :], 0.01)
        if not self.self_loops:
            itself = torch.eye(nodes.shape[1], dtype=torch.bool, device=nodes.device)
            logits = logits.masked_fill(itself, float("-inf"))
        attention = torch.softmax(logits, dim=-1)  # (Q, H, C, C)
        values = self.dropout(attention) * scores[:, None, None, :]
        mixed = functional.elu(values.to(projected.dtype) @ projected)  # (Q, H, C, E)
        return self.dropout(rearrange(mixed, "q h c e -> q c (h e)")), attention


class ViewAttention(nn.Module):
    """Mixes the correlated and the specific view of a modality, clip by clip."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(hidden_size, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixture (Q, C, D) of the views (Q, 2, C, D) and the weights (Q, 2, C)."""
        weights = torch.softmax(self.score(torch.tanh(self.project(views))), dim=1)  # (Q, 2, C, 1)
        return (weights * views).sum(dim=1), weights.squeeze(-1)


class GraphReadout(nn.Module):
    """Pools the clips of a video into one vector by attention."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(hidden_size, hidden_size, bias=False)
        self.score = nn.Linear(hidden_size, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return (Q, D) from nodes (Q, C, D)."""
        nodes = self.dropout(nodes)
        weights = torch.softmax(self.score(functional.elu(self.project(nodes))), dim=1)  # (Q, C, 1)
        return (weights * nodes).sum(dim=1)
