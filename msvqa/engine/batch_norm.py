"""Batch norm over the batches of all workers, also where torch has none (CPU and gloo)."""

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from msvqa.collectives import worker_count


class SynchronizedBatchNorm(_BatchNorm):
    """As `nn.SyncBatchNorm`, from differentiable all-reduces of sums and squares."""

    @classmethod
    def like(cls, norm: _BatchNorm) -> "SynchronizedBatchNorm":
        """Return a copy that shares weights and running statistics with `norm`."""
        copy = cls(norm.num_features, norm.eps, norm.momentum, norm.affine)
        copy.__dict__.update(norm.__dict__)
        return copy

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...) over all axes but the second."""
        if not self.training or worker_count() == 1:
            return super().forward(input)
        # In half precision sums of squares lose the variance, and counts above 256 are rounded.
        given, input = input.dtype, input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        count = input.new_full((1,), input.numel() / input.shape[1])
        sums = torch.cat([input.sum(axes), input.square().sum(axes), count])
        sums = all_reduce(sums)
        total = sums[-1]
        mean, square = (sums[:-1] / total).chunk(2)
        variance = (square - mean.square()).clamp_min(0)
        self._update(mean.detach(), variance.detach() * total / (total - 1).clamp_min(1))
        scale = torch.rsqrt(variance + self.eps)
        output = (input - mean.view(shape)) * scale.view(shape)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output.to(given)

    @torch.no_grad()
    def _update(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked
        self.running_mean.lerp_(mean, float(momentum))
        self.running_var.lerp_(unbiased_variance, float(momentum))


def synchronize_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of a module by one over the batches of all workers together."""
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, SynchronizedBatchNorm.like(child))
        else:
            synchronize_batch_norm(child, device)
    return module
