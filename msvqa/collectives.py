"""What the workers of a stage exchange inside a loss; one worker alone has what it has.

A leaf that knows `torch.distributed` alone, so that losses and objectives may import it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Legend: B rows of one worker's batch, W workers.


_is_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Let this process be the only one inside the block: where workers have batches of their own,
    as in validation, an exchange would wait for ever or mix what does not belong together."""
    global _is_alone
    before, _is_alone = _is_alone, True
    try:
        yield
    finally:
        _is_alone = before


def worker_count() -> int:
    """Number of workers of this stage."""
    if _is_alone:
        return 1
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this worker, from 0."""
    if _is_alone:
        return 0
    return dist.get_rank() if dist.is_initialized() else 0


def gather(rows: Tensor) -> Tensor:
    """Return the rows (B, ...) of all workers (W·B, ...), in the order of their ranks.

    The gradient is exact: what every worker's loss says of this worker's rows comes back here,
    added up. When gradients of weights are then averaged over the workers, as
    DistributedDataParallel does, they are those of the mean of the workers' losses; so a worker
    whose loss is the mean over its own rows, each against all W·B, trains as one process with the
    whole batch would.

    Called by all workers alike, with as many rows each.

    Raises:
        ValueError: the workers have different shapes.
    """
    if worker_count() == 1:
        return rows
    _refuse_different_shapes(rows)
    gathered: Tensor = _Gather.apply(rows)
    return gathered


def own_rows(count: int) -> slice:
    """Return where this worker's rows, `count` of them, are in what `gather` returns."""
    return slice(rank() * count, (rank() + 1) * count)


class _Gather(torch.autograd.Function):
    """All-gather along the first axis; backwards the sum over all workers of each one's part.

    `torch.distributed.nn.functional.all_gather` asks backends for reduce-scatter or all-to-all,
    which gloo lacks; and the gather that many programs write keeps the gradient of the own rows
    only, which is that of another loss.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        parts = [torch.empty_like(rows) for _ in range(worker_count())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)  # (W·B, ...)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        total = gradient.contiguous().clone()  # (W·B, ...)
        dist.all_reduce(total)
        return total[own_rows(ctx.rows)]  # (B, ...)


def _refuse_different_shapes(rows: Tensor) -> None:
    """Fail on every worker where the collective itself would hang or mix up rows."""
    shape = torch.tensor([rows.dim(), *rows.shape, *(0,) * (8 - rows.dim())], device=rows.device)
    most, fewest = shape.clone(), shape.clone()
    dist.all_reduce(most, dist.ReduceOp.MAX)
    dist.all_reduce(fewest, dist.ReduceOp.MIN)
    if not torch.equal(most, fewest):
        raise ValueError(f"the workers gather different shapes; this one has {tuple(rows.shape)}")
