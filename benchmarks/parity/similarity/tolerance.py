"""Recorded numbers of the similarity system: how near ours must be, and as what we read them."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.parity.recording import Comparison, Recording

FORWARD, BACKWARD = 1e-5, 1e-4
"""Relative tolerances of results and of gradients, both in single precision."""


def results(recording: Recording, found: dict[str, Tensor | None]) -> Iterator[Comparison]:
    """Compare results by their recorded names."""
    yield from map(partial(recording.compare_single, relative=FORWARD), found, found.values())


def gradients(recording: Recording, found: dict[str, Tensor | None]) -> Iterator[Comparison]:
    """Compare gradients by their recorded names."""
    yield from map(partial(recording.compare_single, relative=BACKWARD), found, found.values())


def tensor(recording: Recording, name: str) -> Tensor:
    """Return a recorded array."""
    return torch.from_numpy(np.asarray(recording[name]))


def leaf(recording: Recording, name: str) -> Tensor:
    """Return a recorded array that gets a gradient."""
    return tensor(recording, name).requires_grad_()


def listed(hot: np.ndarray) -> Tensor:
    """Return the numbers of the tags of each row (B, L), -1 where there are no more, as batches."""
    most = max(1, int(hot.sum(axis=1).max(initial=0)))
    rows = np.full((len(hot), most), -1, dtype=np.int64)
    for number, row in enumerate(hot):
        (found,) = np.nonzero(row)
        rows[number, : len(found)] = found
    return torch.from_numpy(rows)
