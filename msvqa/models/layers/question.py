"""The question: words in context, the sentence, and what of it guides the graphs.

DualVGR, sections III-B and III-C: https://doi.org/10.1109/TMM.2021.3097171
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from msvqa.models.layers.recurrent import BidirectionalLSTM

# Legend: Q questions, L words, W word width, D hidden size, C clips.

MASK_EPS = 1e-5
"""Added by the reference to the sum of the attention that is left after masking."""

SMALLEST_PADDING_NORM = 1e-3
"""The vector of the padding is divided by at least this.

It is the bias alone, which starts at zero. The reference divides by at least 1e-12: its first
gradient there is about a million, and clipping then takes nearly all of the first step from the
other weights. Equal as soon as the bias is longer than this.
"""


class QuestionEncoder(nn.Module):
    """Words to word vectors, to words in context, to one sentence vector."""

    def __init__(
        self, vocabulary: int, word_size: int, hidden_size: int, dropouts: tuple[float, float]
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, word_size)
        self.contextual = BidirectionalLSTM(word_size, hidden_size)
        self.sentence = BidirectionalLSTM(word_size, hidden_size)
        self.word_dropout, self.sentence_dropout = map(nn.Dropout, dropouts)

    def forward(self, question: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return words (Q, L, W) and words in context (Q, L, D), the latter zero behind the end."""
        words = torch.tanh(self.word_dropout(self.embedding(question)))  # (Q, L, W)
        contextual, _ = self.contextual(words, length)
        return words, contextual

    def summarize(self, words: Tensor, length: Tensor) -> Tensor:
        """Return the sentence vectors (Q, D)."""
        _, final = self.sentence(words, length)
        sentence: Tensor = self.sentence_dropout(final)
        return sentence


class QuestionAttention(nn.Module):
    """Weights the words of a question by their context.

    The reference takes the softmax over the padding too, masks, and divides by the rest plus
    1e-5. Positions of the padding all have the same logit, so its part of the sum is known
    without them: the result does not depend on how far a batch is padded, only on
    `padded_length`, and the weights sum to slightly less than 1.
    """

    def __init__(self, hidden_size: int, padded_length: int) -> None:
        super().__init__()
        self.enhance = nn.Linear(hidden_size, hidden_size)
        self.score = nn.Linear(hidden_size, 1)
        self.padded_length = padded_length

    def forward(self, words: Tensor, contextual: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return the question vectors (Q, W) and the weights (Q, L)."""
        logits = self._logits(functional.normalize(self.enhance(contextual), dim=-1))  # (Q, L)
        at_zero = functional.normalize(self.enhance.bias, dim=-1, eps=SMALLEST_PADDING_NORM)
        padding = self._logits(at_zero)  # ()
        valid = torch.arange(logits.shape[1], device=logits.device) < length[:, None]
        logits = logits.masked_fill(~valid, float("-inf"))
        largest = torch.maximum(logits.amax(dim=1, keepdim=True), padding).detach()
        weights = torch.exp(logits - largest)  # (Q, L)
        valid_sum = weights.sum(dim=1, keepdim=True)
        padded = (self.padded_length - length).clamp(min=0)[:, None]
        whole_sum = valid_sum + padded * torch.exp(padding - largest)
        weights = weights / (valid_sum + MASK_EPS * whole_sum)
        return torch.einsum("ql,qlw->qw", weights.to(words.dtype), words), weights

    def _logits(self, enhanced: Tensor) -> Tensor:
        logits: Tensor = self.score(enhanced).squeeze(-1)
        # Half precision would lose the small terms of the sums.
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class QuestionPunishment(nn.Module):
    """Scores every clip by how well it fits the question: one number in (0, 1) per clip."""

    def __init__(self, word_size: int, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(word_size, hidden_size)

    def forward(self, query: Tensor, nodes: Tensor) -> Tensor:
        """Return the scores (Q, C) of the nodes (Q, C, D) for the question vectors (Q, W)."""
        return torch.sigmoid(torch.einsum("qcd,qd->qc", nodes, self.project(query)))
