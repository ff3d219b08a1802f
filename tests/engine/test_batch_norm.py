"""Batch norm over two workers equals batch norm over the whole batch."""

import pytest
import torch
from torch import nn

from msvqa.engine import batch_norm
from msvqa.engine.batch_norm import SynchronizedBatchNorm, synchronize_batch_norm
from tests.engine.gloo import run_in_processes


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU()).double()


def _input() -> torch.Tensor:
    return torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(1)).double()


def _half(rank: int) -> dict[str, torch.Tensor]:
    network = synchronize_batch_norm(_network(), torch.device("cpu"))
    assert isinstance(network[1], SynchronizedBatchNorm)
    # Unequal shares: statistics must be weighted by size.
    share = _input()[:4] if rank == 0 else _input()[4:]
    output = network(share)
    output.square().sum().backward()
    return {
        "output": output.detach(),
        "gradient": network[0].weight.grad,
        "mean": network[1].running_mean,
        "variance": network[1].running_var,
        "count": network[1].num_batches_tracked,
    }


@pytest.mark.slow
def test_two_workers_equal_one_batch(tmp_path):
    whole = _network()
    output = whole(_input())
    output.square().sum().backward()
    first, second = run_in_processes(2, _half, tmp_path)
    torch.testing.assert_close(torch.cat([first["output"], second["output"]]), output.detach())
    torch.testing.assert_close(first["gradient"] + second["gradient"], whole[0].weight.grad)
    for share in (first, second):
        torch.testing.assert_close(share["mean"], whole[1].running_mean)
        torch.testing.assert_close(share["variance"], whole[1].running_var)
        assert share["count"] == 1


def test_a_single_worker_uses_the_ordinary_batch_norm():
    network = synchronize_batch_norm(_network(), torch.device("cpu"))
    torch.testing.assert_close(network(_input()), _network()(_input()))


def test_half_precision_keeps_single_precision_statistics(monkeypatch):
    # Two workers with equal shares: every sum doubles.
    monkeypatch.setattr(batch_norm, "worker_count", lambda: 2)
    monkeypatch.setattr(batch_norm, "all_reduce", lambda sums: 2 * sums)
    norm, expected = SynchronizedBatchNorm.like(nn.BatchNorm2d(2)), nn.BatchNorm2d(2)
    pixels = (torch.randn(16, 2, 8, 8, generator=torch.Generator().manual_seed(1)) + 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = norm(pixels)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected(pixels.float()), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(norm.running_mean, expected.running_mean)
