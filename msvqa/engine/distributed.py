"""What workers of one stage say to each other; every function also works for a single worker."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from msvqa.collectives import worker_count


def mean_over_workers(values: Tensor) -> Tensor:
    """Return the mean of a tensor over the workers."""
    if worker_count() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / worker_count()


def gather_objects(value: Any) -> list[Any]:
    """Return the values of all workers, on every worker, in the order of their ranks."""
    if worker_count() == 1:
        return [value]
    values: list[Any] = [None] * worker_count()
    dist.all_gather_object(values, value)
    return values


class Meeting:
    """A point where all workers learn the same thing, without waiting for their GPUs."""

    def __init__(self) -> None:
        """Called by all workers alike."""
        on_cpu = worker_count() == 1 or dist.get_backend() == "gloo"
        self._group: Any = None if on_cpu else dist.new_group(backend="gloo")

    def any(self, said: bool) -> bool:
        """Return whether any worker said so, the same on every worker."""
        if worker_count() == 1:
            return said
        votes = torch.tensor([int(said)])
        dist.all_reduce(votes, group=self._group)
        return bool(votes.item())


def share_buffers(module: nn.Module) -> None:
    """Give all workers the buffers of the first one, whose model is saved.

    DistributedDataParallel does so before each training step: after the last one, every worker has
    batch norm statistics of its own.
    """
    if worker_count() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
