"""From clips and sentence to scores of the answers."""

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

# Legend: Q questions, C clips, D hidden size, A answers.

FACTOR_SIZE, FACTORS = 256, 2
"""Inner sizes of the bilinear fusion; in the reference they do not depend on the hidden size."""


class BilinearFusion(nn.Module):
    """Product fusion of appearance and motion, clip by clip.

    Multi-modal factorized bilinear pooling, https://arxiv.org/abs/1708.01471, with ELU after each
    linear map and without dropout, power or L2 normalisation, as in DualVGR's program.

    With `adds_factors` the factors themselves are added to their product. Before anything is
    learned the factors are small and their product is far smaller: from scratch, one modality
    alone then hardly reaches the answer.
    """

    def __init__(self, hidden_size: int, adds_factors: bool = False) -> None:
        super().__init__()
        self.adds_factors = adds_factors
        self.appearance = nn.Linear(hidden_size, FACTOR_SIZE * FACTORS)
        self.motion = nn.Linear(hidden_size, FACTOR_SIZE * FACTORS)
        self.output = nn.Linear(FACTOR_SIZE, hidden_size)

    def forward(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """Return (Q, C, D)."""
        factors = functional.elu(self.appearance(appearance)), functional.elu(self.motion(motion))
        product = factors[0] * factors[1]  # (Q, C, 256·k)
        if self.adds_factors:
            product = product + factors[0] + factors[1]
        pooled = rearrange(product, "q c (s k) -> q c s k", k=FACTORS).sum(dim=-1)  # (Q, C, 256)
        return functional.elu(self.output(pooled))


class AnswerDecoder(nn.Module):
    """Scores the answers from the pooled video and the sentence.

    Batch norm follows ELU, as in the reference. In training it takes its statistics over all
    questions of the batch, those with weight 0 included: they are repeats of questions of the
    same visit.
    """

    def __init__(
        self, hidden_size: int, answers: int, dropout: float, norm: Literal["batch", "layer"]
    ) -> None:
        super().__init__()
        self.question = nn.Linear(hidden_size, hidden_size)
        self.hidden = nn.Linear(2 * hidden_size, hidden_size)
        self.norm: nn.Module = (
            nn.BatchNorm1d(hidden_size) if norm == "batch" else nn.LayerNorm(hidden_size)
        )
        self.output = nn.Linear(hidden_size, answers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, sentence: Tensor, video: Tensor) -> Tensor:
        """Return the logits (Q, A).

        Raises:
            ValueError: batch norm in training with a single question, which has no variance.
        """
        if self.training and len(video) == 1 and not isinstance(self.norm, nn.LayerNorm):
            raise ValueError(
                "batch norm of the answer decoder cannot train on a single question: use "
                "batch.videos x batch.questions_per_video >= 2 for every pass of a worker, "
                "or model.answer_norm: layer"
            )
        joined = torch.cat([video, self.question(sentence)], dim=1)  # (Q, 2D)
        hidden = functional.elu(self.hidden(self.dropout(joined)))
        logits: Tensor = self.output(self.dropout(self.norm(hidden)))
        return logits
