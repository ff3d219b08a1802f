"""Chance: random numbers of an example that depend on seed, epoch and row alone.

So what is drawn for an example is the same on any number of workers, and after a resume.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chance:
    """The random numbers of one training epoch."""

    seed: int
    epoch: int

    def of(self, row: int) -> np.random.Generator:
        """Return the generator of an example."""
        return np.random.default_rng([self.seed, self.epoch, row])
