"""Masked words: which pieces of a text are hidden from a model that is to find them.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019, section 3.1.

Legend: S places of a text.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

NOTHING = -100
"""Label of places where there is nothing to predict."""
REPLACED, RANDOM = 0.8, 0.5
"""Share of the chosen pieces that become [MASK]; share of the others that become any piece."""


@dataclass(frozen=True)
class Draws:
    """Random numbers of a text, of the same shape as its ids."""

    select: np.ndarray
    """Uniform: chosen above 1 - probability"""
    replace: np.ndarray
    """Uniform: [MASK] below `REPLACED`"""
    random: np.ndarray
    """Uniform: else any piece below `RANDOM`"""
    words: np.ndarray
    """Ids of pieces, used where a piece becomes any other"""

    @classmethod
    def of(cls, generator: np.random.Generator, length: int, vocabulary: int) -> "Draws":
        """Draw the numbers of one text of S places."""
        select, replace, random = generator.random((3, length))
        return cls(select, replace, random, generator.integers(vocabulary, size=length))


def corrupt(
    ids: np.ndarray, special: np.ndarray, draws: Draws, *, probability: float, mask_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids of which some are hidden, and what these were, `NOTHING` elsewhere.

    Args:
        ids: (..., S) of texts.
        special: (..., S) places that are never chosen: beginning, end and padding.
        draws: random numbers of these texts.
        probability: of being chosen.
        mask_id: the id of [MASK].
    """
    chosen = (draws.select > 1 - probability) & ~special
    masked = chosen & (draws.replace < REPLACED)
    other = chosen & ~masked & (draws.random < RANDOM)
    hidden = np.where(masked, mask_id, np.where(other, draws.words, ids))
    return hidden, np.where(chosen, ids, NOTHING)


@dataclass(frozen=True)
class Masking:
    """How texts of a table are hidden; kept in the metadata of its schema."""

    probability: float
    mask_id: int
    vocabulary: int

    def to_metadata(self) -> dict[str, str]:
        """Return plain texts; `from_metadata` reads them back."""
        return {f"masking.{name}": repr(value) for name, value in vars(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes]) -> "Masking":
        """Read what `to_metadata` wrote."""
        found = {key.decode(): value.decode() for key, value in metadata.items()}
        return cls(
            float(found["masking.probability"]),
            int(found["masking.mask_id"]),
            int(found["masking.vocabulary"]),
        )
