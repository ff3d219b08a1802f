"""Chance: random numbers of examples and media that depend on seed, epoch and row alone.

So what is drawn for one of them is the same on any number of workers, and after a resume.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chance:
    """The random numbers of one training epoch."""

    seed: int
    epoch: int

    def of_example(self, row: int) -> np.random.Generator:
        """Return the generator of a row of the split's examples."""
        return np.random.default_rng([self.seed, self.epoch, 0, row])

    def of_medium(self, row: int) -> np.random.Generator:
        """Return the generator of a row of the split's media."""
        return np.random.default_rng([self.seed, self.epoch, 1, row])
