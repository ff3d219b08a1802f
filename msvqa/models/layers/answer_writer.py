"""Answers as texts: a causal decoder beside a question says how probable each listed answer is.

Papers: Li et al., "Align before Fuse", NeurIPS 2021, section 4; Li et al., "Unmasked Teacher", ICCV
2023, section 4.2. An answer is `[CLS] pieces [SEP]`, of a closed list.
"""

from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from msvqa.models.layers.text_transformer import (
    NORM_EPS,
    FusionHalf,
    Layer,
    TextConfig,
    TextHalf,
    WordHead,
    WordIds,
    initialize,
)
from msvqa.sections import Config

# Legend: Q questions, S words of each, R answers beside each, A listed answers, L words of an
# answer, K candidates, D width.

NO_WORD = -1
"""In the table of answers after their ends."""
NO_TARGET = -100
MOST_LOGITS = 2**27
"""Of candidates that are looked at together; of BERT's words 128 candidates of 8 questions."""


class AnswerWriterConfig(Config):
    """How long answers are."""

    longest: int = Field(default=5, ge=3)
    """L: pieces of an answer, with what begins and ends it. Longer ones are cut, and are then not
    told from others that begin alike."""


class Ranked(NamedTuple):
    """Answers of each question, best first."""

    answers: Tensor
    """int64 (Q, K), classes."""
    log_probability: Tensor
    """(Q, K), among the K."""


class AnswerWriter(nn.Module):
    """A decoder of as many layers as the fusion half, with words of its own."""

    answers: Tensor

    def __init__(
        self, config: AnswerWriterConfig, text: TextConfig, word_ids: WordIds, answers: int
    ) -> None:
        super().__init__()
        self.word_ids, self.longest = word_ids, config.longest
        self.words = nn.Embedding(word_ids.count, text.width)
        self.places = nn.Embedding(text.longest, text.width)
        self.norm = nn.LayerNorm(text.width, NORM_EPS)
        self.dropout = nn.Dropout(text.dropout)
        self.layers = nn.ModuleList(Layer(text, text.width) for _ in range(text.fusion_depth))
        self.head = WordHead(text, word_ids.count)
        # Saved with the weights: a checkpoint knows the answers that it was trained with.
        self.register_buffer("answers", self._written(np.empty((answers, 0), dtype=np.int64)))
        initialize(self, text.first_std)

    def _written(self, pieces: np.ndarray) -> Tensor:
        """Return int64 (A, L), answers as the decoder writes them."""
        cut = pieces[:, : self.longest - 2]
        table = np.full((len(cut), self.longest), NO_WORD, dtype=np.int64)
        table[:, 0] = self.word_ids.class_id
        table[:, 1 : 1 + cut.shape[1]] = cut
        table[np.arange(len(cut)), 1 + (cut != NO_WORD).sum(axis=1)] = self.word_ids.end_id
        return torch.from_numpy(table)

    def read_answers(self, pieces: np.ndarray) -> None:
        """Take the listed answers, int64 (A, any number) pieces, -1 after their ends."""
        self.answers.copy_(self._written(pieces))

    def start_as(self, text: TextHalf, fusion: FusionHalf, head: WordHead) -> None:
        """Begin with the weights of a fusion half, and of the words that it reads.

        Attention that sees clips becomes attention to the question, where both are equally wide.
        """
        pairs = ((self.words, text.words), (self.places, text.places), (self.norm, text.norm),
                 (self.layers, fusion.layers), (self.head, head))  # fmt: skip
        for own, theirs in pairs:
            state, given = own.state_dict(), theirs.state_dict()
            own.load_state_dict(
                state | {n: v for n, v in given.items() if v.shape == state[n].shape}
            )

    def forward(self, ids: Tensor, states: Tensor, there: Tensor) -> Tensor:
        """Return logits (Q, R, L, words) of the word after each.

        Args:
            ids: int64 (Q, R, L), what is written so far.
            states: (Q, S, D), of the questions.
            there: bool (Q, S), which of these are words.
        """
        places = torch.arange(ids.shape[2], device=ids.device)
        hidden = self.dropout(self.norm(self.words(ids) + self.places(places)))
        hidden = rearrange(hidden, "q r l d -> (q r) l d")
        causal = (places[:, None] >= places)[None, None]  # (1, 1, L, L)
        for layer in self.layers:
            hidden = layer(hidden, causal, states, there[:, None, None])
        logits: Tensor = self.head(hidden, self.words.weight)
        return rearrange(logits, "(q r) l w -> q r l w", q=len(ids))

    def likelihood(self, states: Tensor, there: Tensor, answers: Tensor) -> Tensor:
        """Return the log-probability (Q, R) of answers, by their classes int64 (Q, R)."""
        written = self.answers[answers]  # (Q, R, L)
        said, wanted = written[..., :-1].clamp(min=0), written[..., 1:]
        logits = self(said, states, there)  # (Q, R, L - 1, words)
        target = wanted.masked_fill(wanted == NO_WORD, NO_TARGET)
        each = functional.cross_entropy(
            logits.flatten(0, 2).float(), target.flatten(), reduction="none"
        )
        return -each.view_as(wanted).sum(dim=2)

    def rank(self, states: Tensor, there: Tensor, candidates: int) -> Ranked:
        """Return the answers that are most probable, out of those whose first word is.

        The probability of the first word counts twice, as in the published evaluations.
        """
        begin = self.answers[:1, :1].expand(len(states), 1, 1)  # (Q, 1, 1)
        first = self(begin, states, there)[:, 0, 0].float()  # (Q, words)
        listed = self.answers[:, 1]  # (A,)
        of_first = functional.log_softmax(first, dim=1)[:, listed]  # (Q, A)
        # Without words: the classes of all other answers.
        of_first = of_first.masked_fill(listed == self.word_ids.end_id, -torch.inf)
        best = of_first.topk(min(candidates, int((listed != self.word_ids.end_id).sum())), dim=1)
        each = best.indices.shape[1] * (self.longest - 1) * self.word_ids.count
        parts = torch.arange(len(states), device=states.device).split(max(1, MOST_LOGITS // each))
        whole = [self.likelihood(states[n], there[n], best.indices[n]) for n in parts]
        score = best.values + torch.cat(whole)  # (Q, K)
        order = score.argsort(dim=1, descending=True, stable=True)
        log_probability = functional.log_softmax(score, dim=1)
        return Ranked(best.indices.gather(1, order), log_probability.gather(1, order))
