"""What a row is measured with: its place on the disk, rounds, sizes, device and clock."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks import measure
from benchmarks.measure import Count, Fact, Ratio

Finding = Ratio | Count | Fact
"""What a row gives; its name begins with the row's identifier."""
Size = TypeVar("Size")
Costs = dict[str, list[float]]
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run of the benchmark, as its rows see it."""

    folder: Path
    """Empty, and removed afterwards."""
    rounds: int = measure.ROUNDS
    is_tiny: bool = False
    """Sizes at which only counts and exactness mean something."""
    device: torch.device = CPU
    questions: Path | None = None
    """The file of MSVD-QA's training questions; without it as many are drawn."""

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def size(self, usual: Size, tiny: Size) -> Size:
        """Return the size that this run has."""
        return tiny if self.is_tiny else usual

    def clock(self) -> float:
        """Return CPU seconds with those of children; on a GPU the time when its work is done."""
        if not self.on_gpu:
            return measure.cpu_seconds()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def measure(
        self,
        methods: Mapping[str, Callable[[], object]],
        clock: Callable[[], float] | None = None,
    ) -> Costs:
        """Return the cost of every method in every round, see `benchmarks.measure.measure`."""
        return measure.measure(methods, clock or self.clock, self.rounds)


def per_unit(costs: Costs, units: Mapping[str, float]) -> Costs:
    """Return costs divided by how many units of work each method does."""
    return {name: [cost / units.get(name, 1) for cost in found] for name, found in costs.items()}
