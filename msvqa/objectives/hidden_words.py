"""Words that are hidden from a model, which it then says, as a function of given draws.

Paper: Devlin et al., "BERT", 2019, section 3.1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from msvqa.models.layers.text_transformer import WordIds

# Legend: Q texts, L words.

CHANGED, REPLACED = 0.8, 0.9
"""Of the chosen words this part is hidden, the part up to the second becomes a random word, and the
rest stays."""


class HiddenWords(NamedTuple):
    """A text for the model, and what it has to say."""

    ids: Tensor
    """int64 (Q, L)."""
    chosen: Tensor
    """bool (Q, L), which words it has to say."""


def hide_words(
    ids: Tensor, may: Tensor, draws: Tensor, known: WordIds, probability: float = 0.5
) -> HiddenWords:
    """Hide words of texts.

    Args:
        ids: int64 (Q, L).
        may: bool (Q, L), which may be chosen: neither padding nor the class token.
        draws: from 0 to 1, (3, Q, L): which words are chosen, what becomes of them, which word
            they become.
        known: says what stands for a hidden word, and which words are random ones.
        probability: of each word to be chosen.
    """
    chosen = may & (draws[0] < probability)
    first, past = known.random
    other = first + (draws[2] * (past - first)).long().clamp(max=past - first - 1)
    changed = torch.where(
        draws[1] < CHANGED, known.hidden_id, torch.where(draws[1] < REPLACED, other, ids)
    )
    return HiddenWords(torch.where(chosen, changed, ids), chosen)
