"""Texts within a batch: for models that cut them by a tokenizer of their own.

Legend: b texts, L bytes of the longest one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PADDING = 255
"""No byte of a text in UTF-8."""


def as_tensor(texts: Sequence[str]) -> Tensor:
    """Return texts as their bytes in UTF-8, uint8 (b, L), padded on the right with 255."""
    encoded = [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]
    padded = np.full((len(texts), max(map(len, encoded), default=0)), PADDING, dtype=np.uint8)
    for row, content in enumerate(encoded):
        padded[row, : len(content)] = content
    return torch.from_numpy(padded)


def read_texts(tensor: Tensor) -> list[str]:
    """Return the texts of `as_tensor`."""
    rows = tensor.cpu().numpy()
    return [row[row != PADDING].tobytes().decode() for row in rows]
